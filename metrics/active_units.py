"""Active units: the latent dimensions that respond to the data."""

import numpy as np

from ._inputs import means_of


def active_dimensions(means, data=None, threshold=0.01, batch_size=256):
    """Which latent dimensions carry information about x.

        active_d = Var_x( mean_d(x) ) >= threshold

    The variance is unbiased (divisor N - 1), and taken in float64 around the mean.

    Args:
        means: Posterior means `(N, D)`, or a model whose `encode` gives them.
        data: `(N, *event)` for a model; nothing otherwise.
        threshold: Non-negative float.
        batch_size: Examples that a model encodes at once.

    Returns:
        NumPy bool `(D,)`.

    Raises:
        TypeError: If `means` is neither an array nor a model.
        ValueError: If the shape is another, fewer than 2 examples are given, values are not finite,
            or `threshold` is negative.

    Reference: Burda et al. (2016), section 5.2, arXiv:1509.00519; with the "at least" of the
    official codes of Zhu et al. (2020) and Shen et al. (2021), where the paper says "more than".
    """
    if not threshold >= 0:
        raise ValueError(f"`threshold` must be non-negative. Received: threshold={threshold}")
    return np.var(means_of(means, data, batch_size), axis=0, ddof=1) >= threshold


def active_units(means, data=None, threshold=0.01, batch_size=256):
    """Number of latent dimensions that carry information about x.

        AU = #{ d : Var_x( mean_d(x) ) >= threshold }

    Args:
        means: Posterior means `(N, D)`, or a model whose `encode` gives them.
        data: `(N, *event)` for a model; nothing otherwise.
        threshold: Non-negative float.
        batch_size: Examples that a model encodes at once.

    Returns:
        Int from 0 to D; `active_dimensions` tells which they are.

    Raises:
        TypeError: If `means` is neither an array nor a model.
        ValueError: As `active_dimensions` does.

    Reference: Burda et al. (2016), section 5.2, arXiv:1509.00519.
    """
    return int(np.sum(active_dimensions(means, data, threshold, batch_size)))
