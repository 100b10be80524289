"""Writes the directory of a run while a model is trained."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
import warnings
import zipfile
from typing import TYPE_CHECKING

import keras
import numpy as np

from ..core.files import naming, written
from .directory import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    LAST,
    MODEL,
    STATE,
    TENSORBOARD,
    VERSIONS,
    VOCABULARY,
    check_free,
    epoch_of,
    score,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from ..core.types import Config, FilePath
    from .directory import Progress


class RunRecorder(keras.callbacks.Callback):
    """Writes the run directory, and claims it only when training is about to begin.

    It goes among the callbacks by `around`, since what steers the training acts at the end of an
    epoch, too: the best weights are kept before that, and the last checkpoint after it, with what
    each of those callbacks remembers.

    Args:
        directory: Path of the run.
        config: JSON values, the run's configuration.
        progress: `Progress` of the run in `directory` if it goes on, or None for a new one.
        overwrite: Whether a run that is already there is removed.
        vocabulary: Vocabulary of a run on text.
    """

    def __init__(
        self,
        directory: Path,
        config: Config,
        progress: Progress | None = None,
        overwrite: bool = False,
        vocabulary: Any = None,
    ) -> None:
        super().__init__()
        # What cannot be written is found before there is anything to write to.
        self._config = json.dumps(config, indent=2)
        self.directory, self.progress = directory, progress
        self.overwrite, self.vocabulary = overwrite, vocabulary
        self.history = list(progress.history) if progress else []
        self._started = math.nan
        self._made: list[Path] | None = None
        self._steering: Any = ()

    @property
    def claimed(self) -> bool:
        """Whether the directory is that of this run."""
        return self._made is not None and (self.directory / CONFIG).is_file()

    def around(self, callbacks: Any) -> list[Any]:
        """Returns callbacks that may change the model, with the recorder before and behind."""
        self._steering = tuple(callbacks)
        return [_Ahead(self), *callbacks, self]

    def claim(self) -> None:
        """Makes the directory and writes what is known at the start."""
        if self.progress is None:
            check_free(self.directory, self.overwrite)
        missing = [p for p in (self.directory, *self.directory.parents) if not p.exists()]
        self._made = missing
        if self.progress is None:
            self._clear()
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
        if not (self.directory / LAST).exists():
            self._save_last()
        # Of a run that was ended between the two.
        waiting = self.directory / _WAITING
        if waiting.is_file() and epoch_of(waiting) == len(self.history):
            os.replace(waiting, self.directory / BEST)

    def withdraw(self) -> None:
        """Removes what `claim` has made, so that nothing is in the way of another try."""
        if self._made is None or self.progress is not None or self.history:
            return
        self._clear()
        for place in [self.directory, *self._made]:
            # Another's files stay, and so do the folders that they lie in.
            with contextlib.suppress(OSError):
                if place in self._made:
                    place.rmdir()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the callbacks back what they remembered."""
        held = None if self.progress is None else self.progress.callbacks
        for callback in self._remembering():
            name = type(callback).__name__
            if held and name in held:
                callback.set_state(*held[name])
            elif self.history:
                warnings.warn(
                    f"The checkpoint has no state of {name}, which starts anew at this epoch",
                    stacklevel=2,
                )

    def begin(self) -> None:
        """Starts the clock of an epoch."""
        self._started = time.perf_counter()

    def keep_best(self, logs: dict[str, Any] | None) -> None:
        """Keeps the model of an epoch that is the best so far, until the epoch is recorded."""
        record = record_of(len(self.history) + 1, 0.0, logs or {})
        (self.directory / _WAITING).unlink(missing_ok=True)
        if record["loss"] is None:
            self.model.stop_training = True
        elif all(score(record)[0] < score(other)[0] for other in self.history):
            with averaged(self.model):
                _save(self.model, self.directory / _WAITING, len(self.history) + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = dict(logs or {})
        logs.setdefault("learning_rate", _learning_rate(self.model))
        record = record_of(epoch + 1, round(time.perf_counter() - self._started, 3), logs)
        if record["loss"] is None:
            self.model.stop_training = True
            self.history.append(record)
        else:
            self.history.append(record)
            try:
                self._save_last()
            except BaseException:
                # The epoch is not recorded, and will be trained again.
                self.history.pop()
                raise
            if (self.directory / _WAITING).exists():
                with naming(self.directory / BEST):
                    os.replace(self.directory / _WAITING, self.directory / BEST)
        with naming(self.directory / HISTORY), (self.directory / HISTORY).open("a") as file:
            file.write(_line(record))

    def fail(self, reason: str) -> None:
        """Notes that the epoch after the last one recorded has ended the run."""
        record = {"epoch": len(self.history) + 1, "loss": None, "error": reason}
        with naming(self.directory / HISTORY), (self.directory / HISTORY).open("a") as file:
            file.write(_line(record))

    def _remembering(self):
        return [callback for callback in self._steering if hasattr(callback, "get_state")]

    def _save_last(self):
        states = {}
        for callback in self._remembering() if self.history else ():
            states[type(callback).__name__] = callback.get_state()
        _save(self.model, self.directory / LAST, len(self.history), self.history, states)

    def _clear(self):
        for name in (CONFIG, VERSIONS, HISTORY, VOCABULARY, MODEL):
            (self.directory / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS, TENSORBOARD):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def _write(self, name, text):
        with written(self.directory / name) as partial:
            partial.write_text(text, "utf-8")


#: The best model of an epoch that is not recorded yet.
_WAITING = f"{CHECKPOINTS}/.waiting-best.keras"


class _Ahead(keras.callbacks.Callback):
    """What a `RunRecorder` does before other callbacks act."""

    def __init__(self, recorder: RunRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def on_train_begin(self, logs=None):
        self.recorder.claim()

    def on_epoch_begin(self, epoch, logs=None):
        self.recorder.begin()

    def on_epoch_end(self, epoch, logs=None):
        self.recorder.keep_best(logs)


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


def load_weights(model: keras.Model, file: Path) -> None:
    """Loads weights and optimizer of a checkpoint.

    Raises:
        ValueError: If it is broken, or that of another model.
    """
    try:
        model.load_weights(file)
    except Exception as error:
        # Keras raises almost any kind for a broken file.
        raise ValueError(f"'{file}' cannot be loaded: {' '.join(str(error).split())}") from error


def save_model(model: keras.Model, path: FilePath) -> None:
    """Saves a model so that `path` is the old file or the new one, never half of one."""
    with written(path) as partial:
        model.save(partial)


def _save(model, path, epoch, history=(), states=None):
    """Saves a model together with what a run goes on with."""
    states = states or {}
    state = {
        "epoch": epoch,
        "history": list(history),
        "callbacks": {name: (values, len(arrays)) for name, (values, arrays) in states.items()},
    }
    with written(path) as partial:
        model.save(partial)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(f"{STATE}.json", json.dumps(state, allow_nan=False))
            for name, (_, arrays) in states.items():
                for i, array in enumerate(arrays):
                    member = f"{STATE}/{name}/{i}.npy"
                    with archive.open(member, "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, array, allow_pickle=False)


def map_finite(values: Any) -> Any:
    """Replaces infinities and NaN, which JSON does not have, by None."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _line(record):
    return json.dumps(record, allow_nan=False) + "\n"
