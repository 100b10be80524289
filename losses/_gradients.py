"""Gradients that are taken within a training step, by either backend's own differentiation."""

import keras
from keras import ops


def gradients(function, variables, constants=()):
    """Gradients of a scalar with respect to variables, whether these are trainable or not.

    Args:
        function: Function of nothing that returns a scalar tensor.
        variables: List of Keras variables to differentiate by.
        constants: Further Keras variables that `function` reads.

    Returns:
        List of tensors, one a variable.
    """
    # A scope hides the values that an outer one holds, so all that are read are handed on.
    fixed = [(variable, ops.copy(variable.value)) for variable in constants]
    values = [ops.copy(variable.value) for variable in variables]

    def scalar(values):
        mapping = [*zip(variables, values, strict=True), *fixed]
        with keras.StatelessScope(state_mapping=mapping):
            return function()

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            value = scalar(values)
        return tape.gradient(value, values)
    import jax

    return jax.grad(scalar)(values)
