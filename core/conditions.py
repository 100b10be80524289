"""Batches of data and what they are conditioned on: names, and values read on the host.

Inside of the library such a batch is a dict `{"x": x, name: values, ...}` with one entry for each
condition. All else is an array or a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from .checks import shown
from .frames import unframed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .types import Array, Shape, Tensor

#: Key of the data.
DATA = "x"
#: Keys that name no condition: they have a meaning of their own in batches.
RESERVED = (DATA, "y", "index", "mask", "others", "weight")
#: How conditions are read, by name: functions of a name and values.
Readers = "dict[str, Callable[[str, Any], Array]]"


# -- batches ---------------------------------------------------------------------------------------


def data_of(x: Any) -> Tensor:
    """Returns the data of a batch, without what they are conditioned on; None where none are."""
    return x.get(DATA) if isinstance(x, dict) else x


def with_data(x: Any, data: Tensor) -> Any:
    """Returns a batch with other data under the same conditions."""
    return {**x, DATA: data} if isinstance(x, dict) else data


def conditions_of(x: Any) -> dict[str, Any] | None:
    """Returns what the data of a batch are conditioned on, or None."""
    if not isinstance(x, dict):
        return None
    return {name: value for name, value in x.items() if name != DATA}


def named(x: Any, names: Sequence[str], argument: str = "x") -> dict[str, Any]:
    """Returns a batch as its user wrote it with the data under `"x"`.

    Args:
        x: Dict of the conditions and the data, these under `"x"` or the one other key.
        names: Names of the conditions.
        argument: Name of the argument, for errors.

    Raises:
        TypeError: If it is no dict.
        ValueError: If a condition or the data are missing, or there is more.
    """
    wanted = ", ".join(map(repr, names))
    rule = f"`{argument}` must be a dict of the data, 'x', and what conditions them, {wanted}"
    if not isinstance(x, dict):
        raise TypeError(f"{rule}. Received: {type(x).__name__}")
    keys = ", ".join(map(repr, x)) or "none"
    missing = [name for name in names if name not in x]
    if missing:
        raise ValueError(f"{rule}. Received: the keys {keys}, without {missing[0]!r}")
    others = [key for key in x if key not in names]
    if not others:
        raise ValueError(f"{rule}. Received: the keys {keys}, without the data")
    key = DATA if DATA in others else others[0]
    if len(others) > 1:
        foreign = next(other for other in others if other != key)
        raise ValueError(f"{rule}. Received: the keys {keys}, of which {foreign!r} is unknown")
    return {DATA: x[key], **{name: x[name] for name in names}}


def num_rows(x: Any) -> int:
    """Returns the number of rows of an array, or of each array in a structure."""
    return len(keras.tree.flatten(x)[0])


def take_rows(x: Any, part: Any) -> Any:
    """Returns rows of an array, or of all arrays in a structure."""
    return keras.tree.map_structure(lambda value: None if value is None else value[part], x)


# -- values ----------------------------------------------------------------------------------------


def read_conditions(
    readers: dict[str, Callable[..., Array]], values: dict[str, Any], rows: int
) -> dict[str, Array]:
    """Returns checked conditions as arrays of numbers.

    Args:
        readers: Functions of a name and values, by name.
        values: Conditions as they were given, by name.
        rows: Number of examples.

    Raises:
        TypeError: If something is no array of its kind.
        ValueError: If it has another shape or number of rows, or unknown values.
    """
    found = {}
    for name, read in readers.items():
        found[name] = read(name, as_values(name, values[name]))
        if len(found[name]) != rows:
            raise ValueError(
                f"`{name}` must have one row for each of the {rows} examples of `x`. Received: "
                f"{len(found[name])} rows"
            )
    return found


def as_values(name: str, values: Any) -> Array:
    """Returns what was given as a condition as an array.

    Raises:
        TypeError: If it is None or a dict.
        ValueError: If its rows have several lengths.
    """
    values = unframed(values)
    if values is None or isinstance(values, dict) or hasattr(values, "element_spec"):
        raise TypeError(f"`{name}` must be an array. Received: {type(values).__name__}")
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "numpy"):
        return np.asarray(values.numpy())
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            f"`{name}` must have rows of one length. Received: {shown(values)}"
        ) from None


def read_labels(classes: Any, name: str, values: Array) -> Array:
    """Returns labels as numbers, int32 `(rows,)`: of classes that are strings their places.

    Args:
        classes: Number of classes, or the list of them, integers or strings.
        name: Name of the condition.
        values: `(rows,)`, `(rows, 1)`, or one-hot `(rows, classes)`. Of classes that are strings
            these or their places.

    Raises:
        ValueError: If the shape is another, or a class is unknown.
    """
    texts = not isinstance(classes, int) and isinstance(classes[0], str)
    known = np.arange(classes if isinstance(classes, int) else len(classes), dtype="int32")
    if not isinstance(classes, int) and not texts:
        known = np.asarray(classes, "int32")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    of_text = values.dtype.kind in "SU"
    if values.dtype.kind == "O":
        flat = [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()]
        of_text = any(isinstance(value, str) for value in flat)
        if not of_text:
            try:
                values = np.asarray(flat, "float64").reshape(values.shape)
            except (TypeError, ValueError):
                of_text = True
    elif values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if not of_text and values.ndim == 2 and values.shape[1] == len(known):
        if np.all((values == 0) | (values == 1)) and np.all(values.sum(axis=1) == 1):
            values = known[np.argmax(values, axis=1)]
    if values.ndim != 1:
        raise ValueError(
            f"`{name}` must hold labels, (batch,), (batch, 1) or one-hot (batch, {len(known)}). "
            f"Received: shape={values.shape}"
        )
    rule = f"`{name}` must hold " + described_classes(classes)
    if of_text:
        if not texts:
            raise ValueError(f"{rule}. Received: {shown(values.ravel().tolist()[0])}")
        places = {text: place for place, text in enumerate(classes)}
        flat = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
        unknown = [text for text in flat if text not in places]
        if unknown:
            raise ValueError(f"{rule}. Received: {shown(unknown[0])}")
        return np.asarray([places[text] for text in flat], "int32")
    if values.dtype.kind not in "iubf":
        raise TypeError(f"{rule}. Received: dtype={values.dtype}")
    bad = ~np.isin(values, known)
    if np.any(bad):
        raise ValueError(f"{rule}. Received: {values[bad][0]}")
    return values.astype("int32")


def described_classes(classes: Any) -> str:
    """Returns the classes in words."""
    if isinstance(classes, int):
        return f"classes from 0 to {classes - 1}"
    first = ", ".join(map(repr, classes[:10]))
    return f"the classes {first}" + (f" ... ({len(classes)} in all)" if len(classes) > 10 else "")


def read_numbers(shape: Shape, dtype: str, name: str, values: Array) -> Array:
    """Returns numbers of one shape, `(rows, *shape)`.

    Args:
        shape: Shape of one row, whose sizes may be None.
        dtype: Name of the dtype.
        name: Name of the condition.
        values: Array of this shape; of a single number in a row also `(rows,)`.

    Raises:
        TypeError: If it holds no real numbers.
        ValueError: If the shape is another, or the numbers are not finite.
    """
    if values.dtype.kind == "O":
        try:
            values = values.astype("float64")
        except (TypeError, ValueError):
            raise TypeError(f"`{name}` must hold real numbers. Received: dtype=object") from None
    if values.dtype.kind not in "iubf" and "float" not in values.dtype.name:
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype={values.dtype}")
    if tuple(shape) == (1,) and values.ndim == 1:
        values = values[:, None]
    sizes = zip(shape, values.shape[1:], strict=False)
    if values.ndim != len(shape) + 1 or any(size not in (None, got) for size, got in sizes):
        raise ValueError(
            f"`{name}` must have shape (batch"
            + "".join(f", {size}" for size in shape)
            + f"). Received: shape={values.shape}"
        )
    if not np.all(np.isfinite(values.astype("float32"))):
        raise ValueError(
            f"`{name}` must hold finite numbers. Received: NaN or infinity among its values"
        )
    return values.astype(dtype)
