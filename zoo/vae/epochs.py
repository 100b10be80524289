"""Finds the steps of an epoch, and tells the schedules that count in epochs."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import keras

from ...core.conditions import data_of
from ...core.replicas import host_value
from ...layers import VarianceDropout
from ...losses import Schedule
from ...losses.objective import Weight
from ...losses.schedules import counts_epochs

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import KerasObject, Tensor


def length_of_epoch(
    x: Tensor, batch_size: int | None = None, steps_per_epoch: int | None = None
) -> int | None:
    """Number of training steps of an epoch, or None where only its end tells.

    Args:
        x: What `fit` trains on, checked.
        batch_size: Positive int, or None for Keras' default.
        steps_per_epoch: What `fit` was given.
    """
    if steps_per_epoch is not None:
        return steps_per_epoch
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    if hasattr(x, "element_spec"):
        number = int(x.cardinality()) if callable(getattr(x, "cardinality", None)) else -2
        # -1 is infinite, -2 unknown.
        return number if number > 0 else None
    x = data_of(x)
    if hasattr(x, "shape"):
        return math.ceil(x.shape[0] / (batch_size or 32))
    try:
        return len(x)
    except TypeError:
        return None


def clocks_of(model: keras.Model) -> list[tuple[Any, Any, float]]:
    """Lists the clocks of a compiled model that count in epochs, with their steps so far.

    Returns:
        List of `(clock, steps taken, updates a step)`.
    """
    found: list[tuple[Any, Any, float]] = []
    for layer in model._flatten_layers():
        if isinstance(layer, Weight) and counts_epochs(layer.schedule):
            found.append((layer.schedule, _number(layer.step), 1))
        elif isinstance(layer, VarianceDropout) and layer.counts_epochs and layer.start_step:
            found.append((layer, _number(layer.step) if layer.built else 0, 1))
    optimizer = innermost(model.optimizer)
    rate = getattr(optimizer, "_learning_rate", None)
    if counts_epochs(rate):
        share = 1 / (optimizer.gradient_accumulation_steps or 1)
        found.append((rate, _number(optimizer.iterations), share))
    return found


def own_learning_rate(optimizer: KerasObject) -> None:
    """Gives an optimizer a learning rate of its own, where that counts in epochs."""
    optimizer = innermost(optimizer)
    if counts_epochs(getattr(optimizer, "_learning_rate", None)):
        optimizer._learning_rate = optimizer._learning_rate.copy()


def innermost(optimizer: KerasObject) -> Any:
    """The optimizer within those that scale the loss or share it out."""
    for name in ("inner_optimizer", "optimizer"):
        if isinstance(getattr(optimizer, name, None), keras.optimizers.Optimizer):
            return innermost(getattr(optimizer, name))
    return optimizer


def tell_clocks(clocks: Any, steps_per_epoch: int | None) -> bool:
    """Tells what counts in epochs how long they are; returns whether anything has changed."""
    told = [
        clock.set_steps_per_epoch(max(1, math.ceil(steps_per_epoch * share)), step)
        for clock, step, share in clocks
    ]
    return any(told)


def warn_of_ramps(
    model: keras.Model, steps_per_epoch: int, epochs: int, initial_epoch: int, callbacks: Any
) -> None:
    """Warns of ramps that outlast the training, or that reach into a plateau of the callbacks.

    Args:
        model: Compiled `VAE` whose clocks have been told.
        steps_per_epoch: Positive int.
        epochs: Int, epoch that the training ends with.
        initial_epoch: Int, epoch that it begins with.
        callbacks: What `fit` was given.
    """
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = getattr(callbacks, "callbacks", [callbacks])
    for layer in model._flatten_layers():
        ramp = getattr(layer, "schedule", None)
        if not isinstance(layer, Weight) or not isinstance(ramp, Schedule):
            continue
        left = ramp.in_steps(ramp.steps) - ramp.shift - _number(layer.step)
        end = initial_epoch + left / steps_per_epoch
        if left <= 0 or ramp.initial == ramp.final:
            continue
        if end > epochs:
            warnings.warn(
                f"`{layer.name}` reaches {float(ramp.final):g} after {end:.3g} epochs of "
                f"{steps_per_epoch} steps, but training ends after {epochs}, while evaluations use "
                f"{float(ramp.final):g}: shorten the schedule, or count in unit='epochs'",
                stacklevel=5,
            )
        for callback in callbacks or ():
            first = getattr(callback, "first_decay", None)
            if first is not None and first + 1 < end:
                warnings.warn(
                    f"{type(callback).__name__} may lower the learning rate after epoch {first} "
                    f"(counted from 0), while `{layer.name}` changes until epoch {end:.3g}: "
                    "increase `start_epoch`, or shorten the ramp",
                    stacklevel=5,
                )


def _number(variable):
    return int(host_value(variable))
