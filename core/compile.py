"""Inference functions compiled once for either backend."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def compiled(
    model: keras.Model, function: Callable[..., Any], xla: bool = False
) -> Callable[..., Any]:
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


def rows_to_compile(
    rows: int, most: int | None = None, xla: bool = False, noise: bool = False
) -> int:
    """Number of rows that a function is compiled for, to be used with `rows` of them.

    JAX compiles anew for each shape, and so does XLA on TensorFlow: few sizes, the powers of two up
    to `most`, take few compilations. Elsewhere a function takes any number of rows.

    Args:
        rows: Positive int.
        most: Optional int of at least `rows`, the largest number.
        xla: Whether the function is compiled by XLA on TensorFlow, too.
        noise: Whether the function draws. Of JAX's random numbers those of the first rows do not
            depend on how many rows follow, unless its option `jax_threefry_partitionable` is off.

    Returns:
        Int of at least `rows`.
    """
    on_jax = keras.backend.backend() == "jax"
    if not (on_jax or xla):
        return rows
    if noise and on_jax:
        import jax

        if not jax.config.jax_threefry_partitionable:
            return rows
    power = 1 << (rows - 1).bit_length()
    return power if most is None else min(power, most)


def padded(arrays: Sequence[Any], rows: int) -> Sequence[Any]:
    """NumPy arrays with their first row repeated at the end up to `rows`.

    Args:
        arrays: Sequence of arrays or tensors of equal lengths, of at most `rows`.
        rows: Positive int.

    Returns:
        The sequence as it is if nothing is missing, else a list.
    """
    missing = rows - len(arrays[0])
    if missing == 0:
        return arrays
    arrays = [keras.ops.convert_to_numpy(array) for array in arrays]
    return [np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) for array in arrays]


def run_once(model: keras.Model, function: Callable[..., Any], *args: Any) -> None:
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
