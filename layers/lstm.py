"""An LSTM whose gradient is written out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_flag, check_integer
from ..core.gradients import product, with_gradient
from ..core.loops import scan

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Config, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class LSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` whose loops do only what must be done in turn.

        i_t, f_t, g_t, o_t = W x_t + b + U h_{t-1}    (before their sigmoids, tanh for g)
        c_t = sigmoid(f_t) c_{t-1} + sigmoid(i_t) tanh(g_t),    h_t = sigmoid(o_t) tanh(c_t)

    W x_t + b is one product for all steps, and so are the gradients by W and U: the way back is a
    second loop that only follows dL/dh_t and dL/dc_t, from the gates that the first one keeps. It
    can be differentiated itself, also under XLA on TensorFlow, where Keras' own loop cannot be
    differentiated twice. Values, weights and masking are Keras'.

    Options that the loop has no room for (other activations, `recurrent_dropout`, `dropout`,
    `go_backwards`, `unroll`, `zero_output_for_mask`, no bias, cuDNN) make it Keras' own.

    Args:
        units: As in `keras.layers.LSTM`.
        use_cudnn: As in `keras.layers.LSTM`, but False by default.
        num_biases: 1, or 2 for b = b_x + b_h as in PyTorch and cuDNN. The model is the same, its
            training is not: each of the two takes an optimizer's step, so b moves by twice as much
            under SGD or Adam, and its gradient counts twice in the norm that gradients are clipped
            by. Learning rates that were published for such an LSTM ask for 2.
        **kwargs: Further arguments of `keras.layers.LSTM`.

    Raises:
        ValueError: If `num_biases` is neither 1 nor 2, or 2 without a bias; as from
            `keras.layers.LSTM`.

    Note:
        What comes out before the first unmasked step is the first state. Keras has zeros there on
        TensorFlow, and the same as here on JAX.

    Reference: Hochreiter and Schmidhuber (1997); Appleyard et al. (2016), section 3.1,
    arXiv:1604.01946 (products of all steps at once).
    """

    def __init__(
        self, units: int, use_cudnn: bool = False, num_biases: int = 1, **kwargs: Any
    ) -> None:
        if not (isinstance(use_cudnn, str) and use_cudnn == "auto"):
            use_cudnn = check_flag("use_cudnn", use_cudnn)
        super().__init__(check_integer("units", units), use_cudnn=use_cudnn, **kwargs)
        self.num_biases = check_integer("num_biases", num_biases, 1, 2)
        if self.num_biases == 2:
            if not self.use_bias:
                raise ValueError(
                    "`num_biases` must be 1 when there is no bias. Received: num_biases=2, "
                    "use_bias=False"
                )
            keras_cell = self.cell  # type: ignore[has-type]
            cell = _TwoBiasCell.from_config(keras_cell.get_config())
            cell.implementation = keras_cell.implementation
            self._tracker.untrack(keras_cell)
            self.cell = cell

    @property
    def _is_plain(self):
        return (
            self.use_cudnn is False
            and self.use_bias
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
            and not (self.dropout or self.recurrent_dropout)
            and not (self.go_backwards or self.unroll or self.zero_output_for_mask)
        )

    def get_config(self) -> Config:
        # Keras leaves it out.
        config = {**super().get_config(), "use_cudnn": self.use_cudnn}
        # Without it, a file is one that earlier versions read, too.
        return config if self.num_biases == 1 else {**config, "num_biases": 2}

    def inner_loop(
        self, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        if not self._is_plain:
            return super().inner_loop(sequences, initial_state, mask, training=training)
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if mask is not None:
            mask = ops.transpose(mask)[..., None]
        dtype = self.compute_dtype
        inputs = ops.transpose(ops.cast(sequences, dtype), (1, 0, 2))
        # A copy is a tensor whatever the backend has for a variable.
        inputs = product(inputs, ops.copy(self.cell.kernel)) + self.cell.bias
        h, c = (ops.cast(state, dtype) for state in initial_state)
        h, c = _recurrence(inputs, h, c, ops.copy(self.cell.recurrent_kernel), mask)
        return h[-1], ops.transpose(h, (1, 0, 2)), [h[-1], c]


@keras.saving.register_keras_serializable(package="vaezoo")
class _TwoBiasCell(keras.layers.LSTMCell):
    """Keras' cell with the sum of two variables as its bias."""

    def build(self, input_shape):
        super().build(input_shape)
        # An unseeded initializer repeats its draw; its clone does not.
        initializer = getattr(self.bias_initializer, "clone", lambda: self.bias_initializer)()
        self.state_bias = self.add_weight(
            shape=(4 * self.units,),
            name="state_bias",
            initializer=initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    @property
    def bias(self):
        """b_x + b_h, which all implementations add."""
        return ops.add(self.input_bias, self.state_bias)

    @bias.setter
    def bias(self, variable):
        self.input_bias = variable


def _recurrence(inputs, h_0, c_0, kernel, mask):
    """All states of the recurrence.

    Args:
        inputs: Tensor `(T, batch, 4 H)`, W x_t + b in the order i, f, g, o.
        h_0: Tensor `(batch, H)`.
        c_0: Tensor `(batch, H)`.
        kernel: Tensor `(H, 4 H)`, U.
        mask: Optional bool `(T, batch, 1)`; where it is False the states stay.

    Returns:
        `(h, c_T)`: `(T, batch, H)` and `(batch, H)`.
    """
    masks = [] if mask is None else [mask]

    def states(inputs, h_0, c_0, kernel):
        def step(state, here):
            (h, c), (x, *mask) = state, here
            i, f, g, o = ops.split(x + ops.matmul(h, kernel), 4, axis=-1)
            i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
            c_next = f * c + i * g
            h_next = o * ops.tanh(c_next)
            if mask:
                h_next, c_next = ops.where(mask[0], h_next, h), ops.where(mask[0], c_next, c)
            return (h_next, c_next), (h_next, c_next, ops.concatenate([i, f, g, o], axis=-1))

        _, (h, c, gates) = scan(step, (h_0, c_0), [inputs, *masks], (h_0, c_0, inputs[0]))
        return (h, c[-1]), (h, c, gates)

    def gradient(tensors, kept, by_h, by_c):
        _, h_0, c_0, kernel = tensors
        return _way_back(h_0, c_0, kernel, *kept, masks, by_h, by_c)

    return with_gradient(states, gradient)(inputs, h_0, c_0, kernel)


def _way_back(h_0, c_0, kernel, h, c, gates, masks, by_h, by_c):
    """Gradients by the inputs, the first states and U, from those by all h_t and the last c_t."""
    i, f, g, o = ops.split(gates, 4, axis=-1)
    h_before = ops.concatenate([h_0[None], h[:-1]], axis=0)
    c_before = ops.concatenate([c_0[None], c[:-1]], axis=0)
    tanh_c = ops.tanh(c)
    # What dL/dc_t and dL/dh_t are multiplied by, in all steps at once.
    to_c = o * (1.0 - ops.square(tanh_c))
    to_ifg = ops.concatenate(
        [g * i * (1.0 - i), c_before * f * (1.0 - f), i * (1.0 - ops.square(g))], axis=-1
    )
    to_o = tanh_c * o * (1.0 - o)
    transposed = ops.transpose(kernel)

    def step(state, here):
        (by_h, by_c), (from_above, to_c, to_ifg, to_o, f, *mask) = state, here
        by_h = by_h + from_above
        by_c_here = by_c + by_h * to_c
        by_gates = ops.concatenate([ops.tile(by_c_here, (1, 3)) * to_ifg, by_h * to_o], axis=-1)
        if mask:
            by_gates = ops.where(mask[0], by_gates, ops.zeros_like(by_gates))
        by_h_before, by_c_before = ops.matmul(by_gates, transposed), by_c_here * f
        if mask:
            by_h_before = ops.where(mask[0], by_h_before, by_h)
            by_c_before = ops.where(mask[0], by_c_before, by_c)
        return (by_h_before, by_c_before), (by_gates,)

    (by_h_0, by_c_0), (by_inputs,) = scan(
        step,
        (ops.zeros_like(h_0), by_c),
        [by_h, to_c, to_ifg, to_o, f, *masks],
        (gates[0],),
        reverse=True,
    )
    by_kernel = ops.tensordot(h_before, by_inputs, axes=[[0, 1], [0, 1]])
    return by_inputs, by_h_0, by_c_0, by_kernel
