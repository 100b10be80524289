"""Dense encoder and decoder for data of any shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from ...core.checks import check_integer, check_integers, check_keras
from .common import check_output, decoder_model, fresh, likelihood_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...core.types import KerasObject


def mlp_encoder(
    input_shape: Sequence[int],
    hidden_units: Sequence[int] = (800, 800),
    activation: KerasObject = "relu",
    kernel_initializer: KerasObject = "glorot_uniform",
    name: str = "encoder",
) -> keras.Model:
    """Dense layers on the flattened data.

        h_{l+1} = act( W h_l + b ),   h_0 = flatten(x)

    HEBAE's encoder for MNIST has `hidden_units=(784, 800)`; the toy network of mu-VAE
    `(512, 512, 512)` with `activation` `"relu"`, `"tanh"` or `"leaky_relu"` (slope 0.2).

    Args:
        input_shape: Tuple of positive ints, shape of one example.
        hidden_units: Sequence of positive ints. With none the features are the data, and the
            posterior's mean is linear in them.
        activation: Activation of the hidden layers.
        kernel_initializer: Initializer of the kernels.
        name: Model name.

    Returns:
        Functional model `(batch, *input_shape) -> (batch, F)`, F the last of `hidden_units`.

    Raises:
        ValueError: If a size is not a positive integer.

    Reference: Kingma & Welling (2014), appendix C, arXiv:1312.6114.
    """
    input_shape = check_integers("input_shape", input_shape, shortest=1)
    hidden_units = check_integers("hidden_units", hidden_units)
    activation = check_keras("activation", activation, keras.activations)
    x = keras.Input(input_shape, name="x")
    h = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
    h = _hidden(h, hidden_units, activation, kernel_initializer)
    return keras.Model(x, h, name=name)


def mlp_decoder(
    latent_dim: int,
    output_shape: Sequence[int],
    hidden_units: Sequence[int] = (800, 800),
    activation: KerasObject = "relu",
    kernel_initializer: KerasObject = "glorot_uniform",
    output_activation: KerasObject = None,
    params_per_value: int = 1,
    num_classes: int | None = None,
    skip: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """Dense layers on the latent code.

        h_{l+1} = act( W h_l + b ),   h_0 = z

    Args:
        latent_dim: Positive int D.
        output_shape: Tuple of positive ints, shape of one example.
        hidden_units: Sequence of positive ints, from the code to the data. With none the decoder
            is linear.
        activation: Activation of the hidden layers.
        kernel_initializer: Initializer of the kernels.
        output_activation: Activation of the outputs; of the first `channels` of them if
            `params_per_value` is above 1. None leaves logits or unbounded means.
        params_per_value: Positive int, parameters of the likelihood for each value, side by side
            on the last axis: 2 for a mean and a scale.
        num_classes: Optional int of at least 2; adds a last axis of logits, for a `Categorical`
            likelihood.
        skip: Whether every layer sees z, see `vaezoo.layers.with_latent_skips`.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, *output_shape[:-1], channels * params_per_value)`,
        or `(batch, *output_shape, num_classes)`.

    Raises:
        ValueError: If a size is not a positive integer, or `num_classes` comes with another
            option for the output.

    Reference: Kingma & Welling (2014), appendix C, arXiv:1312.6114.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    output_shape = check_integers("output_shape", output_shape, shortest=1)
    hidden_units = check_integers("hidden_units", hidden_units)
    activation = check_keras("activation", activation, keras.activations)
    params_per_value, num_classes = check_output(params_per_value, num_classes, output_activation)
    *grid, channels = output_shape
    z = keras.Input((latent_dim,), name="z")
    h = _hidden(z, hidden_units, activation, kernel_initializer)

    def layer(channels, activation, name):
        params = keras.layers.Dense(
            math.prod(grid) * channels,
            activation=activation,
            kernel_initializer=fresh(kernel_initializer),
            name=f"{name}_dense" if grid else name,
        )(h)
        return keras.layers.Reshape((*grid, channels), name=name)(params) if grid else params

    params = likelihood_params(layer, channels, output_activation, params_per_value, num_classes)
    return decoder_model(z, params, skip, name)


def _hidden(h, hidden_units, activation, kernel_initializer):
    for number, units in enumerate(hidden_units, 1):
        h = keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=fresh(kernel_initializer),
            name=f"dense_{number}",
        )(h)
    return h
