"""Base classes of autoregressive decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_image_shape, check_integer
from ..core.serialization import ArgumentsConfig
from ..losses import float32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import Shape, Tensor


class AutoregressiveDecoder(ArgumentsConfig, keras.layers.Layer):
    """Base of the decoders that see what they decode, value by value.

        p(x|z) = prod_t p(x_t | x_1 ... x_{t-1}, z)

    Subclasses implement `call(z, x, training) -> params`, in which the parameters of a position
    depend on earlier positions only, `generate`, and the properties below.

    Args:
        latent_dim: Positive int D.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, D)`.
        x: `(batch, *event)`.
        training: Passed on to the layers.

    Returns:
        The likelihood's parameters, `(batch, *grid, ...)`.
    """

    def __init__(self, latent_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_dim = check_integer("latent_dim", latent_dim)

    @property
    def grid(self) -> tuple[int, ...]:
        """Tuple of ints, the axes of the positions that `generate` runs through."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """Number of values at a position."""
        raise NotImplementedError

    def check_event(self, event_shape: Shape) -> None:
        """Raises a `ValueError` unless it can decode data of shape `event_shape`."""
        raise NotImplementedError

    def generate(self, z: Tensor, draw: Callable[..., Tensor], noise: Tensor) -> Tensor:
        """Draws data position by position, in one loop to be compiled.

        Args:
            z: Float tensor `(batch, D)`.
            draw: Function of the parameters and the noise of one position that returns its values.
            noise: Float tensor `(batch, *grid, N)`, what `draw` takes by position.

        Returns:
            Tensor `(batch, *event)`.
        """
        raise NotImplementedError


class AutoregressiveImageDecoder(AutoregressiveDecoder):
    """Base of the autoregressive decoders of images.

    Positions are taken row by row, from the left. Within a pixel, channels come one after the other
    in `channel_groups` groups; those of one group are given jointly by the likelihood.

    Subclasses implement `call(z, x, training) -> params` and may override `generate` with
    something faster.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels), positive ints, of the images.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, D)`.
        x: `(batch, height, width, channels)`, the image.
        training: Passed on to the layers.

    Returns:
        The likelihood's parameters, `(batch, height, width, ...)`.
    """

    #: Groups of channels that are drawn one after the other.
    channel_groups = 1

    def __init__(self, latent_dim: int, output_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(latent_dim, **kwargs)
        self.output_shape_ = check_image_shape("output_shape", output_shape)

    def _argument(self, name):
        return self.output_shape_ if name == "output_shape" else super()._argument(name)

    @property
    def grid(self) -> tuple[int, ...]:
        return self.output_shape_[:2]

    @property
    def channels(self) -> int:
        return self.output_shape_[2]

    def check_event(self, event_shape: Shape) -> None:
        if self.output_shape_ != tuple(event_shape):
            raise ValueError(
                f"`decoder` must be made for images of shape {tuple(event_shape)}, the encoder's. "
                f"Received: a decoder of images of shape {self.output_shape_}"
            )

    def generate(self, z: Tensor, draw: Callable[..., Tensor], noise: Tensor) -> Tensor:
        """Draws images pixel by pixel, in one loop to be compiled.

        Args:
            z: Float tensor `(batch, D)`.
            draw: Function of the parameters and the noise of one position, `(batch, 1, 1, ...)`
                each, that returns its values `(batch, 1, 1, channels)`.
            noise: Float tensor `(batch, height, width, N)`, what `draw` takes by position.

        Returns:
            Float32 tensor `(batch, height, width, channels)`.
        """
        return self.generate_by_full_passes(z, draw, noise)

    def generate_by_full_passes(
        self, z: Tensor, draw: Callable[..., Tensor], noise: Tensor
    ) -> Tensor:
        """`generate` by a pass over the whole image for each value: slow, and hard to get wrong."""
        height, width, channels = self.output_shape_
        z, noise = float32(z), float32(noise)
        groups = self.channel_groups

        def step(number, images):
            position, group = number // groups, number % groups
            row, column = position // width, position % width
            params = self(z, images, training=False)
            values = draw(_pixel(params, row, column), _pixel(noise, row, column))
            return write_pixel(images, values, row, column, group, groups)

        empty = ops.zeros((ops.shape(z)[0], height, width, channels), "float32")
        return ops.fori_loop(0, height * width * groups, step, empty)


def _pixel(maps, row, column):
    """`(batch, 1, 1, ...)` at a position given by tensors."""
    at_row = ops.take(maps, ops.reshape(row, (1,)), axis=1)
    return ops.take(at_row, ops.reshape(column, (1,)), axis=2)


def write_pixel(
    images: Tensor, values: Any, row: Tensor, column: Tensor, group: Tensor = 0, groups: int = 1
) -> Tensor:
    """`images` with the channels of one group of a pixel replaced.

    Args:
        images: `(batch, height, width, channels)`.
        values: `(batch, 1, 1, channels)`, of which only the group's channels are written.
        row: Int scalar tensor.
        column: Int scalar tensor.
        group: Int scalar tensor, number of the group.
        groups: Positive int, number of groups, of equal sizes.
    """
    height, width, channels = images.shape[1:]
    here = ops.equal(ops.arange(height, dtype="int32"), row)[:, None, None]
    here = ops.logical_and(here, ops.equal(ops.arange(width, dtype="int32"), column)[None, :, None])
    if groups > 1:
        number = ops.arange(channels, dtype="int32") // (channels // groups)
        here = ops.logical_and(here, ops.equal(number, group)[None, None, :])
    return ops.where(here[None], ops.cast(values, images.dtype), images)
