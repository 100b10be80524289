"""Loops that can be differentiated on either backend, compiled or not."""

import keras
from keras import ops


def bounded_loop(count, body, state):
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
