"""Checks of numbers, and what to do when memory is full."""

import functools
import inspect

import numpy as np


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
