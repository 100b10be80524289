"""Rows that fill a batch up to a size that is compiled for, and count nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import ops

if TYPE_CHECKING:
    from .types import Tensor


def masks_rows(part: object) -> bool:
    """Returns whether an object leaves rows out that are no examples.

    Its class must say so itself, by `masks_rows = True`: a class derived from it may take
    statistics of its own.
    """
    return vars(type(part)).get("masks_rows", False)


def only_valid(values: Tensor, valid: Tensor = None) -> Tensor:
    """Returns `values (batch, ...)` with zeros in place of the rows that are no examples.

    Args:
        values: Tensor, batch first.
        valid: Bool `(batch,)`, or None where all rows are examples.
    """
    if valid is None:
        return values
    mask = ops.reshape(valid, (-1, *[1] * (len(values.shape) - 1)))
    return ops.where(mask, values, ops.zeros_like(values))


def only_valid_pairs(values: Tensor, valid: Tensor = None) -> Tensor:
    """Returns `values (batch, batch)` with zeros in place of pairs that are not both examples."""
    if valid is None:
        return values
    return ops.where(ops.logical_and(valid[:, None], valid[None]), values, ops.zeros_like(values))


def num_valid(values: Tensor, valid: Tensor = None) -> Tensor:
    """Returns how many rows of `values (batch, ...)` are examples, as a float32 scalar."""
    if valid is None:
        return ops.cast(ops.shape(values)[0], "float32")
    return ops.sum(ops.cast(valid, "float32"))


def weighed(values: Tensor, weight: Tensor = None, valid: Tensor = None) -> tuple[Tensor, Tensor]:
    """Returns `(values, weights)` of examples, `(batch,)`, as Keras' metrics take them.

    Args:
        values: Tensor `(batch,)`.
        weight: Weights of the examples, `(batch,)`, or None.
        valid: As in `only_valid`.
    """
    if valid is None:
        return values, weight
    counts = ops.cast(valid, values.dtype)
    return only_valid(values, valid), counts if weight is None else only_valid(weight, valid)
