"""Order and backend of batches of any kind of examples."""

import importlib.util

import keras

from ..core.checks import check_choice, check_flag
from .source import tensorflow


def batch_of(x, y=None, index=None):
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


def resolved_backend(backend):
    """Returns "tf" or "numpy" for the argument `backend`, and raises unless there is that one."""
    check_choice("backend", backend, ("auto", "tf", "numpy"))
    if backend == "auto":
        return "tf" if importlib.util.find_spec("tensorflow") else "numpy"
    if backend == "tf":
        tensorflow("backend='tf'")
    return backend


def resolved_order(split, shuffle, drop_remainder, batch_size, count):
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

    Each iteration is an epoch of its own. `fit` counts epochs through `on_epoch_end`, and permutes
    the batches unless it is given `shuffle=False`. Subclasses implement `_batch(i, epoch, order)`.

    Args:
        plan: Object with `num_batches`, and with `order(epoch)`, the order of an epoch.
    """

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        self._epoch, self._order = 0, plan.order(0)

    def __len__(self):
        """Batches of an epoch."""
        return self.plan.num_batches

    def __getitem__(self, i):
        """Returns batch `i` of the present epoch."""
        if not 0 <= i < len(self):
            raise IndexError(f"Batch {i} of {len(self)}")
        return self._batch(i, self._epoch, self._order)

    def __iter__(self):
        """Iterates over an epoch; the next iteration is the next epoch."""
        epoch, order = self._epoch, self._order
        self.on_epoch_end()
        return (self._batch(i, epoch, order) for i in range(len(self)))

    def on_epoch_end(self):
        """Goes on to the next epoch."""
        self._epoch += 1
        self._order = self.plan.order(self._epoch)
