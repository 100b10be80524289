"""Batches from sentences: one order for `tf.data` and for plain numpy, and few shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import EpochNumber, numbered, untuned
from .batches import PlannedBatches, batch_of
from .vocabulary import PAD

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, ArrayLike, Tensor
    from .corpus import Corpus


class TextPlan(NamedTuple):
    """Says how sentences become batches.

    Args:
        lengths: Lengths of the examples `(n,)`.
        buckets: Ascending lengths of batches.
        batch_size: Examples a batch.
        shuffle: Whether each epoch has an order of its own.
        drop_remainder: Whether an incomplete batch is left out.
        seed: Seed of the order.
    """

    lengths: np.ndarray
    buckets: tuple
    batch_size: int
    shuffle: bool
    drop_remainder: bool
    seed: int

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_remainder)

    @property
    def num_shapes(self) -> int:
        """Number of different shapes of batches: at most one a bucket, and one of the rest."""
        rows, widths = self.order(0)
        sizes = np.count_nonzero(rows >= 0, axis=1)
        return len(np.unique(np.stack([sizes, widths]), axis=1).T)

    @property
    def padding_share(self) -> float:
        """Share of the positions of an epoch that are padding."""
        rows, widths = self.order(0)
        positions = np.sum(np.count_nonzero(rows >= 0, axis=1) * widths)
        return float(1 - self.lengths[rows[rows >= 0]].sum(dtype="int64") / positions)

    def order(self, epoch: int) -> Any:
        """Returns the batches of an epoch.

        Returns:
            `(rows, widths)`: rows `(num_batches, batch_size)`, -1 where a batch is incomplete, and
            the length of each batch `(num_batches,)`.
        """
        rng = np.random.default_rng([self.seed, epoch])
        count, size = len(self.lengths), self.batch_size
        order = rng.permutation(count) if self.shuffle else np.arange(count)
        bucket = np.searchsorted(self.buckets, self.lengths)[order]
        rows: Any = []
        widths: Any = []
        for place, width in enumerate(self.buckets):
            own = order[bucket == place]
            rest = len(own) % size
            if place + 1 < len(self.buckets):
                # In the order of the epoch the last ones of a bucket are those that move on.
                bucket[np.flatnonzero(bucket == place)[len(own) - rest :]] = place + 1
            elif rest and not self.drop_remainder:
                own = np.concatenate([own, np.full(size - rest, -1)])
            whole = own[: len(own) - len(own) % size].reshape(-1, size)
            rows.append(whole)
            widths.append(np.full(len(whole), width))
        rows, widths = np.concatenate(rows), np.concatenate(widths)
        if self.shuffle:
            mixed = rng.permutation(len(rows))
            rows, widths = rows[mixed], widths[mixed]
        # Keras takes for static what the first two batches have in common.
        other = np.flatnonzero(widths != widths[0])
        if len(other):
            widths = np.insert(np.delete(widths, other[0]), 1, widths[other[0]])
            rows = np.insert(np.delete(rows, other[0], axis=0), 1, rows[other[0]], axis=0)
        return rows, widths


class TextBatches(PlannedBatches):
    """Batches of ids.

    Args:
        reader: `Reader`.
        plan: `TextPlan`.
    """

    def __init__(self, reader: Reader, plan: TextPlan) -> None:
        super().__init__(plan)
        self._reader = reader

    @property
    def num_shapes(self) -> int:
        """Number of different shapes of batches."""
        return self.plan.num_shapes

    def _batch(self, i, epoch, order):
        rows, widths = order
        return self._reader.batch(rows[i][rows[i] >= 0], widths[i])


class Reader:
    """Reads batches of examples.

    Args:
        corpus: `Corpus`.
        index: Places `(n,)` of the examples in it.
        labels: Labels `(n,)` or None.
        vocabulary: Vocabulary of the corpus.
        with_index: Whether each example goes with its place 0..n-1.
    """

    def __init__(
        self, corpus: Corpus, index: Tensor, labels: ArrayLike, vocabulary: Any, with_index: bool
    ) -> None:
        self._corpus, self._index, self._vocabulary = corpus, index, vocabulary
        self.labels, self.with_index = labels, with_index

    def ids(self, rows: Any, width: int) -> Any:
        """Returns the padded ids `(b, width)` of rows `(b,)`."""
        sentences = [self._corpus.sentence(place) for place in self._index[rows]]
        return padded(sentences, self._vocabulary, int(width))

    def batch(self, rows: Any, width: int) -> Any:
        """Returns the batch of rows `(b,)`."""
        y = None if self.labels is None else self.labels[rows]
        index = rows.astype("int32") if self.with_index else None
        return batch_of(self.ids(rows, width), y, index)


def dataset_of(reader: Any, plan: Any) -> Any:
    """Returns a `tf.data.Dataset` that calls a reader for each batch."""
    import tensorflow as tf

    epochs = EpochNumber()

    def batches():
        for rows, width in zip(*plan.order(epochs.take()), strict=True):
            yield rows[rows >= 0], width

    def fetch(rows, width):
        x = tf.numpy_function(reader.ids, [rows, width], tf.int32, stateful=False)
        x.set_shape((size, plan.buckets[0] if len(plan.buckets) == 1 else None))
        y = None if labels is None else tf.gather(labels, rows)
        return batch_of(x, y, tf.cast(rows, tf.int32) if reader.with_index else None)

    with tf.device("CPU:0"):
        labels = None if reader.labels is None else tf.constant(reader.labels)
    size = plan.batch_size if plan.drop_remainder else None
    signature = (tf.TensorSpec((size,), tf.int64), tf.TensorSpec((), tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).map(fetch)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(plan.num_batches))
    dataset = numbered(untuned(dataset.prefetch(2)), epochs)
    # As `TextBatches` has it.
    dataset.plan = plan
    return dataset


def padded(sentences: Any, vocabulary: Any, width: int) -> Array:
    """Returns lists of ids as `(n, width)`, with start, end and padding."""
    x = np.full((len(sentences), width), PAD, "int32")
    x[:, 0] = vocabulary.start_id
    for row, ids in zip(x, sentences, strict=True):
        end = 1 + len(ids)
        row[1:end] = ids
        row[end] = vocabulary.end_id
    return x
