"""A run with one thing changed, as the doctor's trials change it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from .. import layers, losses, zoo

if TYPE_CHECKING:
    from typing import Any

    from .spec import RunSpec


def cured(spec: RunSpec, change: dict[str, Any], steps: int, epochs: int) -> RunSpec:
    """Returns the spec of a run that a remedy changes.

    Args:
        spec: `RunSpec` with all settings spelt out.
        change: What `metrics.try_remedies` changed.
        steps: Steps of its trial, over which a ramp was laid.
        epochs: Epochs that the run is to have.
    """
    model, name = dict(spec.model), spec.constructor
    if change.get("gamma"):
        name = "DUVAE" if change.get("keep_prob") else "BNVAE"
        model["gamma"] = change["gamma"]
        if change.get("keep_prob"):
            model["keep_prob"] = change["keep_prob"]
    if change.get("free_bits"):
        name, model["free_bits"] = "FreeBitsVAE", change["free_bits"]
    if "beta" in change or change.get("ramp"):
        model["beta"] = change.get("beta", 1.0)
    if change.get("ramp"):
        model["beta"] = losses.LinearSchedule(max(1, int(change["ramp"] * steps)))
    if change.get("scale") == "optimal":
        model["likelihood"] = layers.Gaussian("optimal")
    known = inspect.signature(getattr(zoo, str(name))).parameters
    if "beta" in model and "beta" not in known:
        name, known = "BetaVAE", inspect.signature(zoo.BetaVAE).parameters
    training = {**spec.training, "epochs": epochs}
    if "rate" in change and "learning_rate" in training:
        training["learning_rate"] = change["rate"] * training["learning_rate"]
    return spec.replace(
        preset=_preset(spec, name),
        constructor=name,
        model={key: value for key, value in model.items() if key in known},
        training=training,
    )


def _preset(spec, name):
    """The preset of another model for the same data, or None."""
    presets = zoo.presets()
    if spec.preset is None or name == spec.constructor:
        return spec.preset
    own, other = (_file(getattr(zoo, constructor)) for constructor in (spec.constructor, name))
    found = f"{other}_{spec.preset.removeprefix(own + '_')}"
    return found if found in presets else None


def _file(constructor):
    """The first part of the names of a constructor's presets."""
    return constructor.__module__.split("zoo.")[1].split(".")[0]
