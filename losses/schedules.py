"""Weights that change during training, read inside the compiled step.

Each is a `keras.optimizers.schedules.LearningRateSchedule`, so Keras' own schedules fit in every
place where these do. All are functions of the number of training steps taken so far; those of
`unit="epochs"` are told by `fit` how many steps an epoch has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_choice, check_integer, check_kind, check_real
from ..core.serialization import ArgumentsConfig

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Config, Tensor

UNITS = ("steps", "epochs")


class Clock:
    """Counts in steps or in epochs, for classes with an attribute `unit`.

    An epoch of n steps is n whole steps, so 10 epochs of 447 steps are 4,470 steps to the last bit.
    When training goes on with epochs of another number of steps, the position in epochs is kept.
    """

    unit = "steps"
    #: Steps of an epoch, as far as they are known.
    steps_per_epoch = None
    #: What is added to the number of steps taken, so that they are all of the present length.
    shift = 0

    @property
    def counts_epochs(self) -> bool:
        """Whether the unit is the epoch."""
        return self.unit == "epochs"

    def set_steps_per_epoch(self, steps_per_epoch: int, step: int = 0) -> bool:
        """Says how many steps an epoch has from now on.

        Args:
            steps_per_epoch: Positive int.
            step: Non-negative int, steps taken so far.

        Returns:
            Whether anything has changed: what was compiled before is out of date then.
        """
        steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch)
        before = self.steps_per_epoch
        if not self.counts_epochs or before == steps_per_epoch:
            return False
        if before is not None:
            taken = round((step + self.shift) * steps_per_epoch / before)
            self.shift = taken - step
        self.steps_per_epoch = steps_per_epoch
        return True

    def in_steps(self, number: float) -> Any:
        """A number of units in steps.

        Raises:
            ValueError: If the unit is the epoch and the length of one not known.
        """
        if not self.counts_epochs:
            return number
        if self.steps_per_epoch is None:
            raise ValueError(
                "`steps_per_epoch` must be set for unit='epochs': `fit` sets it; elsewhere call "
                "`model.set_steps_per_epoch` before the first step. Received: "
                f"{type(self).__name__} without it"
            )
        return max(1, round(number * self.steps_per_epoch))

    def get_config(self) -> Config:
        """Returns the constructor's arguments, and how long epochs have been so far."""
        config = super().get_config()
        if self.steps_per_epoch is not None:
            config["clock"] = {"steps_per_epoch": self.steps_per_epoch, "shift": self.shift}
        return config

    @classmethod
    def from_config(cls, config: Config) -> Any:
        """Builds the object from what `get_config` returned."""
        config = dict(config)
        clock = config.pop("clock", None)
        made = super().from_config(config)
        if clock:
            made.steps_per_epoch, made.shift = clock["steps_per_epoch"], clock["shift"]
        return made

    def copy(self) -> Clock:
        """One that counts for itself."""
        return type(self).from_config(self.get_config())


