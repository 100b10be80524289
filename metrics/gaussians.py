"""The posteriors of a data set in float64, and sums over all pairs of them in little memory."""

from __future__ import annotations

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from ..core.progress import tracked
from ..losses import DiagonalGaussian, FlowGaussian, HierarchicalGaussian, PointMass
from .inputs import NotMeasurable

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, Posterior, Seed, Tensor

LOG_2PI = math.log(2.0 * math.pi)

#: Terms up to this size cancel to within 1e-6 in float64.
_LARGEST_TERM = 1e9


class Gaussians:
    """N Gaussian posteriors whose log-densities are linear in the monomials of z.

        log q(z|x_j) = phi(z) . c_j,    phi(z) = (z_a z_b, z_a, 1)

    so that those of many z under many posteriors are one matrix product. The expansion cancels:
    next to a posterior of standard deviation s, terms of z^2 / s^2 leave a difference of order 1.
    In float32 nothing is left of it for a sharp posterior; in float64, and relative to the center
    of the means, enough digits are, but for the sharpest. Those, and every posterior's density of
    its own draw, are computed by differences instead, which takes several times as long.

    Args:
        mean: `(N, D)`.
        log_var: `(N, D)`, of diagonal covariances; or None.
        scale_tril: `(N, D, D)`, of full covariances; or None.
    """

    def __init__(
        self, mean: Tensor, log_var: Tensor = None, scale_tril: Array | None = None
    ) -> None:
        self.mean = np.asarray(mean, "float64")
        self.log_var: Any = None if log_var is None else np.asarray(log_var, "float64")
        # Large, so converted in parts.
        self.scale_tril: Any = scale_tril
        self.center = self.mean.mean(axis=0)

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.mean.shape[1]

    @property
    def diagonal(self) -> bool:
        """Whether the covariances are."""
        return self.scale_tril is None

    def take(self, index: Tensor) -> Gaussians:
        """Returns the Gaussians at an index or slice."""
        covariances = (self.log_var, self.scale_tril)
        return Gaussians(
            self.mean[index], *(None if part is None else part[index] for part in covariances)
        )

    def entropy(self) -> Array:
        """H(q(z|x_j)), `(N,)`."""
        return 0.5 * (self.latent_dim * (1.0 + LOG_2PI) + self._log_det())

    def _log_det(self):
        if self.diagonal:
            return np.sum(self.log_var, axis=1)
        scales = np.abs(np.diagonal(self.scale_tril, axis1=1, axis2=2)).astype("float64")
        return 2.0 * np.sum(np.log(scales), axis=1)

    def sample(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draws `(N, K, D)`."""
        eps = rng.standard_normal((len(self), num_samples, self.latent_dim))
        if self.diagonal:
            eps *= np.exp(0.5 * self.log_var)[:, None]
        else:
            eps = np.matmul(eps, np.swapaxes(self.scale_tril, 1, 2))
        return self.mean[:, None] + eps

    def own_log_prob(self, z: Tensor) -> Tensor:
        """Log q(z_jk|x_j), `(N, K)`, of `z (N, K, D)`."""
        difference = z - self.mean[:, None]
        if self.diagonal:
            squares = np.sum(difference**2 * np.exp(-self.log_var)[:, None], axis=2)
        else:
            columns = np.linalg.solve(
                self.scale_tril.astype("float64"), np.swapaxes(difference, 1, 2)
            )
            squares = np.sum(columns**2, axis=1)
        return -0.5 * (squares + self._log_det()[:, None] + self.latent_dim * LOG_2PI)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z_b|x_j) by differences, `(n, N)`, of `z (n, D)`."""
        squares = np.zeros((len(z), len(self)))
        if self.diagonal:
            for dim, precision in enumerate(np.exp(-self.log_var).T):
                difference = z[:, dim, None] - self.mean[:, dim]
                squares += difference * difference * precision
        else:
            inverse = self._inverse_scale()
            for column, (mean, whitening) in enumerate(zip(self.mean, inverse, strict=True)):
                squares[:, column] = np.sum(((z - mean) @ whitening.T) ** 2, axis=1)
        return -0.5 * (squares + self._log_det() + self.latent_dim * LOG_2PI)

    def features(self, z: Tensor, center: Tensor) -> Array:
        """Phi of `z (n, D)` relative to `center`: `(n, F)`."""
        z = z - center
        return self._monomials(z, z**2 if self.diagonal else _outer(z))

    def expected_features(self, center: Tensor) -> Array:
        """E phi(z) under each posterior, `(N, F)`: of the second moments mean^2 + variance."""
        mean = self.mean - center
        if self.diagonal:
            return self._monomials(mean, mean**2 + np.exp(self.log_var))
        return self._monomials(mean, _outer(mean) + self.covariance())

    def coefficients(self, center: Tensor) -> Array:
        """The c_j for z relative to `center`, `(N, F)`."""
        mean = self.mean - center
        if self.diagonal:
            precision = np.exp(-self.log_var)
            slope, second = precision * mean, -0.5 * precision
        else:
            precision = self.precision()
            slope = np.einsum("nab,nb->na", precision, mean)
            # Features hold each pair of dimensions once.
            second = self._pairs(-0.5 * precision * (2.0 - np.eye(self.latent_dim)))
        constant = -0.5 * (
            np.sum(slope * mean, axis=1) + self._log_det() + self.latent_dim * LOG_2PI
        )
        return np.concatenate([second, slope, constant[:, None]], axis=1)

    def covariance(self) -> Array:
        """Covariance of each posterior, `(N, D, D)`; for full covariances."""
        scale = self.scale_tril.astype("float64")
        return np.matmul(scale, np.swapaxes(scale, 1, 2))

    def precision(self) -> Array:
        """Inverse of the covariance of each posterior, `(N, D, D)`; for full covariances."""
        inverse = self._inverse_scale()
        return np.matmul(np.swapaxes(inverse, 1, 2), inverse)

    def _inverse_scale(self):
        return np.linalg.solve(self.scale_tril.astype("float64"), np.eye(self.latent_dim))

    def _monomials(self, first, second):
        second = second if self.diagonal else self._pairs(second)
        return np.concatenate([second, first, np.ones((len(first), 1))], axis=1)

    def _pairs(self, matrices):
        rows, columns = np.triu_indices(self.latent_dim)
        return matrices[:, rows, columns]


def generator(seed: Seed, purpose: str) -> np.random.Generator:
    """NumPy's generator for one purpose.

    Not that of the seed alone, which callers are likely to have made their data with: draws would
    then follow the means.
    """
    return np.random.default_rng((seed, *purpose.encode()))


def gaussians_of(posterior: Posterior, name: str = "posterior") -> Gaussians:
    """The `Gaussians` of a posterior value over tensors or arrays.

    Raises:
        NotMeasurable: If it is that of a flow.
        TypeError: If it is no posterior value.
        ValueError: If it has no density, fewer than 2 examples, another shape, or values that are
            not finite.
    """
    if isinstance(posterior, PointMass):
        raise ValueError(
            f"`{name}` must have a density; a deterministic encoder has none. Received: PointMass"
        )
    if isinstance(posterior, FlowGaussian):
        raise NotMeasurable(
            f"`{name}` must be Gaussian: the density of one example's draw under another's "
            "posterior by a flow takes an inverse pass for each pair; use `mine`, which needs "
            "draws only. Received: FlowGaussian",
            "a flow takes an inverse pass for each pair of examples",
        )
    if not isinstance(posterior, (DiagonalGaussian, HierarchicalGaussian)):
        raise TypeError(
            f"`{name}` must be a DiagonalGaussian or HierarchicalGaussian, or a model that encodes "
            f"to one. Received: {type(posterior).__name__}"
        )
    arrays = [ops.convert_to_numpy(part) for part in posterior[:2]]
    shape = arrays[0].shape
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise ValueError(
            f"`{name}` must have means of shape (N, D) with at least 2 examples. Received: "
            f"shape={shape}"
        )
    diagonal = isinstance(posterior, DiagonalGaussian)
    expected = shape if diagonal else (*shape, shape[1])
    if arrays[1].shape != expected:
        raise ValueError(
            f"`{name}.{posterior._fields[1]}` must have shape {expected}. Received: "
            f"shape={arrays[1].shape}"
        )
    if not all(np.all(np.isfinite(array)) for array in arrays):
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity in it")
    if diagonal:
        return Gaussians(*arrays)
    if np.any(np.diagonal(arrays[1], axis1=1, axis2=2) == 0.0):
        raise ValueError(
            f"`{name}.scale_tril` must not be singular. Received: zeros on a diagonal of it"
        )
    return Gaussians(arrays[0], scale_tril=arrays[1])


def log_sum_of_others(
    gaussians: Gaussians, z: Tensor, owners: Tensor, chunk: int, progress: bool = False
) -> Array:
    """Log of the sum over all posteriors but a draw's own of the density of the draw.

        log sum_{j != owner(b)} q(z_b|x_j)

    Args:
        gaussians: `Gaussians`.
        z: `(n, D)`.
        owners: Int `(n,)`, the posterior that each draw is from.
        chunk: Positive int: draws, and posteriors, at once.
        progress: Whether to show a progress bar.

    Returns:
        `(n,)`; minus infinity for a posterior without others.
    """
    total, center = np.full(len(z), -np.inf), gaussians.center
    # The largest features that any draw has.
    corner = gaussians.features(center + np.max(np.abs(z - center), axis=0, keepdims=True), center)

    def add(rows, first, part, coefficients):
        if np.max(np.abs(coefficients) @ corner[0]) < _LARGEST_TERM:
            logs = gaussians.features(z[rows], center) @ coefficients.T
        else:
            logs = part.log_prob(z[rows])
        columns = owners[rows] - first
        inside = np.flatnonzero((columns >= 0) & (columns < len(part)))
        logs[inside, columns[inside]] = -np.inf
        peak = np.max(logs, axis=1)
        logs -= np.where(np.isfinite(peak), peak, 0.0)[:, None]
        np.exp(logs, out=logs)
        with np.errstate(divide="ignore"):
            total[rows] = np.logaddexp(total[rows], peak + np.log(np.sum(logs, axis=1)))

    _over_pairs(gaussians, len(z), chunk, add, progress)
    return total


def squared_spread(
    gaussians: Gaussians, center: Tensor, chunk: int, progress: bool = False
) -> float:
    """Sum over distinct ordered pairs of ( KL(q_i || q_j) - center )^2."""
    entropy = gaussians.entropy()
    sums = np.zeros(len(gaussians))

    def add(rows, first, part, coefficients):
        features = gaussians.take(rows).expected_features(gaussians.center)
        deviation = features @ coefficients.T
        deviation += entropy[rows][:, None] + center
        columns = np.arange(*rows.indices(len(gaussians))) - first
        inside = np.flatnonzero((columns >= 0) & (columns < len(part)))
        deviation[inside, columns[inside]] = 0.0
        sums[rows] += np.einsum("ij,ij->i", deviation, deviation)

    _over_pairs(gaussians, len(gaussians), chunk, add, progress)
    return float(np.sum(sums))


def _over_pairs(gaussians, count, chunk, add, progress):
    """Calls `add(rows, first, part, coefficients)` for all blocks, a row's one after another."""
    blocks = [slice(start, start + chunk) for start in range(0, count, chunk)]
    workers = min(len(blocks), os.cpu_count() or 1)
    # NumPy lets go of the interpreter inside a block, and its functions use one thread each.
    with ThreadPoolExecutor(workers) as pool:
        run = pool.map if workers > 1 else map
        starts = range(0, len(gaussians), chunk)
        for first in tracked(starts, "Pairs" if progress else None):
            part = gaussians.take(slice(first, first + chunk))
            coefficients = part.coefficients(gaussians.center)
            work = functools.partial(add, first=first, part=part, coefficients=coefficients)
            for _ in run(work, blocks):
                pass


def _outer(values):
    return values[:, :, None] * values[:, None, :]
