"""Checks of numbers, and what to do when memory is full."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def explains_memory(method: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
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

    return call  # type: ignore[return-value]