class Schedule(Clock, ArgumentsConfig, keras.optimizers.schedules.LearningRateSchedule):
    """A weight as a function of the step; `final` is the value that it settles on.

    Subclasses implement `value_at(step, steps)`, with `steps` the length of the whole ramp.
    """

    def __call__(self, step: Any) -> Any:
        steps = self.in_steps(self.steps)
        return self.value_at(step + self.shift if self.shift else step, steps)

    def value_at(self, step: Any, steps: Any) -> Any:
        """The weight at a step of a ramp of so many steps."""
        raise NotImplementedError

    def at_epoch(self, epoch: int) -> Any:
        """The weight at the beginning of an epoch, where the unit is read as the epoch."""
        return self.value_at(epoch, self.steps)

    @property
    def initial(self) -> Any:
        """The weight of the first step, known before the length of an epoch is."""
        return self.value_at(0, self.steps)

    @property
    def final(self) -> Any:
        """Value at the end of the ramp: the weight of every evaluation."""
        return self.stop

    def _base_config(self):
        return {}

    def _set_ramp(self, steps, start, stop, unit):
        self.unit = check_choice("unit", unit, UNITS)
        if self.counts_epochs:
            self.steps = check_real("steps", steps, "(0, inf)")
        else:
            self.steps = check_integer("steps", steps)
        self.start = check_real("start", start, "[0, inf)")
        self.stop = check_real("stop", stop, "[0, inf)")

    def _ramp(self, step, steps, shape):
        fraction = ops.clip(ops.cast(step, "float32") / steps, 0.0, 1.0)
        return self.start + (self.stop - self.start) * shape(fraction)

    def first_step_at(self, weight: float) -> float:
        """First step at which the schedule has reached `weight`.

        Returns:
            Int; or, where the schedule counts in epochs, a float of them.

        Raises:
            ValueError: If it never does within one ramp.
        """
        check_real("weight", weight, "[0, inf)")
        # An epoch is looked at in thousandths.
        grain = 1000 if self.counts_epochs else 1
        steps = round(grain * self.steps)
        times = np.arange(steps + 1)
        weights = self.value_at(times, steps) if self.counts_epochs else self(times)
        weights = ops.convert_to_numpy(weights)
        reached = np.flatnonzero(weights >= weight - 1e-6)
        if not reached.size:
            raise ValueError(
                "`weight` must be reached by the schedule. Received: "
                f"weight={weight}, largest={weights.max():g}"
            )
        first = int(reached[0])
        return first / grain if self.counts_epochs else first


def final_value(schedule: Any) -> Any:
    """The weight that a schedule settles on: the weight of every evaluation.

    Args:
        schedule: A `Schedule`, or one of Keras' own, whose limit is read off far out.

    Returns:
        Float, or scalar tensor.
    """
    final = getattr(schedule, "final", None)
    return schedule(2**31 - 1) if final is None else final


def initial_value(schedule: Any) -> float:
    """The weight that a schedule begins with, as a float."""
    return float(schedule.initial if counts_epochs(schedule) else schedule(0))


def counts_epochs(schedule: Any) -> bool:
    """Whether a number or schedule counts in epochs, and has to be told their length."""
    return getattr(schedule, "counts_epochs", False)


@keras.saving.register_keras_serializable(package="vaezoo")
class LinearSchedule(Schedule):
    """Rises (or falls) in a straight line, then stays.

        w(t) = start + (stop - start) * min(1, t / steps)

    Args:
        steps: Positive int, training steps until `stop` is reached.
        start: Non-negative float, weight at step 0.
        stop: Non-negative float, weight from `steps` on.
        unit: `"steps"`, or `"epochs"`: `steps` is then a positive number of epochs, whose length
            `fit` finds in the data.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Bowman et al. (2016), section 3.1, arXiv:1511.06349.
    """

    def __init__(
        self, steps: float, start: float = 0.0, stop: float = 1.0, unit: str = "steps"
    ) -> None:
        self._set_ramp(steps, start, stop, unit)

    def value_at(self, step: Any, steps: Any) -> Any:
        return self._ramp(step, steps, lambda fraction: fraction)


@keras.saving.register_keras_serializable(package="vaezoo")
class SigmoidSchedule(Schedule):
    """Rises along a logistic curve, rescaled so that it meets both ends exactly.

        w(t) = start + (stop - start) * (s(t / steps) - s(0)) / (s(1) - s(0)),
        s(u) = 1 / (1 + exp(-steepness * (u - 1/2)))

    Args:
        steps: Positive int, training steps until `stop` is reached.
        start: Non-negative float, weight at step 0.
        stop: Non-negative float, weight from `steps` on.
        steepness: Positive float; larger values make the middle steeper.
        unit: `"steps"`, or `"epochs"`: `steps` is then a positive number of epochs, whose length
            `fit` finds in the data.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Bowman et al. (2016), figure 2, arXiv:1511.06349.
    """

    def __init__(
        self,
        steps: float,
        start: float = 0.0,
        stop: float = 1.0,
        steepness: float = 10.0,
        unit: str = "steps",
    ) -> None:
        self._set_ramp(steps, start, stop, unit)
        self.steepness = check_real("steepness", steepness, "(0, inf)")

    def value_at(self, step: Any, steps: Any) -> Any:
        low = 1.0 / (1.0 + math.exp(0.5 * self.steepness))

        def shape(fraction):
            return (ops.sigmoid(self.steepness * (fraction - 0.5)) - low) / (1.0 - 2.0 * low)

        return self._ramp(step, steps, shape)


