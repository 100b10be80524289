"""Pairs of networks by name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from ...core.checks import check_choice, check_integer, check_integers, check_keys, check_kind
from ...layers import ConditionalEncoder
from .conv import conv_decoder, conv_encoder
from .densenet import densenet_encoder
from .lstm import LSTMDecoder, lstm_encoder
from .mlp import mlp_decoder, mlp_encoder
from .mu_vae import mu_vae_decoder, mu_vae_encoder
from .pixelcnn import GatedPixelCNN, ResidualPixelCNN
from .pixelcnn_pp import PixelCNNPlusPlus
from .resnet import resnet_decoder, resnet_encoder
from .wae import wae_decoder, wae_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import keras

ENCODERS: dict[str, Callable[..., Any]] = {
    "mlp": mlp_encoder,
    "conv": conv_encoder,
    "mu_vae": mu_vae_encoder,
    "wae": wae_encoder,
    "resnet": resnet_encoder,
    "densenet": densenet_encoder,
    "lstm": lstm_encoder,
}
DECODERS: dict[str, Callable[..., Any]] = {
    "mlp": mlp_decoder,
    "conv": conv_decoder,
    "mu_vae": mu_vae_decoder,
    "wae": wae_decoder,
    "resnet": resnet_decoder,
    "pixelcnn": ResidualPixelCNN,
    "gated_pixelcnn": GatedPixelCNN,
    "pixelcnn_pp": PixelCNNPlusPlus,
    "lstm": LSTMDecoder,
}
#: Encoders of the decoders that have none of their own name.
_ENCODER_OF = {"pixelcnn": "resnet", "gated_pixelcnn": "resnet", "pixelcnn_pp": "densenet"}
#: Given by the other arguments of `make`.
_SET = {"input_shape", "output_shape", "latent_dim", "name"}
#: Sequences from the data to the code; decoders take them in reverse.
_MIRRORED = {"hidden_units", "filters"}


def make(
    kind: str,
    input_shape: Sequence[int],
    latent_dim: int,
    *,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    condition: Any = None,
    **options: Any,
) -> tuple[keras.Model, keras.layers.Layer]:
    """Makes an encoder and a decoder that belong together.

    `make("mlp", (28, 28, 1), 20, hidden_units=[512, 256])` gives an encoder of 512 and 256 units
    and a decoder of 256 and 512; `make("mlp", (28, 28, 1), 20, decoder={"kind": "pixelcnn"})` a
    dense encoder and an autoregressive decoder.

    Args:
        kind: `"mlp"`, `"conv"`, `"mu_vae"`, `"wae"`, `"resnet"`; or an autoregressive decoder,
            `"pixelcnn"` (residual), `"gated_pixelcnn"`, both with the `"resnet"` encoder,
            `"pixelcnn_pp"` with the `"densenet"` one, or `"lstm"` for sentences.
        input_shape: Tuple of positive ints, shape of one example; `(None,)` for sentences.
        latent_dim: Positive int D.
        encoder: Optional dict of options for the encoder alone; `kind` among them makes one of
            another kind.
        decoder: Optional dict of options for the decoder alone, such as
            `{"hidden_units": [800, 800]}`, taken as they are; `kind` as for the encoder.
        condition: Optional conditions of the model as in `layers.ConditionalEncoder`: the encoder
            is one then, and the decoder takes the features of the conditions behind the code. Of
            `{"digit": 10}` the data are dicts such as `{"x": images, "digit": labels}`.
        **options: Options of the two functions, such as those of `mlp_encoder` and `mlp_decoder`;
            each gets those that it knows. `hidden_units` and `filters` run from the data to the
            code; the decoder gets them in reverse.

    Returns:
        `(encoder, decoder)`: a functional model `(batch, *input_shape) -> (batch, F)`, and a
        functional model `(batch, latent_dim) ->` parameters of the likelihood, or an
        `AutoregressiveDecoder`.

    Raises:
        ValueError: If `kind` or an option is unknown, or one is out of range.
    """
    make_encoder, make_decoder = makers(kind, encoder, decoder)
    encoder, decoder = dict(encoder or {}), dict(decoder or {})
    encoder_kind, decoder_kind = encoder.pop("kind", kind), decoder.pop("kind", kind)
    known_to_encoder, known_to_decoder = _options(make_encoder), _options(make_decoder)
    known_to_both = list(dict.fromkeys(known_to_encoder + known_to_decoder))
    check_keys(f"The options of the {kind!r} networks", options, known_to_both)
    check_keys(f"The options of the {encoder_kind!r} encoder", encoder, known_to_encoder)
    check_keys(f"The options of the {decoder_kind!r} decoder", decoder, known_to_decoder)
    sizes = {n: check_integers(n, v)[::-1] for n, v in options.items() if n in _MIRRORED}
    mirrored = {**options, **sizes}
    for_encoder = {n: v for n, v in options.items() if n in known_to_encoder} | encoder
    for_decoder = {n: v for n, v in mirrored.items() if n in known_to_decoder} | decoder
    made = make_encoder(input_shape, name="encoder", **for_encoder)
    if condition is not None:
        made = ConditionalEncoder(made, condition, name="conditional_encoder")
        latent_dim = check_integer("latent_dim", latent_dim) + made.size
    return made, make_decoder(latent_dim, input_shape, name="decoder", **for_decoder)


def makers(
    kind: str, encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the functions that `make` calls for the same three arguments.

    Returns:
        `(make_encoder, make_decoder)`: functions, the second possibly a class.

    Raises:
        ValueError: If a kind is unknown.
    """
    check_choice("kind", kind, tuple(DECODERS))
    check_kind("encoder", encoder, dict, "a dict of options", optional=True)
    check_kind("decoder", decoder, dict, "a dict of options", optional=True)
    encoder_kind = (encoder or {}).get("kind", _ENCODER_OF.get(kind, kind))
    decoder_kind = (decoder or {}).get("kind", kind)
    check_choice("encoder['kind']", encoder_kind, tuple(ENCODERS))
    check_choice("decoder['kind']", decoder_kind, tuple(DECODERS))
    return ENCODERS[encoder_kind], DECODERS[decoder_kind]


def takes(kind: str, option: str) -> bool:
    """Whether the decoder of a kind has an option."""
    return option in _options(DECODERS[kind])


def _options(function):
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _SET and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
