"""Weights that change during training, read inside the compiled step.

Each is a `keras.optimizers.schedules.LearningRateSchedule`, so Keras' own schedules fit in every
place where these do. All are functions of the number of training steps taken so far.
"""

import math

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_real
from ._serialization import ArgumentsConfig


class Schedule(ArgumentsConfig, keras.optimizers.schedules.LearningRateSchedule):
    """A weight as a function of the step; `final` is the value that it settles on."""

    @property
    def final(self):
        """Value at the end of the ramp: the weight of every evaluation."""
        return self.stop

    def _base_config(self):
        return {}

    def _set_ramp(self, steps, start, stop):
        self.steps = check_integer("steps", steps)
        self.start = check_real("start", start, "[0, inf)")
        self.stop = check_real("stop", stop, "[0, inf)")

    def _ramp(self, step, shape):
        fraction = ops.clip(ops.cast(step, "float32") / self.steps, 0.0, 1.0)
        return self.start + (self.stop - self.start) * shape(fraction)

    def first_step_at(self, weight):
        """First step at which the schedule has reached `weight`.

        Raises:
            ValueError: If it never does within one ramp.
        """
        check_real("weight", weight, "[0, inf)")
        weights = ops.convert_to_numpy(self(np.arange(self.steps + 1)))
        reached = np.flatnonzero(weights >= weight - 1e-6)
        if not reached.size:
            raise ValueError(
                "`weight` must be one that the schedule reaches. Received: "
                f"weight={weight}, largest={weights.max():g}"
            )
        return int(reached[0])


def final_value(schedule):
    """The weight that a schedule settles on: the weight of every evaluation.

    Args:
        schedule: A `Schedule`, or one of Keras' own, whose limit is read off far out.

    Returns:
        Float, or scalar tensor.
    """
    final = getattr(schedule, "final", None)
    return schedule(2**31 - 1) if final is None else final


@keras.saving.register_keras_serializable(package="vaezoo")
class LinearSchedule(Schedule):
    """Rises (or falls) in a straight line, then stays.

        w(t) = start + (stop - start) * min(1, t / steps)

    Args:
        steps: Positive int, training steps until `stop` is reached.
        start: Non-negative float, weight at step 0.
        stop: Non-negative float, weight from `steps` on.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Bowman et al. (2016), section 3.1, arXiv:1511.06349.
    """

    def __init__(self, steps, start=0.0, stop=1.0):
        self._set_ramp(steps, start, stop)

    def __call__(self, step):
        return self._ramp(step, lambda fraction: fraction)


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

    Raises:
        ValueError: If an argument is out of range.

    Reference: Bowman et al. (2016), figure 2, arXiv:1511.06349.
    """

    def __init__(self, steps, start=0.0, stop=1.0, steepness=10.0):
        self._set_ramp(steps, start, stop)
        self.steepness = check_real("steepness", steepness, "(0, inf)")

    def __call__(self, step):
        low = 1.0 / (1.0 + math.exp(0.5 * self.steepness))

        def shape(fraction):
            return (ops.sigmoid(self.steepness * (fraction - 0.5)) - low) / (1.0 - 2.0 * low)

        return self._ramp(step, shape)


@keras.saving.register_keras_serializable(package="vaezoo")
class CosineSchedule(Schedule):
    """Rises along half a cosine, flat at both ends.

        w(t) = start + (stop - start) * (1 - cos(pi * min(1, t / steps))) / 2

    Args:
        steps: Positive int, training steps until `stop` is reached.
        start: Non-negative float, weight at step 0.
        stop: Non-negative float, weight from `steps` on.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, steps, start=0.0, stop=1.0):
        self._set_ramp(steps, start, stop)

    def __call__(self, step):
        return self._ramp(step, lambda fraction: 0.5 * (1.0 - ops.cos(math.pi * fraction)))


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

    Raises:
        ValueError: If an argument is out of range.

    Reference: Fu et al. (2019), section 3, arXiv:1903.10145.
    """

    def __init__(self, steps, cycles=4, rise=0.5, start=0.0, stop=1.0):
        self._set_ramp(steps, start, stop)
        self.cycles = check_integer("cycles", cycles)
        self.rise = check_real("rise", rise, "(0, 1]")

    def __call__(self, step):
        step = ops.minimum(ops.cast(step, "int32"), self.steps)
        # In whole numbers, since a rounded quotient may put off the start of a cycle by a step.
        phase = ops.cast(ops.mod(step * self.cycles, self.steps), "float32") / self.steps
        fraction = ops.where(step >= self.steps, 1.0, ops.minimum(phase / self.rise, 1.0))
        return self.start + (self.stop - self.start) * fraction
