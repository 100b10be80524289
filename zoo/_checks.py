"""Data and batch sizes are checked before the first step."""

import functools
import inspect
import itertools
import math
import warnings

import keras
import numpy as np

from ..losses._replicas import num_devices
from ._index import split_index

#: How many examples of an array weight-normalised layers are initialised from.
FIRST_EXAMPLES = 500


def explains_memory(method):
    """Decorator of methods with a `batch_size`: says what to do when the device's memory is full.

    Raises:
        MemoryError: In place of what the backend raises then.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            # XLA, TensorFlow and JAX raise classes of their own, under this one status.
            if not any(sign in str(error) for sign in ("RESOURCE_EXHAUSTED", "OOM when")):
                raise
            given = signature.bind_partial(self, *args, **kwargs).arguments
            size = given.get("batch_size", signature.parameters["batch_size"].default)
            raise MemoryError(
                f"`{method.__name__}` ran out of memory: use a smaller `batch_size` (for a data "
                "set, smaller batches), fewer draws, smaller networks or the policy "
                f"'mixed_bfloat16'. Received: batch_size={size}"
            ) from error

    return call


def checked_data(model, x, y, batch_size, training, held_out=0.0):
    """Checks what `fit`, `evaluate` or `predict` was given.

    Arrays are checked as a whole, other sources by their first batch.

    Args:
        model: `VAE`.
        x: Array, `tf.data.Dataset`, `PyDataset` or generator.
        y: Targets or labels of an array, or None.
        batch_size: Positive int, or None for Keras' default.
        training: Whether batch statistics will be taken.
        held_out: Part of an array that Keras splits off for validation.

    Returns:
        `(x, first)`: the data with nothing consumed, and their first examples, or None where they
        cannot be looked into.

    Raises:
        TypeError: If the data are not numbers.
        ValueError: If they are empty, of another shape than the encoder takes, outside the
            likelihood's support, not finite, or in batches too small for a batch statistic or not
            to be split over the devices.
    """
    if x is None:
        raise ValueError("`x` must be given. Received: x=None")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    first = None
    if inspect.isgenerator(x):
        first = next(x, None)
        x = _put_back(first, x)
    elif isinstance(x, keras.utils.PyDataset):
        first = x[0] if _length(x) != 0 else None
    elif hasattr(x, "element_spec"):
        if not hasattr(x, "take"):
            # A distributed data set cannot be looked into.
            return x, None
        first = next(iter(x.take(1)), None)
    else:
        check_values(model, x, y)
        rows = max(1, math.floor(len(x) * (1.0 - held_out)))
        _check_batch_sizes(model, batch_size or 32, rows, training)
        return x, x[: min(rows, FIRST_EXAMPLES)]
    if first is None:
        raise ValueError("`x` must hold at least one batch. Received: an empty data set")
    batch, target, _ = keras.utils.unpack_x_y_sample_weight(first)
    check_values(model, batch, target)
    _check_batch_sizes(model, len(batch), len(batch), training)
    return x, batch


def _length(dataset):
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return dataset.num_batches


def _put_back(first, rest):
    for batch in itertools.chain([first], rest):
        # Keras wants tuples from generators.
        yield tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def check_values(model, x, y=None):
    """Checks one array of inputs, and the target `y` if it is one rather than labels."""
    y, _ = split_index(y)
    x = _as_array("x", x)
    if x.size == 0 or x.ndim == 0:
        raise ValueError(f"`x` must hold at least one example. Received: shape={x.shape}")
    expected = getattr(model.encoder, "input_shape", None)
    if isinstance(expected, tuple):
        fits = len(expected) == x.ndim and all(
            size in (None, got) for size, got in zip(expected[1:], x.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                "`x` must have the shape that the encoder takes, (batch"
                + "".join(f", {size}" for size in expected[1:])
                + f"). Received: shape={x.shape}"
            )
    if y is not None and not hasattr(y, "shape"):
        raise TypeError(f"`y` must be an array. Received: {type(y).__name__}")
    target = x if y is None or not is_target(x, y) else _as_array("y", y)
    model.likelihood.check(target)
    if target is not x and not np.all(np.isfinite(x)):
        raise ValueError("`x` must hold finite numbers. Received: NaN or infinity among its values")


def is_int(value):
    """Whether a value is a whole number, Python's or NumPy's."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value):
    """Whether a value is a number, Python's or NumPy's."""
    return is_int(value) or isinstance(value, (float, np.floating))


def check_count(name, value):
    """Raises a `ValueError` unless `value` is a positive integer."""
    if not is_int(value) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value}")


def is_target(x, y):
    """Whether `y` is something to reconstruct, of the shape of `x`, rather than labels."""
    return len(y.shape) == len(x.shape) and tuple(y.shape[1:]) == tuple(x.shape[1:])


def _as_array(name, value):
    if not hasattr(value, "dtype"):
        raise TypeError(
            f"`{name}` must be an array, a `tf.data.Dataset`, a `PyDataset` or a generator. "
            f"Received: {type(value).__name__}"
        )
    if keras.backend.is_keras_tensor(value):
        raise TypeError(f"`{name}` must hold values. Received: a symbolic KerasTensor")
    # `convert_to_numpy` would copy the whole data set.
    array = value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype={array.dtype}")
    return array


def _check_batch_sizes(model, size, rows, training):
    size = min(size, rows)
    if training:
        _check_batch_statistics(model, size)
    devices = num_devices(model)
    # TensorFlow splits later batches as it can; JAX leaves no device without its share.
    sizes = {size} if keras.backend.backend() == "tensorflow" else {size, rows % size or size}
    for received in sizes:
        if received % devices:
            raise ValueError(
                f"`batch_size` must split the data into batches that divide by the {devices} "
                f"devices. Received: a batch of {received}"
            )


def _check_batch_statistics(model, size):
    demanding = {
        "the posterior head": model.head.min_batch_size,
        "the objective": model.objective.min_batch_size,
    }
    for part, smallest in demanding.items():
        if size < smallest:
            raise ValueError(
                f"`batch_size` must be at least {smallest}, because {part} takes statistics of the "
                f"batch (latent_dim={model.latent_dim}). Received: batch_size={size}"
            )
    if size < model.head.advised_batch_size:
        warnings.warn(
            f"batch_size={size} is below {model.head.advised_batch_size}, twice the latent "
            "dimension: the batch covariance will be noisy. Enlarge the batch or use `shrinkage`.",
            stacklevel=5,
        )
