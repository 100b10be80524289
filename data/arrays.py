"""Images in arrays: scikit-learn's digits, `.npz`, `.npy` and `.mat` files."""

from __future__ import annotations

import math
import re
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from .source import SPLIT_NAMES, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any


ARRAY_KEYS = "[xy](_(train|validation|valid|val|test))?"
CHUNK = 4096


class ArraySource(Source):
    """Arrays in memory, or on disk through a memory map.

    Args:
        name: Name for messages.
        kind: Kind of source.
        arrays: `{split: (x, y)}`, y possibly None.
    """

    def __init__(self, name: str, kind: str, arrays: Mapping[str, Any]) -> None:
        self.name, self.kind = name, kind
        self._x = {split: x for split, (x, _) in arrays.items()}
        self._y = {split: _check_labels(y, x, name) for split, (x, y) in arrays.items()}
        # A list: every split is checked.
        self._binary = all(
            [_check_images(x, f"{name!r}, split {split!r}") for split, x in self._x.items()]
        )
        self.streamed = any(isinstance(x, np.memmap) for x in self._x.values())
        self.counts = {split: len(x) for split, x in self._x.items()}
        shapes = {x.shape[1:] for x in self._x.values()}
        if len(shapes) > 1:
            raise ValueError(f"The splits of {name!r} differ in shape: {sorted(shapes)}")
        (shape,) = shapes
        self.shape = (*shape, 1) if len(shape) == 2 else shape
        labels = [y for y in self._y.values() if y is not None and y.ndim == 1]
        whole = bool(labels) and all(np.issubdtype(y.dtype, np.integer) for y in labels)
        self.num_classes = int(max(y.max() for y in labels)) + 1 if whole else None

    def dtype(self, part: Any) -> Any:
        """Returns the dtype of stored images."""
        return "float32" if np.issubdtype(self._x[part.base].dtype, np.floating) else "uint8"

    def labels(self, part: Any) -> Any:
        """Returns the labels of a part, or None."""
        y = self._y[part.base]
        return None if y is None else y[part.index]

    def reader(self, part: Any, geometry: Any) -> Callable[..., Any]:
        """Returns a function from rows of the part to their stored images."""
        x = self._x[part.base]

        def read(rows):
            images = np.asarray(x[part.index[rows]]).reshape(len(rows), *self.shape)
            if np.issubdtype(images.dtype, np.floating):
                images = images.astype("float32")
            else:
                images = images.astype(np.uint8) * np.uint8(255 if self._binary else 1)
            return geometry(images)

        return read


def _check_images(x, where):
    """Raises on what cannot be an image set; returns whether integers are 0 and 1 only."""
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool) or np.iscomplexobj(x):
        raise ValueError(f"Images must be real numbers. Received: dtype={x.dtype} in {where}")
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            "Images must have shape (N, H, W, C), (N, H, W) or (N, D). "
            f"Received: shape={x.shape} in {where}"
        )
    if x.size == 0:
        raise ValueError(f"No examples: {where} has shape {x.shape}")
    low, high = np.inf, -np.inf
    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK]
        low, high = np.minimum(low, chunk.min()), np.maximum(high, chunk.max())
    if not np.isfinite(low + high):
        raise ValueError(f"Images must be finite: {where} contains NaN or infinity")
    if np.issubdtype(x.dtype, np.floating):
        if low < 0 or high > 1:
            raise ValueError(
                "Floating-point images must lie in [0, 1]; integers in 0..255 are scaled. "
                f"Received: values from {low:g} to {high:g} in {where}"
            )
        return False
    if low < 0 or high > 255:
        raise ValueError(
            "Integer images must lie in 0..255. "
            f"Received: values from {low:g} to {high:g} in {where}"
        )
    return high <= 1


