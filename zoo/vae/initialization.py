"""The examples that weight-normalized layers are initialized from, taken from data of any kind."""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.conditions import num_rows
from .inputs import Batch

if TYPE_CHECKING:
    from typing import Any

    from .data import Data

#: How many examples there are by default.
EXAMPLES = 500


def first_examples(data: Data, number: int) -> tuple[Any, Any, Any]:
    """Takes the first examples of data for `fit`.

    Args:
        data: `Data` that can be looked into.
        number: Positive int; fewer come back where there are fewer, more where a batch ends later.

    Returns:
        `(data, examples, target)`: the data with nothing consumed, the examples and what is to be
        reconstructed from them as NumPy arrays, or dicts of these with conditions.
    """
    x = data.x
    if inspect.isgenerator(x):
        batches: list[Any] = []
        found = _collected(_kept(x, batches), number)
        return data._replace(x=_again(batches, x)), *found
    if isinstance(x, keras.utils.PyDataset):
        length = x.num_batches
        numbers = itertools.count() if length is None else range(length)
        return data, *_collected((x[i] for i in numbers), number)
    if hasattr(x, "element_spec"):
        return data, *_collected(x, number)
    batch = Batch.unpack(x, data.y)._replace(index=None).rows(slice(number))
    return data, *_collected([(batch.inputs, batch.target)], number)


def _collected(batches, number):
    found, rows = [], 0
    for given in batches:
        batch = Batch.unpack(*keras.utils.unpack_x_y_sample_weight(given))
        pair = keras.tree.map_structure(ops.convert_to_numpy, (batch.inputs, batch.observed))
        # Sentences of another length make no array with these.
        if found and _shapes(pair) != _shapes(found[0]):
            break
        found.append(pair)
        rows += num_rows(pair)
        if rows >= number:
            break
    return keras.tree.map_structure(lambda *values: np.concatenate(values), *found)


def _shapes(pair):
    return [value.shape[1:] for value in keras.tree.flatten(pair)]


def _kept(batches, into):
    for batch in batches:
        into.append(batch)
        yield batch


def _again(first, rest):
    yield from first
    yield from rest
