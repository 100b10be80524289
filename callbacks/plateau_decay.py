"""A learning rate that falls where the validation bound stops improving."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from ..core.checks import check_choice, check_flag, check_integer, check_real
from ..core.replicas import host_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Array


class PlateauDecay(keras.callbacks.Callback):
    """Lowers the learning rate and goes back to the best weights where validation stalls.

    After each epoch behind the `warm_up`, with m the monitored value:

        m < best:        best = m, keep the weights
        m < reference:   reference = m, stalled = 0;   else:  stalled = stalled + 1
        stalled >= patience and epoch >= start_epoch:
            learning rate = factor * learning rate, weights = best ones, optimizer state = fresh

    The reference is the best of all epochs, unless `compare_with` says otherwise.

    The `max_decays`-th plateau ends the training, and so does a learning rate that has become too
    low. In any case training ends with the best weights. The logs gain `learning_rate`, that of the
    epoch.

    Weights are kept in host memory, together with the statistics of normalization layers and the
    optimizer's averages of weights (`use_ema=True`). Step counters and objective state are
    not rolled back: schedules continue, and a finished aggressive phase stays finished.
    `SwapEMAWeights` may stand anywhere among the callbacks; with `swap_on_epoch=True` only behind
    this one, which must find the averages in their place.

    Args:
        factor: Float in (0, 1).
        patience: Positive int, epochs without improvement.
        monitor: Name of what is logged, or several that are added up, joined by `+`; lower is
            better. By default the negative ELBO of validation, with the rate at full weight.
        start_epoch: Non-negative int, first epoch, counted from 0, that may end in a decay.
        warm_up: Non-negative int, number of epochs at the beginning that count for nothing: neither
            as the best one, nor for a plateau. For models whose rate has not its full weight yet.
        compare_with: `"best"`, the lowest value of all epochs; or `"decay"`, the lowest since the
            epoch of the last decay, that one included.
        repeat: Whether every epoch after the first decay ends in another, whatever its value.
        max_decays: Positive int, or None for no limit.
        min_relative_rate: Float in [0, 1), share of the first learning rate below which training
            ends.
        step_factor: Float in (0, 1], what the learning rate is multiplied by for each step, beside
            the decays.
        restore_best: Whether a decay goes back to the best weights, or on from the present ones.
        reset_optimizer: Whether a decay makes the optimizer forget its moments and step count.

    Attributes:
        best: The lowest monitored value, and `best_epoch`, the epoch that it was seen in.
        decays: List of dicts `epoch, value, learning_rate` of the plateaus, with the learning rate
            that follows.

    Raises:
        ValueError: If an argument is out of range; before training, if the optimizer has a schedule
            for a learning rate; after the first epoch, if `monitor` is not logged.

    Reference: He et al. (2019), arXiv:1901.05534 (for text patience 5 from epoch 15 on, 5 decays,
    and in the code `compare_with="decay"`; for images patience 20); Ma et al. (2019),
    arXiv:1901.01498 (patience 21, 3 decays, `min_relative_rate=0.05`, `step_factor=0.999998`,
    `restore_best=False`); Kim et al. (2018), arXiv:1802.02550 (for text patience 1 from epoch 15
    on, `repeat=True`, `max_decays=None`, `min_relative_rate=0.03`, `restore_best=False`,
    `reset_optimizer=False`).

    Note:
        `step_factor` is applied at the end of an epoch for all of its steps: the learning rate is a
        variable, and one that changes with each step costs a synchronization each on JAX.
    """

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 5,
        monitor: str = "val_distortion+val_rate",
        start_epoch: int = 0,
        max_decays: int | None = 5,
        min_relative_rate: float = 0.0,
        step_factor: float = 1.0,
        restore_best: bool = True,
        reset_optimizer: bool = True,
        warm_up: int = 0,
        compare_with: str = "best",
        repeat: bool = False,
    ) -> None:
        super().__init__()
        names = [name.strip() for name in monitor.split("+")] if isinstance(monitor, str) else [""]
        if not all(names):
            raise ValueError(
                "`monitor` must be a name from the logs, or several joined by '+'. Received: "
                f"monitor={monitor!r}"
            )
        self.factor, self.monitor = check_real("factor", factor, "(0, 1)"), monitor
        self.patience = check_integer("patience", patience)
        self.start_epoch = check_integer("start_epoch", start_epoch, least=0)
        self.max_decays = check_integer("max_decays", max_decays, optional=True)
        self.min_relative_rate = check_real("min_relative_rate", min_relative_rate, "[0, 1)")
        self.step_factor = check_real("step_factor", step_factor, "(0, 1]")
        self.restore_best = check_flag("restore_best", restore_best)
        self.reset_optimizer = check_flag("reset_optimizer", reset_optimizer)
        self.warm_up = check_integer("warm_up", warm_up, least=0)
        self.compare_with = check_choice("compare_with", compare_with, ("best", "decay"))
        self.repeat = check_flag("repeat", repeat)
        self._names = names

    @property
    def first_decay(self) -> int:
        """First epoch, counted from 0, whose end may lower the learning rate."""
        return max(self.start_epoch, self.warm_up + self.patience)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts to count."""
        if not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise ValueError(
                "`PlateauDecay` needs an optimizer whose `learning_rate` is a number, not a "
                "schedule; `step_factor` lowers it from step to step. Received: optimizer "
                f"{self.model.optimizer.name!r} with a schedule"
            )
        self.best = math.inf
        self.best_epoch: int | None = None
        self.decays: list[dict[str, Any]] = []
        self._reference, self._stalled = math.inf, 0
        self._kept: list[Any] | None = None
        self._first_rate, self._ended = self._current_rate(), False
        self._step = self._steps()

    def get_state(self) -> tuple[dict[str, Any], list[Array]]:
        """Returns the state between batches, for a checkpoint.

        Returns:
            Pair of a dict of JSON values, whose `ended` says whether it has ended the training, and
            a list of arrays, the best weights.
        """
        values = {
            "best": _finite(self.best),
            "best_epoch": self.best_epoch,
            "reference": _finite(self._reference),
            "stalled": self._stalled,
            "first_rate": self._first_rate,
            "decays": [{**decay, "value": _finite(decay["value"])} for decay in self.decays],
            "ended": self._ended,
            "step": self._step,
        }
        return values, list(self._kept or ())

    def set_state(self, values: Any, arrays: Sequence[Any]) -> None:
        """Goes on from what `get_state` returned, once the training has begun.

        Args:
            values: Dict of JSON values.
            arrays: List of arrays.

        Raises:
            ValueError: If they are those of another model or of another callback.
        """
        shapes = [tuple(array.shape) for array in arrays]
        if shapes and shapes != [tuple(variable.shape) for variable in self._state()]:
            raise ValueError(
                "`arrays` must have the shapes of the model's state. Received: those of "
                f"{len(shapes)} other variables"
            )
        try:
            self.best, self._reference = (
                math.inf if values[name] is None else values[name] for name in ("best", "reference")
            )
            self.best_epoch, self._stalled = values["best_epoch"], values["stalled"]
            self._first_rate, self._ended = values["first_rate"], values["ended"]
            self.decays = [
                {**decay, "value": math.nan if decay["value"] is None else decay["value"]}
                for decay in values["decays"]
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"`values` must be what `get_state` returned. Missing: {error}"
            ) from error
        self._kept = list(arrays) or None
        # Earlier versions have no states within an epoch.
        self._step = values.get("step", self._step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the step that the epoch begins with."""
        self._step = self._steps()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compares the epoch with the best one, and decays if need be."""
        logs = {} if logs is None else logs
        value = self._value(logs)
        logs["learning_rate"] = rate = self._current_rate()
        rate *= self.step_factor ** (self._steps() - self._step)
        if epoch >= self.warm_up:
            self._compare(value, epoch)
        plateau = self._stalled >= self.patience and epoch >= self.start_epoch
        if plateau or (self.repeat and self.decays):
            rate *= self.factor
            self._stalled = 0
            if self.compare_with == "decay" and math.isfinite(value):
                self._reference = value
            self.decays.append({"epoch": epoch, "value": value, "learning_rate": rate})
            if self.restore_best:
                self._restore()
            if self.reset_optimizer:
                self._renew_optimizer()
        self.model.optimizer.learning_rate.assign(rate)
        if len(self.decays) == self.max_decays or rate < self.min_relative_rate * self._first_rate:
            self._ended = self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the best weights."""
        self._restore()
        averages = self._averages()
        # Keras, too, ends a training by putting the averages in the place of the weights.
        for variable, average in zip(self.model.trainable_variables, averages, strict=False):
            variable.assign(average)

    def _compare(self, value, epoch):
        if value < self.best:
            self.best, self.best_epoch = value, epoch
            self._kept = [host_value(variable) for variable in self._state()]
        if value < self._reference:
            self._reference, self._stalled = value, 0
        else:
            self._stalled += 1

    def _value(self, logs):
        missing = [name for name in self._names if name not in logs]
        if missing:
            raise ValueError(
                f"`monitor` must name logged values: {', '.join(sorted(logs))}; names with 'val_' "
                f"need `validation_data`. Received: monitor={self.monitor!r}"
            )
        return float(sum(logs[name] for name in self._names))

    def _current_rate(self):
        return float(host_value(self.model.optimizer.learning_rate))

    def _steps(self):
        return int(host_value(self.model.optimizer.iterations))

    def _inner_optimizer(self):
        # In half precision Keras wraps the optimizer, to scale the loss.
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)

    def _averages(self):
        optimizer = self._inner_optimizer()
        return optimizer._model_variables_moving_average if optimizer.use_ema else []

    def _state(self):
        """Returns the variables that make up the best weights: all but step counters."""
        parts = (getattr(self.model, name, None) for name in ("objective", "phase"))
        held = {id(v) for part in parts for v in getattr(part, "non_trainable_weights", ())}
        learned = [
            variable
            for variable in self.model.weights
            if keras.backend.is_float_dtype(variable.dtype) and id(variable) not in held
        ]
        return [*learned, *self._averages()]

    def _restore(self):
        # Nothing is kept as long as no epoch had a finite value.
        for variable, value in zip(self._state(), self._kept or (), strict=False):
            variable.assign(value)

    def _renew_optimizer(self):
        optimizer, inner = self.model.optimizer, self._inner_optimizer()
        fresh = type(optimizer).from_config(optimizer.get_config())
        fresh.build(self.model.trainable_variables)
        lasting = {id(variable) for variable in (optimizer.learning_rate, *self._averages())}
        for variable, initial in zip(optimizer.variables, fresh.variables, strict=True):
            if id(variable) not in lasting:
                variable.assign(host_value(initial))
        if inner.use_ema:
            # Before its first step an optimizer starts the averages anew.
            steps = inner.gradient_accumulation_steps or 1
            next(v for v in inner.variables if v.name == "iteration").assign(steps)


def _finite(value):
    return value if math.isfinite(value) else None
