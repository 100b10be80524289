"""How many examples the diagnosis decodes at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..negative_log_likelihood import MEMORY, draws_at_once

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import ArrayLike
    from ..subject import ModelAdapter

#: Bytes for the layers of a decoder that a gradient is taken through.
GRADIENT_MEMORY = 512 * 2**20


def rows_at_once(
    subject: ModelAdapter, data: ArrayLike, draws: int, most: int, gradients: bool = False
) -> dict[str, Any]:
    """Returns how many examples are decoded at once within the memory, in about equal batches.

    Args:
        subject: `ModelAdapter`.
        data: Examples.
        draws: Codes of each.
        most: Examples at most.
        gradients: Whether gradients are taken.

    Returns:
        `batch_size` and `most_rows`, as `ModelAdapter.run` takes them.
    """
    memory = GRADIENT_MEMORY if gradients else MEMORY
    rows = max(1, min(most, draws_at_once(subject, data, memory, gradients) // draws))
    return {
        "batch_size": math.ceil(len(data) / math.ceil(len(data) / rows)),
        "most_rows": rows,
    }
