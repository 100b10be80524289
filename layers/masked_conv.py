"""Convolutions that see earlier pixels only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_integers,
    check_keras,
    check_real,
    is_integer,
)
from ..core.convolution import conv
from ..core.serialization import ArgumentsConfig
from .weight_normalization import WeightNormalized, normalized_kernel

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, KerasObject, Shape, Tensor


class CausalConv2D(WeightNormalized, ArgumentsConfig, keras.layers.Layer):
    """Base of the convolutions whose outputs depend on earlier positions only.

    Subclasses set the window in `__init__`: an output (i, j) is a contraction of the kernel with
    the inputs of the rows `i * stride - top ... i * stride - top + rows - 1` and of the columns
    `j * stride - left ... j * stride - left + columns - 1`, zeros beyond the image. `step` computes
    one position from such a window, with a `step_kernel()` made once.
    """

    #: By how much the grid of the outputs is finer than that of the inputs.
    upsampling = 1

    def _set_arguments(
        self,
        filters,
        kernel_size,
        strides=1,
        weight_norm=False,
        init_scale=1.0,
        use_bias=True,
        activation=None,
        kernel_initializer=None,
        bias_initializer="zeros",
    ):
        self.filters = check_integer("filters", filters)
        pair = is_integer(kernel_size) and (kernel_size, kernel_size)
        self.kernel_size = check_integers(
            "kernel_size", pair or kernel_size, length=2, rule="a positive integer or two of them"
        )
        self.strides = check_integer("strides", strides)
        self.weight_norm = check_flag("weight_norm", weight_norm)
        self.init_scale = check_real("init_scale", init_scale, "(0, inf)")
        self.use_bias = check_flag("use_bias", use_bias)
        self.activation = check_keras("activation", activation, keras.activations)
        if kernel_initializer is None:
            normal = keras.initializers.RandomNormal(stddev=0.05)
            kernel_initializer = normal if weight_norm else "glorot_uniform"
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        self.bias_initializer = check_keras(
            "bias_initializer", bias_initializer, keras.initializers
        )
        # Kernel rows that can be other than zero.
        self.rows, self.columns = self.kernel_size

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"The number of channels must be known. Received: input_shape={input_shape}"
            )
        self.direction = self.add_weight(
            name="direction" if self.weight_norm else "kernel",
            shape=(*self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters,), initializer=self.bias_initializer
            )
        if self.weight_norm:
            self._add_gains(self.filters)
        self.mask = self._mask(channels)

    @property
    def kernel(self) -> Tensor:
        """The kernel as it is applied, masked and normalized."""
        kernel = ops.convert_to_tensor(self.direction)
        if self.mask is not None:
            kernel = kernel * ops.cast(self.mask, kernel.dtype)
        if self.weight_norm:
            kernel = normalized_kernel(kernel, self.log_gain)
        return kernel

    @property
    def is_pointwise(self) -> bool:
        """Whether an output depends on the inputs of its own position alone."""
        return (self.rows, self.columns, self.strides, self.upsampling) == (1, 1, 1, 1) and (
            self.top == self.left == 0
        )

    def call(self, inputs: Tensor) -> Tensor:
        outputs = conv(self._padded(inputs), self.kernel[: self.rows], self.strides)
        if self.bias is not None:
            outputs = outputs + ops.convert_to_tensor(self.bias)
        if self.weight_norm:
            outputs = self._standardized(outputs)
        return self.activation(outputs)

    def step_kernel(self) -> Tensor:
        """The kernel that `step` takes, in the dtype of the computation."""
        return ops.cast(self.kernel[: self.rows], self.compute_dtype)

    def step(self, window: Tensor, kernel: Tensor) -> Tensor:
        """One row, or one pixel, of the outputs.

        Args:
            window: `(batch, rows, width, channels)`, padded inputs.
            kernel: What `step_kernel()` returned.

        Returns:
            `(batch, 1, width', filters)`, where `width'` is 1 for a window of `columns` inputs.
        """
        window = ops.cast(window, self.compute_dtype)
        if window.shape[2] == self.columns:
            # What XLA and Eigen make of a convolution to a single position is slower.
            flat = ops.reshape(window, (-1, self.rows * self.columns * window.shape[3]))
            outputs = ops.matmul(flat, ops.reshape(kernel, (-1, self.filters)))[:, None, None]
        else:
            outputs = ops.conv(
                window, kernel, strides=(1, self.strides), padding="valid", **_CHANNELS_LAST
            )
        if self.bias is not None:
            outputs = outputs + ops.cast(self.bias, self.compute_dtype)
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, *grid, _ = input_shape
        grid = [
            None if size is None else -(-size * self.upsampling // self.strides) for size in grid
        ]
        return (batch, *grid, self.filters)

    def _mask(self, channels):
        return None

    def _padded(self, inputs):
        """Inputs with the zeros, and without the last ones, that the window asks for."""
        height, width = inputs.shape[1:3]
        bottom, right = self.rows - 1 - self.top, self.columns - 1 - self.left
        inputs = inputs[:, : height + min(bottom, 0), : width + min(right, 0)]
        around = ((self.top, max(bottom, 0)), (self.left, max(right, 0)))
        return ops.pad(inputs, ((0, 0), *around, (0, 0)))


_CHANNELS_LAST = {"data_format": "channels_last"}


@keras.saving.register_keras_serializable(package="vaezoo")
class MaskedConv2D(CausalConv2D):
    """Convolution of stride 1 with zero padding that sees earlier pixels in raster order.

        y_t = act( sum_{s < t} W_{t-s} x_s  [+ W_0 x_t] + b )

    Type A leaves the pixel itself out, type B sees it. With `channel_groups` g, the inputs but for
    the unmasked, and the outputs, are split into g consecutive groups, as evenly as possible; at
    the pixel itself an output of group i sees the inputs of groups before i (A), and those of
    group i as well (B). So R, G and B of an image are decoded one after the other with g = 3.

    Args:
        filters: Positive int.
        kernel_size: Positive odd int, or two of them.
        mask_type: `"A"`, as in the first layer, or `"B"`, as in all others.
        channel_groups: Positive int g.
        unmasked_channels: Non-negative int; that many inputs, the last ones, are seen in full, such
            as feature maps made from a latent code.
        weight_norm: Bool, whether the masked kernel is normalized, see `normalized_kernel`.
        init_scale: Positive float, see `initialize_from_data`.
        use_bias: Bool.
        activation: Name or function.
        kernel_initializer: Initializer; Glorot's uniform one by default, N(0, 0.05^2) under weight
            normalization.
        bias_initializer: Initializer.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, filters)`.

    Raises:
        ValueError: If an argument is out of range.

    Note:
        Rows of the kernel that are masked altogether are weights, as in the published counts of
        parameters, but take no time: they are cut off before the convolution.

    Reference: van den Oord et al. (2016), section 3.4, arXiv:1601.06759.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        mask_type: str = "B",
        channel_groups: int = 1,
        unmasked_channels: int = 0,
        weight_norm: bool = False,
        init_scale: float = 1.0,
        use_bias: bool = True,
        activation: KerasObject = None,
        kernel_initializer: KerasObject = None,
        bias_initializer: KerasObject = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._set_arguments(
            filters,
            kernel_size,
            1,
            weight_norm,
            init_scale,
            use_bias,
            activation,
            kernel_initializer,
            bias_initializer,
        )
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(f"`kernel_size` must be odd. Received: kernel_size={kernel_size!r}")
        self.mask_type = check_choice("mask_type", mask_type, ("A", "B"))
        self.channel_groups = check_integer("channel_groups", channel_groups)
        if self.channel_groups > self.filters:
            raise ValueError(
                "`channel_groups` must be a positive integer of at most `filters`. Received: "
                f"channel_groups={channel_groups!r}, filters={filters}"
            )
        self.unmasked_channels = check_integer("unmasked_channels", unmasked_channels, least=0)
        self.top, self.left = (size // 2 for size in self.kernel_size)
        if not unmasked_channels:
            self.rows = self.top + 1

    def build(self, input_shape: Shape) -> None:
        masked = (input_shape[-1] or 0) - self.unmasked_channels
        if input_shape[-1] is not None and masked < self.channel_groups:
            raise ValueError(
                "The inputs must have at least `channel_groups` channels besides the "
                f"`unmasked_channels`. Received: {input_shape[-1]} channels, channel_groups="
                f"{self.channel_groups}, unmasked_channels={self.unmasked_channels}"
            )
        super().build(input_shape)

    def _mask(self, channels):
        masked = channels - self.unmasked_channels
        if self.kernel_size == (1, 1) and self.mask_type == "B" and self.channel_groups == 1:
            return None
        mask = np.zeros((*self.kernel_size, channels, self.filters), "float32")
        mask[: self.top] = 1.0
        mask[self.top, : self.left] = 1.0
        before = np.less if self.mask_type == "A" else np.less_equal
        mask[self.top, self.left, :masked] = before(
            channel_group(masked, self.channel_groups)[:, None],
            channel_group(self.filters, self.channel_groups)[None],
        )
        mask[:, :, masked:] = 1.0
        return mask


def channel_group(channels: int, groups: int) -> Array:
    """The group of each of `channels` channels, an integer array `(channels,)`."""
    return np.arange(channels) * groups // channels


@keras.saving.register_keras_serializable(package="vaezoo")
class ShiftedConv2D(CausalConv2D):
    """Convolution whose window ends at its own row, or at its own pixel.

        "down":        y_{r,c} sees rows r-kh+1 ... r, columns c-(kw-1)/2 ... c+(kw-1)/2
        "down_right":  y_{r,c} sees rows r-kh+1 ... r, columns c-kw+1 ... c

    With `exclude` the window lies one row higher ("down") or one pixel further left ("down_right"),
    as in a first layer, which must not see what is decoded. With strides s the output (i, j) is
    that of stride 1 at (i s, j s); sizes are divided by s and rounded up.

    Args:
        filters: Positive int.
        kernel_size: Positive int, or two, (kh, kw); kw is odd for "down".
        shift: `"down"` or `"down_right"`.
        strides: Positive int.
        exclude: Bool; needs strides of 1.
        weight_norm: Bool, whether the kernel is normalized, see `normalized_kernel`.
        init_scale: Positive float, see `initialize_from_data`.
        use_bias: Bool.
        activation: Name or function.
        kernel_initializer: Initializer; Glorot's uniform one by default, N(0, 0.05^2) under weight
            normalization.
        bias_initializer: Initializer.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.

    Returns:
        `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Salimans et al. (2017), section 2.4, arXiv:1701.05517; van den Oord et al. (2016),
        section 2.2, arXiv:1606.05328.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        shift: str = "down",
        strides: int = 1,
        exclude: bool = False,
        weight_norm: bool = False,
        init_scale: float = 1.0,
        use_bias: bool = True,
        activation: KerasObject = None,
        kernel_initializer: KerasObject = None,
        bias_initializer: KerasObject = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._set_arguments(
            filters,
            kernel_size,
            strides,
            weight_norm,
            init_scale,
            use_bias,
            activation,
            kernel_initializer,
            bias_initializer,
        )
        self.top, self.left = _shifted(shift, self.kernel_size)
        self.shift, self.exclude = shift, check_flag("exclude", exclude)
        if self.exclude and self.strides > 1:
            raise ValueError(
                f"`exclude` needs strides of 1. Received: exclude=True, strides={strides}"
            )
        if exclude:
            self.top, self.left = self.top + (shift == "down"), self.left + (shift != "down")


