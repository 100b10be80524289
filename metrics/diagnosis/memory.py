"""How many examples the diagnosis decodes at once."""

import math

from ..negative_log_likelihood import MEMORY, draws_at_once

#: Bytes for the layers of a decoder that a gradient is taken through.
GRADIENT_MEMORY = 512 * 2**20


def rows_at_once(subject, data, draws, most, gradients=False):
    """Returns how many examples are decoded at once within the memory, in about equal batches."""
    memory = GRADIENT_MEMORY if gradients else MEMORY
    rows = max(1, min(most, draws_at_once(subject, data, memory, gradients) // draws))
    return math.ceil(len(data) / math.ceil(len(data) / rows))
