"""Random training batches for a training step that takes many of them at once."""

from __future__ import annotations

import collections
import inspect
import itertools
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.conditions import data_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ...core.types import Tensor

#: Batches that are kept of a source that has no rows to draw from.
KEPT = 512


class InnerBatches:
    """Stacks a batch with random others, all of one shape.

    The others are as large as the largest batch seen: smaller ones are filled up with their own
    rows, and axes of different lengths with zeros at the end, which are no symbols of a text.

    Args:
        count: Positive int, batches in a stack.
        generator: NumPy generator.
    """

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        self.count, self.generator = count, generator
        self._shapes: Any = None
        self._ranks: Any = None

    def stack(self, batch: Any) -> Any:
        """The batch and `count - 1` others, along a new first axis.

        Args:
            batch: `(x, y, sample_weight)`, of which the latter may be None.

        Returns:
            The same structure of NumPy arrays `(count, rows, ...)`.
        """
        batch = as_arrays(batch)
        batches = [batch, *self._others(batch)]
        for other in batches:
            self._note_shapes(other)
        leaves = zip(*(self._fitted(other) for other in batches), strict=True)
        return keras.tree.pack_sequence_as(batch, [_stacked(parts) for parts in leaves])

    def begin(self, generator: np.random.Generator) -> None:
        """Begins an epoch, whose choice of batches depends on nothing before it.

        Args:
            generator: NumPy generator of the epoch.
        """
        self.generator = generator

    @property
    def seen(self) -> Any:
        """What shapes of stacks depend on, JSON values."""
        return [self._shapes, self._ranks]

    @seen.setter
    def seen(self, value: Any) -> None:
        shapes, self._ranks = value
        self._shapes = None if shapes is None else [tuple(shape) for shape in shapes]

    def pass_over(self, batch: Any) -> None:
        """Goes on as `stack` does, for a batch that was trained on before."""
        batch = as_arrays(batch)
        self._note_shapes(batch)
        for other in self._others(batch):
            self._note_shapes(other)

    def _others(self, batch):
        raise NotImplementedError

    def _note_shapes(self, batch):
        # Of all that were seen, so that the shape of a stack does not change with the choice.
        shapes = [np.shape(leaf) for leaf in keras.tree.flatten(batch)]
        pairs = zip(self._shapes or shapes, shapes, strict=True)
        self._shapes = [tuple(map(max, known, shape)) for known, shape in pairs]

    def _fitted(self, batch):
        for leaf, shape in zip(keras.tree.flatten(batch), self._shapes, strict=True):
            if leaf is not None and leaf.shape[0] < shape[0]:
                leaf = np.take(leaf, np.arange(shape[0]) % leaf.shape[0], axis=0)
            if leaf is not None and leaf.shape != shape:
                ends = [(0, want - got) for want, got in zip(shape, leaf.shape, strict=True)]
                leaf = np.pad(leaf, ends)
            yield leaf


class RandomRows(InnerBatches):
    """Others are rows of arrays, each batch without repetition.

    Args:
        arrays: Structure `(x, y, sample_weight)` of arrays of equal lengths.
        batch_size: Positive int.
        count: Positive int, batches in a stack.
        generator: NumPy generator.
    """

    def __init__(
        self, arrays: Sequence[Any], batch_size: int, count: int, generator: np.random.Generator
    ) -> None:
        super().__init__(count, generator)
        self.arrays = as_arrays(arrays)
        self.length = len(keras.tree.flatten(self.arrays)[0])
        self.batch_size = min(batch_size, self.length)
        self._order = np.zeros(0, int)

    def begin(self, generator: np.random.Generator) -> None:
        """Begins an epoch."""
        super().begin(generator)
        self._order = np.zeros(0, int)

    def _others(self, batch):
        for _ in range(self.count - 1):
            if len(self._order) < self.batch_size:
                self._order = self.generator.permutation(self.length)
            rows, self._order = np.split(self._order, [self.batch_size])
            yield keras.tree.map_structure(
                lambda leaf, rows=rows: None if leaf is None else leaf[rows], self.arrays
            )


class RecentBatches(InnerBatches):
    """Others are chosen among the latest batches; of a data set the first ones are read ahead.

    Args:
        source: `tf.data.Dataset` or `PyDataset` to read ahead from, or None.
        count: Positive int, batches in a stack.
        generator: NumPy generator.
    """

    def __init__(self, source: Any, count: int, generator: np.random.Generator) -> None:
        super().__init__(count, generator)
        self._source, self._unread = source, True
        self._kept: collections.deque[Any] = collections.deque(maxlen=KEPT)

    def begin(self, generator: np.random.Generator) -> None:
        """Begins an epoch: of a data set batches are read ahead anew."""
        super().begin(generator)
        if self._source is not None:
            self._kept.clear()
            self._unread = True

    def ahead_of(self, batches: Any) -> Iterator[Any]:
        """A generator's batches, the first of which are taken in before they are handed on."""
        first = list(itertools.islice(batches, self.count))
        for batch in first:
            self._keep(keras.utils.unpack_x_y_sample_weight(batch))
        yield from itertools.chain(first, batches)

    def _others(self, batch):
        if self._source is not None and self._unread:
            self._unread = False
            for other in _read(self._source, self.generator):
                self._keep(keras.utils.unpack_x_y_sample_weight(other))
        self._keep(batch)
        for number in self.generator.integers(len(self._kept), size=self.count - 1):
            yield self._kept[number]

    def _keep(self, batch):
        batch = as_arrays(batch)
        ranks = [None if leaf is None else leaf.ndim for leaf in keras.tree.flatten(batch)]
        if ranks != self._ranks:
            # What was read ahead has not got the weights that Keras gives to classes.
            self._kept.clear()
            self._ranks, self._shapes = ranks, None
        self._note_shapes(batch)
        self._kept.append(batch)


def inner_batches(
    x: Tensor,
    y: Tensor,
    sample_weight: Tensor,
    batch_size: int,
    count: int,
    generator: np.random.Generator,
) -> tuple[Any, InnerBatches]:
    """Finds others for the batches that `fit` makes of its data.

    Args:
        x: Array, `tf.data.Dataset`, `PyDataset` or generator.
        y: What goes with an array, or None.
        sample_weight: Weights that go with an array, or None.
        batch_size: Positive int, of arrays.
        count: Positive int, batches in a stack.
        generator: NumPy generator.

    Returns:
        `(x, batches)`: the data, with nothing consumed, and `InnerBatches`.
    """
    if inspect.isgenerator(x):
        batches = RecentBatches(None, count, generator)
        return batches.ahead_of(x), batches
    if not hasattr(data_of(x), "dtype"):
        return x, RecentBatches(x, count, generator)
    return x, RandomRows((x, y, sample_weight), batch_size, count, generator)


def as_arrays(batch: Any) -> Any:
    """The structure in NumPy; what is no array, such as TensorFlow's empty optionals, is None."""
    return keras.tree.map_structure(
        lambda leaf: ops.convert_to_numpy(leaf) if hasattr(leaf, "shape") else None, batch
    )


def _read(source, generator):
    if not isinstance(source, keras.utils.PyDataset):
        return source.take(KEPT)
    length = source.num_batches
    chosen = range(KEPT) if length is None else generator.permutation(length)[:KEPT]
    return (source[int(number)] for number in chosen)


def _stacked(parts):
    # All as the first one is, which Keras has converted.
    return None if parts[0] is None else np.stack([p.astype(parts[0].dtype) for p in parts])
