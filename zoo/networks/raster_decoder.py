"""The base of the PixelCNNs: sampling that computes each position of each layer once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import ops

from ...layers.autoregressive_decoder import AutoregressiveImageDecoder
from ...layers.masked_conv import channel_group
from ...layers.raster import Raster, cut
from ...losses import float32

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import keras

    from ...core.types import Shape, Tensor
    from ...layers.raster import Step


def whole(layer: keras.layers.Layer, inputs: Tensor) -> Any:
    """Applies a convolution to whole images; a `Step` in its place applies it to one position."""
    return layer(inputs)


def build_once(layer: keras.layers.Layer, shape: Shape) -> None:
    """Builds a layer unless it is built already, as those that were loaded are."""
    if not layer.built:
        layer.build(shape)


class RasterDecoder(AutoregressiveImageDecoder):
    """Base of decoders whose causal convolutions run over whole images or pixel by pixel.

    Subclasses implement `maps_of`, `convolutions`, `context_at_row`, `params_at_pixel` and, where a
    layer is handed a pixel once it is drawn, `see`. Subclasses write their network in terms of
    `conv(layer, inputs)`, so that one text serves `call` and `generate`.
    """

    #: Value of the pixels that are not drawn yet, and of the row above the image.
    empty = 0.0

    def check_shapes(self, z_shape: Shape, x_shape: Shape) -> None:
        """Raises a `ValueError` unless codes and images have the decoder's shapes."""
        expected = (self.latent_dim,), self.output_shape_
        if (tuple(z_shape[1:]), tuple(x_shape[1:])) != expected:
            raise ValueError(
                f"`z` must have shape (batch, {self.latent_dim}) and `x` shape (batch, "
                f"{', '.join(map(str, self.output_shape_))}). Received: {tuple(z_shape)} and "
                f"{tuple(x_shape)}"
            )

    def maps_of(self, z: Tensor) -> Any:
        """Returns what the convolutions are given of the code, any structure of maps."""
        raise NotImplementedError

    def convolutions(self) -> tuple[list[Any], list[Any]]:
        """Lists the convolutions of `context_at_row` and those of `params_at_pixel`, for `Raster`.

        The first of the latter sees the image.
        """
        raise NotImplementedError

    def context_at_row(self, above: Tensor, maps: Tensor, row: Tensor, conv: Step) -> Any:
        """Returns the maps of a row that depend on earlier rows alone.

        Args:
            above: `(batch, 1, width, channels)`, the row above.
            maps: `maps_of(z)`.
            row: Int scalar tensor.
            conv: `Step` of the row.
        """
        raise NotImplementedError

    def params_at_pixel(
        self, images: Tensor, maps: Tensor, context: Tensor, row: Tensor, column: Tensor, conv: Step
    ) -> Tensor:
        """Returns the likelihood's parameters at a pixel, `(batch, 1, 1, ...)`.

        Args:
            images: `(batch, 1 + height, width, channels)`, drawn so far, a row of `empty` on top.
            maps: `maps_of(z)`.
            context: What `context_at_row` returned.
            row: Int scalar tensor.
            column: Int scalar tensor.
            conv: `Step` of the pixel.
        """
        raise NotImplementedError

    def see(self, values: Any, maps: Tensor, row: Tensor, column: Tensor, conv: Any) -> None:
        """Hands the values of a pixel, once drawn, to the layer that masks it."""

    def fill(self, raster: Raster, images: Tensor, maps: Tensor) -> None:
        """Puts into the caches of a `Raster` what is known before anything is drawn."""

    def generate(self, z: Tensor, draw: Callable[..., Tensor], noise: Tensor) -> Any:
        """Draws images pixel by pixel: each step computes one position of each layer.

        The draws are those of `generate_by_full_passes`, up to rounding.

        Args:
            z: Float tensor `(batch, D)`.
            draw: Function of the parameters and the noise of one position, `(batch, 1, 1, ...)`
                each, that returns its values `(batch, 1, 1, channels)`.
            noise: Float tensor `(batch, height, width, N)`, what `draw` takes by position.

        Returns:
            Float32 tensor `(batch, height, width, channels)`.
        """
        height, width, channels = self.output_shape_
        groups = self.channel_groups
        z, noise = float32(z), float32(noise)
        batch = ops.shape(z)[0]
        if not self.built:
            self.build((None, self.latent_dim), (None, *self.output_shape_))
        maps = self.maps_of(z)
        of_rows, of_pixels = self.convolutions()
        by_row = Raster(height, width, batch, of_rows)
        by_pixel = Raster(height, width, batch, of_pixels)

        def draw_row(row, state):
            images, row_caches, caches = state
            at_row = by_row.at(row_caches, row)
            context = self.context_at_row(cut(images, row, 0, 1, width), maps, row, at_row)

            def draw_group(number, state):
                images, caches = state
                column = number // groups
                at = by_pixel.at(caches, row, column)
                params = self.params_at_pixel(images, maps, context, row, column, at)
                values = ops.cast(draw(params, cut(noise, row, column)), images.dtype)
                if groups > 1:
                    drawn = channel_group(channels, groups) == number % groups
                    values = ops.where(drawn, values, cut(images, row + 1, column))
                self.see(values, maps, row, column, at)
                return ops.slice_update(images, (0, row + 1, column, 0), values), at.caches

            images, caches = ops.fori_loop(0, width * groups, draw_group, (images, caches))
            return images, at_row.caches, caches

        images = ops.full((batch, height + 1, width, channels), self.empty, "float32")
        self.fill(by_pixel, images[:, 1:], maps)
        state = images, by_row.caches, by_pixel.caches
        return ops.fori_loop(0, height, draw_row, state)[0][:, 1:]
