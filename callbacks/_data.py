"""Held-out data of callbacks, of the kinds that `fit` takes, read once."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from ..core.conditions import as_values, num_rows
from ..core.frames import unframed
from ..core.targets import split_index, target_of
from ..metrics.subject import check_array, check_finite

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import ArrayLike


class Watched(NamedTuple):
    """Data that a callback holds fixed, in NumPy.

    Attributes:
        x: `(N, *event)`, what is encoded.
        target: What is reconstructed, of the shape of x, or None for x itself.
        labels: What else goes with x, or None.
    """

    x: Any
    target: Any = None
    labels: Any = None


def watched_data(data: ArrayLike) -> Any:
    """Reads what `fit` would take as validation data, save a generator.

    Args:
        data: Array or DataFrame `(N, *event)` with N of at least 2, or of a conditional model a
            dict; `(x, y)` or
            `(x, y, sample_weight)`; a `tf.data.Dataset` or `PyDataset` of such batches, which is
            read here as a whole. A `y` of the shape of x is a target, other ones are labels.

    Raises:
        TypeError: If the data are not numbers.
        ValueError: If there are fewer than two examples, or values are not finite.
    """
    if inspect.isgenerator(data):
        raise TypeError(
            "`data` must be held fixed: an array, (x, y), a `tf.data.Dataset` or a `PyDataset`. "
            "Received: a generator"
        )
    batches = _batches(data)
    if batches is not None:
        found = [keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in batches]
        if not found:
            raise ValueError("`data` must hold at least one batch. Received: an empty data set")
        data = tuple(map(_joined, zip(*found, strict=True)))
    x, y, _ = (
        keras.utils.unpack_x_y_sample_weight(data)
        if isinstance(data, tuple)
        else (data, None, None)
    )
    x = _checked(x)
    y = unframed(y)
    y, _ = split_index(y)
    if y is None or isinstance(y, dict):
        return Watched(x)
    if len(y) != num_rows(x):
        raise ValueError(
            f"`data` must have a row of y for each of x, {num_rows(x)}. Received: {len(y)} rows"
        )
    y = np.asarray(y)
    if isinstance(x, dict) or target_of(x, y) is None:
        return Watched(x, None, y)
    return Watched(x, check_array("data", y))


def _checked(x):
    """The inputs in NumPy; of conditional models, dicts, whose names only the model knows."""
    if not isinstance(x, dict):
        return check_finite("data", check_array("data", x))
    return {name: as_values(name, value) for name, value in x.items()}


def _batches(data):
    if isinstance(data, keras.utils.PyDataset):
        return [data[number] for number in range(data.num_batches)]
    return list(data) if hasattr(data, "element_spec") else None


def _joined(parts):
    if parts[0] is None:
        return None
    if isinstance(parts[0], dict):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate([np.asarray(part) for part in parts])
