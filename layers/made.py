"""The masked autoregressive network behind the flows."""

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
    check_seed,
)
from ..core.serialization import ArgumentsConfig
from ..losses import float32
from .weight_normalization import WeightNormalized, normalized_kernel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import KerasObject, Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class MADE(ArgumentsConfig, keras.layers.Layer):
    """Dense network each of whose outputs sees only the coordinates before its own.

        outputs_d = f_d( z_1, ..., z_{d-1}, context )

    Every unit has a degree. Inputs and outputs have those of their coordinates, 1 to D; a hidden
    unit sees units of at most its own degree, an output only those below.

    Args:
        num_outputs: Positive int P, outputs per dimension.
        hidden_units: Sequence of positive ints; none for a linear map.
        degrees: `"random"`, hidden degrees drawn uniformly from 1 to D-1; or `"sequential"`, spread
            evenly.
        activation: Keras activation of the hidden layers.
        direct: Whether inputs are also connected to the outputs, under their mask.
        context_layers: Where the context enters, by an unmasked map without bias: `"all"` layers
            including the output, or the `"first"` one only, as in the code of DU-IAF. There the
            first coordinate's outputs do not depend on the context.
        seed: Int that fixes random degrees.
        kernel_initializer: Keras initializer of the masked kernels; by default Glorot's uniform
            one, and N(0, 0.05^2) under weight normalization.
        weight_norm: Whether masked kernels are weight-normalized, each under its mask. Every
            connection is then initialized from data by itself, see `initialize_from_data`; what
            the context adds is no part of that.
        init_scale: Positive float, standard deviation of the outputs of each masked connection
            after that initialization.
        context_initializer: Keras initializer of the context's kernels; by default Glorot's uniform
            one.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.
        context: Optional float tensor `(batch, C)`; the same in every call.

    Returns:
        Float32 tensor `(batch, K, P, D)`.

    Raises:
        ValueError: If an argument is out of range; in a call, if `z` is of another rank, or the
            context comes or stays away against what the layer was built with.

    Reference: Germain et al. (2015), section 4, arXiv:1502.03509; Salimans & Kingma (2016), eq. 2,
    arXiv:1602.07868 (weight normalization).
    """

    def __init__(
        self,
        num_outputs: int = 2,
        hidden_units: Sequence[int] = (64, 64),
        degrees: str = "random",
        activation: KerasObject = "relu",
        direct: bool = False,
        context_layers: str = "all",
        seed: int = 0,
        kernel_initializer: KerasObject = None,
        weight_norm: bool = False,
        init_scale: float = 1.0,
        context_initializer: KerasObject = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_outputs = check_integer("num_outputs", num_outputs)
        self.hidden_units = check_integers("hidden_units", hidden_units)
        self.degrees = check_choice("degrees", degrees, ("random", "sequential"))
        self.activation = check_keras("activation", activation, keras.activations)
        self.direct = check_flag("direct", direct)
        self.context_layers = check_choice("context_layers", context_layers, ("all", "first"))
        self.seed = check_seed("seed", seed, optional=False)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        self.context_initializer = check_keras(
            "context_initializer", context_initializer, keras.initializers
        )
        self.weight_norm = check_flag("weight_norm", weight_norm)
        self.init_scale = check_real("init_scale", init_scale, "(0, inf)")

    def _argument(self, name):
        value = super()._argument(name)
        if name == "activation":
            return keras.activations.serialize(value)
        if name.endswith("initializer") and value is not None:
            return keras.initializers.serialize(value)
        return value

    def build(self, z_shape: Shape, context_shape: Shape | None = None) -> None:
        if len(z_shape) != 3 or z_shape[-1] is None:
            raise ValueError(f"`z` must have shape (batch, K, D). Received: shape={tuple(z_shape)}")
        size = z_shape[-1]
        self.latent_dim = size
        self.context_dim = None if context_shape is None else context_shape[-1]
        inputs = np.arange(1, size + 1)
        outputs = np.tile(inputs, self.num_outputs)
        degrees = [inputs, *self._hidden_degrees(size)]
        pairs = zip(degrees[:-1], degrees[1:], strict=True)
        masks = [before[:, None] <= after for before, after in pairs]
        masks.append(degrees[-1][:, None] < outputs)
        self.layers_ = [
            self._connection(f"layer_{number}", mask, number == 0 or self.context_layers == "all")
            for number, mask in enumerate(masks)
        ]
        self.shortcut = None
        if self.direct:
            mask = inputs[:, None] < outputs
            # Its own bias serves to center it when it is initialized from data.
            self.shortcut = self._connection("direct", mask, False, self.weight_norm)

    def _hidden_degrees(self, size):
        # One coordinate leaves nothing to see: its outputs are masked whatever these are.
        highest = max(size - 1, 1)
        if self.degrees == "sequential":
            return [np.ceil(np.arange(1, n + 1) * highest / n) for n in self.hidden_units]
        rng = np.random.default_rng(self.seed)
        return [rng.integers(1, highest, n, endpoint=True) for n in self.hidden_units]

    def _connection(self, name, mask, sees_context, use_bias=True):
        connection = _MaskedDense(
            mask,
            use_bias=use_bias,
            context_dim=self.context_dim if sees_context else None,
            kernel_initializer=self._initializer(),
            context_initializer="glorot_uniform"
            if self.context_initializer is None
            else _fresh(self.context_initializer),
            weight_norm=self.weight_norm,
            init_scale=self.init_scale,
            dtype=self.dtype_policy,
            name=name,
        )
        connection.build((None, mask.shape[0]))
        return connection

    def _initializer(self):
        if self.kernel_initializer is None:
            if self.weight_norm:
                return keras.initializers.RandomNormal(stddev=0.05)
            return keras.initializers.GlorotUniform()
        return _fresh(self.kernel_initializer)

    def call(self, z: Tensor, context: Tensor = None) -> Tensor:
        if (context is None) != (self.context_dim is None):
            expected = "none" if self.context_dim is None else f"(batch, {self.context_dim})"
            raise ValueError(
                f"`context` must be as in the first call, {expected}. Received: "
                f"{'none' if context is None else tuple(context.shape)}"
            )
        z = float32(z)
        hidden = z
        for number, connection in enumerate(self.layers_):
            hidden = connection(hidden, context)
            if number < len(self.layers_) - 1:
                hidden = self.activation(hidden)
        if self.shortcut is not None:
            hidden = hidden + self.shortcut(z)
        # A compiled function may know the number of points from its data alone.
        return ops.reshape(hidden, (-1, ops.shape(z)[1], self.num_outputs, self.latent_dim))

    def compute_output_shape(self, z_shape: Shape, context_shape: Shape | None = None) -> Any:
        return (*z_shape[:2], self.num_outputs, z_shape[-1])


def _fresh(initializer):
    # One initializer gives kernels of one shape the same values time and again; its clones do so
    # only under a seed of the user's.
    initializer = keras.initializers.get(initializer)
    return getattr(initializer, "clone", lambda: initializer)()


@keras.saving.register_keras_serializable(package="vaezoo")
class _MaskedDense(WeightNormalized, keras.layers.Layer):
    """Linear map under a mask `(inputs, outputs)`, and what a context adds to it."""

    def __init__(
        self,
        mask: Any,
        use_bias: bool,
        context_dim: int,
        kernel_initializer: KerasObject,
        context_initializer: KerasObject,
        weight_norm: bool,
        init_scale: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mask, self.use_bias, self.context_dim = mask, use_bias, context_dim
        self.kernel_initializer = kernel_initializer
        self.context_initializer = context_initializer
        self.weight_norm, self.init_scale = weight_norm, init_scale

    def build(self, input_shape):
        outputs = self.mask.shape[1]
        self.kernel = self.add_weight(
            name="kernel", shape=self.mask.shape, initializer=self.kernel_initializer
        )
        self.bias = self.context_kernel = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(outputs,), initializer="zeros")
        if self.weight_norm:
            self._add_gains(outputs)
        if self.context_dim:
            self.context_kernel = self.add_weight(
                name="context_kernel",
                shape=(self.context_dim, outputs),
                initializer=self.context_initializer,
            )

    def call(self, inputs, context=None):
        kernel = ops.multiply(self.kernel, ops.cast(self.mask, self.kernel.dtype))
        if self.weight_norm:
            kernel = normalized_kernel(kernel, self.log_gain)
        outputs = ops.matmul(inputs, kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        if self.weight_norm:
            outputs = self._standardized(outputs)
        if self.context_kernel is not None:
            # The same for all K draws of an example.
            outputs = outputs + ops.matmul(float32(context), self.context_kernel)[:, None]
        return outputs
