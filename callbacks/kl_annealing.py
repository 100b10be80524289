"""A weight of the rate that changes from epoch to epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_integer, check_kind
from ..core.replicas import host_value
from ..losses import LinearSchedule, final_value

if TYPE_CHECKING:
    from typing import Any


class KLAnnealing(keras.callbacks.Callback):
    """Sets the weight of the rate, `model.objective.beta`, at the beginning of each epoch.

        beta(e) = schedule(e),   by default start + (stop - start) * min(1, e / epochs)

    Epochs are counted from 0 and from the very first, so a training that goes on by
    `initial_epoch` finds its place. Validation uses the weight that the schedule settles on, which
    keeps its losses comparable, and the model is left with it after training. The logs show `beta`.

    For a weight that changes with every step give the objective the schedule itself:
    `ELBO(beta=LinearSchedule(steps))`.

    Args:
        epochs: Positive int, epochs until `stop` is reached; or nothing with a `schedule`.
        start: Non-negative float, weight of the first epoch.
        stop: Non-negative float, weight from epoch `epochs` on.
        schedule: Schedule of the number of epochs, such as `CyclicalSchedule(40)` (of either unit)
            or one of Keras' own (`keras.optimizers.schedules.LearningRateSchedule`), in place of
            the other arguments.

    Raises:
        ValueError: If neither or both of `epochs` and `schedule` are given, or a weight is negative
            or not finite; before training, if the objective has no `beta` that can be set.
        TypeError: If `schedule` is of another kind.

    Reference: Bowman et al. (2016), section 3.1, arXiv:1511.06349.
    """

    def __init__(
        self,
        epochs: int | None = None,
        start: float = 0.0,
        stop: float = 1.0,
        *,
        schedule: Any = None,
    ) -> None:
        super().__init__()
        if (epochs is None) == (schedule is None):
            raise ValueError(
                "Either `epochs` or `schedule` must be given. Received: "
                f"epochs={epochs}, schedule={schedule}"
            )
        epochs = check_integer("epochs", epochs, optional=True)
        if schedule is None:
            schedule = LinearSchedule(epochs, start, stop)
        kind = keras.optimizers.schedules.LearningRateSchedule
        self.schedule = check_kind("schedule", schedule, kind, "a vaezoo or Keras schedule")
        self.final = _checked(final_value(schedule), "in the end")

    def _at(self, epoch):
        in_epochs = getattr(self.schedule, "counts_epochs", False)
        return self.schedule.at_epoch(epoch) if in_epochs else self.schedule(epoch)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the weight."""
        self._variable()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the weight of this epoch."""
        self._beta = _checked(self._at(epoch), f"in epoch {epoch}")
        self._variable().assign(self._beta)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the weight."""
        if logs is not None:
            logs["beta"] = self._beta

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Sets the weight of evaluations."""
        variable = self._variable()
        self._interrupted = float(host_value(variable))
        variable.assign(self.final)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weight of the epoch back."""
        self._variable().assign(self._interrupted)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the weight of evaluations."""
        self._variable().assign(self.final)

    def _variable(self):
        objective = getattr(self.model, "objective", None)
        variable = getattr(objective, "beta", None)
        if not isinstance(variable, keras.Variable):
            raise ValueError(
                "`KLAnnealing` needs a model whose `objective.beta` is a variable, as that of "
                f"`ELBO` is. Received: model {self.model.name!r} with objective "
                f"{type(objective).__name__}"
            )
        head = getattr(self.model, "head", None)
        if not getattr(head, "has_density", True):
            raise ValueError(
                "`KLAnnealing` needs a posterior with a density: the `beta` of a deterministic "
                f"encoder stays 0. Received: model {self.model.name!r} with "
                f"{type(head).__name__}"
            )
        # An objective reports `beta` when it follows a schedule of its own.
        if "beta" in getattr(objective, "report_names", ()):
            raise ValueError(
                "`KLAnnealing` cannot set a `beta` that follows a schedule of the training step. "
                "Give the objective a number. Received: objective "
                f"{type(objective).__name__} with a schedule"
            )
        return variable


def _checked(value, when):
    value = float(ops.convert_to_numpy(value))
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"`schedule` must be non-negative. Received: {value:g} {when}")
    return value
