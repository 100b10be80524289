"""Geometry and binarization of stored images: uint8 in 0..255 or float32 in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, Shape, Tensor
    from .source import Part

LUMA = (0.299, 0.587, 0.114)


def scaled(x: Tensor) -> Array:
    """Returns stored images as float32 in [0, 1]."""
    return x.astype("float32") / np.float32(255) if x.dtype == np.uint8 else x


class Geometry(NamedTuple):
    """Center crop, gray/RGB conversion, antialiased resize and inversion, in this order.

    Args:
        crop: `(height, width)` of the center crop, or None.
        size: `(height, width)` after resizing, or None.
        channels: 1 or 3, or None to keep the channels.
        invert: Whether to map x to 1 - x.
    """

    crop: tuple | None = None
    size: tuple | None = None
    channels: int | None = None
    invert: bool = False

    def shape(self, shape: Shape) -> tuple[int | None, ...]:
        """Returns the shape that examples of `shape` will have."""
        space = self.size or self.crop or shape[:-1]
        return (*space, self.channels or shape[-1])

    def __call__(self, images: Tensor) -> Tensor:
        """Maps stored images `(B, H, W, C)` to stored images of the same dtype."""
        top = 255 if images.dtype == np.uint8 else np.float32(1)
        if self.crop:
            (height, width), (rows, columns) = images.shape[1:3], self.crop
            if rows > height or columns > width:
                raise ValueError(
                    "`crop` must not exceed the image. "
                    f"Received: crop={self.crop}, image of {height}x{width}"
                )
            y, x = (height - rows) // 2, (width - columns) // 2
            images = images[:, y : y + rows, x : x + columns]
        if self.channels and self.channels != images.shape[-1]:
            if self.channels == 3:
                images = np.repeat(images, 3, axis=-1)
            else:
                gray = (images @ np.array(LUMA, "float32"))[..., None]
                images = np.rint(gray).astype(np.uint8) if top == 255 else np.minimum(gray, top)
        if self.size and self.size != images.shape[1:3]:
            images = np.stack([_resize(image, self.size) for image in images])
        return top - images if self.invert else images

    def tensor(self, image: Any) -> Any:
        """Maps one uint8 tensor `(H, W, C)`, H and W possibly unknown, inside `tf.data`."""
        import tensorflow as tf

        depth = image.shape[-1]
        if self.crop:
            rows, columns = self.crop
            y, x = (tf.shape(image)[0] - rows) // 2, (tf.shape(image)[1] - columns) // 2
            image = tf.image.crop_to_bounding_box(image, y, x, rows, columns)
        if self.channels and self.channels != depth:
            if self.channels == 3:
                image = tf.image.grayscale_to_rgb(image)
            else:
                image = tf.image.rgb_to_grayscale(image)
        if self.size:
            image = tf.image.resize(image, self.size, antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        return 255 - image if self.invert else image


def _resize(image, size):
    from PIL import Image

    # Pillow shrinks with a filter as wide as the step (no aliasing), one channel at a time.
    channels = [
        Image.fromarray(np.ascontiguousarray(channel)).resize(size[::-1], Image.Resampling.BILINEAR)
        for channel in np.moveaxis(image, -1, 0)
    ]
    resized = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    return resized if resized.dtype == np.uint8 else np.clip(resized, 0, 1)


def fixed_draw(x: Tensor, index: Tensor, stream: int, seed: int, copy: int = 0) -> Array:
    """Draws Bernoulli(pixel) once for each example, as a function of its place in its split.

    Args:
        x: Stored images `(n, ...)`.
        index: Places `(n,)` of the examples in the whole split, so that a slice, another order or
            another batch size sees the same draw.
        stream: Non-negative int that separates the splits.
        seed: Non-negative int.
        copy: Non-negative int that separates several draws of the same examples.

    Returns:
        uint8 `(n, ...)` of 0 and 255.
    """
    bits = np.random.PCG64([seed, stream, copy])
    uniform = np.random.Generator(bits).random
    dims, position = int(np.prod(x.shape[1:])), 0
    drawn = np.empty(x.shape, np.uint8)
    top = 255.0 if x.dtype == np.uint8 else 1.0
    for row, place in enumerate(index):
        # One 64-bit draw a pixel: the generator jumps to the example's own stretch of the stream.
        bits.advance(int(place) * dims - position)
        drawn[row] = (uniform(dims) * top).reshape(x.shape[1:]) < x[row]
        position = (int(place) + 1) * dims
    return drawn * np.uint8(255)


def fixed_draws(x: Tensor, part: Part, seed: int, copies: int) -> Array:
    """The fixed draws of all examples of a part, one copy after the other.

    Args:
        x: Stored images `(n, ...)`.
        part: `Part` that they are.
        seed: Non-negative int.
        copies: Positive int.

    Returns:
        uint8 `(copies * n, ...)` of 0 and 255.
    """
    draws = [fixed_draw(x, part.index, part.stream, seed, copy) for copy in range(copies)]
    return np.concatenate(draws) if copies > 1 else draws[0]
