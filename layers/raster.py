"""Causal convolutions evaluated position by position, with what they have seen in caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import ops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import keras

    from ..core.types import Tensor


class Raster:
    """The caches and kernels of a stack of causal convolutions over one image grid.

    A convolution at scale s has one input for s x s pixels of the image; its cache holds its padded
    inputs. Where strides make a coarse position serve several pixels, it is computed again at each
    of them, from a window that nothing has changed since: no step needs a condition.

    Made where its loop is, so that masked and normalized kernels are computed once.

    Args:
        height: Positive int, of the image.
        width: Positive int, of the image.
        batch: Int or scalar tensor.
        layers: Built `CausalConv2D` layers, or pairs of one and the scale of its inputs.
    """

    def __init__(self, height: int, width: int, batch: Tensor, layers: Sequence[Any]) -> None:
        self._size, self._entries = (height, width), {}
        caches: list[Tensor] = []
        for layer in layers:
            layer, scale = layer if isinstance(layer, tuple) else (layer, 1)
            self._entries[id(layer)] = len(caches), scale, layer.step_kernel()
            caches.append(ops.zeros((batch, *self._cache_shape(layer, scale)), layer.compute_dtype))
        #: State of the loop before its first step: a tuple of tensors.
        self.caches = tuple(caches)

    def _cache_shape(self, layer, scale):
        if layer.is_pointwise:
            return (0, 0, 0)
        height, width = (-(-size // scale) * layer.upsampling for size in self._size)
        # Room for the window, and for what lies outside of every window but is written.
        bottom = max(layer.rows - 1 - layer.top, 0)
        right = max(layer.columns - 1 - layer.left, 0)
        channels = layer.direction.shape[2]
        return (layer.top + height + bottom, layer.left + width + right, channels)

    def fill(self, layer: keras.layers.Layer, inputs: Tensor) -> None:
        """Puts whole inputs into a layer's first cache: what is known before the loop."""
        number, _, _ = self._entries[id(layer)]
        start = (0, layer.top, layer.left, 0)
        cache = self.caches[number]
        cache = ops.slice_update(cache, start, ops.cast(inputs, cache.dtype))
        self.caches = (*self.caches[:number], cache, *self.caches[number + 1 :])

    def at(self, caches: list[Tensor], row: Tensor, column: Tensor = None) -> Step:
        """The `Step` of a pixel of the image, or of a row if no column is given."""
        return Step(self, caches, row, column)

    def entry(self, layer: keras.layers.Layer) -> tuple[int, Any, Tensor]:
        """Number, scale and kernel of a layer."""
        return self._entries[id(layer)]

    def width(self, scale: Any) -> int:
        """Width of the grid at a scale."""
        return -(-self._size[1] // scale)


class Step:
    """A function `(layer, inputs) -> outputs` for one position; `caches` is the state after it.

    Args:
        raster: `Raster`.
        caches: State of the loop, as in `Raster.caches`.
        row: Int scalar tensor.
        column: Int scalar tensor, or None for a whole row.
    """

    def __init__(
        self, raster: Raster, caches: list[Tensor], row: Tensor, column: Tensor = None
    ) -> None:
        self.caches, self._raster = tuple(caches), raster
        self._row, self._column = row, column

    def __call__(self, layer: keras.layers.Layer, inputs: Tensor) -> Tensor:
        """The outputs at the position, from the inputs there and those of earlier calls.

        Args:
            layer: One of the raster's layers.
            inputs: `(batch, 1, 1, channels)`, or `(batch, 1, width, channels)` for a row.
        """
        number, scale, kernel = self._raster.entry(layer)
        if layer.is_pointwise:
            return layer.step(inputs, kernel)
        self.write(layer, inputs)
        finer = scale * layer.strides // layer.upsampling
        row, column = self._start(finer, layer.strides)
        columns = layer.columns
        if self._column is None:
            columns += self._raster.width(scale) * layer.upsampling - 1
        return layer.step(cut(self.caches[number], row, column, layer.rows, columns), kernel)

    def write(self, layer: keras.layers.Layer, inputs: Tensor) -> None:
        """Puts inputs at the position into the layer's cache."""
        number, scale, _ = self._raster.entry(layer)
        row, column = self._start(scale, layer.upsampling)
        if layer.upsampling > 1 and self._column is None:
            inputs = layer.spread(inputs)
        cache = self.caches[number]
        start = (0, row + layer.top, column + layer.left, 0)
        cache = ops.slice_update(cache, start, ops.cast(inputs, cache.dtype))
        self.caches = (*self.caches[:number], cache, *self.caches[number + 1 :])

    def _start(self, scale, factor):
        row = self._row // scale * factor
        return row, row * 0 if self._column is None else self._column // scale * factor


def cut(maps: Tensor, row: Tensor, column: Tensor, rows: int = 1, columns: int = 1) -> Tensor:
    """`(batch, rows, columns, channels)` of `maps` from a position given by tensors."""
    channels = maps.shape[-1]
    window = ops.slice(maps, (0, row, column, 0), (ops.shape(maps)[0], rows, columns, channels))
    return ops.reshape(window, (-1, rows, columns, channels))
