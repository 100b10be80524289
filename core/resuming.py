"""A training that goes on from a file as if it had never stopped."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import keras

from .checkpoints import Saved, draw_from, draws_so_far, read_every, standing
from .signals import HeldSignals
from .states import (
    assign,
    is_expected,
    named,
    set_state,
    states_of,
    unsaved_variables,
    values_of,
    variables_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

JAX = keras.backend.backend() == "jax"
#: What the names of the states of data begin with.
_DATA = "data-"


class Resuming(keras.callbacks.Callback):
    """Base of callbacks that save a training, and go on with it where it was saved.

    It saves after each epoch, behind the callbacks that change something then, and within an epoch
    before a batch begins. A training that goes on within an epoch passes over the batches that it
    has behind it: they are read in their order, and announced to callbacks with the logs of the
    last one, but not trained on. Then everything is put back that a step, a callback or a draw has
    changed.

    `VAE.fit` gives it its place among the callbacks, by `around`, and tells it of them; elsewhere
    it is to stand behind the others.

    Subclasses implement `read` and `write`.

    Args:
        every: None, or how often to save within an epoch, as in `checkpoints.read_every`.
    """

    #: Whether `write` keeps all variables itself, and not by a file of Keras.
    writes_variables = True

    def __init__(self, every: Any = None) -> None:
        super().__init__()
        self.every = read_every("every", every)
        self.signals = HeldSignals()
        self.remembering: list[Any] = []
        self._data: list[Any] = []
        self._ahead: Any = None
        self._saved: Saved | None = None
        self._passing, self._announced = 0, False
        self._clear()

    def _clear(self) -> None:
        self._logs: Any = None
        self._batch: Any = None
        self._whole: Any = None
        self._data_states: dict[str, Any] = {}
        self._epoch_draws: Any = None
        self._last: tuple[float, int] = (time.monotonic(), 0)
        self._place = 0

    # -- what subclasses have ----------------------------------------------------------------------

    def read(self) -> Saved | None:
        """Returns what the training goes on from, or None where it begins."""
        raise NotImplementedError

    def batches_behind(self) -> int:
        """Returns how many batches of its epoch the state to go on from was saved after."""
        saved = self.read()
        return 0 if saved is None else saved.batch

    def write(self, saved: Saved) -> None:
        """Writes a `Saved`, whose history is left out."""
        raise NotImplementedError

    def restore_variables(self, saved: Saved) -> None:
        """Sets the variables of the model."""
        if saved.variables is not None:
            assign(self._variables(), saved.variables)

    # -- its place ---------------------------------------------------------------------------------

    def around(self, callbacks: Iterable[Any]) -> list[Any]:
        """Returns callbacks with this one behind them, and what it does before them in front."""
        self._ahead = Ahead(self)
        return [self._ahead, *callbacks, self]

    def placed(self, callbacks: Sequence[Any], data: Any = None) -> list[Any]:
        """Takes its place among callbacks, and notes which of them have a state.

        Args:
            callbacks: All callbacks of a training, this one among them.
            data: What is trained on.
        """
        self.remember(callbacks, () if data is None else (data,))
        if self._ahead is not None and self._ahead in callbacks:
            return list(callbacks)
        return self.around([callback for callback in callbacks if callback is not self])

    def remember(self, callbacks: Iterable[Any], data: Iterable[Any] = ()) -> None:
        """Says what has a state beside the model.

        Args:
            callbacks: All callbacks of the training.
            data: Data sets that may have `get_state`, read at the beginning of an epoch, and
                `set_state`.
        """
        own = (self, self._ahead)
        self.remembering = [c for c in callbacks if c not in own and not isinstance(c, Ahead)]
        self._data = [item for item in data if hasattr(item, "get_state")]

    # -- hooks of Keras ----------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the state, and puts the training there."""
        self._clear()
        self._saved = saved = self.read()
        self._passing = 0 if saved is None else saved.batch
        if saved is not None:
            self._restore(saved)
        self._take_steps()
        self.signals.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins an epoch, unless `around` has something in front for that."""
        if self._ahead is None:
            self.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Comes to a batch, unless `around` has something in front for that."""
        if self._ahead is None:
            self.begin_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the state after an epoch."""
        self.end_epoch(epoch)
        self.signals.deliver()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives back what the training has had from it."""
        self.end_fit()

    # -- what they do ------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Notes what an epoch begins with."""
        self.model._initial_epoch = None
        self.signals.holding = True
        self._place, self._last = epoch, (time.monotonic(), 0)
        if self._passing and self._saved is not None:
            steps = (self.params or {}).get("steps")
            if steps is not None and steps <= self._passing:
                raise self._too_short()
            if self._saved.draws is not None:
                draw_from(self._saved.draws[1])
        elif self._data:
            self._data_states = states_of(self._data, _DATA)
        self._epoch_draws = draws_so_far()

    def begin_batch(self, batch: int) -> None:
        """Goes on with the first batch that is not behind, and saves where that is due."""
        self._announced = True
        if batch < self._passing:
            return
        if self._passing:
            self._restore_within()
            self._last = (time.monotonic(), batch)
        seconds, steps = time.monotonic() - self._last[0], batch - self._last[1]
        due = seconds >= self.every.seconds or steps >= self.every.steps
        if self.signals.heard is None and not due:
            return
        if steps:
            self.save(self._place, batch)
        self._last = (time.monotonic(), batch)
        self.signals.deliver()

    def end_epoch(self, epoch: int) -> None:
        """Saves the state after an epoch."""
        if self._passing:
            raise self._too_short()
        self._data_states = states_of(self._data, _DATA)
        self.save(epoch + 1, 0)

    def end_fit(self) -> None:
        """Ends a training, also one that an error has ended."""
        self.signals.end()
        function = getattr(self.model, "train_function", None)
        if isinstance(function, _Steps):
            self.model.train_function = function.run
        self._ahead, self._passing, self._saved = None, 0, None
        if self.model is not None:
            self.model._initial_epoch = None
        self._clear()

    def save(self, epoch: int, batch: int) -> None:
        """Writes the state after some epochs and batches."""
        if JAX:
            # Otherwise a compiled step has the variables.
            self.model.jax_state_sync()
        callbacks = states_of(self.remembering)
        variables = values_of(self._variables())
        saved = Saved(epoch, batch, (), {**callbacks, **self._data_states}, variables=variables)
        if batch:
            logs = {name: float(value) for name, value in (self._logs or {}).items()}
            metrics = values_of(self.model.metrics_variables)
            saved = saved._replace(logs=logs, metrics=metrics)
        draws = [draws_so_far(), self._epoch_draws] if batch else [draws_so_far(), None]
        self.write(saved._replace(draws=draws))
        self._last = (time.monotonic(), batch)

    def _variables(self):
        return variables_of(self.model) if self.writes_variables else unsaved_variables(self.model)

    def _restore(self, saved):
        steps = self.model.steps_per_execution or 1
        if saved.batch % steps:
            raise ValueError(
                f"`steps_per_execution` must divide {saved.batch}, the batches of the epoch that "
                f"the training was saved after. Received: steps_per_execution={steps}"
            )
        self.restore_variables(saved)
        if saved.draws is not None:
            draw_from(saved.draws[0])
        self._set_states(named(self.remembering), saved, warn=True)
        data = named(self._data, _DATA)
        self._set_states(data, saved)
        self._data_states = {k: v for k, v in (saved.callbacks or {}).items() if k in data}
        if saved.batch:
            self._whole = values_of(variables_of(self.model))
        params = self.params or {}
        epochs = params.get("epochs")
        self.model._initial_epoch = max(saved.epoch, epochs or 0) if saved.ended else saved.epoch
        if saved.position > (0, 0) and params.get("verbose", 0):
            print(f"Going on after {standing(*saved.position, epochs, params.get('steps'))}")

    def _set_states(self, objects, saved, warn=False):
        held = saved.callbacks
        for name, item in objects.items():
            if held and name in held:
                set_state(item, *held[name])
            elif warn and saved.epoch and is_expected(item):
                warnings.warn(
                    f"The checkpoint has no state of {name}, which starts anew at this epoch",
                    stacklevel=5,
                )

    def _restore_within(self):
        saved, self._passing = self._saved, 0
        if JAX:
            self.model.jax_state_sync()
        assign(variables_of(self.model), self._whole)
        variables = self.model.metrics_variables
        if len(variables) != len(saved.metrics) and self._batch is not None:
            # Keras makes those of `compile` with the first step.
            self.model._symbolic_build(data_batch=self._batch)
            variables = self.model.metrics_variables
        assign(variables, saved.metrics)
        self._set_states(named(self.remembering), saved)
        if saved.draws is not None:
            draw_from(saved.draws[0])
        self._whole = self._batch = None

    def _too_short(self):
        return ValueError(
            f"The data end before batch {self._passing} of the epoch, after which the training was "
            "saved: they must be those that it was saved with"
        )

    # -- steps -------------------------------------------------------------------------------------

    def _take_steps(self):
        function = self.model.train_function
        run = function.run if isinstance(function, _Steps) else function
        self.model.train_function = _Steps(run, self)

    def take_step(self, run: Any, arguments: Any) -> Any:
        """Takes a step.

        Args:
            run: Keras' function of a step.
            arguments: What it takes: the data, and before them the state on JAX.
        """
        return run(*arguments)

    def pass_over(self, iterator: Any) -> Any:
        """Reads the batches of a step that is behind; returns the logs that were saved."""
        steps = self.model.steps_per_execution or 1
        passed = getattr(self.model, "pass_over_batch", None)
        for number in range(steps):
            try:
                batch = next(iterator)
            except StopIteration:
                if not number:
                    raise self._too_short() from None
                break
            self._batch = batch
            if passed is not None:
                passed(batch)
        return dict(self._saved.logs) if self._saved is not None and self._saved.logs else {}


class Ahead(keras.callbacks.Callback):
    """What a `Resuming` does before other callbacks act."""

    def __init__(self, owner: Resuming) -> None:
        super().__init__()
        self.owner = owner

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins the epoch."""
        self.owner.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Comes to the batch."""
        self.owner.begin_batch(batch)


class _Steps:
    """The compiled step of a training, which passes over what is behind."""

    def __init__(self, run: Any, owner: Resuming) -> None:
        self.run, self._owner = run, owner

    def __call__(self, *arguments: Any) -> Any:
        *state, iterator = arguments
        owner = self._owner
        # A training that does not know of the owner is none of its.
        announced, owner._announced = owner._announced, False
        if owner._passing and announced:
            logs = owner.pass_over(iterator)
            return (logs, *state) if state else logs
        found = owner.take_step(self.run, arguments)
        owner._logs = found[0] if state else found
        return found
