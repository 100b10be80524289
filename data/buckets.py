"""Lengths of batches, chosen by what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..core.types import Array

#: What the compilation of a step for one more shape is worth, in positions of an epoch: 5 seconds,
#: in which the step of short Yelp's LSTM passes 9,000 positions (benchmarks/README.md), over ten
#: epochs.
COMPILATION = 900
#: The most lengths, however many sentences there are.
MOST_BUCKETS = 8


def cheapest_buckets(lengths: Array, batch_size: int) -> list[int]:
    """Chooses the lengths of batches that pass the fewest positions.

        cost(b_1 < .. < b_k) = sum_i b(l_i) + k COMPILATION + (batch_size - 1) / 2 (b_k - b_1)

    where b(l) is the least b_j of at least l; the last term is for those that do not fill a batch
    of their own length, half a batch by bucket, and move on to the next one. Exact, by dynamic
    programming over the different lengths.

    Args:
        lengths: Int `(n,)` of at least one length.
        batch_size: Positive int.

    Returns:
        Ascending list of at most `MOST_BUCKETS` ints, the last of which is the greatest length.
    """
    different, counts = np.unique(lengths, return_counts=True)
    # Examples of up to the j-th length; those of a bucket are a difference.
    below = np.concatenate([[0], np.cumsum(counts)])
    moving = (batch_size - 1) / 2
    # Of the best buckets that end in each length: their cost, and where the one before them ends.
    cost = different * below[1:] - moving * different + COMPILATION
    costs, befores = [cost], [np.full(len(different), -1)]
    for _ in range(min(MOST_BUCKETS, len(different)) - 1):
        longer, before = np.full(len(different), np.inf), np.full(len(different), -1)
        for j in range(1, len(different)):
            found = costs[-1][:j] + different[j] * (below[j + 1] - below[1 : j + 1])
            before[j] = np.argmin(found)
            longer[j] = found[before[j]] + COMPILATION
        costs.append(longer)
        befores.append(before)
    number = int(np.argmin([cost[-1] for cost in costs]))
    place, chosen = len(different) - 1, []
    while place >= 0:
        chosen.append(int(different[place]))
        place, number = int(befores[number][place]), number - 1
    return chosen[::-1]
