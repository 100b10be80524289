"""What the presets of all models have in common, and how a preset becomes a model.

A preset is a dict: `networks` (arguments of `networks.make`), `model` (of the constructor),
`training`, `data` (of `vaezoo.data.load`) and `source`.
"""

import difflib
import inspect
from typing import NamedTuple

import keras

from . import networks as _networks


def digits_mlp(source="our own, sized for a minute on two cores", **model):
    """Settings for the embedded 8x8 digits, with a decoder deep enough to go without z."""
    return {
        "networks": {
            "kind": "mlp",
            "input_shape": (8, 8, 1),
            "hidden_units": (256, 256),
            "decoder": {"hidden_units": (512, 512, 512)},
        },
        "model": {"latent_dim": 16, **model},
        "training": {"epochs": 60, "learning_rate": 1e-3},
        "data": {"name_or_path": "digits", "batch_size": 64, "binarize": "dynamic"},
        "source": source,
    }


def mnist_mlp(source, epochs=50, binarize="dynamic", **model):
    """Settings for MNIST with the dense networks 784-800-800-D-800-800-784."""
    return {
        "networks": {"kind": "mlp", "input_shape": (28, 28, 1), "hidden_units": (800, 800)},
        "model": {"latent_dim": 20, **model},
        "training": {"epochs": epochs, "learning_rate": 1e-3},
        "data": {"name_or_path": "mnist", "batch_size": 128, "binarize": binarize},
        "source": source,
    }


class Preset(NamedTuple):
    """A model that is ready to be compiled and fitted.

    Attributes:
        name: The preset's name.
        model: Uncompiled, built `VAE`.
        compile_args: Arguments of `model.compile`.
        fit_args: Arguments of `model.fit` beside the data: `epochs`.
        data_args: Arguments of `vaezoo.data.load`.
        settings: The settings behind all this, with overrides applied.
    """

    name: str
    model: object
    compile_args: dict
    fit_args: dict
    data_args: dict
    settings: dict


def build_preset(name, constructor, settings, overrides):
    """Builds the `Preset` of checked settings."""
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
    network = dict(settings["networks"])
    latent_dim = settings["model"].get("latent_dim")
    likelihood = settings["model"].get("likelihood")
    if getattr(likelihood, "params_per_value", 1) != 1:
        network.setdefault("params_per_value", likelihood.params_per_value)
    if hasattr(likelihood, "num_classes"):
        network.setdefault("num_classes", likelihood.num_classes)
    input_shape = tuple(network.pop("input_shape"))
    encoder, decoder = _networks.make(network.pop("kind"), input_shape, latent_dim, **network)
    model = constructor(encoder, decoder, **settings["model"])
    model.build((None, *input_shape))
    training = dict(settings["training"])
    fit_args = {"epochs": training.pop("epochs")}
    optimizer = keras.optimizers.get(
        {"class_name": training.pop("optimizer", "adam"), "config": training}
    )
    compile_args = {"optimizer": optimizer, "jit_compile": "auto"}
    return Preset(name, model, compile_args, fit_args, dict(settings["data"]), settings)


def check_arguments(section, arguments, function, preset):
    """Raises a `ValueError` for arguments that `function` does not take."""
    valid = list(inspect.signature(function).parameters)
    for name in arguments:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 3)
            raise ValueError(
                f"`{section}` of preset {preset!r} takes "
                f"{', '.join(v for v in valid if v not in ('encoder', 'decoder', 'kwargs'))}. "
                f"Received: {name}={arguments[name]!r}"
                + (f" (did you mean {' or '.join(near)}?)" if near else "")
            )
