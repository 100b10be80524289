"""The dense convolutional encoder of MAE for CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ...core.checks import check_integer, check_integers, check_real
from ...core.serialization import ArgumentsConfig
from ...layers.weight_normalization import WeightNormConv2D
from .common import check_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...core.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class GaussianFeatures(ArgumentsConfig, keras.layers.Layer):
    """Flattens maps that hold a mean and a log-variance side by side.

        maps (batch, rows, columns, 2 C)  ->  [mean, clip(log_var, -limit, limit)]

    Each half is flattened by row, column, channel, so the features are what a head that projects
    nothing takes for D = rows * columns * C.

    Args:
        limit: Positive float, largest absolute log-variance.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        maps: Float tensor `(batch, rows, columns, 2 C)`.

    Returns:
        `(batch, 2 D)`.

    Raises:
        ValueError: If `limit` is not positive.
    """

    def __init__(self, limit: float = 7.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit = check_real("limit", limit, "(0, inf)")

    def call(self, maps: Tensor) -> Tensor:
        size = maps.shape[1] * maps.shape[2] * maps.shape[3] // 2
        mean, log_var = (ops.reshape(half, (-1, size)) for half in ops.split(maps, 2, axis=-1))
        return ops.concatenate([mean, ops.clip(log_var, -self.limit, self.limit)], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return (input_shape[0], input_shape[1] * input_shape[2] * input_shape[3])


def densenet_encoder(
    input_shape: Shape = (32, 32, 3),
    growth: Sequence[int] = (15, 16, 16),
    steps: Sequence[int] = (3, 3, 6),
    latent_channels: int = 16,
    max_log_var: float = 7.0,
    name: str = "encoder",
) -> keras.Model:
    """Dense blocks with convolutions of stride 2 between them; returns mean and log-variance.

        step(h) = ELU( [h, C3( ELU(C1(h)) )] )        C1 to 4 g maps, C3 to g maps
        32x32x3 -> 32x32x48 -> 16x16x96 -> 8x8x192 -> 8x8x96 -> 8x8x32

    C1 and C3 are convolutions of 1x1 and 3x3, [., .] stacks their maps. A block of n steps adds
    n g maps. Two 1x1 convolutions with an ELU between them follow the last block: the first halves
    the number of maps, the second makes `latent_channels` means and as many log-variances. All
    convolutions are weight-normalized; images are mapped to [-1, 1] first.

    The features are [mean, log_var], each flattened by row, column, channel, for a head without a
    projection. The defaults give 8 * 8 * 16 = 1,024 dimensions and have 302,614 parameters.

    Args:
        input_shape: (height, width, channels); height and width multiples of 2 to the number of
            blocks less one, 4 by default.
        growth: Non-empty sequence of positive ints g, one a block.
        steps: Non-empty sequence of positive ints n, one a block.
        latent_channels: Positive int.
        max_log_var: Positive float, largest absolute log-variance.
        name: Model name.

    Returns:
        Functional model `(batch, height, width, channels) -> (batch, 2 D)`.

    Raises:
        ValueError: If an argument is out of range, or the blocks do not fit.

    Reference: Ma et al. (2019), arXiv:1901.01498; Huang et al. (2017), arXiv:1608.06993.

    Note:
        Windows of stride 2 are centered on even pixels, as in the official code. Before the release
        of 0.1.0 they lay one pixel further down and to the right; models saved then keep them.
    """
    growth = check_integers("growth", growth, shortest=1)
    steps = check_integers("steps", steps, shortest=1)
    if len(growth) != len(steps):
        raise ValueError(
            "`growth` and `steps` must have one entry a block each. Received: "
            f"growth={growth}, steps={steps}"
        )
    latent_channels = check_integer("latent_channels", latent_channels)
    max_log_var = check_real("max_log_var", max_log_var, "(0, inf)")
    input_shape = check_image("input_shape", input_shape, multiple=2 ** (len(steps) - 1))
    x = keras.Input(input_shape, name="x")
    h = keras.layers.Rescaling(2.0, -1.0, name="to_unit_range")(x)
    for block, (width, count) in enumerate(zip(growth, steps, strict=True), 1):
        if block > 1:
            h = _convolution(h, h.shape[-1], 3, f"down_{block}", strides=2)
            h = _elu(h, f"down_{block}_elu")
        for number in range(1, count + 1):
            step = f"block_{block}_step_{number}"
            new = _elu(_convolution(h, 4 * width, 1, f"{step}_conv_1"), f"{step}_elu_1")
            new = _convolution(new, width, 3, f"{step}_conv_2")
            h = keras.layers.Concatenate(name=f"{step}_stack")([h, new])
            h = _elu(h, f"{step}_elu_2")
    h = _elu(_convolution(h, max(h.shape[-1] // 2, 1), 1, "conv"), "elu")
    h = _convolution(h, 2 * latent_channels, 1, "maps")
    return keras.Model(x, GaussianFeatures(max_log_var, name="features")(h), name=name)


def _convolution(h, filters, kernel_size, name, strides=1):
    return WeightNormConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        symmetric=True,
        data_format="channels_last",
        name=name,
    )(h)


def _elu(h, name):
    return keras.layers.Activation("elu", name=name)(h)
