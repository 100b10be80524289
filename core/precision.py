"""Dtype policies for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


@contextlib.contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Sets the global dtype policy, and puts the one before back.

    Args:
        policy: Name of a policy, or a `keras.DTypePolicy`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
