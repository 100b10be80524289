"""The masked autoregressive network behind the flows."""

import keras
import numpy as np
from keras import ops

from ..losses import float32
from ..losses._serialization import ArgumentsConfig
from ..losses.objective import check_choice


@keras.saving.register_keras_serializable(package="vaezoo")
class MADE(ArgumentsConfig, keras.layers.Layer):
    """Dense network each of whose outputs sees only the coordinates before its own.

        outputs_d = f_d( z_1, ..., z_{d-1}, context )

    Every unit has a degree. Inputs and outputs have those of their coordinates, 1 to D; a hidden
    unit sees units of at most its own degree, an output only those below.

    Args:
        num_outputs: Positive int P, outputs by coordinate.
        hidden_units: Sequence of positive ints; none for a linear map.
        degrees: `"random"`, hidden degrees drawn uniformly from 1 to D-1; or `"sequential"`, spread
            evenly.
        activation: Keras activation of the hidden layers.
        direct: Whether inputs are also connected to the outputs, under their mask.
        context_layers: Where the context enters, by an unmasked map without bias: `"all"` layers
            including the output, or the `"first"` one only, as in the code of DU-IAF. There the
            first coordinate's outputs do not depend on the context.
        seed: Int that fixes random degrees.
        kernel_initializer: Keras initialiser of the masked kernels.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.
        context: Optional float tensor `(batch, C)`; the same in every call.

    Returns:
        Float32 tensor `(batch, K, P, D)`.

    Raises:
        ValueError: If an argument is out of range; in a call, if `z` is of another rank, or the
            context comes or stays away against what the layer was built with.

    Reference: Germain et al. (2015), section 4, arXiv:1502.03509.
    """

    def __init__(
        self,
        num_outputs=2,
        hidden_units=(64, 64),
        degrees="random",
        activation="relu",
        direct=False,
        context_layers="all",
        seed=0,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        hidden_units = tuple(hidden_units)
        for name, values in (("num_outputs", (num_outputs,)), ("hidden_units", hidden_units)):
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ValueError(
                        f"`{name}` must be of positive integers. Received: {name}="
                        f"{num_outputs if name == 'num_outputs' else hidden_units}"
                    )
        check_choice("degrees", degrees, ("random", "sequential"))
        check_choice("context_layers", context_layers, ("all", "first"))
        self.num_outputs, self.hidden_units, self.degrees = num_outputs, hidden_units, degrees
        self.activation = keras.activations.get(activation)
        self.direct, self.context_layers, self.seed = direct, context_layers, seed
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def _argument(self, name):
        value = super()._argument(name)
        if name == "activation":
            return keras.activations.serialize(value)
        if name == "kernel_initializer":
            return keras.initializers.serialize(value)
        return value

    def build(self, z_shape, context_shape=None):
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
            self.shortcut = self._connection("direct", mask, False, use_bias=False)

    def _hidden_degrees(self, size):
        # One coordinate leaves nothing to see: its outputs are masked whatever these are.
        highest = max(size - 1, 1)
        if self.degrees == "sequential":
            return [np.ceil(np.arange(1, n + 1) * highest / n) for n in self.hidden_units]
        rng = np.random.default_rng(self.seed)
        return [rng.integers(1, highest, n, endpoint=True) for n in self.hidden_units]

    def _connection(self, name, mask, sees_context, use_bias=True):
        kernel = self.add_weight(
            name=f"{name}_kernel", shape=mask.shape, initializer=self.kernel_initializer
        )
        bias = context = None
        if use_bias:
            bias = self.add_weight(name=f"{name}_bias", shape=(mask.shape[1],), initializer="zeros")
        if sees_context and self.context_dim:
            context = self.add_weight(
                name=f"{name}_context",
                shape=(self.context_dim, mask.shape[1]),
                initializer="glorot_uniform",
            )
        return mask.astype("float32"), kernel, bias, context

    def call(self, z, context=None):
        if (context is None) != (self.context_dim is None):
            expected = "none" if self.context_dim is None else f"(batch, {self.context_dim})"
            raise ValueError(
                f"`context` must be as in the first call, {expected}. Received: "
                f"{'none' if context is None else tuple(context.shape)}"
            )
        z = float32(z)
        hidden = z
        for number, connection in enumerate(self.layers_):
            hidden = _connected(hidden, connection, context)
            if number < len(self.layers_) - 1:
                hidden = self.activation(hidden)
        if self.shortcut is not None:
            hidden = hidden + _connected(z, self.shortcut, None)
        return ops.reshape(hidden, (-1, z.shape[1], self.num_outputs, self.latent_dim))

    def compute_output_shape(self, z_shape, context_shape=None):
        return (*z_shape[:2], self.num_outputs, z_shape[-1])


def _connected(inputs, connection, context):
    mask, kernel, bias, context_kernel = connection
    outputs = ops.matmul(inputs, ops.multiply(kernel, mask))
    if bias is not None:
        outputs = outputs + bias
    if context_kernel is not None:
        # The same for all K draws of an example.
        outputs = outputs + ops.matmul(float32(context), context_kernel)[:, None]
    return outputs
