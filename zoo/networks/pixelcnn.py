"""PixelCNN decoders, residual and gated, with sampling that computes each position once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
from keras import ops

from ...core.checks import check_choice, check_flag, check_integer, check_integers
from ...layers.masked_conv import MaskedConv2D, ShiftedConv2D
from ...layers.raster import cut
from ...layers.weight_normalization import WeightNormDense
from .common import BatchNormalization, check_image, check_output
from .raster_decoder import RasterDecoder, build_once, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...core.types import Shape


class _PixelCNN(RasterDecoder):
    """Base of the PixelCNNs of one resolution: arguments, maps of the code, outputs.

    Subclasses implement `_features`, and `_context` if parts of the network depend on earlier rows
    alone, in terms of `conv(layer, inputs)`.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        kernels: Sequence[int],
        filters: int,
        latent_maps: int,
        params_per_value: int,
        num_classes: int | None,
        params_per_pixel: int | None,
        channel_order: bool,
        **kwargs: Any,
    ) -> None:
        latent_dim = check_integer("latent_dim", latent_dim)
        channel_order = check_flag("channel_order", channel_order)
        super().__init__(latent_dim, check_image("output_shape", output_shape), **kwargs)
        self.kernels = check_integers("kernels", kernels, shortest=1)
        if any(size % 2 == 0 for size in self.kernels):
            raise ValueError(f"`kernels` must be odd. Received: kernels={kernels!r}")
        filters = check_integer("filters", filters)
        latent_maps = check_integer("latent_maps", latent_maps)
        params_per_value, num_classes = check_output(params_per_value, num_classes, None)
        self.filters, self.latent_maps = filters, latent_maps
        self.params_per_value, self.num_classes = params_per_value, num_classes
        params_per_pixel = check_integer("params_per_pixel", params_per_pixel, optional=True)
        self.params_per_pixel, self.channel_order = params_per_pixel, channel_order
        channels = self.output_shape_[-1]
        self._outputs = channels * params_per_value * (num_classes or 1)
        if params_per_pixel is not None:
            if params_per_value != 1 or num_classes is not None:
                raise ValueError(
                    "`params_per_value` must be 1 and `num_classes` None when `params_per_pixel` "
                    f"is given. Received: {params_per_pixel=}, {params_per_value=}, {num_classes=}"
                )
            self._outputs = params_per_pixel
        elif channel_order:
            self.channel_groups = channels

    def build(self, z_shape, x_shape):
        self.check_shapes(z_shape, x_shape)

    def maps_of(self, z):
        """Feature maps made from the code, `(batch, height, width, latent_maps)`."""
        height, width, _ = self.output_shape_
        return ops.reshape(self.to_maps(z), (-1, height, width, self.latent_maps))

    def _inputs(self, x, maps):
        x = ops.cast(x, maps.dtype)
        if self.num_classes is not None:
            x = x / (self.num_classes - 1)
        return ops.concatenate([x, maps], axis=-1)

    def call(self, z, x, training=False):
        maps = self.maps_of(z)
        above = ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
        context = self._context(self._inputs(above, maps), whole)
        return self._params(self._features(self._inputs(x, maps), context, whole, training))

    def _context(self, inputs, conv):
        """Maps that depend on earlier rows alone, from the latent maps and the row above."""
        return []

    def _features(self, inputs, context, conv, training=False):
        """The outputs, from the image, the latent maps and what `_context` returned."""
        raise NotImplementedError

    def _params(self, outputs):
        channels, params = self.output_shape_[-1], self.params_per_value
        grid = outputs.shape[1:3]
        if self.num_classes is not None:
            return ops.reshape(outputs, (-1, *grid, channels, self.num_classes))
        if params == 1:
            return outputs
        # Masks need the parameters of a channel side by side, likelihoods those of a kind.
        outputs = ops.reshape(outputs, (-1, *grid, channels, params))
        return ops.reshape(ops.swapaxes(outputs, 3, 4), (-1, *grid, params * channels))

    def context_at_row(self, above, maps, row, conv):
        width = self.output_shape_[1]
        return self._context(self._inputs(above, cut(maps, row, 0, 1, width)), conv)

    def params_at_pixel(self, images, maps, context, row, column, conv):
        pixel, here = cut(images, row + 1, column), cut(maps, row, column)
        nearby = [cut(part, 0, column) for part in context]
        return self._params(self._features(self._inputs(pixel, here), nearby, conv))

    def see(self, values, maps, row, column, conv):
        first = self.convolutions()[1][0]
        conv.write(first, self._inputs(values, cut(maps, row, column)))

    def fill(self, raster, images, maps):
        # Masks let the first convolution look ahead on the latent maps.
        raster.fill(self.convolutions()[1][0], self._inputs(images, maps))


