"""Base class of image sources."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .images import Geometry

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Number of images that are read side by side.
CORES = os.cpu_count() or 1

SPLIT_NAMES = {"val": "validation", "valid": "validation"}


class Part(NamedTuple):
    """Examples at the sorted places `index (n,)` of the stored split `base`."""

    base: str
    index: np.ndarray  # type: ignore[assignment]

    @property
    def stream(self) -> int:
        """Int that tells the random streams of the splits apart."""
        return zlib.crc32(self.base.encode())


class Source:
    """A named set of images with splits.

    A subclass sets the attributes and has `reader(part, geometry)`, which returns a function from
    rows of a `Part` to their stored images, and `labels(part)`. One whose images stay on disk may
    have `stream(part, geometry, ticks, plan)` besides, which `tf.data` reads faster.

    Attributes:
        name: What the caller asked for.
        kind: Word for the kind of source, such as "folder"; `describe` returns it.
        counts: Examples of each stored split.
        shape: `(H, W, C)`, H and W possibly None, or `(D,)`.
        num_classes: Number of classes, or None without labels.
        streamed: Whether images stay on disk unless the caller wants them in memory.
        mixed: Whether the order within a split is random already.
    """

    name: str
    kind: str
    counts: dict[str, int]
    shape: tuple[Any, ...]
    num_classes: int | None
    reader: Callable[..., Any]
    labels: Callable[..., Any]
    stream: Callable[..., Any] | None = None
    streamed, mixed = False, False
    crop: Any = None
    invert = False

    def dtype(self, part: Any) -> Any:
        """Returns the dtype of stored images."""
        return "uint8"

    def read(self, part: Any, geometry: Any) -> Any:
        """Returns stored images `(n, ...)` and labels `(n, ...)` or None, all in memory."""
        rows = np.arange(len(part.index))
        return self.reader(part, geometry)(rows), self.labels(part)

    def geometry(self, crop: Any, size: Any, channels: int, invert: bool | None) -> Geometry:
        """Returns the `Geometry` of a request, the source's own habits filled in."""
        crop = self.crop if crop is None else crop
        invert = self.invert if invert is None else invert
        if len(self.shape) == 1 and (crop or size or channels):
            raise ValueError(
                "`image_size`, `channels` and `crop` need images, but "
                f"{self.name!r} holds vectors of shape {self.shape}"
            )
        if channels and self.shape[-1] not in (1, 3, channels):
            raise ValueError(
                "`channels` converts between 1 and 3 channels only. Received: "
                f"channels={channels} for {self.name!r}, which has {self.shape[-1]}"
            )
        if crop and None not in self.shape and any(np.greater(crop, self.shape[:2])):
            raise ValueError(
                "`crop` must not exceed the image. "
                f"Received: crop={crop}, {self.name!r} has images of shape {self.shape}"
            )
        return Geometry(crop, size, channels, invert)

    def check_sizes(self, geometry: Any) -> None:
        """Raises unless all images will have one size."""
        if None in geometry.shape(self.shape):
            raise ValueError(
                f"The images of {self.name!r} differ in size: pass `image_size` or `crop`"
            )


def tensorflow(purpose: str) -> Any:
    """Imports TensorFlow, or says what needed it."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(f"{purpose} needs tensorflow: pip install tensorflow") from error
    return tf
