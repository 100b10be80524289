"""The PixelCNN++ decoders of MAE, with sampling that computes each position once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
from keras import ops

from ...core.checks import check_choice, check_image_shape, check_integer, check_real
from ...layers.logistic_mixture import DiscretizedLogisticMixture
from ...layers.masked_conv import MaskedConv2D, ShiftedConv2D, ShiftedConv2DTranspose
from ...layers.raster import cut
from ...layers.weight_normalization import (
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
)
from .common import check_image
from .raster_decoder import RasterDecoder, build_once, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...core.types import Shape, Tensor

#: Standard deviation of what a gated unit adds, and of the code's part in it, after the
#: initialization from data.
_LAST_SCALE = 0.1


def _concat_elu(h):
    return ops.elu(ops.concatenate([h, -h], axis=-1))


class _Stage(keras.layers.Layer):
    """Base of the parts: makes weight-normalized convolutions in its own dtype.

    Parts have no `call`: their methods take `conv(layer, inputs)`, which applies a causal
    convolution to whole images or to one position.
    """

    def _shifted(self, filters, kernel_size, shift, name, **options):
        return ShiftedConv2D(
            filters,
            kernel_size,
            shift,
            weight_norm=True,
            dtype=self.dtype_policy,
            name=name,
            **options,
        )

    def _pointwise(self, filters, name):
        return self._shifted(filters, 1, "down", name)

    def _same(self, filters, name, kind=WeightNormConv2D, strides=1, init_scale=1.0):
        """A convolution over all positions, for what depends on the code alone."""
        return kind(
            filters,
            3,
            strides=strides,
            padding="same",
            symmetric=True,
            init_scale=init_scale,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )


@keras.saving.register_keras_serializable(package="vaezoo")
class _Condition(_Stage):
    """Adds the code's contribution before a unit's gates."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.first = self._same(filters, "first")
        self.last = self._same(2 * filters, "last", init_scale=_LAST_SCALE)

    def build(self, shape):
        *grid, channels = shape
        build_once(self.first, (*grid, 2 * channels))
        build_once(self.last, (*grid, 2 * self.filters))

    def run(self, h):
        return self.last(_concat_elu(self.first(_concat_elu(h))))


@keras.saving.register_keras_serializable(package="vaezoo")
class _GatedStream(_Stage):
    """One stream of a gated residual unit: h + a * sigmoid(b), where [a, b] is the last layer's."""

    def __init__(
        self, filters: int, kernel_size: Any, shift: Any, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.first = self._shifted(filters, kernel_size, shift, "first")
        self.second = self._shifted(filters, kernel_size, shift, "second")
        self.last = self._shifted(2 * filters, kernel_size, shift, "last", init_scale=_LAST_SCALE)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, shape):
        for layer in self.convolutions():
            build_once(layer, (*shape[:-1], 2 * self.filters))

    def convolutions(self):
        return [self.first, self.second, self.last]

    def run(self, h, condition, conv, training, link=None):
        inner = conv(self.first, _concat_elu(h))
        inner = conv(self.second, _concat_elu(inner))
        if link is not None:
            inner = inner + link
        inner = self.dropout(_concat_elu(inner), training=training)
        value, gate = ops.split(conv(self.last, inner) + condition, 2, axis=-1)
        return h + value * ops.sigmoid(gate)


