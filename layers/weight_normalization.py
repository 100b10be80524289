"""Weight normalization, and its initialization from a first batch."""

from __future__ import annotations

import contextlib
import contextvars
import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_flag, check_real
from ..core.convolution import conv, conv_transpose, transposed_call
from ..core.replicas import host_value
from ..losses import float32

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..core.types import KerasObject, Tensor

#: Whether the layers are being initialized by the batch that runs through them.
_INITIALIZING = contextvars.ContextVar("vaezoo_data_dependent_initialization", default=False)
#: Keeps the norm of a kernel's fully masked column differentiable.
_GUARD = 1e-16


def normalized_kernel(direction: Tensor, log_gain: Tensor, axis: int = -1) -> Tensor:
    """A kernel as direction and gain.

        kernel_o = exp(log_gain_o) * v_o / ||v_o||

    The norm of an output's weights v_o is taken over all other axes.

    Args:
        direction: Float tensor v; masked weights must be zero already.
        log_gain: Float tensor `(outputs,)`.
        axis: Axis of the outputs.

    Returns:
        Tensor of the shape and dtype of `direction`.

    Reference: Salimans & Kingma (2016), eq. 2, arXiv:1602.07868.
    """
    v = float32(direction)
    outputs = axis % len(v.shape)
    others = tuple(number for number in range(len(v.shape)) if number != outputs)
    shape = [1] * len(v.shape)
    shape[outputs] = -1
    norm = ops.sqrt(ops.sum(ops.square(v), axis=others, keepdims=True) + _GUARD)
    return ops.cast(v / norm * ops.reshape(ops.exp(float32(log_gain)), shape), direction.dtype)


class WeightNormalized:
    """Mixin that gives a layer gains, and their initialization from data.

    The layer calls `_add_gains(outputs)` when it is built, and hands every output before its
    activation to `_standardized`, which changes it during `initialize_from_data` alone.
    """

    init_scale = 1.0

    def _add_gains(self, outputs):
        # For inputs of unit variance close to what data would set.
        start = keras.initializers.Constant(math.log(self.init_scale))
        self.log_gain = self.add_weight(name="log_gain", shape=(outputs,), initializer=start)
        # Tells a model that is still to see its first batch.
        self.initialized = self.add_weight(
            name=INITIALIZED,
            initializer="zeros",
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",
        )

    def _standardized(self, outputs):
        if not _INITIALIZING.get():
            return outputs
        axes = tuple(range(len(outputs.shape) - 1))
        mean, variance = ops.moments(float32(outputs), axes=axes)
        # An output that never varies, such as a fully masked one, keeps its gain.
        varies = variance > 1e-12
        gain = ops.where(varies, self.init_scale / ops.sqrt(ops.maximum(variance, 1e-12)), 1.0)
        self.log_gain.assign_add(ops.log(gain))
        if getattr(self, "bias", None) is not None:
            self.bias.assign((self.bias - mean) * gain)
        else:
            mean = ops.zeros_like(mean)
        self.initialized.assign(1.0)
        return ops.cast((float32(outputs) - mean) * gain, outputs.dtype)


#: Name of the variable that says whether a layer has seen its first batch.
INITIALIZED = "initialized_from_data"


@contextlib.contextmanager
def initialize_from_data() -> Iterator[Any]:
    """Within it, a batch run through a model sets the gains and biases on its way.

        y = v . x / ||v||,    log_gain = log(init_scale / std(y)),    bias = -mean(y) * gain

    Every weight-normalized layer then gives outputs of mean 0 and standard deviation `init_scale`
    over the batch and positions; one without a bias keeps its mean. `VAE.fit` does this with the
    first data that it sees.

    Reference: Salimans & Kingma (2016), section 3, arXiv:1602.07868.
    """
    token = _INITIALIZING.set(True)
    try:
        yield
    finally:
        _INITIALIZING.reset(token)


@contextlib.contextmanager
def paused_initialization() -> Iterator[Any]:
    """Within `initialize_from_data`: what runs here is no data, and sets nothing."""
    token = _INITIALIZING.set(False)
    try:
        yield
    finally:
        _INITIALIZING.reset(token)


def initializing_from_data() -> bool:
    """Whether `initialize_from_data` is in force."""
    return _INITIALIZING.get()


def awaits_initialization(model: keras.Model) -> bool:
    """Whether a layer of a built model has yet to be initialized from data."""
    return any(
        variable.name == INITIALIZED and host_value(variable) == 0.0
        for variable in model.non_trainable_variables
    )


class _WeightNorm(WeightNormalized):
    """Puts a normalized kernel in the place of a Keras layer's own."""

    _output_axis = -1

    def __init__(
        self,
        *args: Any,
        init_scale: float = 1.0,
        kernel_initializer: KerasObject = None,
        **kwargs: Any,
    ) -> None:
        init_scale = check_real("init_scale", init_scale, "(0, inf)")
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(stddev=0.05)
        # NumPy's numbers among what Keras' layers take.
        plain = {name: _plain(value) for name, value in kwargs.items()}
        plain["kernel_initializer"] = kernel_initializer
        super().__init__(*(_plain(value) for value in args), **plain)
        self.init_scale = init_scale

    def build(self, input_shape):
        super().build(input_shape)
        self._add_gains(self.direction.shape[self._output_axis])

    @property
    def direction(self):
        """The trained directions v, of the shape of the kernel."""
        return super().kernel

    @property
    def kernel(self):
        """The normalized kernel."""
        direction = ops.convert_to_tensor(self.direction)
        if getattr(self, "log_gain", None) is None:
            return direction
        return normalized_kernel(direction, self.log_gain, self._output_axis)

    def _outputs(self, inputs):
        return super().call(inputs)

    def call(self, inputs):
        if not _INITIALIZING.get():
            return self._outputs(inputs)
        activation, self.activation = self.activation, None
        try:
            outputs = self._standardized(self._outputs(inputs))
        finally:
            self.activation = activation
        return outputs if activation is None else activation(outputs)

    def save_own_variables(self, store):
        """Saves all variables; Keras' dense layers and convolutions save those that they know."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved."""
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        return {**super().get_config(), "init_scale": self.init_scale}


