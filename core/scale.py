"""Measures how large the data are along the direction of their largest variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .types import Array


def largest_variance(x: Array) -> float:
    """Calculates the variance of data along their first principal component.

    Under a linear decoder with Gaussian noise of standard deviation s the optimum of the evidence
    lower bound keeps the components whose variance exceeds s^2 (Lucas et al., 2019,
    arXiv:1911.02469): none, if this one does not.

    Args:
        x: NumPy `(N, *event)`.

    Returns:
        Non-negative float.
    """
    rows = np.reshape(x, (len(x), -1)).astype("float64")
    rows = rows - rows.mean(axis=0)
    # The smaller of two matrices with the same eigenvalues.
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    return max(0.0, float(np.linalg.eigvalsh(gram)[-1]) / len(rows))