@keras.saving.register_keras_serializable(package="vaezoo")
class CosineSchedule(Schedule):
    """Rises along half a cosine, flat at both ends.

        w(t) = start + (stop - start) * (1 - cos(pi * min(1, t / steps))) / 2

    Args:
        steps: Positive int, training steps until `stop` is reached.
        start: Non-negative float, weight at step 0.
        stop: Non-negative float, weight from `steps` on.
        unit: `"steps"`, or `"epochs"`: `steps` is then a positive number of epochs, whose length
            `fit` finds in the data.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, steps: float, start: float = 0.0, stop: float = 1.0, unit: str = "steps"
    ) -> None:
        self._set_ramp(steps, start, stop, unit)

    def value_at(self, step: Any, steps: Any) -> Any:
        return self._ramp(step, steps, lambda fraction: 0.5 * (1.0 - ops.cos(math.pi * fraction)))


@keras.saving.register_keras_serializable(package="vaezoo")
class CyclicalSchedule(Schedule):
    """Rises again and again: `cycles` linear ramps, each followed by a plateau at `stop`.

        u = (t mod (steps / cycles)) / (steps / cycles)
        w(t) = start + (stop - start) * min(1, u / rise)    for t < steps, then stop

    Args:
        steps: Positive int, training steps of all cycles together.
        cycles: Positive int.
        rise: Float in (0, 1], part of a cycle that the ramp takes.
        start: Non-negative float, weight at the beginning of each cycle.
        stop: Non-negative float, weight at its end.
        unit: `"steps"`, or `"epochs"`: `steps` is then a positive number of epochs, whose length
            `fit` finds in the data.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Fu et al. (2019), section 3, arXiv:1903.10145.
    """

    def __init__(
        self,
        steps: float,
        cycles: int = 4,
        rise: float = 0.5,
        start: float = 0.0,
        stop: float = 1.0,
        unit: str = "steps",
    ) -> None:
        self._set_ramp(steps, start, stop, unit)
        self.cycles = check_integer("cycles", cycles)
        self.rise = check_real("rise", rise, "(0, 1]")

    def value_at(self, step: Any, steps: Any) -> Any:
        step = ops.minimum(step, steps)
        if isinstance(steps, int):
            # In whole numbers, since a rounded quotient may put off the start of a cycle by a step.
            step = ops.cast(step, "int32")
        phase = ops.cast(ops.mod(step * self.cycles, steps), "float32") / steps
        fraction = ops.where(step >= steps, 1.0, ops.minimum(phase / self.rise, 1.0))
        return self.start + (self.stop - self.start) * fraction


@keras.saving.register_keras_serializable(package="vaezoo")
class InEpochs(Clock, ArgumentsConfig, keras.optimizers.schedules.LearningRateSchedule):
    """One of Keras' schedules, whose steps are epochs.

        w(t) = schedule(t / n),   n = steps of an epoch, which `fit` finds in the data

    `InEpochs(ExponentialDecay(1e-3, 1, 0.995, staircase=True))` lowers a learning rate once an
    epoch, whatever the size of data set and batch.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule` of a number of epochs.

    Raises:
        TypeError: If `schedule` is of another kind.
    """

    unit = "epochs"

    def __init__(self, schedule: Any) -> None:
        kind = keras.optimizers.schedules.LearningRateSchedule
        self.schedule = check_kind("schedule", schedule, kind, "a Keras schedule")

    def _base_config(self):
        return {}

    def __call__(self, step: Any) -> Tensor:
        # Divided in whole numbers: a rounded quotient may put off an epoch by a step.
        step, steps = ops.cast(step, "int32") + self.shift, self.in_steps(1)
        part = ops.cast(ops.mod(step, steps), "float32") / steps
        return self.schedule(ops.cast(ops.floor_divide(step, steps), "float32") + part)

    @property
    def initial(self) -> float:
        """The weight of the first step."""
        return self.schedule(0.0)

    @property
    def final(self) -> float:
        """The weight that it settles on."""
        return final_value(self.schedule)