@keras.saving.register_keras_serializable(package="vaezoo")
class WeightNormDense(_WeightNorm, keras.layers.Dense):
    """`keras.layers.Dense` under weight normalization.

        y = act( exp(log_gain) * (v . x) / ||v|| + b )

    Args:
        units: Positive int.
        init_scale: Positive float, standard deviation of the outputs before the activation after
            the initialization from data, see `initialize_from_data`.
        **kwargs: Keyword arguments of `keras.layers.Dense`; kernels start from N(0, 0.05^2).

    Raises:
        ValueError: If `init_scale` is not positive.

    Reference: Salimans & Kingma (2016), eq. 2, arXiv:1602.07868.
    """


class _Convolution(_WeightNorm):
    """Gives a convolution with strides the windows of PyTorch's `padding=(k - 1) / 2`.

    "same", TensorFlow's, puts most of the zeros behind the last row: with kernels of 3, strides of
    2 and an even size its windows begin one pixel later.
    """

    kernel_size: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str
    data_format: str

    def __init__(
        self, filters: int, kernel_size: Any, *args: Any, symmetric: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(filters, kernel_size, *args, **kwargs)
        self.symmetric = check_flag("symmetric", symmetric)
        if not symmetric:
            return
        if (
            any(size % 2 == 0 for size in self.kernel_size)
            or (self.padding, self.data_format) != ("same", "channels_last")
            or set(self.dilation_rate) != {1}
        ):
            raise ValueError(
                "`symmetric` needs kernels of odd sizes, padding='same', channels last and no "
                f"dilation. Received: kernel_size={self.kernel_size}, padding={self.padding!r}, "
                f"data_format={self.data_format!r}, dilation_rate={self.dilation_rate}"
            )

    def get_config(self):
        return {**super().get_config(), "symmetric": self.symmetric}


@keras.saving.register_keras_serializable(package="vaezoo")
class WeightNormConv2D(_Convolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` under weight normalization; see `WeightNormDense`.

        y_{i,j} = act( sum_{a,b} kernel_{a,b} x_{s i + a - p, s j + b - p} + b )

    Args:
        filters: Positive int.
        kernel_size: As in `keras.layers.Conv2D`.
        symmetric: Whether p is (k - 1) / 2, as under PyTorch's `padding`, when `padding` is "same";
            otherwise Keras' p, which is smaller where strides s exceed 1.
        init_scale: As in `WeightNormDense`.
        **kwargs: Keyword arguments of `keras.layers.Conv2D`; kernels start from N(0, 0.05^2).

    Raises:
        ValueError: If `init_scale` is not positive, or `symmetric` goes with other kernels.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The convolution, without bias and activation."""
        if not self.symmetric:
            return conv(
                inputs, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
            )
        around = [(size // 2, size // 2) for size in self.kernel_size]
        return conv(ops.pad(inputs, [(0, 0), *around, (0, 0)]), kernel, self.strides)


@keras.saving.register_keras_serializable(package="vaezoo")
class WeightNormConv2DTranspose(_Convolution, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` under weight normalization; see `WeightNormDense`.

        y_{s i + a - p, s j + b - p} gets kernel_{a,b} x_{i,j}

    Args:
        filters: Positive int.
        kernel_size: As in `keras.layers.Conv2DTranspose`.
        symmetric: Whether p is (k - 1) / 2, as under PyTorch's `padding` and
            `output_padding=s - 1`, when `padding` is "same"; otherwise Keras' p.
        init_scale: As in `WeightNormDense`.
        **kwargs: Keyword arguments of `keras.layers.Conv2DTranspose`; kernels start from
            N(0, 0.05^2).

    Raises:
        ValueError: If `init_scale` is not positive, or `symmetric` goes with other kernels.
    """

    # Keras lays these kernels out as (rows, columns, outputs, inputs).
    _output_axis = -2

    @property
    def direction(self) -> Tensor:
        """The trained directions v, of the shape of the kernel."""
        return self._direction

    @property
    def kernel(self) -> Tensor:
        """The normalized kernel."""
        return _WeightNorm.kernel.fget(self)  # type: ignore[attr-defined]

    @kernel.setter
    def kernel(self, value: Any) -> None:
        # Keras assigns the variable that it has made.
        self._direction = value

    def _outputs(self, inputs):
        if not self.symmetric:
            return transposed_call(self, inputs)
        strides = self.strides
        outputs = conv_transpose(inputs, self.kernel, strides)
        (top, left), (height, width) = (
            [size // 2 for size in self.kernel_size],
            [size * stride for size, stride in zip(inputs.shape[1:3], strides, strict=True)],
        )
        outputs = outputs[:, top : top + height, left : left + width]
        if self.use_bias:
            outputs = outputs + ops.convert_to_tensor(self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def _plain(value):
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
