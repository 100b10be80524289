"""Images beside what a model makes of them, as grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core.conditions import data_of, take_rows
from ..runs.directory import find_model
from . import grids
from .source import check_target, open_source

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

#: Images side by side in a row.
COLUMNS = 10


def reconstruct(
    source: Path, num: int, out: Path | None, overwrite: bool, scale: Any, **given: Any
) -> Path:
    """Writes a grid: rows of images, and below each the row of their reconstructions.

    Args:
        source: Run directory or `.keras` file.
        num: How many images.
        out: File to write, or None for one beside the model.
        overwrite: Whether it may be replaced.
        scale: Pixels for each pixel of an image, or None.
        **given: Arguments of `source.open_source`.

    Returns:
        The file.
    """
    opened, out = _opened(source, "reconstructions.png", out, overwrite, limit=num, **given)
    x = data_of(opened.x)
    columns = min(COLUMNS, len(x))
    found = opened.model.reconstruct(opened.x)
    # White where a row is not full.
    missing = -len(x) % columns
    blank = np.full((missing, *x.shape[1:]), opened.value_range[1], x.dtype)
    rows = [
        np.concatenate([part, blank]).reshape(-1, columns, *part.shape[1:]) for part in (x, found)
    ]
    images = np.stack(rows, axis=1).reshape(-1, *x.shape[1:])
    return _save(out, images, opened, columns, scale)


def interpolate(
    source: Path,
    first: Any,
    last: Any,
    steps: int,
    num: int,
    out: Path | None,
    overwrite: bool,
    scale: Any,
    **given: Any,
) -> Path:
    """Writes a grid with a row for each pair of images, on the way from one to the other.

    Args:
        source: Run directory or `.keras` file.
        first: Place of an image in the split, or None for pairs of the first images.
        last: Place of another, or None.
        steps: Images in a row, both ends included.
        num: How many pairs, if none is given.
        out: File to write, or None for one beside the model.
        overwrite: Whether it may be replaced.
        scale: Pixels for each pixel of an image, or None.
        **given: Arguments of `source.open_source`.

    Returns:
        The file.

    Raises:
        ValueError: If there are no such images.
    """
    if (first is None) != (last is None):
        raise ValueError("Two images must be given, or none. Received: one")
    given_pairs = [(first, last)] if first is not None else [(2 * i, 2 * i + 1) for i in range(num)]
    try:
        pairs = np.array([[int(place) for place in pair] for pair in given_pairs])
    except ValueError as error:
        raise ValueError(
            "A model of images takes the places of two images in the split, counted from 0. "
            f"Received: {first!r} and {last!r}"
        ) from error
    limit = int(pairs.max()) + 1
    if pairs.min() < 0:
        raise ValueError(f"Images are counted from 0. Received: {pairs.min()}")
    opened, out = _opened(
        source, "interpolations.png", out, overwrite, limit=max(2, limit), **given
    )
    x = data_of(opened.x)
    if limit > len(x):
        raise ValueError(
            f"There are {len(x):,} images, counted from 0. Received: image {limit - 1}"
        )
    ends = (take_rows(opened.x, pairs[:, end]) for end in (0, 1))
    found = opened.model.interpolate(*ends, steps=steps)
    return _save(out, np.asarray(found).reshape(-1, *x.shape[1:]), opened, steps, scale)


def _opened(source, name, out, overwrite, **given):
    # An exported model is no source here.
    file = find_model(source)
    if out is not None and out.suffix != ".png":
        raise ValueError(f"`--out` must end in .png for a model of images. Received: {out}")
    if out is not None:
        check_target(out, overwrite)
    opened = open_source(file, **given)
    out = out or opened.folder / name
    check_target(out, overwrite)
    return opened, out


def _save(out, images, opened, columns, scale):
    shape = opened.model.prior.event_shape
    scale = scale or grids.enlarging(shape)
    sheet = grids.grid(images, opened.value_range, scale, columns)
    grids.save(out, sheet)
    return out
