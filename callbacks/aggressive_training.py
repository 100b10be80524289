"""The end of an aggressive training: when the code says no more about the data than before."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_choice, check_integer, check_seed
from ..core.conditions import num_rows, take_rows
from ..metrics import mutual_information

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Examples

STOPS = ("auto", "drop", "patience")


class AggressiveTraining(keras.callbacks.Callback):
    """Ends the aggressive phase of an `AggVAE` by the mutual information of validation data.

    After each epoch of the phase, with I the mutual information under the encoder (nats), of which
    each batch has one of its own (`mutual_information(..., estimator="batch")`):

        "drop":       the phase ends when   I < I of the epoch before
        "patience":   below = below + 1 if I < best, else best = I
                      the phase ends when   below = patience

    Neither `below` nor the phase restarts. The logs gain `mutual_information`. The state is saved
    with the model; list this callback before any that save, as `AggVAE.fit` does.

    Args:
        validation_data: Array `(N, *event)`, or what `fit` takes as validation data save a
            generator: an array with labels or targets, a `tf.data.Dataset`, or a `PyDataset`. By
            default those of `fit`.
        stop: `"drop"`, `"patience"`, or `"auto"`: the former for texts, the latter otherwise.
        patience: Positive int, number of epochs below the best that end the phase.
        batch_size: Positive int, examples of a batch of an array. At most about log `batch_size`
            can be measured.
        seed: Int in [0, 2^31) that fixes the draws, alike after each epoch.

    Attributes:
        history: List of dicts `epoch, mutual_information, aggressive`; the latter is whether the
            next epoch is.

    Raises:
        ValueError: If an argument is out of range; before the first step, if the model has no
            aggressive phase or there are no data.

    Reference: He et al. (2019), section 4.2, arXiv:1901.05534; patience, for images, and `drop`,
    for texts, as in the official code.
    """

    def __init__(
        self,
        validation_data: Examples | None = None,
        stop: str = "auto",
        patience: int = 5,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("stop", stop, STOPS)
        first = validation_data
        if isinstance(first, (tuple, list)) and first:
            first = first[0]
        # A generator is refused where training begins, as it is as validation data of `fit`.
        good = first is None or isinstance(first, keras.utils.PyDataset)
        good = good or inspect.isgenerator(first)
        if not good and not any(hasattr(first, kind) for kind in ("shape", "element_spec")):
            raise TypeError(
                "`validation_data` must be an array, (x, y), a `tf.data.Dataset` or a `PyDataset`. "
                f"Received: {type(validation_data).__name__}"
            )
        self.validation_data, self.stop = validation_data, stop
        self.patience = check_integer("patience", patience)
        self.batch_size = check_integer("batch_size", batch_size)
        self.seed = check_seed("seed", seed, optional=False)
        self._data: Any = None
        self.history: list[dict[str, Any]] = []

    def use(self, validation_data: Examples) -> None:
        """Takes the validation data of `fit`, unless there are some of its own."""
        own = self.validation_data
        self._data = validation_data if own is None else own

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the phase and the data."""
        phase = self._phase()
        data = self.validation_data if self._data is None else self._data
        if phase.active and (data is None or inspect.isgenerator(data)):
            raise ValueError(
                "`AggressiveTraining` reads `validation_data` after each epoch: give it, or `fit`, "
                f"an array, a `tf.data.Dataset` or a `PyDataset`. Received: {type(data).__name__}"
            )
        self._data, self.history = data, []

    def get_state(self) -> tuple[dict[str, Any], list[Any]]:
        """Returns what it has measured, for a checkpoint; the model has the rest."""
        return {"history": list(self.history)}, []

    def set_state(self, values: dict[str, Any], arrays: Any) -> None:
        """Goes on from what `get_state` returned, once the training has begun.

        Args:
            values: Dict of JSON values.
            arrays: Empty list.
        """
        self.history = list(values["history"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, and ends the phase if it is time."""
        phase = self._phase()
        if not phase.active:
            return
        # As the model keeps it, so that equal values compare as equal.
        value = float(np.float32(self._measure()))
        if logs is not None:
            # That of an `AuxiliarySoftmax` stays, which is another one.
            logs.setdefault("mutual_information", value)
        if self._is_over(phase, value):
            phase.end()
        self.history.append(
            {"epoch": epoch, "mutual_information": value, "aggressive": phase.active}
        )

    def _is_over(self, phase, value):
        previous, best = (float(_number(v)) for v in (phase.previous, phase.best))
        below = int(_number(phase.below)) + int(value < best)
        phase.previous.assign(value)
        # A value that is no number is neither below the best nor the best.
        phase.best.assign(value if value > best else best)
        phase.below.assign(below)
        stop = self.stop
        if stop == "auto":
            stop = "drop" if hasattr(self.model.likelihood, "num_predicted") else "patience"
        return value < previous if stop == "drop" else below >= self.patience

    def _measure(self):
        """Mutual information, averaged over the examples of all batches."""
        total = size = 0
        for number, x in enumerate(self._batches()):
            rows = num_rows(x)
            posterior = self.model.encode(x, batch_size=rows)
            # Of one example there is nothing to know.
            if rows > 1:
                estimate = mutual_information(
                    posterior,
                    estimator="batch",
                    batch_size=rows,
                    seed=(self.seed + number) % 2**31,
                )
                total += rows * estimate.value
            size += rows
        return total / size if size else math.nan

    def _batches(self):
        data = self._data
        if isinstance(data, keras.utils.PyDataset):
            batches = (data[number] for number in range(data.num_batches))
        elif hasattr(data, "element_spec"):
            batches = data
        else:
            array, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            starts = range(0, num_rows(array), self.batch_size)
            size = self.batch_size
            batches = (take_rows(array, slice(start, start + size)) for start in starts)
        for batch in batches:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            yield x

    def _phase(self):
        phase = getattr(self.model, "phase", None)
        if not hasattr(phase, "aggressive"):
            raise ValueError(
                "`AggressiveTraining` needs a model with an aggressive phase, such as "
                f"`zoo.AggVAE`. Received: model {self.model.name!r}, a "
                f"{type(self.model).__name__}"
            )
        return phase


def _number(variable):
    return np.asarray(ops.convert_to_numpy(variable.value))
