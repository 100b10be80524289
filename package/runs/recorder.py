"""Writes the directory of a run while a model is trained."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from ..core.checkpoints import Saved, write_state
from ..core.files import PARTIAL, naming, written
from ..core.locks import LOCK, FolderLock
from ..core.replicas import host_value
from ..core.resuming import Ahead, Resuming
from ..core.states import assign, unsaved_variables
from .directory import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    LAST,
    MODEL,
    NONFINITE,
    REWINDS,
    TENSORBOARD,
    VERSIONS,
    VOCABULARY,
    check_free,
    epoch_of,
    score,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ..core.types import Config, FilePath


class RunRecorder(Resuming):
    """Writes the run directory, and claims it only when training is about to begin.

    It goes among the callbacks by `around`, since what steers the training acts at the end of an
    epoch, too: the best weights are kept before that, and the last checkpoint after it, with what
    each of those callbacks remembers.

    The checkpoint has the history, and decides: what else there is of an epoch, the best model and
    the line of the history, is written after it, and again where a run was killed between them.

    Args:
        directory: Path of the run.
        config: JSON values, the run's configuration.
        progress: `Saved` of the run in `directory` if it goes on, or None for a new one.
        overwrite: Whether a run that is already there is removed.
        vocabulary: Vocabulary of a run on text.
        every: None, or how often to save within an epoch.
    """

    writes_variables = False

    def __init__(
        self,
        directory: Path,
        config: Config,
        progress: Saved | None = None,
        overwrite: bool = False,
        vocabulary: Any = None,
        every: Any = None,
    ) -> None:
        super().__init__(every)
        # What cannot be written is found before there is anything to write to.
        self._config = json.dumps(config, indent=2)
        self.directory, self.progress = directory, progress
        self.overwrite, self.vocabulary = overwrite, vocabulary
        self.history = list(progress.history) if progress else []
        #: Batches of the next epoch that the last checkpoint has behind it.
        self.batch = progress.batch if progress else 0
        #: Times that the present epoch was gone back in, after a loss that was not finite.
        self.rewinds: list[Any] = rewinds_of(progress)
        self._started, self._spent = math.nan, 0.0
        self._made: list[Path] | None = None
        #: `FolderLock`, which a `Run` gives back; one that goes on has it before.
        self.lock: Any = None

    @property
    def claimed(self) -> bool:
        """Whether the directory is that of this run."""
        return self._made is not None and (self.directory / CONFIG).is_file()

    def around(self, callbacks: Any) -> list[Any]:
        """Returns callbacks that may change the model, with the recorder before and behind."""
        self._ahead = _Ahead(self)
        self.remember(callbacks)
        return [self._ahead, *callbacks, self]

    def claim(self) -> None:
        """Makes the directory and writes what is known at the start."""
        if self.progress is None:
            check_free(self.directory, self.overwrite)
        missing = [p for p in (self.directory, *self.directory.parents) if not p.exists()]
        if self.lock is None:
            self.lock = FolderLock(self.directory)
            if self.progress is None:
                # Another process may have been first.
                check_free(self.directory, self.overwrite)
        self._made = missing
        if self.progress is None:
            self._clear_directory()
        with naming(self.directory):
            (self.directory / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        if self.vocabulary is not None and self.progress is None:
            # Before the configuration, which promises it.
            with naming(self.directory / VOCABULARY):
                self.vocabulary.save(self.directory / VOCABULARY)
        self._write(CONFIG, self._config)
        if not (self.directory / VERSIONS).exists():
            self._write(VERSIONS, json.dumps(versions(), indent=2))
        self._write(HISTORY, "".join(map(_line, self.history)))
        # Of a run that was ended between the two.
        waiting = self.directory / _WAITING
        if waiting.is_file() and epoch_of(waiting) == len(self.history):
            os.replace(waiting, self.directory / BEST)

    def adopt(self, model: keras.Model, records: Sequence[dict[str, float]]) -> None:
        """Writes a new run whose first epochs were trained elsewhere."""
        self.set_model(model)
        self.history = [record_of(i, 0.0, record) for i, record in enumerate(records, 1)]
        epochs = len(self.history)
        try:
            self.claim()
            self.write(Saved(epochs))
            write_state(self.directory / BEST, Saved(epochs), model.save)
            save_model(model, self.directory / MODEL, epochs)
        finally:
            if self.lock is not None:
                self.lock.release()

    def withdraw(self) -> None:
        """Removes what `claim` has made, so that nothing is in the way of another try."""
        if self._made is None or self.progress is not None or self.history or self.batch:
            return
        self._clear_directory()
        (self.directory / CONFIG).unlink(missing_ok=True)
        (self.directory / LOCK).unlink(missing_ok=True)
        for place in [self.directory, *self._made]:
            # Another's files stay, and so do the folders that they lie in.
            with contextlib.suppress(OSError):
                if place in self._made:
                    place.rmdir()

    def read(self) -> Saved | None:
        return self.progress

    def write(self, saved: Saved) -> None:
        # What a run goes back to has to be good.
        weights = map(host_value, self.model.trainable_variables)
        if not all(np.all(np.isfinite(weight)) for weight in weights):
            raise FloatingPointError(
                f"Weights became infinite or NaN in epoch {saved.epoch + (saved.batch > 0)}, so "
                "training has ended."
            )
        draft = saved._replace(history=self.history)
        if saved.batch and self.rewinds:
            callbacks = {**(saved.callbacks or {}), REWINDS: (self.rewinds, [])}
            draft = draft._replace(callbacks=callbacks)
        if saved.batch:
            draft = draft._replace(logs={**(saved.logs or {}), _SECONDS: self._seconds()})
        write_state(self.directory / LAST, draft, self.model.save)
        self.batch = saved.batch

    def restore_variables(self, saved: Saved) -> None:
        """Sets what Keras has left out of its file; a `Run` has read that."""
        if saved.variables is not None:
            with naming_checkpoint(self.directory / LAST):
                assign(unsaved_variables(self.model), saved.variables)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the callbacks back what they remembered."""
        super().on_train_begin(logs)
        if self.progress is None or not (self.directory / LAST).exists():
            self.save(0, 0)

    def begin(self) -> None:
        """Starts the clock of an epoch."""
        self._started, self._spent = time.perf_counter(), 0.0
        if self._saved is not None and self._passing:
            self._spent = (self._saved.logs or {}).pop(_SECONDS, 0.0)

    def keep_best(self, logs: dict[str, Any] | None) -> None:
        """Keeps the model of an epoch that is the best so far, until the epoch is recorded."""
        record = record_of(len(self.history) + 1, 0.0, logs or {})
        (self.directory / _WAITING).unlink(missing_ok=True)
        if record["loss"] is None:
            self.model.stop_training = True
        elif all(score(record)[0] < score(other)[0] for other in self.history):
            with averaged(self.model):
                saved = Saved(len(self.history) + 1)
                write_state(self.directory / _WAITING, saved, self.model.save)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = dict(logs or {})
        logs.setdefault("learning_rate", _learning_rate(self.model))
        record = record_of(epoch + 1, self._seconds(), logs)
        if self.rewinds:
            record[REWINDS] = self.rewinds
        if record["loss"] is None:
            self.model.stop_training = True
            self.history.append(record)
        else:
            self.history.append(record)
            try:
                self.end_epoch(epoch)
            except BaseException:
                # The epoch is not recorded, and will be trained again.
                self.history.pop()
                raise
            self.rewinds = []
            if (self.directory / _WAITING).exists():
                with naming(self.directory / BEST):
                    os.replace(self.directory / _WAITING, self.directory / BEST)
        with naming(self.directory / HISTORY), (self.directory / HISTORY).open("a") as file:
            file.write(_line(record))
        self.signals.deliver()

    def fail(self, reason: str) -> None:
        """Notes that the epoch after the last one recorded has ended the run."""
        record = {"epoch": len(self.history) + 1, "loss": None, "error": reason}
        with naming(self.directory / HISTORY), (self.directory / HISTORY).open("a") as file:
            file.write(_line(record))

    def _seconds(self):
        return round(self._spent + time.perf_counter() - self._started, 3)

    def _clear_directory(self):
        # In this order what is left of a run is one, until its configuration is replaced.
        for name in (MODEL, HISTORY):
            (self.directory / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS, TENSORBOARD, NONFINITE):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in (VERSIONS, VOCABULARY):
            (self.directory / name).unlink(missing_ok=True)
        for path in self.directory.glob(f"{PARTIAL}*"):
            path.unlink(missing_ok=True)

    def _write(self, name, text):
        with written(self.directory / name) as partial:
            partial.write_text(text, "utf-8")