@keras.saving.register_keras_serializable(package="vaezoo")
class _Unit(_Stage):
    """Gated residual unit of both streams."""

    def __init__(self, filters: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        named = {"dropout": dropout, "dtype": self.dtype_policy}
        self.filters = filters
        self.down = _GatedStream(filters, (2, 3), "down", name="down", **named)
        self.right = _GatedStream(filters, (2, 2), "down_right", name="right", **named)
        self.link = self._pointwise(filters, "link")
        self.condition = _Condition(filters, dtype=self.dtype_policy, name="condition")

    def build(self, shape, condition_shape):
        build_once(self.down, shape)
        build_once(self.right, shape)
        build_once(self.link, (*shape[:-1], 2 * self.filters))
        build_once(self.condition, condition_shape)

    def convolutions(self):
        return [*self.down.convolutions(), self.link], self.right.convolutions()

    def run_condition(self, maps):
        """Returns the code's contribution, and the maps for the next part."""
        return self.condition.run(maps), maps

    def run_down(self, h, condition, conv, training):
        """The first stream, and what it adds to the second."""
        h = self.down.run(h, condition, conv, training)
        return h, conv(self.link, _concat_elu(h))

    def run_right(self, h, link, condition, conv, training):
        """The second stream."""
        return self.right.run(h, condition, conv, training, link)


@keras.saving.register_keras_serializable(package="vaezoo")
class _Resampling(_Stage):
    """Halves or doubles the resolution of both streams and of the maps of the code."""

    def __init__(self, filters: int, condition_filters: int, doubles: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.doubles = doubles
        kind = ShiftedConv2DTranspose if doubles else ShiftedConv2D
        options = {"weight_norm": True, "dtype": self.dtype_policy}
        options.update({} if doubles else {"strides": 2})
        self.down = kind(filters, (2, 3), "down", name="down", **options)
        self.right = kind(filters, (2, 2), "down_right", name="right", **options)
        kind = WeightNormConv2DTranspose if doubles else WeightNormConv2D
        self.condition = self._same(condition_filters, "condition", kind, strides=2)

    def build(self, shape, condition_shape):
        build_once(self.down, shape)
        build_once(self.right, shape)
        build_once(self.condition, condition_shape)

    def convolutions(self):
        return [self.down], [self.right]

    def run_condition(self, maps):
        return None, self.condition(maps)

    def run_down(self, h, condition, conv, training):
        return conv(self.down, h), None

    def run_right(self, h, link, condition, conv, training):
        return conv(self.right, h)


@keras.saving.register_keras_serializable(package="vaezoo")
class _FullField(_Stage):
    """Two streams that go down to a coarse grid and back up; every earlier pixel is seen."""

    def __init__(
        self,
        filters: int,
        units_per_level: int,
        levels: int,
        dropout: float,
        condition_filters: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.above = self._shifted(filters, (2, 3), "down", "above")
        self.row_above = self._shifted(filters, (1, 3), "down", "row_above")
        self.left = self._shifted(filters, (2, 1), "down_right", "left")
        self.stages: list[Any] = []
        self._grids: list[Any] = []
        named = {"dtype": self.dtype_policy}

        def add_units(level, way):
            for number in range(1, units_per_level + 1):
                name = f"{way}_{level + 1}_unit_{number}"
                self.stages.append(_Unit(filters, dropout, name=name, **named))
                self._grids.append(level)

        def add_resampling(level, doubles):
            """Between a level, counted from the finest, and the one below it."""
            maps = condition_filters * 2 ** (level if doubles else level + 1)
            name = f"{'to' if doubles else 'from'}_{level + 1}"
            self.stages.append(_Resampling(filters, maps, doubles, name=name, **named))
            self._grids.append(level + 1 if doubles else level)

        add_units(0, "up")
        for level in range(1, levels):
            add_resampling(level - 1, doubles=False)
            add_units(level, "up")
        # Here the way back begins: each stage on it is handed what a stage before left behind.
        self._turn = len(self.stages)
        for level in range(levels - 1, 0, -1):
            add_units(level, "down")
            add_resampling(level - 1, doubles=True)
        add_units(0, "down")
        self.skips_down, self.skips_right = (
            [self._pointwise(filters, f"skip_{way}_{n}") for n in range(1, self._turn)]
            for way in ("down", "right")
        )

    def build(self, shape, condition_shape):
        batch, *grid, channels = shape
        for layer in (self.above, self.row_above, self.left):
            build_once(layer, shape)
        maps = condition_shape[-1]
        for stage, level in zip(self.stages, self._grids, strict=True):
            at = (batch, *(size // 2**level for size in grid))
            if not stage.built:
                stage.build((*at, self.filters), (*at, maps * 2**level))
        for layer in (*self.skips_down, *self.skips_right):
            build_once(layer, (batch, *grid, 2 * self.filters))

    def convolutions(self):
        """Returns the convolutions of both streams, each with the scale of its inputs."""
        streams = [(self.above, 1), (self.row_above, 1)], [(self.left, 1)]
        for stage, level in zip(self.stages, self._grids, strict=True):
            for stream, layers in zip(streams, stage.convolutions(), strict=True):
                stream.extend((layer, 2**level) for layer in layers)
        for stream, skips in zip(streams, (self.skips_down, self.skips_right), strict=True):
            stream.extend((layer, 1) for layer in skips)
        return streams

    def conditions(self, maps):
        """Returns the code's contribution to each stage."""
        added = []
        for stage in self.stages:
            condition, maps = stage.run_condition(maps)
            added.append(condition)
        return added

    def context(self, first, conditions, conv, training):
        """The first stream: what it adds to the second.

        Args:
            first: Function that applies a first layer to the image and moves the outcome down by a
                row, zeros coming in.
            conditions: What `conditions` returned.
            conv: Function that applies any other convolution.
            training: Whether there is dropout.
        """
        links = [first(self.row_above)]

        def run(number, h):
            h, link = self.stages[number].run_down(h, conditions[number], conv, training)
            links.append(link)
            return h

        self._through(run, first(self.above), self.skips_down, conv)
        return links

    def features(self, first, links, conditions, conv, training):
        """The second stream, from what the first adds.

        Args:
            first: As in `context`, moved by a column to the right.
            links: What `context` returned.
            conditions: What `conditions` returned.
            conv: Function that applies any other convolution.
            training: Whether there is dropout.
        """

        def run(number, h):
            link, condition = links[number + 1], conditions[number]
            return self.stages[number].run_right(h, link, condition, conv, training)

        return self._through(run, first(self.left) + links[0], self.skips_right, conv)

    def _through(self, run, h, skips, conv):
        kept = []
        for number in range(len(self.stages)):
            back = number - self._turn
            if back > 0:
                h = h + conv(skips[back - 1], _concat_elu(kept[-1 - back]))
            h = run(number, h)
            if back < 0:
                kept.append(h)
        return h


@keras.saving.register_keras_serializable(package="vaezoo")
class _SmallUnit(_Stage):
    """Gated residual unit that looks at its own position only."""

    def __init__(self, filters: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        named = {"dtype": self.dtype_policy}
        self.stream = _GatedStream(filters, 1, "down", dropout, name="stream", **named)
        self.condition = _Condition(filters, name="condition", **named)

    def build(self, shape, condition_shape):
        build_once(self.stream, shape)
        build_once(self.condition, condition_shape)


@keras.saving.register_keras_serializable(package="vaezoo")
class _SmallField(_Stage):
    """A window of the image, and pointwise units on it."""

    def __init__(self, filters: int, units: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        named = {"dtype": self.dtype_policy}
        # Two rows above and the row itself: those below are masked.
        self.window = MaskedConv2D(filters, (5, 7), "A", weight_norm=True, name="window", **named)
        self.stages = [
            _SmallUnit(filters, dropout, name=f"unit_{n}", **named) for n in range(1, units + 1)
        ]

    def build(self, shape, condition_shape):
        build_once(self.window, shape)
        for stage in self.stages:
            if not stage.built:
                stage.build((*shape[:-1], self.filters), condition_shape)

    def convolutions(self):
        layers = [layer for stage in self.stages for layer in stage.stream.convolutions()]
        return [], [(layer, 1) for layer in (self.window, *layers)]

    def conditions(self, maps):
        return [stage.condition.run(maps) for stage in self.stages]

    def context(self, first, conditions, conv, training):
        return []

    def features(self, first, links, conditions, conv, training):
        h = first(self.window)
        for stage, condition in zip(self.stages, conditions, strict=True):
            h = stage.stream.run(h, condition, conv, training)
        return h


@keras.saving.register_keras_serializable(package="vaezoo")
class PixelCNNPlusPlus(RasterDecoder):
    """PixelCNN++ whose every gated unit sees the code, for a `DiscretizedLogisticMixture`.

        maps   = C1(ELU(T(ELU(T(z)))))                      8x8x16 -> 16x16x8 -> 32x32x4 -> 32x32x16
        c_i    = C3(cELU(C3(cELU(maps))))                             one for each unit i
        unit   : h + a * sigmoid(b),   [a, b] = S(D(cELU(S(cELU(S(cELU(h)))) + link))) + c_i
        params = C1(ELU(C1(ELU(h_last))))

    T are transposed convolutions of 3x3 and stride 2, C1 and C3 convolutions of 1x1 and 3x3,
    cELU(h) = ELU([h, -h]), and D is dropout (on cELU of its argument).

    The field `"full"` has two streams: u, whose S are convolutions of 2x3 over the rows above the
    pixel, and ul, whose S are 2x2 over what comes before it. Each unit of u hands C1(cELU(u)) to
    that of ul, as its link. Both run through L levels of N units, with convolutions of stride 2
    between them, and back through as many, with transposed ones; each stage of the way back first
    adds C1(cELU(.)) of the stage that it mirrors. The maps of the code follow by convolutions of
    3x3, with twice the channels on each coarser level. The field reaches far beyond the image.

    The field `"small"` is one convolution over 7 pixels each in the two rows above and 3 pixels to
    the left, and N * L units whose S are 1x1: what lies further off must come from the code.

    All layers are weight-normalized. The defaults, for 1,024 dimensions, have 42,703,712 trainable
    parameters; the small field has 7,851,968.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels), positive ints; for the full field height and width
            are multiples of 2^(L-1).
        latent_shape: (rows, columns, channels) of the code, whose product is D; the image is larger
            by a power of 2. None for a code without a shape: a dense layer makes maps of a quarter
            of the image's height and width, and 16 channels, from it.
        filters: Positive int.
        units_per_level: Positive int N.
        levels: Positive int L.
        dropout: Float in [0, 1), share of the inputs of each unit's last convolution.
        num_mixtures: Positive int, components of the likelihood.
        condition_filters: Positive int, channels of the maps made from the code.
        field: `"full"`, or `"small"`, see above.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, D)`.
        x: `(batch, height, width, channels)`, images in [0, 1], which are mapped to [-1, 1].
        training: Whether there is dropout.

    Returns:
        `(batch, height, width, P)`, parameters of a `DiscretizedLogisticMixture`; channels of a
        pixel see earlier pixels here, and each other in the likelihood.

    Raises:
        ValueError: If an argument is out of range, or `z` or `x` is of another shape.

    Reference: Salimans et al. (2017), arXiv:1701.05517; Ma et al. (2019), arXiv:1901.01498.

    Note:
        MAE's paper describes a field of 7x3, its code has the full one; which of them gave the
        published figures is not known. Units and skip connections are those of that code: three
        convolutions where PixelCNN++ has two, and as many units on the way back as before.

        Before the release of 0.1.0 windows of stride 2 in the path of the code lay one pixel
        further down and to the right, and the first layers gave their biases where they now give
        zeros, next to the upper and the left border. Files from that time load, but should be
        trained on.
    """

    empty = 0.5

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int] = (32, 32, 3),
        *,
        latent_shape: Sequence[int] | None = (8, 8, 16),
        filters: int = 96,
        units_per_level: int = 6,
        levels: int = 3,
        dropout: float = 0.5,
        num_mixtures: int = 10,
        condition_filters: int = 16,
        field: str = "full",
        **kwargs: Any,
    ) -> None:
        latent_dim = check_integer("latent_dim", latent_dim)
        filters = check_integer("filters", filters)
        units_per_level = check_integer("units_per_level", units_per_level)
        levels = check_integer("levels", levels)
        condition_filters = check_integer("condition_filters", condition_filters)
        dropout = check_real("dropout", dropout, "[0, 1)")
        num_mixtures = check_integer("num_mixtures", num_mixtures)
        latent_shape = check_image_shape("latent_shape", latent_shape, optional=True)
        check_choice("field", field, ("full", "small"))
        multiple = 2 ** (levels - 1) if field == "full" else 1
        super().__init__(latent_dim, check_image("output_shape", output_shape, multiple), **kwargs)
        self.latent_shape, self.dropout, self.field = latent_shape, dropout, field
        self.filters, self.units_per_level, self.levels = filters, units_per_level, levels
        self.num_mixtures, self.condition_filters = num_mixtures, condition_filters
        likelihood = DiscretizedLogisticMixture(num_mixtures)
        self.params_per_pixel = likelihood.params_shape(self.output_shape_)[-1]
        dtype = {"dtype": self.dtype_policy}
        self._grid = self._code_grid()
        self.to_grid = None
        if latent_shape is None:
            self.to_grid = WeightNormDense(
                math.prod(self._grid), activation="elu", name="to_grid", **dtype
            )
        convolution = {"padding": "same", "data_format": "channels_last", **dtype}
        doublings = (self.output_shape_[0] // self._grid[0]).bit_length() - 1
        self.growing = [
            WeightNormConv2DTranspose(
                max(self._grid[2] // 2**number, 1),
                3,
                strides=2,
                symmetric=True,
                activation="elu",
                name=f"grow_{number}",
                **convolution,
            )
            for number in range(1, doublings + 1)
        ]
        self.to_maps = WeightNormConv2D(condition_filters, 1, name="maps", **convolution)
        if field == "full":
            self.core = _FullField(
                filters, units_per_level, levels, dropout, condition_filters, name="core", **dtype
            )
        else:
            units = units_per_level * levels
            self.core = _SmallField(filters, units, dropout, name="core", **dtype)
        last = {"weight_norm": True, **dtype}
        self.head = ShiftedConv2D(filters, 1, name="head", **last)
        self.outputs = ShiftedConv2D(self.params_per_pixel, 1, name="outputs", **last)

    def _code_grid(self):
        """Shape of the code as maps."""
        height, width, _ = self.output_shape_
        if self.latent_shape is None:
            if height % 4 or width % 4:
                raise ValueError(
                    "`output_shape` must have a height and width that are multiples of 4 when "
                    f"`latent_shape` is None. Received: output_shape={self.output_shape_}"
                )
            return height // 4, width // 4, 16
        shape = self.latent_shape
        if math.prod(shape) != self.latent_dim:
            raise ValueError(
                "`latent_shape` must be three numbers whose product is `latent_dim`, or None to "
                f"make maps from any code. Received: latent_shape={self.latent_shape}, "
                f"latent_dim={self.latent_dim}"
            )
        factor = height // shape[0]
        if (factor * shape[0], factor * shape[1]) != (height, width) or factor & (factor - 1):
            raise ValueError(
                "The image must be larger than `latent_shape` by the same power of 2 in height and "
                f"width. Received: latent_shape={self.latent_shape}, output_shape="
                f"{self.output_shape_}"
            )
        return shape

    def build(self, z_shape: Shape, x_shape: Shape) -> None:
        self.check_shapes(z_shape, x_shape)
        if self.to_grid is not None:
            build_once(self.to_grid, (None, self.latent_dim))
        rows, columns, channels = self._grid
        for layer in self.growing:
            build_once(layer, (None, rows, columns, channels))
            rows, columns, channels = 2 * rows, 2 * columns, layer.filters
        build_once(self.to_maps, (None, rows, columns, channels))
        image = (None, *self.output_shape_)
        if not self.core.built:
            self.core.build(image, (*image[:-1], self.condition_filters))
        for layer in (self.head, self.outputs):
            build_once(layer, (*image[:-1], self.filters))

    def call(self, z: Tensor, x: Tensor, training: bool = False) -> Tensor:
        conditions = self.maps_of(z)
        x = self._scaled(x)

        def first(down, right):
            return lambda layer: _moved(layer(x), down, right)

        links = self.core.context(first(1, 0), conditions, whole, training)
        right = 0 if self.field == "small" else 1
        h = self.core.features(first(0, right), links, conditions, whole, training)
        return self._params(h, whole)

    def compute_output_shape(self, z_shape: Shape, x_shape: Shape) -> Any:
        return (*x_shape[:-1], self.params_per_pixel)

    def _maps(self, z):
        if self.to_grid is not None:
            z = self.to_grid(z)
        maps = ops.reshape(ops.cast(z, self.compute_dtype), (-1, *self._grid))
        for layer in self.growing:
            maps = layer(maps)
        return self.to_maps(maps)

    def _scaled(self, x):
        return 2.0 * ops.cast(x, self.compute_dtype) - 1.0

    def _params(self, h, conv):
        return conv(self.outputs, ops.elu(conv(self.head, ops.elu(h))))

    def maps_of(self, z: Tensor) -> Any:
        return self.core.conditions(self._maps(z))

    def convolutions(self) -> tuple[list[Any], list[Any]]:
        of_rows, of_pixels = self.core.convolutions()
        return of_rows, [*of_pixels, (self.head, 1), (self.outputs, 1)]

    def context_at_row(self, above: Tensor, maps: Tensor, row: Tensor, conv: Any) -> Any:
        above = self._scaled(above)
        here = [_row(part, row, self.output_shape_[0]) for part in maps]

        def first(layer):
            # A row that is mapped to zeros lies above the images.
            h = conv(layer, above)
            return ops.where(row > 0, h, ops.zeros_like(h))

        return self.core.context(first, here, conv, False), here

    def params_at_pixel(
        self, images: Tensor, maps: Tensor, context: Tensor, row: Tensor, column: Tensor, conv: Any
    ) -> Tensor:
        width = self.output_shape_[1]
        nearby, local = ([_pixel(part, column, width) for part in parts] for parts in context)

        def first(layer):
            if layer is self._window:
                return conv(layer, self._scaled(cut(images, row + 1, column)))
            before = ops.maximum(column - 1, 0)
            h = conv(layer, self._scaled(cut(images, row + 1, before)))
            return ops.where(column > 0, h, ops.zeros_like(h))

        return self._params(self.core.features(first, nearby, local, conv, False), conv)

    def see(self, values: Any, maps: Tensor, row: Tensor, column: Tensor, conv: Any) -> None:
        if self._window is not None:
            conv.write(self._window, self._scaled(values))

    @property
    def _window(self):
        """The layer that masks the pixel itself and is handed it once it is drawn, or None."""
        return self.core.convolutions()[1][0][0] if self.field == "small" else None


def _moved(maps, down, right):
    """Maps moved down and to the right, zeros coming in."""
    height, width = maps.shape[1:3]
    around = ((0, 0), (down, 0), (right, 0), (0, 0))
    return ops.pad(maps[:, : height - down, : width - right], around)


def _row(maps, row, height):
    """The row of maps, on whatever grid, that a row of the image falls into."""
    if maps is None:
        return None
    return cut(maps, row // (height // maps.shape[1]), 0, 1, maps.shape[2])


def _pixel(maps, column, width):
    """The column of one row of maps that a column of the image falls into."""
    return None if maps is None else cut(maps, 0, column // (width // maps.shape[2]))
