"""Batches of evaluations, filled up to few sizes: JAX compiles the step for each of them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import keras

from ...core.compile import compiles_by_size, rows_to_compile
from ...core.conditions import data_of
from ...core.masks import masks_rows
from .inputs import fill_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .model import VAE


class UnmaskedLosses(Exception):
    """Raised while a step is traced whose layers add losses: these count all rows of a batch."""


class Sizes:
    """Says to how many rows each batch of one evaluation is filled up.

    Args:
        largest: Rows of a full batch; infinity where there is a single batch, and None where the
            first one tells.
    """

    def __init__(self, largest: float | None = None) -> None:
        self._largest, self._first = largest, True

    def next(self, rows: int, compiled: set[int]) -> int:
        """Returns the size of the next batch.

        Args:
            rows: Positive int, examples in it.
            compiled: Set of sizes that are compiled for; the next one is added.
        """
        first, self._first = self._first, False
        largest: Any = max(rows, self._largest or rows)
        self._largest = largest
        near = [size for size in compiled if rows <= size <= 2 * rows]
        if rows == largest or not compiled:
            size = rows
        elif near:
            size = min(near)
        elif largest == math.inf:
            size = rows_to_compile(rows, noise=True)
        else:
            # Of the largest size there was a batch before, unless this is the first one.
            full = int(largest)
            size = rows_to_compile(rows, full, noise=True) if first else full
        compiled.add(size)
        return size


class FilledStep:
    """An evaluation step over batches, which it fills up where all parts leave such rows out.

    Args:
        step: Function of state and iterator, as Keras makes it for JAX.
        model: `VAE`.
    """

    def __init__(self, step: Callable[..., Any], model: VAE) -> None:
        self._step, self._model = step, model
        self._adds_losses = False
        self._compiled: dict[tuple[int, ...], set[int]] = {}

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        """Takes the next step; returns logs and the new state."""
        if self._adds_losses or not can_fill_up(self._model):
            return self._step(state, iterator)
        batches = _Filled(iterator, self._model.batch_sizes, self._compiled)
        try:
            return self._step(state, batches)
        except UnmaskedLosses:
            self._adds_losses = True
            return self._step(state, itertools.chain([batches.given], iterator))


class _Filled:
    """The batches of an iterator, filled up."""

    def __init__(
        self,
        batches: Iterator[Any],
        sizes: Sizes,
        compiled: dict[tuple[int, ...], set[int]],
    ) -> None:
        self._batches, self._sizes, self._compiled = batches, sizes, compiled
        self.given: Any = None

    def __iter__(self) -> _Filled:
        return self

    def __next__(self) -> tuple[Any, Any, Any]:
        self.given = next(self._batches)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(self.given)
        # Sentences may have another length in each batch.
        values = data_of(x)
        compiled = self._compiled.setdefault(tuple(values.shape[1:]), set())
        return fill_up(x, y, weight, self._sizes.next(len(values), compiled))


def can_fill_up(model: VAE) -> bool:
    """Returns whether all parts of a model leave out rows that are no examples."""
    parts = (model, model.objective, *model.objective.regularizers)
    # What is distributed may lie on other machines, and has to divide by the devices.
    alone = keras.distribution.distribution() is None
    return alone and compiles_by_size(noise=True) and all(map(masks_rows, parts))
