"""Builds a model with its compile and data arguments from the settings of a preset."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, NamedTuple

import keras

from ..core.checks import check_choice, check_flag, check_integer, check_keys, check_real
from ..layers import get_likelihood
from . import networks as _networks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Preset(NamedTuple):
    """A model that is ready to be compiled and fitted.

    Attributes:
        name: The preset's name.
        model: Uncompiled, built `VAE`.
        compile_args: Arguments of `model.compile`.
        fit_args: Arguments of `model.fit` beside the data: `epochs`, and `callbacks` where the
            settings ask for them (`use_ema`, `plateau`).
        data_args: Arguments of `vaezoo.data.load`.
        settings: The settings behind all this, with overrides applied.
    """

    name: str
    model: Any
    compile_args: dict
    fit_args: dict
    data_args: dict
    settings: dict


#: Arguments of `vaezoo.data.load`, which this folder does not import.
OF_DATA = (
    "name_or_path", "split", "batch_size", "binarize", "shuffle", "seed", "binarize_seed",
    "copies", "image_size", "channels", "crop", "invert", "value_range", "labels", "with_index",
    "validation_split", "limit", "drop_remainder", "in_memory", "backend", "data_dir", "download",
    "vocabulary", "tokenizer", "max_size", "min_count", "num_classes", "max_length", "too_long",
    "buckets",
)  # fmt: skip


def merge_settings(
    name: str, constructor: Callable[..., Any], settings: dict[str, Any], overrides: dict[str, Any]
) -> dict[str, Any]:
    """Returns the settings of a preset with overrides in their place, and checks their names."""
    kind = settings["networks"]["kind"]
    if overrides["networks"].get("kind", kind) != kind:
        # Networks of another kind have other options.
        shape = settings["networks"]["input_shape"]
        settings = {**settings, "networks": {"input_shape": shape}}
    settings = {
        section: {**value, **overrides.get(section, {})} if isinstance(value, dict) else value
        for section, value in settings.items()
    }
    check_arguments("model", settings["model"], constructor, name)
    head = settings["model"].get("head")
    if hasattr(head, "latent_dim") and "latent_dim" not in overrides["model"]:
        # The networks are made for the codes of the head that was given.
        settings["model"]["latent_dim"] = head.latent_dim
    check_keys(f"`data` of preset {name!r}", settings["data"], OF_DATA)
    if "batch_size" in settings["data"]:
        settings["data"]["batch_size"] = check_integer("batch_size", settings["data"]["batch_size"])
    return settings


def build_preset(
    name: str, constructor: Callable[..., Any], settings: dict[str, Any], overrides: dict[str, Any]
) -> Preset:
    """Builds the `Preset` of checked settings."""
    settings = merge_settings(name, constructor, settings, overrides)
    training = dict(settings["training"])
    fit_args = {"epochs": check_integer("epochs", training.pop("epochs"))}
    # Where to hold out what is for the command line, which loads the data.
    training.pop("validation", None)
    initial_examples = check_integer(
        "initial_examples", training.pop("initial_examples", None), optional=True
    )
    plateau = training.pop("plateau", None)
    optimizer = _optimizer(training, name)
    callbacks = _callbacks(plateau, optimizer.use_ema, name)
    if callbacks:
        fit_args["callbacks"] = callbacks
    network = dict(settings["networks"])
    input_shape = tuple(network.pop("input_shape"))
    latent_dim, kind = settings["model"].get("latent_dim"), network.pop("kind")
    head = network.pop("head", None) or {}
    if _networks.takes(kind, "vocabulary_size") and not network.get("vocabulary_size"):
        raise ValueError(
            f"`networks` of preset {name!r} must have `vocabulary_size`, the number of ids that "
            "your files have: zoo.load(..., networks={'vocabulary_size': len(vocabulary)}), with "
            "the vocabulary of vaezoo.data.describe_text. Received: networks without it"
        )
    network["decoder"] = {
        **_output_of(settings["model"].get("likelihood"), network, kind, input_shape),
        **(network.get("decoder") or {}),
    }
    encoder, decoder = _networks.make(kind, input_shape, latent_dim, **network)
    model = constructor(encoder, decoder, **settings["model"])
    if head:
        check_arguments("networks.head", head, model.head.set_projection, name)
        model.head.set_projection(**head)
    model.build((None, *input_shape))
    if initial_examples is not None:
        model.initial_examples = initial_examples
    compile_args = {"optimizer": optimizer, "jit_compile": "auto"}
    return Preset(name, model, compile_args, fit_args, dict(settings["data"]), settings)


def _output_of(likelihood, network, kind, input_shape):
    """Options of the decoder that the likelihood asks for."""
    if likelihood is None:
        return {}
    likelihood = get_likelihood(likelihood)
    kind = (network.get("decoder") or {}).get("kind", kind)
    if hasattr(likelihood, "num_mixtures"):
        wanted = {
            "num_mixtures": likelihood.num_mixtures,
            "params_per_pixel": likelihood.params_shape(input_shape)[-1],
        }
    elif hasattr(likelihood, "num_classes"):
        wanted = {"num_classes": likelihood.num_classes}
    elif likelihood.params_per_value != 1:
        wanted = {"params_per_value": likelihood.params_per_value}
    else:
        return {}
    return {
        name: value
        for name, value in wanted.items()
        if _networks.takes(kind, name) and name not in network
    }


def _optimizer(training, preset):
    """Makes the optimizer of a preset's settings.

    Args:
        training: Dict of the optimizer's arguments and its name, `optimizer`.
        preset: Name for messages.
    """
    training = dict(training)
    name = training.pop("optimizer", "adam")
    kinds = {
        key.lower(): kind
        for key, kind in vars(keras.optimizers).items()
        if inspect.isclass(kind)
        and issubclass(kind, keras.optimizers.Optimizer)
        and kind not in (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    }
    check_choice("optimizer", name.lower() if isinstance(name, str) else name, sorted(kinds))
    kind = kinds[name.lower()]
    others = ("epochs", "initial_examples", "optimizer", "plateau", "validation")
    check_arguments("training", training, kind, preset, others)
    defaults = inspect.signature(kind).parameters
    for key, value in training.items():
        default = defaults[key].default
        if key == "learning_rate" and callable(value):
            continue
        if value is None and default is None:
            continue
        if isinstance(default, bool):
            training[key] = check_flag(key, value)
        elif key in ("ema_overwrite_frequency", "gradient_accumulation_steps"):
            training[key] = check_integer(key, value)
        elif isinstance(default, float) or key in _REAL:
            # Keras takes no int for a learning rate.
            training[key] = float(check_real(key, value, _REAL.get(key, "(-inf, inf)")))
    return kind(**training)


#: Arguments of optimizers that are numbers, and where they must lie. No training survives steps of
#: more than a thousand times the gradient.
_REAL = {
    "learning_rate": "(0, 1000]",
    "clipnorm": "(0, inf)",
    "global_clipnorm": "(0, inf)",
    "clipvalue": "(0, inf)",
    "weight_decay": "[0, inf)",
    "ema_momentum": "[0, 1]",
    "beta_1": "[0, 1)",
    "beta_2": "[0, 1)",
}


def _callbacks(plateau, use_ema, preset):
    from ..callbacks import PlateauDecay

    found = []
    if plateau is not None and not isinstance(plateau, dict):
        raise ValueError(
            "`plateau` must be a dict of arguments of `PlateauDecay`, or None. Received: "
            f"plateau={plateau!r}"
        )
    if plateau:
        check_arguments("training.plateau", plateau, PlateauDecay, preset)
        found = [PlateauDecay(**plateau)]
    # Validation then sees the averages.
    return [*found, keras.callbacks.SwapEMAWeights()] if use_ema else found


def check_arguments(
    section: str,
    arguments: Mapping[str, Any],
    function: Callable[..., Any],
    preset: str,
    others: Sequence[Any] = (),
) -> None:
    """Raises a `ValueError` for arguments that neither `function` takes nor are among others."""
    valid = [*others, *inspect.signature(function).parameters]
    for name in arguments:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 3)
            raise ValueError(
                f"`{section}` of preset {preset!r} takes "
                f"{', '.join(v for v in valid if v not in ('encoder', 'decoder', 'kwargs'))}. "
                f"Received: {name}={arguments[name]!r}"
                + (f" (did you mean {' or '.join(near)}?)" if near else "")
            )