#: Among the logs of a batch in a checkpoint: what the epoch has taken so far.
_SECONDS = "seconds of the epoch"
#: The best model of an epoch that is not recorded yet.
_WAITING = f"{CHECKPOINTS}/.waiting-best.keras"


class _Ahead(Ahead):
    """What a `RunRecorder` does before other callbacks act."""

    owner: RunRecorder

    def on_train_begin(self, logs=None):
        self.owner.claim()

    def on_epoch_begin(self, epoch, logs=None):
        self.owner.begin()
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.owner.keep_best(logs)


def rewinds_of(saved: Saved | None) -> list[Any]:
    """Returns the times that a checkpoint's unfinished epoch was gone back in."""
    held = None if saved is None else saved.callbacks
    return list(held[REWINDS][0]) if held and REWINDS in held else []


def rewind(model: keras.Model, file: Path, saved: Saved, note: dict[str, Any]) -> Saved:
    """Halves the learning rate of a checkpoint, whose weights the model has.

    Args:
        model: Compiled model.
        file: Checkpoint.
        saved: `Saved` of it.
        note: Dict of JSON values, what is recorded of that.

    Returns:
        The new `Saved`.

    Raises:
        ValueError: If a schedule sets the learning rate.
    """
    rate = model.optimizer.learning_rate
    if not isinstance(rate, keras.Variable):
        raise ValueError(
            "`on_nan` must be 'stop' where a schedule sets the learning rate, which cannot be "
            "halved. Received: on_nan='rewind'"
        )
    rate.assign(0.5 * float(host_value(rate)))
    note = {**note, "learning_rate": float(host_value(rate))}
    rewinds = [*rewinds_of(saved), note]
    saved = saved._replace(callbacks={**(saved.callbacks or {}), REWINDS: (rewinds, [])})
    write_state(file, saved, model.save)
    return saved


