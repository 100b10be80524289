"""Convolutional encoder and decoder for images of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ...core.checks import check_integer, check_integers, check_keras
from .common import (
    Conv2D,
    Conv2DTranspose,
    check_image,
    check_output,
    decoder_model,
    fresh,
    likelihood_params,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...core.types import KerasObject, Shape


def conv_encoder(
    input_shape: Shape,
    filters: Sequence[int] = (32, 64),
    kernel_size: int = 3,
    activation: KerasObject = "relu",
    kernel_initializer: KerasObject = "glorot_uniform",
    name: str = "encoder",
) -> keras.Model:
    """One convolution of stride 2 for each entry of `filters`, then flattened.

    Heights and widths are halved and rounded up: 105 -> 53 -> 27.

    Args:
        input_shape: (height, width, channels), positive ints.
        filters: Non-empty sequence of positive ints.
        kernel_size: Positive int.
        activation: Activation of the convolutions.
        kernel_initializer: Initializer of the kernels.
        name: Model name.

    Returns:
        Functional model `(batch, height, width, channels) -> (batch, F)`.

    Raises:
        ValueError: If a size is not a positive integer.
    """
    input_shape = check_image("input_shape", input_shape)
    filters = check_integers("filters", filters, shortest=1)
    kernel_size = check_integer("kernel_size", kernel_size)
    activation = check_keras("activation", activation, keras.activations)
    x = h = keras.Input(input_shape, name="x")
    for number, width in enumerate(filters, 1):
        h = Conv2D(
            width,
            kernel_size,
            strides=2,
            padding="same",
            activation=activation,
            kernel_initializer=fresh(kernel_initializer),
            data_format="channels_last",
            name=f"conv_{number}",
        )(h)
    h = keras.layers.Flatten(data_format="channels_last", name="flatten")(h)
    return keras.Model(x, h, name=name)


def conv_decoder(
    latent_dim: int,
    output_shape: Sequence[int],
    filters: Sequence[int] = (64, 32),
    kernel_size: int = 3,
    activation: KerasObject = "relu",
    kernel_initializer: KerasObject = "glorot_uniform",
    output_activation: KerasObject = None,
    params_per_value: int = 1,
    num_classes: int | None = None,
    skip: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """One transposed convolution of stride 2 for each entry of `filters`, on a dense layer.

    The sizes are those of a `conv_encoder` with as many stages, in reverse: a last row or column
    too many is cut off after each stage (27 -> 54 -> 53 -> 106 -> 105). A transposed convolution
    of stride 1 makes the output.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels), positive ints.
        filters: Non-empty sequence of positive ints, from the code to the data.
        kernel_size: Positive int.
        activation: Activation of the layers before the output.
        kernel_initializer: Initializer of the kernels.
        output_activation: As in `mlp_decoder`.
        params_per_value: As in `mlp_decoder`.
        num_classes: As in `mlp_decoder`.
        skip: As in `mlp_decoder`.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, height, width, channels * params_per_value)`, or
        `(batch, height, width, channels, num_classes)`.

    Raises:
        ValueError: If a size is not a positive integer, or `num_classes` comes with another
            option for the output.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    height, width, channels = check_image("output_shape", output_shape)
    filters = check_integers("filters", filters, shortest=1)
    kernel_size = check_integer("kernel_size", kernel_size)
    activation = check_keras("activation", activation, keras.activations)
    params_per_value, num_classes = check_output(params_per_value, num_classes, output_activation)
    sizes: list[tuple[int, ...]] = [(height, width)]
    for _ in filters:
        sizes.append(tuple((size + 1) // 2 for size in sizes[-1]))
    *stages, (rows, columns) = sizes

    def transposed(filters, strides, activation, name):
        return Conv2DTranspose(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            activation=activation,
            kernel_initializer=fresh(kernel_initializer),
            data_format="channels_last",
            name=name,
        )

    z = keras.Input((latent_dim,), name="z")
    h = keras.layers.Dense(
        rows * columns * filters[0],
        activation=activation,
        kernel_initializer=fresh(kernel_initializer),
        name="dense",
    )(z)
    h = keras.layers.Reshape((rows, columns, filters[0]), name="reshape")(h)
    for number, (size, maps) in enumerate(zip(reversed(stages), filters, strict=True), 1):
        h = transposed(maps, 2, activation, f"deconv_{number}")(h)
        surplus = [(0, made - wanted) for made, wanted in zip(h.shape[1:3], size, strict=True)]
        if surplus != [(0, 0), (0, 0)]:
            h = keras.layers.Cropping2D(
                surplus, data_format="channels_last", name=f"crop_{number}"
            )(h)

    params = likelihood_params(
        lambda channels, activation, name: transposed(channels, 1, activation, name)(h),
        channels,
        output_activation,
        params_per_value,
        num_classes,
    )
    return decoder_model(z, params, skip, name)
