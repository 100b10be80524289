"""Gains of normalization layers, as the callbacks see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from ..core.replicas import host_value
from ..losses import RootMeanSquare

if TYPE_CHECKING:
    from typing import Any


def normalization_layers(model: keras.Model) -> list[Any]:
    """All layers of `model`, nested ones too, that have a variable `gamma`."""
    return [layer for layer in model._flatten_layers() if has_gain(layer)]


def has_gain(layer: keras.layers.Layer) -> bool:
    """Whether the layer has a variable `gamma`: it is built, and scales its output."""
    return isinstance(getattr(layer, "gamma", None), keras.Variable)


def target_of(layer: keras.layers.Layer) -> float | None:
    """Root mean square that a layer or its constraint asks of its `gamma`, or None."""
    if hasattr(layer, "target"):
        return layer.target
    constraint = layer.gamma.constraint
    return constraint.target if isinstance(constraint, RootMeanSquare) else None


def gain_statistics(layer: keras.layers.Layer) -> dict[str, float]:
    """Root mean square, least and largest entry of a layer's `gamma`, dict of floats."""
    gamma = host_value(layer.gamma).astype("float64")
    return {
        "rms": float(np.sqrt(np.mean(np.square(gamma)))),
        "min": float(gamma.min()),
        "max": float(gamma.max()),
    }
