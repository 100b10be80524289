"""Pairs of networks by name."""

import difflib
import inspect

from .conv import conv_decoder, conv_encoder
from .mlp import mlp_decoder, mlp_encoder
from .mu_vae import mu_vae_decoder, mu_vae_encoder
from .wae import wae_decoder, wae_encoder

_PAIRS = {
    "mlp": (mlp_encoder, mlp_decoder),
    "conv": (conv_encoder, conv_decoder),
    "mu_vae": (mu_vae_encoder, mu_vae_decoder),
    "wae": (wae_encoder, wae_decoder),
}
#: Given by the other arguments of `make`.
_SET = {"input_shape", "output_shape", "latent_dim", "name"}
#: Sequences from the data to the code; decoders take them in reverse.
_MIRRORED = {"hidden_units", "filters"}


def make(kind, input_shape, latent_dim, *, encoder=None, decoder=None, **options):
    """Makes an encoder and a decoder that belong together.

    `make("mlp", (28, 28, 1), 20, hidden_units=[512, 256])` gives an encoder of 512 and 256 units
    and a decoder of 256 and 512.

    Args:
        kind: `"mlp"`, `"conv"`, `"mu_vae"` or `"wae"`.
        input_shape: Tuple of positive ints, shape of one example.
        latent_dim: Positive int D.
        encoder: Optional dict of options for the encoder alone.
        decoder: Optional dict of options for the decoder alone, such as
            `{"hidden_units": [800, 800]}`, taken as they are.
        **options: Options of the two functions, such as those of `mlp_encoder` and `mlp_decoder`;
            each gets those that it knows. `hidden_units` and `filters` run from the data to the
            code; the decoder gets them in reverse.

    Returns:
        `(encoder, decoder)`: functional models named so, `(batch, *input_shape) -> (batch, F)` and
        `(batch, latent_dim) ->` parameters of the likelihood.

    Raises:
        ValueError: If `kind` or an option is unknown, or one is out of range.
    """
    if kind not in _PAIRS:
        raise ValueError(
            f"`kind` must be one of {', '.join(_PAIRS)}{_guess(kind, _PAIRS)}. "
            f"Received: kind={kind!r}"
        )
    make_encoder, make_decoder = _PAIRS[kind]
    known_to_encoder, known_to_decoder = _options(make_encoder), _options(make_decoder)
    known_to_both = list(dict.fromkeys(known_to_encoder + known_to_decoder))
    _check_known(f"the {kind!r} networks", options, known_to_both)
    _check_known(f"the {kind!r} encoder", encoder or {}, known_to_encoder)
    _check_known(f"the {kind!r} decoder", decoder or {}, known_to_decoder)
    mirrored = {
        name: value[::-1] if name in _MIRRORED and isinstance(value, (tuple, list)) else value
        for name, value in options.items()
    }
    for_encoder = {n: v for n, v in options.items() if n in known_to_encoder} | (encoder or {})
    for_decoder = {n: v for n, v in mirrored.items() if n in known_to_decoder} | (decoder or {})
    return (
        make_encoder(input_shape, name="encoder", **for_encoder),
        make_decoder(latent_dim, input_shape, name="decoder", **for_decoder),
    )


def _options(function):
    return [name for name in inspect.signature(function).parameters if name not in _SET]


def _check_known(what, options, known):
    for name in options:
        if name not in known:
            raise ValueError(
                f"The options of {what} are {', '.join(known)}{_guess(name, known)}. "
                f"Received: {name}={options[name]!r}"
            )


def _guess(name, known):
    close = difflib.get_close_matches(str(name), known, n=2)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
