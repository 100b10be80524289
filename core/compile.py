"""Inference functions compiled once for either backend."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .types import Tensor


def compiled(
    model: keras.Model, function: Callable[..., Any], xla: bool = False
) -> Callable[..., Any]:
    """Compiles `function(*tensors)`, which reads `model`'s variables and changes none.

    On TensorFlow by XLA only if `xla` says so, and then anew for each shape: XLA's random numbers
    differ from those of a SavedModel, where equal seeds are to give equal values.
    """
    if keras.backend.backend() == "tensorflow":
        if xla:
            return _graph(function, jit_compile=True)
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


def compiles_by_size(xla: bool = False, noise: bool = False) -> bool:
    """Whether a function is compiled for each number of rows, and more rows change no value.

    Args:
        xla: As in `rows_to_compile`.
        noise: As in `rows_to_compile`.
    """
    if keras.backend.backend() != "jax":
        return xla
    if not noise:
        return True
    import jax

    return jax.config.jax_threefry_partitionable


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
    if not compiles_by_size(xla, noise):
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


def stateless(
    function: Callable[[], Any],
    groups: Sequence[Sequence[keras.Variable]],
    values: Sequence[Sequence[Tensor]],
    collect_losses: bool = False,
) -> tuple[Any, tuple[list[Tensor], ...], list[Tensor]]:
    """Runs `function()` on JAX with variables of given values, and changes none.

    Args:
        function: Function that reads and assigns Keras variables as eager code does.
        groups: Sequence of lists of variables.
        values: Their values, in the same structure.
        collect_losses: Whether to return what layers add to the loss.

    Returns:
        `(result, new values, losses)`: what the function returns, what the variables would hold
        after it, in the structure of `groups`, and the list of added losses.
    """
    mapping = [
        pair
        for variables, given in zip(groups, values, strict=True)
        for pair in zip(variables, given, strict=True)
    ]
    with keras.StatelessScope(state_mapping=mapping, collect_losses=collect_losses) as scope:
        result = function()
    new = tuple([scope.get_current_value(variable) for variable in group] for group in groups)
    return result, new, scope.losses


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


def _graph(function, **options):
    import tensorflow as tf

    graph = tf.function(function, autograph=False, **options)
    # Each model has functions of its own of the same lines, which looks like retracing.
    graph._omit_frequent_tracing_warning = True
    return graph


def _with_any_batch(function):
    """A `tf.function` that is traced once for all batch sizes."""
    import tensorflow as tf

    traced = {}

    @functools.wraps(function)
    def call(*args):
        flat = [tf.convert_to_tensor(arg) for arg in keras.tree.flatten(args)]
        specs = tuple(
            tf.TensorSpec((None, *arg.shape[1:]) if arg.shape.rank else (), arg.dtype)
            for arg in flat
        )
        # Of the structure, the names of dicts tell all.
        names = tuple(tuple(sorted(arg)) if isinstance(arg, dict) else None for arg in args)
        if (specs, names) not in traced:
            signature = keras.tree.pack_sequence_as(args, list(specs))
            traced[specs, names] = _graph(function, input_signature=signature)
        return traced[specs, names](*keras.tree.pack_sequence_as(args, flat))

    return call