def _check_labels(y, x, name):
    if y is None:
        return None
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
        raise ValueError(f"Labels must be numbers. Received: dtype={y.dtype} in {name!r}")
    if y.ndim == 0 or len(y) != len(x):
        raise ValueError(
            "Images and labels must be equally many. "
            f"Received: x of shape {x.shape} and y of shape {y.shape} in {name!r}"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    # Floats that are no whole numbers are measurements, and several columns are attributes.
    if y.ndim == 1 and y.size and y.min() < 0 and np.array_equal(y, np.rint(y)):
        raise ValueError(f"Labels must number classes from 0 on. Received: {y.min():g} in {name!r}")
    return y.astype("float32" if np.issubdtype(y.dtype, np.floating) else "int32")


def digits() -> Any:
    """Returns scikit-learn's digits, split by class with a fixed seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=180, stratify=y, random_state=0)
    splits = {"train": (x, y), "validation": (x_val, y_val), "test": (x_test, y_test)}
    return ArraySource("digits", "embedded", splits)


def array_file(path: Path) -> Source:
    """Opens an `.npz` or `.npy` file; never unpickles."""
    kind, content = path.suffix[1:], {}
    try:
        # A memory map costs nothing to open; whether to read it is decided by its size.
        file = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(file, np.ndarray):
            content["x"], keys = file, ["x"]
        else:
            with file:
                keys = file.files
                wanted = [key for key in keys if re.fullmatch(ARRAY_KEYS, key)]
                content = {key: file[key] for key in wanted}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' cannot be read: it is no array file, or holds Python objects (a pickle), "
            f"which are never loaded ({error})"
        ) from error
    splits = {}
    for key in content:
        if key[0] == "x":
            name = key[2:] or "train"
            splits[SPLIT_NAMES.get(name, name)] = (content[key], content.get("y" + key[1:]))
    if not splits or ("x" in content and "x_train" in content):
        raise ValueError(
            f"'{path}' must hold `x` (and `y`), or `x_train`, `x_test` (and `y_train`, "
            f"`y_test`). Received: keys {sorted(keys)}"
        )
    return ArraySource(str(path), kind, splits)


def mat_file(path: Path) -> Source:
    """Opens a MATLAB file laid out as OMNIGLOT's `chardata.mat`.

    Each column of `data` and of `testdata` is an image, stored column by column; `target` and
    `testtarget` mark its alphabet by a one, `targetchar` and `testtargetchar` number its character.
    """
    from scipy.io import loadmat

    names = {
        "train": ("data", "target", "targetchar"),
        "test": ("testdata", "testtarget", "testtargetchar"),
    }
    try:
        content = loadmat(path, variable_names=[name for trio in names.values() for name in trio])
    # Each version of the format fails in its own way, down to the decompression.
    except Exception as error:
        raise ValueError(
            f"'{path}' cannot be read as a MATLAB file of a version before 7.3 ({error})"
        ) from error
    splits = {
        split: (_upright(content[x], x, path), _classes(content.get(y), y, path))
        for split, (x, y, _) in names.items()
        if x in content
    }
    characters = {
        split: _characters(content, y, character, path)
        for split, (x, y, character) in names.items()
        if x in content
    }
    if not splits:
        raise ValueError(
            f"'{path}' must hold `data`, `testdata` or both, as OMNIGLOT's chardata.mat does. "
            "Received: neither"
        )
    return _MatSource(str(path), splits, characters)


class _MatSource(ArraySource):
    """Images of OMNIGLOT, labeled by alphabet, or by alphabet and character."""

    def __init__(self, name: str, splits: Any, characters: dict[str, Any]) -> None:
        super().__init__(name, "mat", splits)
        self._splits, self._characters = splits, characters

    def with_characters(self):
        """Returns the source with labels `(N, 2)`."""
        missing = [split for split, labels in self._characters.items() if labels is None]
        if missing:
            raise ValueError(
                f"labels='characters' needs `target` and `targetchar` of each split in "
                f"{self.name!r}. Missing: those of {missing[0]!r}"
            )
        splits = {split: (x, self._characters[split]) for split, (x, _) in self._splits.items()}
        return ArraySource(self.name, "mat", splits)


def _characters(content, alphabet, character, path):
    """Alphabet and character `(N, 2)`, or None where either is not there."""
    if alphabet not in content or character not in content:
        return None
    numbers = np.asarray(content[character])
    # A row or column of numbers, or a one in each column as for the alphabets.
    numbers = numbers.ravel() if 1 in numbers.shape else np.argmax(numbers, axis=0)
    alphabets = _classes(content[alphabet], alphabet, path)
    if numbers.shape != alphabets.shape or np.any(numbers != np.rint(numbers)):
        raise ValueError(
            f"`{character}` must have a whole number for each of the {len(alphabets)} images. "
            f"Received: shape={np.shape(content[character])} in '{path}'"
        )
    if numbers.size and numbers.min() < 0:
        raise ValueError(
            f"`{character}` must number classes from 0 on. Received: {numbers.min():g} in '{path}'"
        )
    return np.stack([alphabets, numbers.astype("int64")], axis=1)


def _upright(columns, name, path):
    side = math.isqrt(len(columns)) if np.ndim(columns) == 2 else 0
    if side < 1 or side**2 != len(columns):
        raise ValueError(
            f"`{name}` must have shape (side * side, N), an image in each column. "
            f"Received: shape={np.shape(columns)} in '{path}'"
        )
    images = columns.T.reshape(-1, side, side).swapaxes(1, 2)
    floating = np.issubdtype(images.dtype, np.floating)
    return np.ascontiguousarray(images, "float32" if floating else None)


def _classes(target, name, path):
    """The classes `(N,)` that the ones of `target (C, N)` mark, or None."""
    if target is None:
        return None
    if not (np.all((target == 0) | (target == 1)) and np.all(np.sum(target, axis=0) == 1)):
        raise ValueError(
            f"`{name}` must have one 1 in each column, at the class of an image, and 0 elsewhere. "
            f"Received: values from {np.min(target):g} to {np.max(target):g}, shape="
            f"{np.shape(target)} in '{path}'"
        )
    return np.argmax(target, axis=0)
