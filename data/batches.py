"""Order and backend of batches of any kind of examples."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import keras

from ..core.arrays import EpochNumber
from ..core.checks import check_choice, check_flag
from .source import tensorflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..core.types import Tensor


def batch_of(x: Tensor, y: Tensor = None, index: Tensor = None) -> Any:
    """Returns what is handed out.

    Args:
        x: Examples.
        y: Labels, or None without.
        index: Index of each example, or None without.

    Returns:
        `x` or `(x, y)`; with an index `(x, {"index": index})` or `(x, {"index": index, "y": y})`.
    """
    if index is not None:
        y = {"index": index} if y is None else {"index": index, "y": y}
    return x if y is None else (x, y)


def resolved_backend(backend: str) -> str:
    """Returns "tf" or "numpy" for the argument `backend`, and raises unless there is that one."""
    check_choice("backend", backend, ("auto", "tf", "numpy"))
    if backend == "auto":
        return "tf" if importlib.util.find_spec("tensorflow") else "numpy"
    if backend == "tf":
        tensorflow("backend='tf'")
    return backend


def resolved_order(
    split: str, shuffle: bool | None, drop_remainder: bool | None, batch_size: int, count: Any
) -> tuple[bool, bool]:
    """Returns `shuffle` and `drop_remainder` with their defaults filled in.

    Raises:
        ValueError: If dropping the remainder would leave none of `count` examples.
    """
    shuffle = check_flag("shuffle", shuffle, optional=True)
    shuffle = split.startswith("train") if shuffle is None else shuffle
    drop_remainder = check_flag("drop_remainder", drop_remainder, optional=True)
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    if drop_remainder and count < batch_size:
        raise ValueError(
            "`batch_size` must not exceed the number of examples when an incomplete batch is "
            f"dropped (drop_remainder=True). Received: batch_size={batch_size}, {count} examples"
        )
    return shuffle, drop_remainder


class PlannedBatches(keras.utils.PyDataset):
    """Batches that follow a plan, without TensorFlow.

    Each iteration is an epoch of its own. Keras counts epochs through `on_epoch_end`; `VAE.fit`
    says which one begins, and leaves the batches in their order. Subclasses implement
    `_batch(i, epoch, order)`.

    Args:
        plan: Object with `num_batches`, and with `order(epoch)`, the order of an epoch.
    """

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.plan = plan
        self.vaezoo_epochs = EpochNumber()
        self._order: tuple[int, Any] = (0, plan.order(0))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.plan.num_batches

    def __getitem__(self, i: int) -> Any:
        """Returns batch `i` of the present epoch."""
        if not 0 <= i < len(self):
            raise IndexError(f"Batch {i} of {len(self)}")
        return self._batch(i, *self._ordered(self.vaezoo_epochs.epoch))

    def __iter__(self) -> Iterator[Any]:
        """Iterates over an epoch; the next iteration is the next epoch."""
        epoch, order = self._ordered(self.vaezoo_epochs.take())
        return (self._batch(i, epoch, order) for i in range(len(self)))

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch."""
        self.vaezoo_epochs.epoch += 1

    def _ordered(self, epoch):
        if self._order[0] != epoch:
            self._order = (epoch, self.plan.order(epoch))
        return self._order