def _shifted(shift, kernel_size):
    """Returns how far the window of a shifted convolution reaches up and to the left."""
    rows, columns = kernel_size
    check_choice("shift", shift, ("down", "down_right"))
    if shift == "down_right":
        return rows - 1, columns - 1
    if columns % 2 == 0:
        raise ValueError(
            "`kernel_size` must have an odd number of columns when `shift` is 'down'. Received: "
            f"kernel_size={tuple(kernel_size)}"
        )
    return rows - 1, columns // 2


@keras.saving.register_keras_serializable(package="vaezoo")
class ShiftedConv2DTranspose(CausalConv2D):
    """Transposed convolution of stride 2 whose outputs follow their inputs.

    It is `ShiftedConv2D` on the inputs with zeros put between them, x_{i,j} at (2i, 2j). So with a
    kernel of two rows an output of row r sees the input row r // 2 alone; "down_right" with a 2x2
    kernel sees the input (r // 2, c // 2), "down" with a 2x3 kernel the input of column c // 2,
    and in odd columns the next one as well.

    Args:
        filters: Positive int.
        kernel_size: Positive int, or two, (kh, kw), of at least 2; kw is odd for "down".
        shift: `"down"` or `"down_right"`.
        weight_norm: Bool, whether the kernel is normalized, see `normalized_kernel`.
        init_scale: Positive float, see `initialize_from_data`.
        use_bias: Bool.
        activation: Name or function.
        kernel_initializer: Initializer; Glorot's uniform one by default, N(0, 0.05^2) under weight
            normalization.
        bias_initializer: Initializer.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`.

    Returns:
        `(batch, 2 * height, 2 * width, filters)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Salimans et al. (2017), section 2.3, arXiv:1701.05517.
    """

    upsampling = 2

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        shift: str = "down",
        weight_norm: bool = False,
        init_scale: float = 1.0,
        use_bias: bool = True,
        activation: KerasObject = None,
        kernel_initializer: KerasObject = None,
        bias_initializer: KerasObject = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._set_arguments(
            filters,
            kernel_size,
            1,
            weight_norm,
            init_scale,
            use_bias,
            activation,
            kernel_initializer,
            bias_initializer,
        )
        if min(self.kernel_size) < 2:
            raise ValueError(
                f"`kernel_size` must be at least 2. Received: kernel_size={kernel_size!r}"
            )
        self.shift = shift
        self.top, self.left = _shifted(shift, self.kernel_size)

    def call(self, inputs: Tensor) -> Tensor:
        return super().call(self.spread(inputs))

    def spread(self, inputs: Tensor) -> Tensor:
        """Inputs with zeros between them, `(batch, 2 * height, 2 * width, channels)`."""
        height, width, channels = inputs.shape[1:]
        spread = ops.pad(
            inputs[:, :, None, :, None], ((0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0))
        )
        return ops.reshape(spread, (-1, 2 * height, 2 * width, channels))
