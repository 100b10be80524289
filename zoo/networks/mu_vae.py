"""The networks of mu-VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ...core.checks import check_integer
from ...layers.classifier import dense_classifier
from .common import (
    Conv2D,
    Conv2DTranspose,
    check_image,
    check_output,
    decoder_model,
    he_normal,
    likelihood_params,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...core.types import KerasObject, Shape

# As an activation its slope is 0.2, the paper's; as a Keras layer 0.3.
_ACTIVATION = "leaky_relu"


def mu_vae_encoder(input_shape: Shape = (28, 28, 1), name: str = "encoder") -> keras.Model:
    """Three 3x3 convolutions of 64 filters, strides 1, 2, 2, leaky ReLU (slope 0.2).

    Kernels start from N(0, 2 / fan_in). 137,236 parameters for 28x28x1 with the posterior head of
    10 dimensions, 74,496 without.

    Args:
        input_shape: (height, width, channels); height and width multiples of 4.
        name: Model name.

    Returns:
        Functional model `(batch, height, width, channels) -> (batch, 4 * height * width)`.

    Raises:
        ValueError: If `input_shape` is no such shape.

    Reference: mu-VAE, table 4.

    Note:
        The paper gives neither kernel sizes nor strides; they follow from its feature map sizes
        and the example of its initialization.
    """
    input_shape = check_image("input_shape", input_shape, multiple=4)
    x = h = keras.Input(input_shape, name="x")
    for number, strides in enumerate((1, 2, 2), 1):
        h = Conv2D(
            64,
            3,
            strides=strides,
            padding="same",
            activation=_ACTIVATION,
            kernel_initializer=he_normal(9 * h.shape[-1]),
            data_format="channels_last",
            name=f"conv_{number}",
        )(h)
    h = keras.layers.Flatten(data_format="channels_last", name="flatten")(h)
    return keras.Model(x, h, name=name)


def mu_vae_decoder(
    latent_dim: int = 10,
    output_shape: Sequence[int] = (28, 28, 1),
    output_activation: KerasObject = "sigmoid",
    params_per_value: int = 1,
    num_classes: int | None = None,
    skip: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """A dense layer and three 3x3 transposed convolutions, strides 1, 2, 2, leaky ReLU (slope 0.2).

        D -> h/4 x w/4 x 64 -> h/4 x w/4 x 64 -> h/2 x w/2 x 32 -> h x w x channels

    Kernels start from N(0, 2 / fan_in). 90,177 parameters for 28x28x1 and 10 dimensions.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels); height and width multiples of 4.
        output_activation: As in `mlp_decoder`. The paper's sigmoid gives means in [0, 1] for a
            squared error; a Bernoulli likelihood wants logits, None.
        params_per_value: As in `mlp_decoder`.
        num_classes: As in `mlp_decoder`; needs `output_activation=None`.
        skip: As in `mlp_decoder`.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, height, width, channels * params_per_value)`, or
        `(batch, height, width, channels, num_classes)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: mu-VAE, table 4.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    height, width, channels = check_image("output_shape", output_shape, multiple=4)
    params_per_value, num_classes = check_output(params_per_value, num_classes, output_activation)

    def transposed(h, filters, strides, activation, name):
        return Conv2DTranspose(
            filters,
            3,
            strides=strides,
            padding="same",
            activation=activation,
            kernel_initializer=he_normal(9 * h.shape[-1]),
            data_format="channels_last",
            name=name,
        )(h)

    z = keras.Input((latent_dim,), name="z")
    grid = (height // 4, width // 4, 64)
    h = _dense(grid[0] * grid[1] * grid[2], latent_dim, _ACTIVATION, "dense")(z)
    h = keras.layers.Reshape(grid, name="reshape")(h)
    h = transposed(h, 64, 1, _ACTIVATION, "deconv_1")
    h = transposed(h, 32, 2, _ACTIVATION, "deconv_2")
    params = likelihood_params(
        lambda channels, activation, name: transposed(h, channels, 2, activation, name),
        channels,
        output_activation,
        params_per_value,
        num_classes,
    )
    return decoder_model(z, params, skip, name)


def mu_vae_classifier(
    latent_dim: int = 10,
    num_classes: int = 10,
    output_activation: KerasObject = "softmax",
    name: str = "classifier",
) -> keras.Model:
    """The classifier of latent codes: three hidden layers of 1,024 leaky ReLUs (slope 0.2).

    Kernels start from N(0, 2 / fan_in). 2,120,714 parameters for 10 dimensions and 10 classes.

    Args:
        latent_dim: Positive int D.
        num_classes: Int of at least 2.
        output_activation: `"softmax"` for class probabilities, None for logits.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, num_classes)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: mu-VAE, table 4.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    num_classes = check_integer("num_classes", num_classes, least=2)
    return dense_classifier(latent_dim, num_classes, output_activation=output_activation, name=name)


def _dense(units, fan_in, activation, name):
    return keras.layers.Dense(
        units, activation=activation, kernel_initializer=he_normal(fan_in), name=name
    )
