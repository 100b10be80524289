"""Does a code hold what its model is conditioned on, which the decoder knows already?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Array

#: Rows below which nothing is said.
FEWEST = 20


def condition_notes(means: Array, conditions: dict[str, Any]) -> list[str]:
    """Returns a sentence for each label of a model: how well posterior means tell it.

    Classes are told on every second row by the nearest mean of a class over the others, each
    dimension standardized.

    Args:
        means: Posterior means `(N, D)`.
        conditions: Dict by name of what the examples are conditioned on; arrays other than
            integers `(N,)` are left out.
    """
    found = []
    for name, labels in conditions.items():
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) < FEWEST:
            continue
        accuracy, chance, count = nearest_mean_accuracy(means, labels)
        told = (
            f"By the nearest mean of a class, the code tells the condition '{name}' in "
            f"{accuracy:.0%} of cases; the largest class has {chance:.0%}"
        )
        error = math.sqrt(max(chance * (1.0 - chance), 1e-6) / count)
        if accuracy > chance + 3.0 * error:
            told += ": the code repeats part of what the decoder is given anyway."
        else:
            told += ": the code holds nothing of it that is seen so."
        found.append(told)
    return found


def nearest_mean_accuracy(means: Array, labels: Array) -> tuple[float, float, int]:
    """Returns accuracy of the nearest class mean, share of the largest class, and rows tested."""
    means = np.asarray(means, "float64")
    scale = means.std(axis=0)
    means = (means - means.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    learned, tested = slice(0, None, 2), slice(1, None, 2)
    classes = np.unique(labels[learned])
    centers = np.stack([means[learned][labels[learned] == one].mean(axis=0) for one in classes])
    distance = ((means[tested, None] - centers[None]) ** 2).sum(axis=-1)
    hits = classes[np.argmin(distance, axis=1)] == labels[tested]
    _, counts = np.unique(labels[tested], return_counts=True)
    return float(hits.mean()), float(counts.max() / counts.sum()), len(hits)
