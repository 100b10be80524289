"""Convolutions in a form whose gradients XLA computes quickly on a CPU, on JAX alone.

Measured with jax 0.10.2 in functions of their own, processor time on one core of an EPYC in ms,
batches of 50 and 64, here and by `keras.ops`:

    gradient by the kernel of a transposed convolution, 14x14x64 -> 29x29x32, 3x3    19    226
    the same with strides of 1, 7x7x64 -> 9x9x64                                      5     73
    gradient by the kernel of a convolution of 1x1, 28x28x64 -> 32                    4     12

With them and `step_options` a step of mu-VAE's CNN takes 0.78 of its time.

The values are equal up to rounding. These are compositions of operations that JAX differentiates
itself, as often as wanted. To be tried without with each new release of jaxlib:
`python -m benchmarks.networks --only "CNN of mu-VAE" ResNet`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import keras
from keras import ops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .types import Tensor


def on_jax_cpu() -> bool:
    """Whether JAX computes on a CPU."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def step_options() -> dict[str, str]:
    """Options of XLA's compiler for training steps on JAX, empty where it is as good without.

    On a CPU XLA (jaxlib 0.10) hands convolutions to YNNPACK. The gradient by a kernel of 4x7 of 50
    images of 28x28x32 takes it 122 ms, and Eigen 29; a step of `du_vae_omniglot` takes 0.74 of its
    time without. What the user says of it in `XLA_FLAGS` stays.
    """
    if not on_jax_cpu():
        return {}
    import jaxlib

    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_experimental_ynn_fusion_type" in flags or not jaxlib.__version__.startswith(
        "0.10."
    ):
        return {}
    kept = ("DOT", "INDIVIDUAL_DOT", "REDUCE")
    return {
        "xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{n}" for n in kept)
    }


def conv(
    inputs: Tensor,
    kernel: Tensor,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
) -> Tensor:
    """`keras.ops.conv` of images.

    A kernel of 1x1, or one that covers the map, is a matrix product.

    Args:
        inputs: Float tensor `(batch, height, width, channels)`.
        kernel: Float tensor `(rows, columns, channels, filters)`.
        strides: Positive int, or two of them.
        padding: `"valid"` or `"same"`.
        data_format: As in `keras.ops.conv`.
        dilation_rate: Positive int, or two of them.

    Returns:
        `(batch, height', width', filters)`.
    """
    by, dilation = _pair(strides), _pair(dilation_rate)
    size, grid = tuple(kernel.shape[:2]), tuple(inputs.shape[1:3])
    usual = data_format == "channels_last" and dilation == (1, 1)
    grouped = kernel.shape[2] != inputs.shape[-1]
    if usual and not grouped and on_jax_cpu():
        if size == (1, 1):
            inputs = inputs[:, :: by[0], :: by[1]]
            # Of matrices: XLA would turn the images around for the gradient by the kernel.
            flat = ops.matmul(ops.reshape(inputs, (-1, kernel.shape[2])), kernel[0, 0])
            return ops.reshape(flat, (-1, *inputs.shape[1:3], kernel.shape[3]))
        if size == grid and padding == "valid":
            # The kernel's number of inputs is known where it is applied, the batch may not be.
            flat = ops.reshape(inputs, (-1, size[0] * size[1] * kernel.shape[2]))
            flat = ops.matmul(flat, ops.reshape(kernel, (-1, kernel.shape[3])))
            return flat[:, None, None]
    return ops.conv(
        inputs,
        kernel,
        strides=list(by),
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation,
    )


def conv_transpose(
    inputs: Tensor,
    kernel: Tensor,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
) -> Tensor:
    """`keras.ops.conv_transpose` of images.

    Outputs whose rows and columns leave the same remainders by the strides s see the same part of
    the kernel: they are one convolution of stride 1, s x s convolutions in all.

        y_{s q + a} = sum_m w_{a + s m} x_{q - m}

    Args:
        inputs: Float tensor `(batch, height, width, channels)`.
        kernel: Float tensor `(rows, columns, filters, channels)`.
        strides: Positive int, or two of them.
        padding: `"valid"` or `"same"`.
        output_padding: As in `keras.ops.conv_transpose`.
        data_format: As in `keras.ops.conv_transpose`.
        dilation_rate: Positive int, or two of them.

    Returns:
        `(batch, height', width', filters)`.
    """
    by, dilation = _pair(strides), _pair(dilation_rate)
    usual = data_format == "channels_last" and dilation == (1, 1) and output_padding is None
    if usual and None not in inputs.shape[1:3] and on_jax_cpu():
        return _by_phases(inputs, kernel, by, padding)
    return ops.conv_transpose(
        inputs,
        kernel,
        strides=list(by),
        padding=padding,
        output_padding=output_padding,
        data_format=data_format,
        dilation_rate=dilation,
    )


