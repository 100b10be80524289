"""Inference functions compiled once for either backend."""

import functools

import keras


def compiled(model, function):
    """Compiles `function(*tensors)`, which reads `model`'s variables and changes none.

    Not by XLA on TensorFlow: its random numbers differ from those of a SavedModel, and equal seeds
    are to give equal values in both.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    import jax

    @jax.jit
    def stateless(values, *args):
        mapping = list(zip(model.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*args)

    @functools.wraps(function)
    def call(*args):
        return stateless([variable.value for variable in model.variables], *args)

    return call