@keras.saving.register_keras_serializable(package="vaezoo")
class _Convolution(keras.layers.Layer):
    """A masked convolution and its normalization."""

    def __init__(
        self,
        normalization: str | None,
        filters: int,
        kernel_size: Any,
        mask_type: str = "B",
        normal: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype"), name=kwargs.pop("name"))
        options = {"weight_norm": normalization == "weight", "use_bias": normalization != "batch"}
        if normalization != "weight":
            stddev = math.sqrt(2.0 / (kernel_size**2 * filters))
            options["kernel_initializer"] = (
                keras.initializers.RandomNormal(stddev=stddev) if normal else _by_fan_in()
            )
        options.update(kwargs, dtype=self.dtype_policy)
        self.conv = MaskedConv2D(filters, kernel_size, mask_type, name="conv", **options)
        self.norm = None
        if normalization == "batch":
            self.norm = BatchNormalization(
                momentum=0.9, epsilon=1e-5, name="norm", dtype=self.dtype_policy
            )

    def build(self, input_shape):
        build_once(self.conv, input_shape)
        if self.norm is not None:
            build_once(self.norm, self.conv.compute_output_shape(input_shape))

    def run(self, h, conv, training):
        h = conv(self.conv, h)
        return h if self.norm is None else self.norm(h, training=training)


@keras.saving.register_keras_serializable(package="vaezoo")
class _Bottleneck(keras.layers.Layer):
    """Half as wide in the middle, where its masked convolution is."""

    def __init__(
        self,
        normalization: str | None,
        filters: int,
        kernel_size: Any,
        name: str,
        dtype: Any,
        channel_groups: int,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        options = {"dtype": self.dtype_policy, "channel_groups": channel_groups}
        sizes = {
            "reduce": (filters // 2, 1),
            "conv": (filters // 2, kernel_size),
            "expand": (filters, 1),
        }
        self.parts = [
            _Convolution(normalization, *size, name=part, **options) for part, size in sizes.items()
        ]

    def build(self, input_shape):
        shape = tuple(input_shape)
        for part in self.parts:
            build_once(part, shape)
            shape = part.conv.compute_output_shape(shape)

    def run(self, h, conv, training):
        reduce, middle, expand = self.parts
        inner = ops.elu(reduce.run(h, conv, training))
        inner = ops.elu(middle.run(inner, conv, training))
        return ops.elu(h + expand.run(inner, conv, training))


def _by_fan_in():
    """U(-a, a) with a = 1 / sqrt(fan_in)."""
    return keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")


@keras.saving.register_keras_serializable(package="vaezoo")
class ResidualPixelCNN(_PixelCNN):
    """Residual PixelCNN with delayed skip connections, conditioned on z by feature maps.

        h_0 = ELU(N(A(x, maps)))                    A: k_0 x k_0, the image masked, type A
        h_i = B_i(h_{i-1} + D_{i-3}(h_{i-3}))       the second term for i >= 3
        params = C(ELU(N(C(h_{L-1} + D_{L-3}(h_{L-3})))))
        B_i, D_j: h -> ELU(h + N(C(ELU(N(M(ELU(N(C(h)))))))))

    C are convolutions of 1x1, M of type B and half the width: k_i x k_i in B_i, k_{j+1} x k_{j+1}
    in D_j. N is the normalization, and the maps are an affine function of z, seen in full.

    The defaults are the decoder for OMNIGLOT of DU-VAE: 894,400 trainable parameters for 28x28x1
    and 32 dimensions, 502,208 with `kernels=(7, 7, 7, 5, 5, 3, 3)`. The latter with
    `normalization="weight"`, by which the maps pass an ELU, is MAE's for binary images: 505,346.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels), positive ints.
        kernels: Non-empty sequence of L positive odd ints, the sizes k_i.
        filters: Positive even int.
        latent_maps: Positive int, how many maps are made from z.
        direct: Bool, whether there are delayed skip connections D_j.
        normalization: `"batch"`, in convolutions without bias; `"weight"`, with kernels from
            N(0, 0.05^2) and gains from the first batch; or None.
        params_per_value: Positive int, the likelihood's parameters for each value.
        num_classes: Optional int of at least 2: `x` holds class numbers, which are divided by
            num_classes - 1, and the outputs are logits of the classes.
        params_per_pixel: Optional positive int: number of outputs for a likelihood that handles the
            channels of a pixel itself.
        channel_order: Bool, whether the channels of a pixel are decoded one after the other;
            without, or with `params_per_pixel`, they only see earlier pixels.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, D)`.
        x: `(batch, height, width, channels)`, the image.
        training: Whether batch normalization uses the statistics of the batch.

    Returns:
        The likelihood's raw parameters, such as logits: `(batch, height, width, channels *
        params_per_value)`, or `(batch, height, width, channels, num_classes)`, or
        `(batch, height, width, params_per_pixel)`.

    Raises:
        ValueError: If an argument is out of range, or `z` or `x` is of another shape.

    Reference: He et al. (2019), appendix B.3, arXiv:1901.05534; Ma et al. (2019),
        arXiv:1901.01498; van den Oord et al. (2016), arXiv:1601.06759.

    Note:
        The papers call it a gated PixelCNN; the published codes build this network, without gates.
        Its masks leave a blind spot, which `GatedPixelCNN` has not.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        kernels: Sequence[int] = (7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3),
        filters: int = 64,
        latent_maps: int = 4,
        direct: bool = True,
        normalization: str | None = "batch",
        params_per_value: int = 1,
        num_classes: int | None = None,
        params_per_pixel: int | None = None,
        channel_order: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            latent_dim,
            output_shape,
            kernels,
            filters,
            latent_maps,
            params_per_value,
            num_classes,
            params_per_pixel,
            channel_order,
            **kwargs,
        )
        filters, latent_maps, latent_dim = self.filters, self.latent_maps, self.latent_dim
        if filters % 2 or filters < 2 * self.channel_groups:
            raise ValueError(
                "`filters` must be even, and at least twice the channels that are decoded one "
                f"after the other. Received: filters={filters}, of {self.channel_groups} channels"
            )
        check_choice("normalization", normalization, ("batch", "weight", None))
        self.direct, self.normalization = check_flag("direct", direct), normalization
        dtype: dict[str, Any] = {"dtype": self.dtype_policy}
        groups: dict[str, Any] = {"channel_groups": self.channel_groups}
        units = math.prod(self.output_shape_[:2]) * latent_maps
        self.to_maps = (
            WeightNormDense(units, activation="elu", name="maps", **dtype)
            if normalization == "weight"
            else keras.layers.Dense(units, name="maps", **dtype)
        )
        self.first = _Convolution(
            normalization,
            filters,
            self.kernels[0],
            "A",
            unmasked_channels=latent_maps,
            name="first",
            **groups,
            **dtype,
        )

        def bottleneck(kernel_size, name):
            return _Bottleneck(normalization, filters, kernel_size, name, **groups, **dtype)

        self.blocks = [
            bottleneck(size, f"block_{number}") for number, size in enumerate(self.kernels[1:], 1)
        ]
        self.skips = []
        if direct:
            self.skips = [
                bottleneck(size, f"direct_{number}")
                for number, size in enumerate(self.kernels[1:-1])
            ]
        head = {"normal": False, **groups, **dtype}
        self.head = _Convolution(normalization, filters, 1, name="head", **head)
        # Nothing follows the outputs that could undo a wrong scale: batch normalization ends here.
        last = "weight" if normalization == "weight" else None
        use_bias = normalization != "batch"
        self.outputs = _Convolution(
            last, self._outputs, 1, name="outputs", use_bias=use_bias, **head
        )

    def build(self, z_shape: Shape, x_shape: Shape) -> None:
        super().build(z_shape, x_shape)
        build_once(self.to_maps, (None, self.latent_dim))
        grid, channels = self.output_shape_[:2], self.output_shape_[2]
        build_once(self.first, (None, *grid, channels + self.latent_maps))
        for part in (*self.blocks, *self.skips, self.head, self.outputs):
            build_once(part, (None, *grid, self.filters))

    def convolutions(self) -> tuple[list[Any], list[Any]]:
        blocks = [part for block in (*self.blocks, *self.skips) for part in block.parts]
        return [], [part.conv for part in (self.first, *blocks, self.head, self.outputs)]

    def _features(self, inputs, context, conv, training=False):
        maps = [ops.elu(self.first.run(inputs, conv, training))]

        def delayed(h):
            # The newest maps are those of layer i - 1, the delayed ones those of layer i - 3.
            number = len(maps) - 3
            if number < 0 or not self.direct:
                return h
            return h + self.skips[number].run(maps[number], conv, training)

        for block in self.blocks:
            maps.append(block.run(delayed(maps[-1]), conv, training))
        h = ops.elu(self.head.run(delayed(maps[-1]), conv, training))
        return self.outputs.run(h, conv, training)


@keras.saving.register_keras_serializable(package="vaezoo")
class GatedPixelCNN(_PixelCNN):
    """PixelCNN of gated layers that sees every earlier pixel within its reach.

    A vertical stack v sees the rows above, a horizontal one h the pixels to the left and, through
    v, the rows above:

        v'_i = V_i(v_{i-1}),               v_i = gate(v'_i)
        h_i  = h_{i-1} + C(gate(H_i(h_{i-1}) + C(v'_i)))        (h_1 without h_0)
        params = C(h_L),                   gate(a, b) = tanh(a) * sigmoid(b)

    V_i are convolutions of (k_i // 2 + 1) x k_i, H_i of 1 x (k_i // 2 + 1), C of 1x1. Maps made
    from z by an affine function are concatenated to the image in the first layer. The defaults are
    the decoder of SA-VAE.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels), positive ints.
        kernels: Non-empty sequence of L positive odd ints, the sizes k_i.
        filters: Positive int; a multiple of the channels that are decoded one after the other.
        latent_maps: Positive int, how many maps are made from z.
        normalization: None, or `"weight"`: kernels from N(0, 0.05^2), gains from the first batch.
        params_per_value: As in `ResidualPixelCNN`.
        num_classes: As in `ResidualPixelCNN`.
        params_per_pixel: As in `ResidualPixelCNN`.
        channel_order: As in `ResidualPixelCNN`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, D)`.
        x: `(batch, height, width, channels)`, the image.
        training: Ignored.

    Returns:
        The likelihood's raw parameters, as those of `ResidualPixelCNN`.

    Raises:
        ValueError: If an argument is out of range, or `z` or `x` is of another shape.

    Reference: van den Oord et al. (2016), section 2, arXiv:1606.05328; Kim et al. (2018),
        arXiv:1802.02550.

    Note:
        The code of SA-VAE moves the vertical stack down by a row in each layer, so that the right
        part of the row above is out of sight, and its latent maps together with the image, so that
        the first pixel does not depend on z. Here only the image moves, once. Outputs are logits,
        whose probabilities are not clipped.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        *,
        kernels: Sequence[int] = (9, 9, 9, 7, 7, 7, 5, 5, 5, 3, 3, 3),
        filters: int = 32,
        latent_maps: int = 4,
        normalization: str | None = None,
        params_per_value: int = 1,
        num_classes: int | None = None,
        params_per_pixel: int | None = None,
        channel_order: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            latent_dim,
            output_shape,
            kernels,
            filters,
            latent_maps,
            params_per_value,
            num_classes,
            params_per_pixel,
            channel_order,
            **kwargs,
        )
        groups = self.channel_groups
        filters, latent_maps, latent_dim = self.filters, self.latent_maps, self.latent_dim
        if filters % groups:
            raise ValueError(
                "`filters` must be a multiple of the channels that are decoded one after the "
                f"other. Received: filters={filters}, of {groups} channels"
            )
        check_choice("normalization", normalization, ("weight", None))
        self.normalization = normalization
        dtype = {"dtype": self.dtype_policy}
        units = math.prod(self.output_shape_[:2]) * latent_maps
        if normalization == "weight":
            self.to_maps = WeightNormDense(units, name="maps", **dtype)
        else:
            stddev = math.sqrt(2.0 / latent_dim)
            normal = keras.initializers.RandomNormal(stddev=stddev)
            self.to_maps = keras.layers.Dense(
                units, kernel_initializer=normal, name="maps", **dtype
            )

        def options(name):
            named = {"name": name, "weight_norm": normalization == "weight", **dtype}
            if normalization is None:
                named["kernel_initializer"] = _by_fan_in()
            return named

        def horizontal(number, size):
            named = options(f"horizontal_{number}")
            if groups == 1:
                window = (1, size // 2 + 1)
                return ShiftedConv2D(2 * filters, window, "down_right", exclude=not number, **named)
            named.update(channel_groups=groups, unmasked_channels=0 if number else latent_maps)
            return MaskedConv2D(2 * filters, (1, size), "B" if number else "A", **named)

        sizes = list(enumerate(self.kernels))
        self.vertical = [
            ShiftedConv2D(2 * filters, (size // 2 + 1, size), "down", **options(f"vertical_{i}"))
            for i, size in sizes
        ]
        # What comes from the rows above is the same for all channels of a pixel.
        self.links = [MaskedConv2D(2 * filters, 1, "B", **options(f"link_{i}")) for i, _ in sizes]
        self.horizontal = [horizontal(i, size) for i, size in sizes]
        ordered: dict[str, Any] = {"channel_groups": groups}
        self.mixing = [
            MaskedConv2D(filters, 1, "B", **ordered, **options(f"mixing_{i}")) for i, _ in sizes
        ]
        self.outputs = MaskedConv2D(self._outputs, 1, "B", **ordered, **options("outputs"))

    def build(self, z_shape: Shape, x_shape: Shape) -> None:
        super().build(z_shape, x_shape)
        build_once(self.to_maps, (None, self.latent_dim))
        height, width, channels = self.output_shape_
        inputs = channels + self.latent_maps
        for layers in (self.vertical, self.horizontal):
            for number, layer in enumerate(layers):
                build_once(layer, (None, height, width, self.filters if number else inputs))
        for layer in self.links:
            build_once(layer, (None, height, width, 2 * self.filters))
        for layer in (*self.mixing, self.outputs):
            build_once(layer, (None, height, width, self.filters))

    def convolutions(self) -> tuple[list[Any], list[Any]]:
        return [*self.vertical, *self.links], [*self.horizontal, *self.mixing, self.outputs]

    def _context(self, inputs, conv):
        contributions, v = [], inputs
        for vertical, link in zip(self.vertical, self.links, strict=True):
            raw = conv(vertical, v)
            contributions.append(conv(link, raw))
            v = self._gate(raw)
        return contributions

    def _features(self, inputs, context, conv, training=False):
        h = inputs
        for number, from_above in enumerate(context):
            gated = self._gate(conv(self.horizontal[number], h) + from_above)
            mixed = conv(self.mixing[number], gated)
            h = h + mixed if number else mixed
        return conv(self.outputs, h)

    def _gate(self, raw):
        # Halves of each group of channels, so that the groups stay in their order.
        grid, groups = raw.shape[1:3], self.channel_groups
        raw = ops.reshape(raw, (-1, *grid, groups, 2 * self.filters // groups))
        a, b = ops.split(raw, 2, axis=-1)
        return ops.reshape(ops.tanh(a) * ops.sigmoid(b), (-1, *grid, self.filters))
