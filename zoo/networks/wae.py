"""The convolutional networks for CelebA of HEBAE and its WAE baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from ...core.checks import check_choice, check_integer, check_integers
from .common import (
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    check_image,
    check_output,
    decoder_model,
    likelihood_params,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...core.types import KerasObject, Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class UntrainedBatchNormalization(keras.layers.BatchNormalization):
    """A batch normalization whose statistics stay mean 0 and variance 1: a trained affine map.

        y = gamma * x / sqrt(1 + epsilon) + beta

    What a batch normalization does in a training loop that never says `training=True`.

    Args:
        **kwargs: Keyword arguments of `keras.layers.BatchNormalization`.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        return super().call(inputs, training=False, mask=mask)


def wae_encoder(
    input_shape: Shape = (64, 64, 3),
    filters: Sequence[int] = (128, 256, 512, 1024),
    batch_norm: str = "real",
    name: str = "encoder",
) -> keras.Model:
    """5x5 convolutions of stride 2, each with batch normalization and ReLU.

    Kernels start from N(0, 0.02^2); convolutions have no bias. For 64x64x3 17,216,640 trainable
    parameters, 19,313,920 with two dense heads of 64 dimensions, and 3,840 moving statistics.

    Args:
        input_shape: (height, width, channels); height and width multiples of 2 to the number of
            `filters`, 16 by default.
        filters: Non-empty sequence of positive ints.
        batch_norm: `"real"`, or `"affine"` for a scale and shift per channel only, which is what
            HEBAE's published code computes.
        name: Model name.

    Returns:
        Functional model `(batch, height, width, channels) -> (batch, F)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Cheng et al. (2020), appendix, CelebA, arXiv:2007.10389.
    """
    filters = check_integers("filters", filters, shortest=1)
    input_shape = check_image("input_shape", input_shape, multiple=2 ** len(filters))
    check_choice("batch_norm", batch_norm, tuple(_NORMALIZATIONS))
    x = h = keras.Input(input_shape, name="x")
    for number, width in enumerate(filters, 1):
        h = Conv2D(
            width,
            5,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=_initializer(),
            data_format="channels_last",
            name=f"conv_{number}",
        )(h)
        h = _normalized(h, batch_norm, number)
    h = keras.layers.Flatten(data_format="channels_last", name="flatten")(h)
    return keras.Model(x, h, name=name)


def wae_decoder(
    latent_dim: int = 64,
    output_shape: Sequence[int] = (64, 64, 3),
    filters: Sequence[int] = (1024, 512, 256, 128),
    batch_norm: str = "real",
    output_activation: KerasObject = "tanh",
    params_per_value: int = 1,
    num_classes: int | None = None,
    skip: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """A dense layer and 5x5 transposed convolutions, with batch normalization and ReLU.

        D -> h/8 x w/8 x 1024 -> h/4 x w/4 x 512 -> h/2 x w/2 x 256 -> h x w x 128
          -> h x w x channels

    Every kernel starts from N(0, 0.02^2); no layer has a bias. For 64x64x3 and 64 dimensions
    21,539,968 trainable parameters, and 132,864 moving statistics.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels); height and width multiples of 2 to the number of
            `filters` less one, 8 by default.
        filters: Non-empty sequence of positive ints, from the code to the data.
        batch_norm: As in `wae_encoder`.
        output_activation: As in `mlp_decoder`. The paper's tanh gives means for images in
            [-1, 1]; images in [0, 1] want `"sigmoid"`, and a Bernoulli likelihood None.
        params_per_value: As in `mlp_decoder`.
        num_classes: As in `mlp_decoder`; needs `output_activation=None`.
        skip: As in `mlp_decoder`.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, height, width, channels * params_per_value)`, or
        `(batch, height, width, channels, num_classes)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Cheng et al. (2020), appendix, CelebA, arXiv:2007.10389.

    Note:
        The last layer has as many filters as the image has channels, and the dense layer has
        batch normalization and ReLU, as in HEBAE's published code; the paper's listing prints one
        filter, and neither.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    filters = check_integers("filters", filters, shortest=1)
    factor = 2 ** (len(filters) - 1)
    height, width, channels = check_image("output_shape", output_shape, multiple=factor)
    check_choice("batch_norm", batch_norm, tuple(_NORMALIZATIONS))
    params_per_value, num_classes = check_output(params_per_value, num_classes, output_activation)

    def transposed(h, filters, strides, activation, name):
        return Conv2DTranspose(
            filters,
            5,
            strides=strides,
            padding="same",
            activation=activation,
            use_bias=False,
            kernel_initializer=_initializer(),
            data_format="channels_last",
            name=name,
        )(h)

    z = keras.Input((latent_dim,), name="z")
    grid = (height // factor, width // factor, filters[0])
    h = keras.layers.Dense(
        math.prod(grid), use_bias=False, kernel_initializer=_initializer(), name="dense"
    )(z)
    h = _normalized(h, batch_norm, 0)
    h = keras.layers.Reshape(grid, name="reshape")(h)
    for number, maps in enumerate(filters[1:], 1):
        h = _normalized(transposed(h, maps, 2, None, f"deconv_{number}"), batch_norm, number)
    params = likelihood_params(
        lambda channels, activation, name: transposed(h, channels, 1, activation, name),
        channels,
        output_activation,
        params_per_value,
        num_classes,
    )
    return decoder_model(z, params, skip, name)


_NORMALIZATIONS = {
    "real": BatchNormalization,
    "affine": UntrainedBatchNormalization,
}


def _initializer():
    return keras.initializers.RandomNormal(stddev=0.02)


def _normalized(h, batch_norm, number):
    h = _NORMALIZATIONS[batch_norm](name=f"batch_norm_{number}")(h)
    return keras.layers.ReLU(name=f"relu_{number}")(h)
