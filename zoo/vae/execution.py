"""How many training steps the compiled function takes in one call, where nothing is said."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

from ...core.conditions import data_of, num_rows
from ...core.resuming import Ahead, Resuming
from .epochs import length_of_epoch
from .scale import NonFiniteGuard
from .xla import accelerators

if TYPE_CHECKING:
    from typing import Any

    from .data import Data
    from .model import VAE

#: Most steps of a call, and the floating-point operations that it may have: about a second of a
#: core, after which the progress bar moves and a signal is heard.
MOST, FLOP = 32, 64e9
#: Fewer would change little.
FEWEST = 4
#: Steps of a `fit` from which on the loop of steps has paid for its longer trace.
WORTHWHILE = 250

_HOOKS = tuple(
    f"on_{kind}_{moment}"
    for kind in ("batch", "train_batch", "test_batch")
    for moment in ("begin", "end")
)
#: Layers that use each weight once for an example, if their output has two axes.
_DENSE = (keras.layers.Dense, keras.layers.BatchNormalization, keras.layers.LayerNormalization)


def steps_at_once(
    model: VAE, data: Data, batch_size: int | None, epochs: int, callbacks: Any, options: Any
) -> int:
    """Chooses `steps_per_execution` for a `fit`: more than 1 where steps are short.

    On TensorFlow's CPU a call of the compiled step costs 1 to 3 ms of Python and dispatch, and a
    step of dense networks takes 7 to 30 (benchmarks/README.md). Steps compiled by XLA give the same
    values in a loop. On JAX Keras takes them one by one in any case; GPUs were not measured.

    Args:
        model: Compiled and built `VAE`.
        data: `Data` to train on.
        batch_size: Positive int, or None for Keras' default.
        epochs: Number of the epoch to end before.
        callbacks: Callbacks of the `fit`. Those that act on batches are called after each.
        options: Dict of further arguments of `fit`.
    """
    if not _possible(model) or options.get("steps_per_epoch") or keras.config.max_steps_per_epoch():
        return 1
    length, rows = length_of_epoch(data.x, batch_size), _rows(data, batch_size)
    if not length or not rows:
        return 1
    if length * (epochs - options.get("initial_epoch", 0)) < WORTHWHILE:
        return 1
    if any(_acts_on_batches(one) for one in keras.tree.flatten(callbacks)):
        return 1
    flop = _flop(model, rows)
    if flop is None:
        return 1
    steps = min(MOST, int(FLOP / flop))
    if steps < FEWEST:
        return 1
    for saver in (one for one in keras.tree.flatten(callbacks) if isinstance(one, Resuming)):
        # A training goes on after a whole number of calls.
        steps = math.gcd(steps, saver.batches_behind())
    return steps


def _possible(model):
    if keras.backend.backend() != "tensorflow" or hasattr(model, "custom_train_step"):
        return False
    if not model.built or not model.jit_compile or model.run_eagerly or accelerators():
        return False
    import tensorflow as tf

    return model.distribute_strategy is tf.distribute.get_strategy()


def _acts_on_batches(callback):
    if isinstance(callback, (Ahead, NonFiniteGuard)):
        return False
    if isinstance(callback, Resuming):
        return callback.every.seconds < math.inf or callback.every.steps < math.inf
    default = keras.callbacks.Callback
    return any(
        getattr(getattr(callback, hook, None), "__func__", None) is not getattr(default, hook)
        for hook in _HOOKS
    )


def _rows(data, batch_size):
    """Rows of the batches of an array or a `tf.data.Dataset`, None of other sources."""
    if hasattr(data.x, "element_spec"):
        return None if data.first is None else num_rows(data.first)
    return batch_size or 32 if hasattr(data_of(data.x), "shape") else None


def _flop(model, rows):
    """About the floating-point operations of a step, or None for other than dense networks."""
    for part in (model.encoder, model.decoder):
        for layer in part._flatten_layers():
            inner = list(layer._flatten_layers(include_self=False))
            if inner or not layer.weights:
                continue
            if not isinstance(layer, _DENSE):
                return None
            try:
                if len(layer.output.shape) != 2:
                    return None
            except (AttributeError, ValueError):
                # A layer outside of a graph of layers.
                return None
    weights = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    return max(1, 6 * weights * rows * model.head.num_samples)
