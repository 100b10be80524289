"""Loops that can be differentiated on either backend, compiled or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .types import Tensor


def bounded_loop(count: int, body: Callable[..., Any], state: Any) -> Any:
    """`state = body(i, state)` for i from 0 to `count - 1`, with a gradient.

    Args:
        count: Positive int. XLA on TensorFlow needs to know it before it can differentiate, and
            JAX differentiates no loop but one of a known length.
        body: Function of an int scalar tensor and the state, that returns the state.
        state: Tensor or tuple of tensors.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.fori_loop(0, count, body, state)
    _, state = ops.while_loop(
        lambda index, _: index < count,
        lambda index, state: (index + 1, body(index, state)),
        (ops.zeros((), "int32"), state),
        maximum_iterations=count,
    )
    return state


def scan(
    step: Any, state: Any, inputs: Tensor, like: Any, reverse: bool = False
) -> tuple[Any, list[Tensor]]:
    """`state, outputs_t = step(state, inputs_t)` for all t, with a gradient.

    `ops.scan` has none under XLA on TensorFlow, for its loop is not bounded.

    Args:
        step: Function of the state and of a list of tensors that returns `(state, outputs)`.
        state: Tuple of tensors.
        inputs: List of tensors `(T, ...)`.
        like: Tuple of tensors of the shapes and types of the outputs.
        reverse: Whether the last step comes first.

    Returns:
        `(state, outputs)`: the last state, and a list of tensors `(T, ...)`.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.scan(step, state, list(inputs), reverse=reverse)
    import tensorflow as tf

    inputs = [tf.convert_to_tensor(values) for values in inputs]
    length, known_length = tf.shape(inputs[0])[0], inputs[0].shape[0]

    def array(shape, dtype):
        return tf.TensorArray(dtype, size=length, element_shape=shape)

    inputs = [array(values.shape[1:], values.dtype).unstack(values) for values in inputs]

    def body(index, state, outputs):
        here = length - 1 - index if reverse else index
        state, found = step(state, [values.read(here) for values in inputs])
        outputs = [to.write(here, values) for to, values in zip(outputs, found, strict=True)]
        return index + 1, state, outputs

    _, state, outputs = tf.while_loop(
        lambda index, *_: index < length,
        body,
        (tf.zeros((), "int32"), state, [array(values.shape, values.dtype) for values in like]),
        maximum_iterations=length,
    )
    outputs = [values.stack() for values in outputs]
    for values in outputs:
        values.set_shape((known_length, *values.shape[1:]))
    return state, outputs
