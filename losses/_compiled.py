"""Inference functions compiled once for either backend."""

import functools

import keras


def compiled(model, function, xla=False):
    """Compiles `function(*tensors)`, which reads `model`'s variables and changes none.

    On TensorFlow by XLA only if `xla` says so, and then anew for each shape: XLA's random numbers
    differ from those of a SavedModel, where equal seeds are to give equal values.
    """
    if keras.backend.backend() == "tensorflow":
        if xla:
            import tensorflow as tf

            return tf.function(function, jit_compile=True, autograph=False)
        return _with_any_batch(function)
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


def run_once(model, function, *args):
    """Runs `function(*tensors)`, which may change `model`'s variables, a single time.

    Eagerly on TensorFlow. JAX would compile every operation by itself, so there it is one step.
    """
    if keras.backend.backend() == "tensorflow":
        function(*args)
        return
    import jax

    @jax.jit
    def step(values, *args):
        mapping = list(zip(model.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            function(*args)
        return [scope.get_current_value(variable) for variable in model.variables]

    values = step([variable.value for variable in model.variables], *args)
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)


def _with_any_batch(function):
    """A `tf.function` that is traced once for all batch sizes."""
    import tensorflow as tf

    traced = {}

    @functools.wraps(function)
    def call(*args):
        args = [tf.convert_to_tensor(arg) for arg in args]
        specs = tuple(
            tf.TensorSpec((None, *arg.shape[1:]) if arg.shape.rank else (), arg.dtype)
            for arg in args
        )
        if specs not in traced:
            traced[specs] = tf.function(function, input_signature=specs, autograph=False)
        return traced[specs](*args)

    return call
