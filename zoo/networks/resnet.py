"""Residual encoder and its transposed decoder, under batch or weight normalization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from ...core.checks import check_choice, check_integer, check_integers
from ...layers.weight_normalization import WeightNormConv2D, WeightNormConv2DTranspose
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

    from ...core.types import KerasObject, Shape

_LAYERS = {
    False: (Conv2D, WeightNormConv2D),
    True: (Conv2DTranspose, WeightNormConv2DTranspose),
}


def resnet_encoder(
    input_shape: Shape = (28, 28, 1),
    filters: Sequence[int] = (64, 64, 64),
    features: int = 512,
    normalization: str | None = "batch",
    name: str = "encoder",
) -> keras.Model:
    """Residual blocks of stride 2, then one convolution as large as the map that is left.

        block(x) = ELU( N(C3( ELU(N(C3_2(x))) )) + N(C1_2(x)) ),   28 -> 14 -> 7 -> 4 -> 1

    C3_2 and C1_2 are convolutions of 3x3 and 1x1 with stride 2, C3 one of 3x3, and N the
    normalization; the last convolution has N and an ELU too. Sizes are halved and rounded up, so
    that images of any size will do.

    The defaults are the encoder for OMNIGLOT of DU-VAE: with a posterior head of 32 dimensions
    752,448 trainable parameters, 719,616 without. `filters=(32, 64, 64)` with
    `normalization="weight"` is MAE's for binary images: 670,976 without the head.

    Args:
        input_shape: (height, width, channels), positive ints.
        filters: Non-empty sequence of positive ints, one a block.
        features: Positive int F.
        normalization: `"batch"`, in convolutions without bias; `"weight"`, with kernels from
            N(0, 0.05^2) and gains from the first batch; or None. Kernels that are not normalized
            start from N(0, 2 / (kernel area * filters)).
        name: Model name.

    Returns:
        Functional model `(batch, height, width, channels) -> (batch, F)`.

    Raises:
        ValueError: If a size is not a positive integer, or `normalization` is unknown.

    Reference: He et al. (2019), arXiv:1901.05534; Ma et al. (2019), arXiv:1901.01498.

    Note:
        MAE's head is weight-normalized as well, by 64 gains for 32 dimensions (703,872 parameters
        in all); here it is the plain head of every model (703,808).
    """
    input_shape = check_image("input_shape", input_shape)
    filters = check_integers("filters", filters, shortest=1)
    features = check_integer("features", features)
    check_choice("normalization", normalization, ("batch", "weight", None))
    x = h = keras.Input(input_shape, name="x")
    for number, width in enumerate(filters, 1):
        block = f"block_{number}"
        # Padded on all sides: "same" would leave out the first row and column of an even size.
        padded = keras.layers.ZeroPadding2D(1, data_format="channels_last", name=f"{block}_pad")(h)
        shortcut = _convolution(h, width, 1, f"{block}_shortcut", normalization, strides=2)
        h = _convolution(padded, width, 3, f"{block}_conv_1", normalization, strides=2)
        h = _elu(h, f"{block}_elu_1")
        h = _convolution(h, width, 3, f"{block}_conv_2", normalization, padding="same")
        h = keras.layers.Add(name=f"{block}_sum")([h, shortcut])
        h = _elu(h, f"{block}_elu_2")
    h = _convolution(h, features, h.shape[1:3], "conv", normalization)
    h = _elu(h, "elu")
    h = keras.layers.Flatten(data_format="channels_last", name="flatten")(h)
    return keras.Model(x, h, name=name)


def resnet_decoder(
    latent_dim: int,
    output_shape: Sequence[int],
    filters: Sequence[int] = (64, 64, 32),
    normalization: str | None = "weight",
    output_activation: KerasObject = None,
    params_per_value: int = 1,
    num_classes: int | None = None,
    skip: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """A transposed convolution from the code to a small map, then residual blocks of stride 2.

        block(x) = N(T3( ELU(N(T3_2(ELU(x)))) )) + N(T1_2(ELU(x))),   1 -> 4 -> 7 -> 14 -> 28

    T3_2, T1_2 and T3 are the transposes of the convolutions of `resnet_encoder`, and the sizes are
    those of an encoder with as many `filters`, in reverse. The first map passes an ELU; the last
    block makes the outputs, without a batch normalization on them.

    The defaults are the decoder of the ResNet VAE that MAE is compared with: 141,327 trainable
    parameters for 28x28x1 and 32 dimensions.

    Args:
        latent_dim: Positive int D.
        output_shape: (height, width, channels), positive ints.
        filters: Non-empty sequence of positive ints, from the code to the data: those of the first
            map and of all blocks but the last.
        normalization: As in `resnet_encoder`.
        output_activation: As in `mlp_decoder`.
        params_per_value: As in `mlp_decoder`.
        num_classes: As in `mlp_decoder`.
        skip: As in `mlp_decoder`.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, height, width, channels * params_per_value)`, or
        `(batch, height, width, channels, num_classes)`.

    Raises:
        ValueError: If a size is not a positive integer, `normalization` is unknown, or
            `num_classes` comes with another option for the output.

    Reference: Ma et al. (2019), arXiv:1901.01498.

    Note:
        The initialization from data sees each transposed convolution before its edge is cut off.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    height, width, channels = check_image("output_shape", output_shape)
    filters = check_integers("filters", filters, shortest=1)
    check_choice("normalization", normalization, ("batch", "weight", None))
    params_per_value, num_classes = check_output(params_per_value, num_classes, output_activation)
    sizes: list[tuple[int, ...]] = [(height, width)]
    for _ in filters:
        sizes.append(tuple((size + 1) // 2 for size in sizes[-1]))
    *stages, first = sizes

    z = keras.Input((latent_dim,), name="z")
    h = keras.layers.Reshape((1, 1, latent_dim), name="reshape")(z)
    h = _convolution(h, filters[0], first, "deconv", normalization, transposed=True)
    h = _elu(h, "elu")
    for number, (size, maps) in enumerate(zip(stages[:0:-1], filters[1:], strict=True), 1):
        h = _upward_block(h, maps, size, normalization, normalization, f"block_{number}")

    def output(channels, activation, name):
        last = None if normalization == "batch" else normalization
        params = _upward_block(h, channels, stages[0], normalization, last, name)
        if activation is None:
            return params
        return keras.layers.Activation(activation, name=f"{name}_activation")(params)

    params = likelihood_params(output, channels, output_activation, params_per_value, num_classes)
    return decoder_model(z, params, skip, name)


def _upward_block(x, filters, size, normalization, last_normalization, name):
    x = _elu(x, f"{name}_elu_1")
    options = {"strides": 2, "size": size, "transposed": True}
    shortcut = _convolution(x, filters, 1, f"{name}_shortcut", last_normalization, **options)
    h = _convolution(x, filters, 3, f"{name}_deconv_1", normalization, **options)
    h = _elu(h, f"{name}_elu_2")
    h = _convolution(
        h, filters, 3, f"{name}_deconv_2", last_normalization, padding="same", transposed=True
    )
    return keras.layers.Add(name=name)([h, shortcut])


def _convolution(
    h,
    filters,
    kernel_size,
    name,
    normalization,
    strides=1,
    padding="valid",
    transposed=False,
    size=None,
):
    """A convolution with its normalization; a transposed one is cut to `size`, if given."""
    kernel_size = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
    options = {
        "strides": strides,
        "padding": padding,
        "data_format": "channels_last",
        "name": name,
    }
    if normalization != "weight":
        stddev = math.sqrt(2.0 / (math.prod(kernel_size) * filters))
        options["kernel_initializer"] = keras.initializers.RandomNormal(stddev=stddev)
        options["use_bias"] = normalization is None
    layer = _LAYERS[transposed][normalization == "weight"](filters, kernel_size, **options)
    if size is None:
        h = layer(h)
    else:
        h = _cut(layer(h), kernel_size, size, f"{name}_crop")
    if normalization == "batch":
        h = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(h)
    return h


def _cut(h, kernel_size, size, name):
    # Before the first row that stays lies what a padding by half the kernel would have removed.
    surplus = [
        (kernel // 2, made - kernel // 2 - wanted)
        for kernel, made, wanted in zip(kernel_size, h.shape[1:3], size, strict=True)
    ]
    if surplus == [(0, 0), (0, 0)]:
        return h
    return keras.layers.Cropping2D(surplus, data_format="channels_last", name=name)(h)


def _elu(h, name):
    return keras.layers.Activation("elu", name=name)(h)
