"""Dependence of latent coordinates on another variable: MIC and TIC of the MINE family."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.checks import check_integer, check_real, check_seed
from .estimate import Estimate
from .inputs import means_of

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import ArrayLike, Tensor

#: Rows of the dynamic program at once: such a block of a large table stays in the cache.
_ROWS = 128


class InformationCoefficients(NamedTuple):
    """Holds the statistics of grids over two variables.

    Attributes:
        mic: Largest entry of the characteristic matrix, 0 to 1.
        tic: Sum of its entries.
        num_grids: How many entries it has; `tic / num_grids` is their mean.
    """

    mic: float
    tic: float
    num_grids: int


def characteristic_matrix(
    x: Tensor, y: Tensor, alpha: float = 0.6, clumps: float = 15
) -> dict[tuple[int, int], float]:
    """Normalized mutual information of the best grid of each size over two variables.

        M[a, b] = max_G I(x; y | G) / log min(a, b),   a, b >= 2,   a b <= max(n^alpha, 4)

    over grids G of a columns by b rows, of which one axis is cut into equal shares and the other
    is optimized by dynamic programming over at most `clumps` times as many pieces as columns;
    both orientations, the better counts.

    Args:
        x: `(n,)`.
        y: `(n,)`.
        alpha: Float in (0, 1], exponent of the largest grid.
        clumps: Positive number; more is finer and slower.

    Returns:
        Dict from (a, b) to the float M[a, b].

    Raises:
        ValueError: If the shapes do not fit, values are not finite, or an argument is out of range.

    Reference: Reshef et al. (2011), Science 334, pp. 1518-1524, algorithms 1-5 of the supplement.
    """
    x, y = (np.asarray(values) for values in (x, y))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 4:
        raise ValueError(
            "`x` and `y` must have one shape (n,) with n of at least 4. Received: shapes "
            f"{x.shape} and {y.shape}"
        )
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("`x` and `y` must be finite. Received: NaN or infinity")
    alpha = check_real("alpha", alpha, "(0, 1]")
    clumps = check_real("clumps", clumps, "(0, inf)")
    # Ranks: nothing below depends on more than order and ties.
    x, y = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    largest = max(len(x) ** alpha, 4.0)
    upright = _half_matrix(x, y, largest, clumps)
    turned = _half_matrix(y, x, largest, clumps)
    return {
        (columns, rows): max(information, turned[rows, columns]) / math.log(min(columns, rows))
        for (columns, rows), information in upright.items()
    }


def information_coefficients(
    x: Tensor, y: Tensor, alpha: float = 0.6, clumps: int = 15
) -> InformationCoefficients:
    """Maximal and total information coefficient of two variables.

        MIC = max_{a,b} M[a, b],   TIC = sum_{a,b} M[a, b]

    MIC is near 1 for noiseless functional relations. For independent variables it falls toward 0
    only slowly with n: about 0.13 at n = 1,000 and 0.06 at 10,000.

    Args:
        x: As in `characteristic_matrix`.
        y: As in `characteristic_matrix`.
        alpha: As in `characteristic_matrix`.
        clumps: As in `characteristic_matrix`.

    Returns:
        `InformationCoefficients`.

    Raises:
        ValueError: As in `characteristic_matrix`.

    Reference: Reshef et al. (2011), Science 334; Reshef et al. (2016) for TIC, arXiv:1505.02213.
    """
    entries = list(characteristic_matrix(x, y, alpha, clumps).values())
    return InformationCoefficients(float(max(entries)), math.fsum(entries), len(entries))


def latent_dependence(
    means: Any,
    data: ArrayLike = None,
    *,
    variable: Any = None,
    alpha: float = 0.6,
    clumps: int = 15,
    max_samples: int | None = None,
    num_permutations: int = 0,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """MIC and TIC between a variable and each latent coordinate, averaged over coordinates.

        value = mean_d MIC(v, z_d),   extra["tic"] = mean_d TIC(v, z_d)

    The variable is the number of the example by default, as HEBAE has it. That measures how the
    data are ordered: in a random order nothing but the noise floor can come out, which
    `num_permutations` measures. `mutual_information` is the better question.

    A coordinate takes about 0.1 s at n = 1,000 and 4 s at 10,000.

    Args:
        means: Posterior means `(N, D)`, or a model whose `encode` gives them.
        data: `(N, *event)` for a model; nothing otherwise.
        variable: `(N,)`; by default 0..N-1.
        alpha: As in `characteristic_matrix`.
        clumps: As in `characteristic_matrix`.
        max_samples: Int of at least 4: take that many examples at random, in their order.
        num_permutations: Non-negative int, shuffles of the variable for the noise floor.
        seed: Int that fixes the choice and the shuffles.
        batch_size: Examples that a model encodes at once.

    Returns:
        `Estimate` of the mean MIC; `extra` has `tic`, `tic_per_grid`, the lists
        `mic_per_dimension` and `tic_per_dimension`, and with shuffles `mic_floor`, `tic_floor`.

    Raises:
        TypeError: If `means` is neither an array nor a model.
        ValueError: If shapes do not fit, values are not finite, or an argument is out of range.

    Reference: Cheng et al. (2020), HEBAE, experiments, arXiv:2007.10389; Reshef et al. (2011),
    Science 334.
    """
    codes = means_of(means, data, batch_size=batch_size)
    index_is_meant = variable is None
    variable = np.arange(len(codes)) if index_is_meant else np.asarray(variable)
    if variable.shape != (len(codes),):
        raise ValueError(
            f"`variable` must have shape ({len(codes)},). Received: shape={variable.shape}"
        )
    num_permutations = check_integer("num_permutations", num_permutations, least=0)
    seed = check_seed("seed", seed, optional=False)
    rng = np.random.default_rng(seed)
    if max_samples is not None:
        max_samples = check_integer("max_samples", max_samples, least=4)
        if max_samples < len(codes):
            rows = np.sort(rng.choice(len(codes), max_samples, replace=False))
            codes, variable = codes[rows], variable[rows]

    def over_dimensions(values):
        return [information_coefficients(values, code, alpha, clumps) for code in codes.T]

    found = over_dimensions(variable)
    mics, tics = ([getattr(result, name) for result in found] for name in ("mic", "tic"))
    extra = {
        "tic": float(np.mean(tics)),
        "tic_per_grid": float(np.mean(tics)) / found[0].num_grids,
        "mic_per_dimension": mics,
        "tic_per_dimension": tics,
    }
    if num_permutations:
        shuffled = [
            result
            for _ in range(num_permutations)
            for result in over_dimensions(rng.permutation(variable))
        ]
        extra["mic_floor"] = float(np.mean([result.mic for result in shuffled]))
        extra["tic_floor"] = float(np.mean([result.tic for result in shuffled]))
    return Estimate(
        value=float(np.mean(mics)),
        count=len(codes),
        estimator="latent_dependence",
        settings={
            "variable": "index" if index_is_meant else "given",
            "alpha": alpha,
            "clumps": clumps,
            "max_samples": max_samples,
            "num_permutations": num_permutations,
            "seed": seed,
        },
        extra=extra,
    )


def _half_matrix(x, y, largest, clumps):
    """Best information by (columns, rows) where the rows over `y` are equal shares."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    size = len(x)
    counts = np.arange(size + 1)
    entropy_table = counts * np.log(np.maximum(counts, 1))
    best = {}
    for rows in range(2, int(largest // 2) + 1):
        columns = int(largest // rows)
        row = _equal_shares(y, rows)
        pieces = _pieces(x, row)
        limit = max(int(clumps * columns), 1)
        if pieces[-1] >= limit:
            pieces = _equal_shares(pieces, limit)
        for count, information in enumerate(
            _best_columns(pieces, row, columns, entropy_table), start=2
        ):
            best[count, rows] = information
    return best


def _equal_shares(values, num_shares):
    """Cuts an axis into shares of about equal size; equal values stay together.

    Args:
        values: Int `(n,)`.
        num_shares: Positive int, the most there may be.

    Returns:
        Int `(n,)`, the number of each value's share, from 0 upwards with the values.
    """
    distinct, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    remaining = len(values)
    share, filled, desired = 0, 0, remaining / num_shares
    assigned = np.empty(len(distinct), "int64")
    for position, size in enumerate(sizes.tolist()):
        # A new share begins where the present one is nearer to its due size without this value.
        if filled and abs(filled + size - desired) >= abs(filled - desired):
            share, filled = share + 1, 0
            desired = remaining / (num_shares - share)
        assigned[position] = share
        filled, remaining = filled + size, remaining - size
    return assigned[inverse]


def _pieces(x, row):
    """Numbers the runs of points, by x, that no best cut divides: those within one row.

    Points of equal x cannot be told apart by a cut; where they lie in several rows they are a
    piece of their own.
    """
    starts = np.flatnonzero(np.r_[True, x[1:] != x[:-1]])
    lowest, highest = np.minimum.reduceat(row, starts), np.maximum.reduceat(row, starts)
    mixed = lowest != highest
    begins = np.r_[True, mixed[1:] | mixed[:-1] | (lowest[1:] != lowest[:-1])]
    lengths = np.diff(np.r_[starts, len(x)])
    return np.repeat(np.cumsum(begins) - 1, lengths)


def _best_columns(pieces, row, most, entropy_table):
    """Largest information I(columns; rows) for 2 to `most` columns cut between pieces.

        I = H(row) - sum_column (n_column / n) H(row | column)

    A sum over columns, so that the best end of the last column decides: dynamic programming.
    """
    size, num_rows = len(row), row.max() + 1
    num_pieces = pieces[-1] + 1
    table = np.zeros((num_pieces + 1, num_rows), "int64")
    np.add.at(table, (pieces + 1, row), 1)
    table = np.cumsum(table, axis=0)
    totals = table.sum(axis=1)
    by_row = np.ascontiguousarray(table.T)
    row_entropy = entropy_table[size] - np.sum(entropy_table[table[-1]])
    # costs[block][t, s]: n_column H(row | column) of the column of the pieces s to t - 1.
    costs = []
    for first in range(0, num_pieces + 1, _ROWS):
        last = min(first + _ROWS, num_pieces + 1)
        ends, begins = slice(first, last), slice(0, last)
        differences = totals[ends, None] - totals[None, begins]
        empty = differences < 0
        cost = entropy_table[np.maximum(differences, 0)]
        for counts in by_row:
            cost -= entropy_table[np.maximum(counts[ends, None] - counts[None, begins], 0)]
        cost[empty] = np.inf
        costs.append(cost)
    # Of 1 column: the first column of every table of costs begins at piece 0.
    lowest = np.concatenate([cost[:, 0] for cost in costs])
    information = []
    for number in range(2, most + 1):
        # More columns than pieces are of no use.
        if number <= num_pieces:
            lowest = np.concatenate(
                [np.min(cost + lowest[None, : cost.shape[1]], axis=1) for cost in costs]
            )
        information.append(max((row_entropy - lowest[-1]) / size, 0.0))
    return information
