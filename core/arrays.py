"""Batches of arrays in memory, in an order that a seed and the number of the epoch give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from typing import Any

    import tensorflow as tf

    from .types import Array


class EpochNumber(keras.callbacks.Callback):
    """Numbers the iterations over a data set whose order and draws depend on the epoch.

    Each iteration is an epoch, from 0 on. Among the callbacks of `fit` it learns which epoch
    begins, so that a training that goes on at `initial_epoch` meets the batches that an
    uninterrupted one meets, whatever was read in between.

    Attributes:
        epoch: Number of the next iteration.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def take(self) -> int:
        """Returns the number of an iteration that begins."""
        self.epoch += 1
        return self.epoch - 1


class RowOrder(EpochNumber):
    """Gives each epoch an order of its own.

    Keras shuffles arrays by the global random numbers: on JAX they depend on what else was drawn,
    and on TensorFlow, under `keras.utils.set_random_seed`, all epochs have one order.

    Args:
        count: Positive int, number of rows.
        seed: Non-negative int.
        shuffle: Whether to shuffle; otherwise rows keep their places.
    """

    def __init__(self, count: int, seed: int = 0, shuffle: bool = True) -> None:
        super().__init__()
        self.count, self.seed, self.shuffle = count, seed, shuffle

    def get_state(self) -> tuple[dict[str, Any], list[Any]]:
        """Returns what the orders depend on, for a checkpoint."""
        return {"seed": int(self.seed)}, []

    def set_state(self, values: dict[str, Any], arrays: Any) -> None:
        """Goes on with the orders of `get_state`."""
        self.seed = values["seed"]

    def rows(self) -> Array:
        """Returns the rows of the present epoch, int64 `(count,)`."""
        if not self.shuffle:
            return np.arange(self.count)
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.count)


def batches_of(
    arrays: tuple[Any, ...], batch_size: int, order: RowOrder
) -> tf.data.Dataset | keras.utils.PyDataset:
    """Returns a data set of the batches of arrays, for one iteration an epoch.

    Values that are not integers come in Keras' default precision, as Keras hands over arrays.

    Args:
        arrays: Structure of arrays `(n, ...)` and None, a tuple at its top.
        batch_size: Positive int; the last batch may be smaller.
        order: `RowOrder` of n rows.

    Returns:
        `tf.data.Dataset` on TensorFlow, `keras.utils.PyDataset` elsewhere.
    """
    if keras.backend.backend() == "tensorflow":
        return _dataset(arrays, batch_size, order)
    return _ArrayBatches(arrays, batch_size, order)


def numbered(dataset: tf.data.Dataset, epochs: EpochNumber) -> tf.data.Dataset:
    """Lets `epochs_of` find what numbers the iterations over a `tf.data.Dataset`."""
    dataset.vaezoo_epochs = epochs
    return dataset


def epochs_of(dataset: Any) -> EpochNumber | None:
    """Returns what numbers the iterations over a data set, or None where nothing does."""
    return getattr(dataset, "vaezoo_epochs", None)


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a `tf.data.Dataset` that nothing tunes while it runs.

    An iterator over a tuned one ends only when the thread that tunes it wakes, and that sleeps for
    10 ms, then twice as long each time (TensorFlow 2.21): each epoch waits for it.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _dataset(arrays, batch_size, order):
    import tensorflow as tf

    # Captured tensors on an accelerator would travel back to the host for each batch.
    with tf.device("CPU:0"):
        values = _of_each(tf.constant, arrays)

    # Nothing in it is for AutoGraph, which would read its source each time.
    @tf.autograph.experimental.do_not_convert
    def gather(rows):
        return _of_each(lambda v: _in_floatx(tf.gather(v, rows), tf.cast), values)

    @tf.autograph.experimental.do_not_convert
    def shuffled(_):
        # Stateful: read anew in each epoch.
        rows = tf.numpy_function(order.rows, [], tf.int64)
        return index_batches(tf.ensure_shape(rows, (order.count,)), order.count, batch_size)

    if order.shuffle:
        batches = tf.data.Dataset.range(1).flat_map(shuffled).map(gather)
    else:
        with tf.device("CPU:0"):
            batches = index_batches(tf.range(order.count, dtype=tf.int64), order.count, batch_size)
        batches = batches.map(gather)
    length = tf.data.experimental.assert_cardinality(math.ceil(order.count / batch_size))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return untuned(batches.apply(length).prefetch(2)).with_options(options)


def index_batches(rows: tf.Tensor, count: int, batch_size: int) -> tf.data.Dataset:
    """Returns a `tf.data.Dataset` of the batches of one tensor of `count` rows."""
    import tensorflow as tf

    # One slice of a matrix costs less than a batch of single elements.
    full = count // batch_size * batch_size
    parts = []
    if full:
        parts.append(tf.data.Dataset.from_tensor_slices(tf.reshape(rows[:full], (-1, batch_size))))
    if full < count:
        parts.append(tf.data.Dataset.from_tensors(rows[full:]))
    return parts[0] if len(parts) == 1 else parts[0].concatenate(parts[1])


def _of_each(function, arrays):
    return keras.tree.map_structure(lambda v: None if v is None else function(v), arrays)


def _in_floatx(value, cast):
    floatx = keras.config.floatx()
    dtype = keras.backend.standardize_dtype(value.dtype)
    return cast(value, floatx) if "float" in dtype and dtype != floatx else value


class _ArrayBatches(keras.utils.PyDataset):
    """The batches without TensorFlow."""

    def __init__(self, arrays: tuple[Any, ...], batch_size: int, order: RowOrder) -> None:
        super().__init__()
        self._arrays = _of_each(np.asarray, arrays)
        self._batch_size, self._order = batch_size, order
        self._rows = order.rows()

    def __len__(self) -> int:
        return math.ceil(self._order.count / self._batch_size)

    def on_epoch_begin(self) -> None:
        self._rows = self._order.rows()

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        rows = self._rows[i * self._batch_size : (i + 1) * self._batch_size]
        return _of_each(lambda v: _in_floatx(v[rows], np.ndarray.astype), self._arrays)
