"""Images side by side in one file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..core.files import written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Array, FilePath, Shape, Tensor

#: Pixels between images.
GAP = 2
#: Height in pixels to which small images are enlarged in a grid.
TILE = 56
#: Largest number of pixels of a grid: 300 MB in memory.
MOST = 100_000_000


def enlarging(shape: Shape) -> int:
    """Returns the scale by which small images of a shape become as large as `TILE`."""
    return max(1, TILE // shape[1]) if len(shape) > 1 else 1


def grid(
    images: Tensor,
    value_range: Sequence[float] = (0.0, 1.0),
    scale: int = 1,
    columns: int | None = None,
) -> Array:
    """Lays images out row by row.

    Args:
        images: Array `(n, H, W, C)`, C 1 or 3.
        value_range: `(low, high)`, the values of black and white.
        scale: Positive int, pixels for each pixel of an image.
        columns: Positive int, images in a row; by default as many as make it most square.

    Returns:
        uint8 array `(height, width, 3)`.

    Raises:
        ValueError: If the data are no images.
    """
    import numpy as np

    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "A grid shows images of 1 or 3 channels; write other data to an .npz file. "
            f"Received: shape={images.shape}"
        )
    low, high = value_range
    levels = np.clip((images - low) / (high - low), 0.0, 1.0)
    check_size(len(images), images.shape[1:3], scale)
    tiles = np.rint(255 * levels).astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    num, height, width, _ = tiles.shape
    columns = columns or math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def check_size(count: Any, size: Any, scale: Any) -> None:
    """Raises a `ValueError` for a grid of more than `MOST` pixels.

    Args:
        count: Number of images.
        size: `(height, width)` of one.
        scale: Pixels for each pixel of an image.
    """
    columns = math.ceil(math.sqrt(count))
    sides = (math.ceil(count / columns), columns)
    height, width = (n * (side * scale + GAP) - GAP for n, side in zip(sides, size, strict=True))
    if height * width > MOST:
        raise ValueError(
            f"A grid may have {MOST:,} pixels: take a smaller scale or fewer images, or write the "
            f"arrays to an .npz file. Received: {count:,} images of {size[0]} x {size[1]} at "
            f"scale {scale:,}, {height:,} x {width:,} pixels"
        )


def save(path: FilePath, image: Any) -> None:
    """Writes a uint8 image `(height, width, 3)` as it is, pixel by pixel."""
    # Slow to import, and most commands draw nothing.
    from matplotlib.image import imsave

    with written(path) as partial:
        imsave(partial, image)
