"""Shared parts of the networks: argument checks, initializers, output layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from ...core.checks import check_flag, check_image_shape, check_integer, check_keras
from ...core.convolution import conv, transposed_call
from ...core.replicas import replica_context
from ...layers import with_latent_skips

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...core.types import Config, KerasObject, Shape, Tensor


def check_image(name: str, shape: Shape, multiple: int = 1) -> tuple[int, ...]:
    """Returns an image shape as a tuple, or raises a `ValueError`.

    Args:
        name: Argument to name in the error.
        shape: (height, width, channels).
        multiple: What the height and width must be multiples of.
    """
    shape = check_image_shape(name, shape)
    if shape[0] % multiple or shape[1] % multiple:
        raise ValueError(
            f"`{name}` must have a height and width that are multiples of {multiple}; the 'conv' "
            f"networks take any size. Received: {name}={shape!r}"
        )
    return shape


def fresh(initializer: KerasObject) -> KerasObject:
    """An initializer for one layer: an unseeded object repeats its draw wherever it is used."""
    initializer = check_keras("kernel_initializer", initializer, keras.initializers)
    return initializer.clone() if hasattr(initializer, "clone") else initializer


def he_normal(fan_in: int) -> KerasObject:
    """N(0, 2 / fan_in), not truncated.

    `keras.initializers.HeNormal` truncates, and takes the fan-out of a transposed convolution for
    its fan-in.
    """
    return keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / fan_in))


def check_output(
    params_per_value: int, num_classes: int | None, output_activation: KerasObject
) -> tuple[int, int | None]:
    """Returns the first two arguments of `likelihood_params` as plain Python.

    Raises:
        ValueError: If one is out of range, or they do not agree.
    """
    check_keras("output_activation", output_activation, keras.activations)
    params_per_value = check_integer("params_per_value", params_per_value)
    num_classes = check_integer("num_classes", num_classes, least=2, optional=True)
    if num_classes is None:
        return params_per_value, None
    if params_per_value != 1 or output_activation is not None:
        raise ValueError(
            "`params_per_value` must be 1 and `output_activation` None when `num_classes` is "
            f"given: the outputs are logits. Received: {num_classes=}, {params_per_value=}, "
            f"{output_activation=}"
        )
    return params_per_value, num_classes


def likelihood_params(
    layer: Callable[..., Tensor],
    channels: int,
    output_activation: KerasObject,
    params_per_value: int,
    num_classes: int | None,
) -> Tensor:
    """The output tensor of a decoder.

    The activation is for the first parameter of each value, its mean; the others stay raw.

    Args:
        layer: Function `(channels, activation, name) -> tensor (batch, ..., channels)`.
        channels: Size of the last axis of the data.
        output_activation: As in `mlp_decoder`.
        params_per_value: As in `mlp_decoder`.
        num_classes: As in `mlp_decoder`.
    """
    if num_classes is not None:
        logits = layer(channels * num_classes, None, "params")
        shape = (*logits.shape[1:-1], channels, num_classes)
        return keras.layers.Reshape(shape, name="classes")(logits)
    if params_per_value == 1 or output_activation is None:
        return layer(channels * params_per_value, output_activation, "params")
    first = layer(channels, output_activation, "mean")
    others = layer(channels * (params_per_value - 1), None, "raw")
    return keras.layers.Concatenate(name="params")([first, others])


def decoder_model(z: Tensor, params: Tensor, skip: bool, name: str) -> keras.Model:
    """The functional decoder, with latent skips if asked."""
    decoder = keras.Model(z, params, name=name)
    skip = check_flag("skip", skip)
    return with_latent_skips(decoder) if skip else decoder


@keras.saving.register_keras_serializable(package="vaezoo")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose gradients are quick on CPUs, see `core.convolution`.

    Args:
        **kwargs: Arguments of `keras.layers.Conv2D`.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The convolution, without bias and activation."""
        return conv(
            inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )


@keras.saving.register_keras_serializable(package="vaezoo")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` whose gradients are quick on CPUs, see `core.convolution`.

    Args:
        **kwargs: Arguments of `keras.layers.Conv2DTranspose`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        return transposed_call(self, inputs)


@keras.saving.register_keras_serializable(package="vaezoo")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` whose statistics are those of all `tf.distribute` replicas.

    On a single device, and on JAX, whose arrays are global, it is Keras' own.

    Args:
        **kwargs: Keyword arguments of `keras.layers.BatchNormalization` but for `synchronized`.
    """

    @property
    def synchronized(self) -> bool:
        """Whether several replicas train together in this step."""
        return replica_context() is not None

    @synchronized.setter
    def synchronized(self, value: Any) -> None:
        # Keras sets what it is given: the step decides.
        del value

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("synchronized")
        return config