def transposed_call(layer: keras.layers.Layer, inputs: Tensor) -> Tensor:
    """The call of a `keras.layers.Conv2DTranspose` by `conv_transpose`."""
    outputs = conv_transpose(
        inputs,
        layer.kernel,
        layer.strides,
        layer.padding,
        layer.output_padding,
        layer.data_format,
        layer.dilation_rate,
    )
    if layer.use_bias:
        shape = [1, 1, 1, 1]
        shape[-1 if layer.data_format == "channels_last" else 1] = -1
        outputs = outputs + ops.reshape(layer.bias, shape)
    return outputs if layer.activation is None else layer.activation(outputs)


def _by_phases(inputs, kernel, strides, padding):
    rows, columns, filters, channels = kernel.shape
    grid = inputs.shape[1:3]
    if (*grid, *strides) == (1, 1, 1, 1) and padding == "valid":
        product = ops.matmul(
            ops.reshape(inputs, (-1, channels)),
            ops.transpose(ops.reshape(kernel, (-1, channels))),
        )
        return ops.reshape(product, (-1, rows, columns, filters))
    axes = [_Axis(*sizes, padding) for sizes in zip(grid, kernel.shape[:2], strides, strict=True)]
    inputs = ops.pad(inputs[:, axes[0].kept, axes[1].kept], _around(axes))
    above = []
    for a in range(strides[0]):
        beside = [_phase(inputs, kernel, axes, a, b) for b in range(strides[1])]
        above.append(beside[0] if strides[1] == 1 else ops.stack(beside, axis=3))
    if strides == (1, 1):
        return above[0]
    outputs = ops.stack(above, axis=2) if strides[0] > 1 else above[0]
    (height, top, tall), (width, left, wide) = ((axis.made, axis.cut, axis.size) for axis in axes)
    outputs = ops.reshape(outputs, (-1, height, width, filters))
    return outputs[:, top : top + tall, left : left + wide]


class _Axis:
    """Sizes of a transposed convolution along rows or columns.

    Attributes:
        size: Number of outputs.
        taps: Most weights of the kernel that a phase has.
        start: First q.
        count: Number of q.
    """

    def __init__(self, inputs: int, kernel: int, stride: int, padding: str) -> None:
        self.stride = stride
        self.taps = -(-kernel // stride)
        if padding == "same":
            self.size = inputs * stride
            first = kernel - 1 - min(-(-(stride + kernel - 2) // 2), kernel - 1)
        else:
            self.size, first = (inputs - 1) * stride + max(kernel, stride), 0
        self.start = first // stride
        self.count = -(-(first + self.size) // stride) - self.start
        self.cut, self.made = first - self.start * stride, self.count * stride
        low, high = self.taps - 1 - self.start, self.start + self.count - inputs
        self.kept = slice(max(-low, 0), inputs + min(high, 0))
        self.around = max(low, 0), max(high, 0)


def _around(axes):
    return [(0, 0), *(axis.around for axis in axes), (0, 0)]


def _phase(inputs, kernel, axes, *phase):
    """Outputs of one remainder by the strides, `(batch, count, count, filters)`."""
    part = kernel[tuple(slice(a, None, axis.stride) for a, axis in zip(phase, axes, strict=True))]
    rows, columns = part.shape[:2]
    if not rows or not columns:
        shape = (ops.shape(inputs)[0], *(axis.count for axis in axes), part.shape[2])
        return ops.zeros(shape, inputs.dtype)
    inputs = inputs[:, axes[0].taps - rows :, axes[1].taps - columns :]
    part = ops.swapaxes(ops.flip(part, axis=(0, 1)), 2, 3)
    return ops.conv(_apart(inputs), part, padding="valid", data_format="channels_last")


def _apart(values):
    """What XLA must not join with what follows: it takes zeros into the convolution."""
    import jax

    return jax.lax.optimization_barrier(ops.convert_to_tensor(values))


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)
