"""Gradients and loops within a training step, by either backend's own differentiation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .types import Tensor


def gradients(
    function: Callable[..., Any], variables: Sequence[Any], constants: Sequence[Any] = ()
) -> list[Tensor]:
    """Gradients of a scalar with respect to variables, whether these are trainable or not.

    Args:
        function: Function of nothing that returns a scalar tensor.
        variables: List of Keras variables to differentiate by.
        constants: Further Keras variables that `function` reads.

    Returns:
        List of tensors, one a variable.
    """
    # A scope hides the values that an outer one holds, so all that are read are handed on.
    fixed = [(variable, ops.convert_to_tensor(variable.value)) for variable in constants]
    values = [ops.convert_to_tensor(variable.value) for variable in variables]

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


def value_and_gradients(
    function: Callable[..., Any],
    variables: Sequence[Any],
    others: Sequence[Any] = (),
    at: Sequence[Tensor] = (),
) -> Any:
    """A scalar and its gradients, for training steps: what `function` assigns stays assigned.

    Args:
        function: Function of the tensors `at`, of nothing by default, that returns
            `(scalar, aux)`, `aux` any nest of tensors.
        variables: List of Keras variables to differentiate by.
        others: Further Keras variables that `function` reads or assigns.
        at: List of tensors to differentiate by as well.

    Returns:
        `((scalar, aux), gradients)`, a gradient for each of `at` and then of `variables`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        at = [tf.convert_to_tensor(tensor) for tensor in at]
        values = [*at, *(variable.value for variable in variables)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            value, aux = function(*at)
        found = tape.gradient(value, values, unconnected_gradients="zero")
        return (value, aux), [tf.convert_to_tensor(gradient) for gradient in found]
    import jax

    def scalar(given, rest):
        at, values = given
        mapping = [*zip(variables, values, strict=True), *zip(others, rest, strict=True)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            value, aux = function(*at)
        return value, (aux, [scope.get_current_value(variable) for variable in others])

    rest = [variable.value for variable in others]
    differentiate = jax.value_and_grad(scalar, has_aux=True)
    given = (list(at), [variable.value for variable in variables])
    (value, (aux, rest)), (by_tensors, found) = differentiate(given, rest)
    for variable, new in zip(others, rest, strict=True):
        variable.assign(new)
    return (value, aux), [*by_tensors, *found]


def value_and_gradients_at(function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
    """A scalar and its gradients with respect to tensors.

    Args:
        function: Function of a list of tensors that returns `(scalar, aux)`, `aux` any nest of
            tensors, and assigns no variable outside of a scope of its own.
        tensors: List of tensors.

    Returns:
        `((scalar, aux), gradients)`, a gradient for each of `tensors`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value, aux = function(tensors)
        found = tape.gradient(value, tensors, unconnected_gradients="zero")
        return (value, aux), [tf.convert_to_tensor(gradient) for gradient in found]
    import jax

    return jax.value_and_grad(function, has_aux=True)(list(tensors))


def with_gradient(function: Callable[..., Any], gradient: Callable[..., Any]) -> Any:
    """A function whose gradient is written out, where differentiating it would cost more.

    Both are made of `keras.ops`, so that they can be differentiated further.

    Args:
        function: Function of tensors that returns `(value, kept)`: a tensor or a tuple of them, and
            whatever `gradient` is to use again. Tensors that have no gradient (masks, indices) are
            left to its closure.
        gradient: Function `(tensors, kept, *by)` of the arguments, of `kept`, and of the gradients
            by each value, that returns a tuple of the gradients by each argument.

    Returns:
        Function of the same tensors that returns `value`.
    """

    @ops.custom_gradient
    def call(*tensors):
        value, kept = function(*tensors)

        def backward(*by, **_):
            # JAX hands several over as a tuple.
            by = by[0] if isinstance(by[0], (tuple, list)) else by
            found = gradient(tensors, kept, *by)
            return found if len(found) > 1 else found[0]

        return value, backward

    return call


def product(x: Tensor, kernel: Tensor) -> Tensor:
    """`x (..., A) @ kernel (A, B)`, whose gradient by the kernel is a product of two matrices.

    On JAX (0.10.2) differentiation contracts all leading axes at once, which XLA's CPU does slower:
    37 for 29 ms of processor time for the readout of 352 words among 8,411.
    """
    if keras.backend.backend() != "jax" or len(x.shape) < 3:
        return ops.matmul(x, kernel)

    def gradient(tensors, _, by):
        x, kernel = tensors
        rows, by_rows = (ops.reshape(values, (-1, values.shape[-1])) for values in (x, by))
        return ops.matmul(by, ops.transpose(kernel)), ops.matmul(ops.transpose(rows), by_rows)

    return with_gradient(lambda x, kernel: (ops.matmul(x, kernel), ()), gradient)(x, kernel)


def while_loop(
    cond: Callable[..., Tensor], body: Callable[..., Any], state: Any, variables: Sequence[Any]
) -> Any:
    """`ops.while_loop` whose body may assign Keras variables.

    Args:
        cond: Function of the parts of `state` that returns a boolean scalar.
        body: Function of the parts of `state` that returns them anew.
        state: Tuple of tensors.
        variables: List of the Keras variables that `cond` and `body` read or assign.

    Returns:
        The last `state`.
    """
    if keras.backend.backend() == "tensorflow":
        return ops.while_loop(cond, body, state)

    def within(function):
        def call(values, *state):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                result = function(*state)
            return result, [scope.get_current_value(variable) for variable in variables]

        return call

    def step(values, *state):
        state, values = within(body)(values, *state)
        return values, *state

    start = [variable.value for variable in variables]
    values, *state = ops.while_loop(
        lambda *carried: within(cond)(*carried)[0], step, (start, *state)
    )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return tuple(state)
