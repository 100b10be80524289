"""Finds the examples that a split, a slice and a limit select."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_integer, is_real
from .source import Part

if TYPE_CHECKING:
    from .source import Source

VALIDATION_FRACTION = 1 / 12


def select(source: Source, split: str, validation_split: float | None, limit: int | None) -> Part:
    """Returns the `Part` of a source that `split`, `validation_split` and `limit` name."""
    pattern = r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?"
    match = re.fullmatch(pattern, split) if isinstance(split, str) else None
    if not match:
        raise ValueError(
            "`split` must be a name with an optional slice, such as 'train', 'train[:1000]' or "
            f"'test[10%:]'. Received: split={split!r}"
        )
    name, start, stop = match.groups()
    base, index = name, np.arange(source.counts.get(name, 0))
    can_hold_out = "validation" not in source.counts and "train" in source.counts
    held_out = can_hold_out and name == "validation"
    if validation_split is not None and not can_hold_out:
        raise ValueError(
            "`validation_split` holds out part of 'train' where there is no validation split. "
            f"Received: validation_split={validation_split!r} for {source.name!r}, which has "
            f"{', '.join(source.counts)}"
        )
    if held_out or (name == "train" and validation_split is not None):
        rest, held = _hold_out(source, validation_split)
        base, index = "train", held if held_out else rest
    elif name not in source.counts:
        available = [*source.counts, *(["validation (held out of train)"] if can_hold_out else [])]
        raise ValueError(
            f"{source.name!r} has no split {name!r}. Available: {', '.join(available)}. "
            f"Received: split={split!r}"
        )
    if held_out and validation_split is None:
        warnings.warn(
            f"{source.name!r} has no validation split: taking {len(index)} examples that "
            "split='train' also contains. Give both calls the same `validation_split` to keep "
            "them apart.",
            stacklevel=4,
        )
    if not len(index):
        raise ValueError(f"Split {name!r} of {source.name!r} holds no examples")
    index = index[_place(start, len(index)) : _place(stop, len(index))]
    limit = check_integer("limit", limit, 1, optional=True)
    index = index[:limit]
    if not len(index):
        raise ValueError(f"`split` selects no examples of {source.name!r}. Received: {split!r}")
    return Part(base, index)


def _hold_out(source, validation_split):
    """Returns the places in "train" that stay and those held out."""
    count = source.counts["train"]
    size = VALIDATION_FRACTION if validation_split is None else validation_split
    real = is_real(size)
    held = round(size * count) if real and 0 < size < 1 else size
    if not real or not 1 <= held < count or held != int(held):
        raise ValueError(
            "`validation_split` must be a fraction between 0 and 1 or a count, and leave examples "
            f"on both sides. Received: validation_split={validation_split!r}, "
            f"{count} examples in {source.name!r}"
        )
    held, everything = int(held), np.arange(count)
    if source.mixed:
        return everything[:-held], everything[-held:]
    chosen = ((np.arange(held) + 0.5) * count / held).astype(int)
    return np.delete(everything, chosen), chosen


def _place(text, count):
    """Returns the integer position that one end of a slice means, or None."""
    if text is None:
        return None
    return round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