def record_of(epoch: int, seconds: float, logs: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of an epoch: its logs as JSON numbers, with the validation bound."""
    values = map_finite({name: float(value) for name, value in logs.items()})
    record = {"epoch": epoch, "seconds": seconds, **values}
    bound, name = score(record)
    if name == "val_bound":
        record.update(map_finite({name: bound}))
    return record


def _learning_rate(model):
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[Any]:
    """Puts the optimizer's averages in the place of the weights for a while, where it has any."""
    optimizer = model.optimizer
    # In half precision Keras wraps the optimizer, to scale the loss.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not (getattr(optimizer, "use_ema", False) and optimizer.built):
        yield
        return
    pairs = list(
        zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    )
    raw = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(average.value)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, raw, strict=True):
            variable.assign(value)


@contextlib.contextmanager
def naming_checkpoint(file: Path) -> Iterator[Any]:
    """Says of an error that a checkpoint is broken, or that of another model."""
    try:
        yield
    except Exception as error:
        # Keras raises almost any kind for a broken file.
        raise ValueError(f"'{file}' cannot be loaded: {' '.join(str(error).split())}") from error


def load_weights(model: keras.Model, file: Path) -> None:
    """Loads weights and optimizer of a checkpoint.

    Raises:
        ValueError: If it is broken, or that of another model.
    """
    with naming_checkpoint(file):
        model.load_weights(file)


def save_model(model: keras.Model, path: FilePath, epochs: int) -> None:
    """Saves a final model so that `path` is the old file or the new one, never half of one.

    Args:
        model: Model.
        path: File.
        epochs: Number of epochs that it was trained for.
    """
    write_state(Path(path), Saved(epochs), model.save)


def map_finite(values: Any) -> Any:
    """Replaces infinities and NaN, which JSON does not have, by None."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _line(record):
    return json.dumps(record, allow_nan=False) + "\n"
