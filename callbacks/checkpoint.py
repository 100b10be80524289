"""A training that loses nothing when it is stopped."""

from __future__ import annotations

import math
import numbers
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from ..core.checkpoints import Saved, position_of, read_state, write_state
from ..core.checks import check_kind, check_path
from ..core.locks import FolderLock
from ..core.resuming import Resuming

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import FilePath

#: Name of the file in the folder.
FILE = "checkpoint.zip"


class Checkpoint(Resuming):
    """Saves a training so that `fit`, called again, ends with the bits of one that never stopped.

        checkpoint = callbacks.Checkpoint("runs/mine", every="10m")
        model.fit(x, epochs=50, callbacks=[checkpoint])
        # Killed in epoch 7. Later, in a new process, the same lines go on in epoch 7.

    After each epoch, and within one as often as `every` says, a file in the folder takes the place
    of the one before: weights, optimizer, seeds of noise, running means of the logs, random numbers
    of Python and NumPy, and what the other callbacks remember (their `get_state()`, or that of
    Keras' `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint`). A kill leaves the old file
    or the new one. `fit` returns the history of all epochs, and trains those that are left: none
    if the folder has as many as it asks for. To begin anew, remove the folder.

    Ctrl-C, SIGTERM and SIGHUP wait for the end of the batch, and after saving do what they did
    before; a second signal does so at once.

    The same steps in the same order are needed for the same bits. Build and compile the model as
    before, under the same `keras.utils.set_random_seed`, and give `fit` the same arguments but for
    `epochs`. Then it is exact

    - for arrays and for what `vaezoo.data.load` returns, which `VAE.fit` orders by the number of
      the epoch: batches that are behind are passed over;
    - for a `tf.data.Dataset` or `keras.utils.PyDataset` whose batches are the same in each epoch,
      and for a `PyDataset` with `get_state()`, which returns JSON values and a list of arrays as an
      epoch begins, and `set_state(values, arrays)`;
    - for other Keras models that are built before `fit`, with arrays in their order
      (`shuffle=False`), or shuffled by Keras under `set_random_seed`.

    It is not for data that count by themselves: a `tf.data.Dataset` with `shuffle` (another order
    in each iteration, and the first one in a new process), draws in a `map` that are not functions
    of the element, a generator, which begins anew, or `steps_per_epoch`, by which an epoch begins
    where the last one ended. Train one epoch at a time on data that the number of the epoch makes:

        for epoch in range(50):
            data = make(epoch)  # such as dataset.shuffle(10_000, seed=epoch)
            model.fit(data, initial_epoch=epoch, epochs=epoch + 1, callbacks=[checkpoint])

    `VAE.fit` finds the other callbacks, and acts before and after them. With another Keras model
    put this one last, and name in `remembering` those that remember something.

    Args:
        directory: Folder for the file, made if it is not there. One process at a time writes to it.
        every: None, or how often to save within an epoch: a number of steps, or a time such as
            `"30s"`, `"10m"`, `"2h"`.
        remembering: Callbacks and data sets with a state of their own, for Keras models other than
            `VAE`.

    Raises:
        ValueError: If an argument is out of range; as training begins, if the file is broken, or
            that of another model, or the model is not built.
        OSError: As training begins, if another process writes to the folder, or nobody can.

    Note: Batches that are passed over are read, and announced to the other callbacks with the logs
        of the last one.
    """

    def __init__(
        self, directory: FilePath, every: Any = None, remembering: Sequence[Any] = ()
    ) -> None:
        super().__init__(every)
        self.directory = Path(check_path("directory", directory))
        for item in check_kind("remembering", remembering, (list, tuple), "a list"):
            known = isinstance(item, keras.callbacks.Callback) or hasattr(item, "get_state")
            if not known:
                raise TypeError(
                    "`remembering` must hold callbacks, or data with `get_state`. Received: "
                    f"{type(item).__name__}"
                )
        self._named = list(remembering)
        self._lock: Any = None
        self._history: list[dict[str, Any]] = []

    @property
    def file(self) -> Path:
        """The file of the last state."""
        return self.directory / FILE

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the state, and puts the training there."""
        if not self.remembering and self._named:
            callbacks = [c for c in self._named if isinstance(c, keras.callbacks.Callback)]
            self.remember(callbacks, [c for c in self._named if c not in callbacks])
        self._lock = FolderLock(self.directory)
        super().on_train_begin(logs)

    def read(self) -> Saved | None:
        """Returns what the file holds, or None without one.

        Raises:
            ValueError: If it is broken, or nothing can be set to it.
        """
        self._history = []
        if not self.file.is_file():
            return None
        try:
            saved = read_state(self.file)
        except ValueError as error:
            raise ValueError(f"'{self.file}' is broken: {error}") from error
        if saved is None:
            raise ValueError(f"'{self.file}' is not a checkpoint of a training")
        if not self.model.built:
            raise ValueError(
                f"The model must be built before the training in '{self.directory}' goes on: call "
                "it on a batch, or its `build`"
            )
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._history = list(saved.history)
        return saved

    def batches_behind(self) -> int:
        """Returns how many batches of its epoch the file was written after, and reads no more."""
        position = position_of(self.file)
        return 0 if position is None else position[1]

    def restore_variables(self, saved: Saved) -> None:
        """Sets the variables of the model.

        Raises:
            ValueError: If they are those of another model.
        """
        try:
            super().restore_variables(saved)
        except ValueError as error:
            raise ValueError(f"'{self.file}' is of another model: {error}") from error

    def write(self, saved: Saved) -> None:
        """Writes the file."""
        write_state(self.file, saved._replace(history=self._history))

    def begin_epoch(self, epoch: int) -> None:
        """Notes what an epoch begins with."""
        self._fill_history()
        super().begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the state after an epoch."""
        values = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, numbers.Real)}
        self._history = [*self._history[:epoch], values]
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives back what the training has had from it."""
        self._fill_history()
        super().on_train_end(logs)

    def end_fit(self) -> None:
        """Ends a training, also one that an error has ended."""
        super().end_fit()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _fill_history(self):
        """Lets `fit` return all epochs."""
        history = getattr(self.model, "history", None)
        if history is None or history.epoch or not self._history:
            return
        history.epoch = list(range(len(self._history)))
        names = {name for record in self._history for name in record}
        history.history = {
            name: [record.get(name, math.nan) for record in self._history] for name in names
        }
