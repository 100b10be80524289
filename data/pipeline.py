"""Batches from examples: one order and one set of seeds for `tf.data` and for plain numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import EpochNumber, index_batches, numbered, untuned
from .batches import PlannedBatches, batch_of
from .images import scaled
from .source import CORES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import Tensor


class BatchPlan(NamedTuple):
    """Says how examples become batches.

    Args:
        count: Number of examples.
        shape: Shape of one example.
        batch_size: Examples a batch.
        shuffle: Whether each epoch has an order of its own.
        drop_remainder: Whether an incomplete last batch is left out.
        seed: Seed of order and dynamic binarization.
        binarize: None, "dynamic" or "fixed".
        binarize_seed: Seed of the fixed draw.
        value_range: `(low, high)` of the values handed out.
        num_indices: Number of examples apart from copies, whose index goes with them; None for
            batches without it.
    """

    count: int  # type: ignore[assignment]
    shape: tuple
    batch_size: int
    shuffle: bool
    drop_remainder: bool
    seed: int
    binarize: str | None
    binarize_seed: int
    value_range: Sequence[float]
    num_indices: int | None = None

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (rest > 0 and not self.drop_remainder)

    def nbytes(self, dtype: Any) -> int:
        """Returns the bytes that the stored examples take."""
        return self.count * math.prod(self.shape) * np.dtype(dtype).itemsize

    def order(self, epoch: int) -> Any:
        """Returns the rows `(count,)` in the order of an epoch."""
        if not self.shuffle:
            return np.arange(self.count)
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)

    def index(self, rows: Any) -> Any:  # type: ignore[override]
        """Returns the indices of the examples in rows `(b,)`, or None for batches without."""
        return None if self.num_indices is None else rows % self.num_indices


class ImageBatches(PlannedBatches):
    """Batches of float32 images.

    Args:
        read: Function from rows `(b,)` to stored images `(b, ...)`.
        y: Labels `(n, ...)` or None.
        plan: `BatchPlan`.
    """

    def __init__(self, read: Callable[..., Any], y: Tensor, plan: BatchPlan) -> None:
        super().__init__(plan)
        self._read, self._y = read, y

    def _batch(self, i, epoch, order):
        plan = self.plan
        rows = order[i * plan.batch_size : (i + 1) * plan.batch_size]
        x = scaled(self._read(rows))
        if plan.binarize == "dynamic":
            noise = np.random.default_rng([plan.seed, epoch, i])
            x = (noise.random(x.shape, dtype="float32") < x).astype("float32")
        x = to_range(x, plan.value_range)
        y = None if self._y is None else self._y[rows]
        return batch_of(x, y, plan.index(rows.astype("int32")))


def to_range(x: Tensor, value_range: Sequence[float]) -> Any:
    """Maps [0, 1] to `value_range`."""
    low, high = value_range
    return x if (low, high) == (0.0, 1.0) else x * (high - low) + low


def ticks(plan: Any, epochs: EpochNumber) -> Any:
    """Returns a `tf.data.Dataset` of one tensor: `epoch * count + row`, `(count,)`, in its order.

    The number is the only thing that random draws depend on, so that batches are a function of the
    plan, whatever TensorFlow's global seed.
    """
    import tensorflow as tf

    def order():
        epoch = epochs.take()
        return epoch * plan.count + plan.order(epoch)

    # A generator of one element would be a handful of functions, each to be traced.
    @tf.autograph.experimental.do_not_convert
    def asked(_):
        # Stateful: read anew in each epoch.
        return tf.ensure_shape(tf.numpy_function(order, [], tf.int64), (plan.count,))

    return tf.data.Dataset.range(1).map(asked)


def array_batches(x: Tensor, y: Tensor, plan: Any) -> Any:
    """Returns a `tf.data.Dataset` that gathers batches from arrays in memory."""
    import tensorflow as tf

    # Captured tensors on an accelerator would travel back to the host for each batch.
    with tf.device("CPU:0"):
        x, y = tf.constant(x), None if y is None else tf.constant(y)

    def gather(tick):
        rows = tick % plan.count
        return tf.gather(x, rows), *(() if y is None else (tf.gather(y, rows),)), rows, tick

    epochs = EpochNumber()
    return numbered(_batches(_tick_batches(plan, epochs), plan, gather), epochs)


def reader_batches(read: Callable[..., Any], y: Tensor, dtype: Any, plan: Any) -> Any:
    """Returns a `tf.data.Dataset` that calls a numpy reader for each batch."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        y = None if y is None else tf.constant(y)

    def fetch(tick):
        rows = tick % plan.count
        x = tf.numpy_function(read, [rows], dtype, stateful=False)
        x.set_shape((*tick.shape, *plan.shape))
        return x, *(() if y is None else (tf.gather(y, rows),)), rows, tick

    epochs = EpochNumber()
    return numbered(_batches(_tick_batches(plan, epochs), plan, fetch), epochs)


def element_batches(elements: Any, part: Any, plan: Any, with_labels: bool) -> Any:
    """Returns a `tf.data.Dataset` of batches from `(image, [label], row, tick)` elements."""
    import tensorflow as tf

    if plan.binarize == "fixed":
        with tf.device("CPU:0"):
            places = tf.constant(part.stream * 2**31 + part.index)

    def draw(x, *rest):
        *labels, row, tick = rest
        if plan.binarize == "fixed":
            seed = tf.stack([tf.cast(plan.binarize_seed, places.dtype), places[row]])
            noise = tf.random.stateless_uniform(plan.shape, seed, alg="philox")
            x = tf.cast(noise * 255 < tf.cast(x, tf.float32), tf.uint8) * 255
        return (x, *(labels if with_labels else ()), row, tick)

    elements = elements.map(draw, num_parallel_calls=CORES)
    return _batches(elements.batch(plan.batch_size, drop_remainder=plan.drop_remainder), plan)


def _tick_batches(plan, epochs):
    size = plan.batch_size
    kept = plan.count // size * size if plan.drop_remainder else plan.count
    return ticks(plan, epochs).flat_map(lambda of_epoch: index_batches(of_epoch[:kept], kept, size))


def _batches(batches, plan, read=None):
    """Finishes batches that are, or that `read` turns into, `(x, [label], row, tick)`."""
    import tensorflow as tf

    def finish(*batch):
        x, *y, rows, tick = read(*batch) if read else batch
        x = tf.cast(x, tf.float32) / 255 if x.dtype == tf.uint8 else x
        if plan.binarize == "dynamic":
            # The first tick of a batch occurs once in all epochs: a seed of its own.
            seed = tf.stack([tf.cast(plan.seed, tick.dtype), tick[0]])
            noise = tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")
            x = tf.cast(noise < x, tf.float32)
        x = tf.ensure_shape(to_range(x, plan.value_range), (*tick.shape, *plan.shape))
        return batch_of(x, y[0] if y else None, plan.index(tf.cast(rows, tf.int32)))

    batches = batches.map(finish)
    batches = batches.apply(tf.data.experimental.assert_cardinality(plan.num_batches))
    return untuned(batches.prefetch(2))
