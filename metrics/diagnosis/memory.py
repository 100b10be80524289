"""How many examples the diagnosis decodes at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..negative_log_likelihood import MEMORY, draws_at_once

if TYPE_CHECKING:
    from ...core.types import ArrayLike
    from ..subject import ModelAdapter

#: Bytes for the layers of a decoder that a gradient is taken through.
GRADIENT_MEMORY = 512 * 2**20


def rows_at_once(
    subject: ModelAdapter, data: ArrayLike, draws: int, most: int, gradients: bool = False
) -> int:
    """Returns how many examples are decoded at once within the memory, in about equal batches."""
    memory = GRADIENT_MEMORY if gradients else MEMORY
    rows = max(1, min(most, draws_at_once(subject, data, memory, gradients) // draws))
    return math.ceil(len(data) / math.ceil(len(data) / rows))
