"""One batch, one noise: what `tf.distribute` splits over replicas is put together again here.

Under `keras.distribution` on JAX arrays are global already and every function is the identity.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from .masks import num_valid, only_valid

if TYPE_CHECKING:
    from typing import Any

    from .types import Array, Tensor


def replica_context() -> Any:
    """The `tf.distribute` replica context when there are several replicas, else None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync < 2:
        return None
    return context


def num_replicas() -> int:
    """Number of replicas that train together in this step."""
    context = replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def num_tf_replicas(model: keras.Model) -> int:
    """Number of `tf.distribute` replicas of a model, asked from outside of a step."""
    if keras.backend.backend() != "tensorflow":
        return 1
    return model.distribute_strategy.num_replicas_in_sync


def host_value(variable: Any) -> Array:
    """The value of a Keras variable as a NumPy array of its own, whatever devices hold it.

    A copy: what a backend hands out may be a view of memory that the next step writes to.
    """
    value = variable.value
    # Of several replicas one that is read from outside of a step, in a mirrored variable's way.
    return np.array(value.numpy() if hasattr(value, "values") else ops.convert_to_numpy(value))


def strategy_scope(model: keras.Model) -> Any:
    """The scope in which variables of a model are made and set from outside of a step."""
    if num_tf_replicas(model) == 1:
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()


def check_strategy(model: keras.Model) -> None:
    """Raises a `ValueError` if a model was made under a strategy that cannot train it."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "A `tf.distribute` strategy must stay on one machine, as `MirroredStrategy` does; "
            "several machines train on the JAX backend, after `keras.distribution.initialize()` "
            "and `keras.distribution.set_distribution(keras.distribution.DataParallel())`. "
            "Received: a MultiWorkerMirroredStrategy"
        )


def num_devices(model: keras.Model) -> int:
    """Number of this process's devices that the batches of a model are split over."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return num_tf_replicas(model)
    import jax

    mesh = distribution.device_mesh
    devices = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
    return max(1, devices // jax.process_count())


def gather_batch(value: Any) -> Tensor:
    """Concatenates `value (batch, ...)` over the replicas, differentiably.

    Batch statistics taken of the result are those of the global batch on every replica.
    """
    context = replica_context()
    if context is None:
        return value
    # The collective forgets the static shape.
    return ops.reshape(context.all_gather(value, axis=0), (-1, *value.shape[1:]))


def has_rows(values: Any, least: int, valid: Tensor = None) -> bool:
    """Whether the global batch of `values (batch, ...)` has at least `least` rows.

    Args:
        values: Tensor, batch first.
        least: Positive int.
        valid: Bool `(batch,)`, whether a row counts, or None where all do. Without replicas only.

    Returns:
        Python bool where shapes are known to the trace, else a boolean tensor.
    """
    context = replica_context()
    if context is not None:
        rows = ops.cast(ops.shape(values)[0], "float32")
        return context.all_reduce("sum", rows) >= least
    if valid is not None:
        return num_valid(values, valid) >= least
    rows = values.shape[0]
    return (ops.shape(values)[0] if rows is None else rows) >= least


def batch_mean(values: Any, valid: Tensor = None) -> Tensor:
    """This replica's part of the mean of `values (batch,)` over the global batch.

    The parts add up to that mean, however unevenly a last batch is split: Keras adds the gradients
    of all replicas up.

    Args:
        values: Tensor `(batch,)`.
        valid: Bool `(batch,)`, whether a row counts, or None where all do. Without replicas only.
    """
    context = replica_context()
    if context is None:
        if valid is None:
            return ops.mean(values)
        return ops.sum(only_valid(values, valid)) / num_valid(values, valid)
    size = ops.cast(ops.shape(values)[0], values.dtype)
    part = ops.sum(values) / context.all_reduce("sum", size)
    # Keras logs the loss as if it were the mean over the replica's own rows, of which there may be
    # none, divided by the number of replicas. That is the value; the gradient is the part's.
    logged = ops.sum(values) / ops.maximum(size, 1.0) / context.num_replicas_in_sync
    return part + ops.stop_gradient(logged - part)
