"""First and second moments of the aggregate posterior, against those of the prior."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from ..core.checks import check_integer, check_seed
from ..layers import IsotropicNormal, StandardNormal
from ..losses import DiagonalGaussian, FlowGaussian, HierarchicalGaussian, PointMass
from .estimate import to_json
from .inputs import NUM_SAMPLES, encoded, flow_subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import Array, ArrayLike, Model, Posterior, Seed
    from ..layers.likelihoods import Likelihood
    from .subject import ModelAdapter

#: Draws from a learned prior that its moments are taken of, and their noise, apart from that of
#: any posterior's.
_PRIOR_DRAWS, PRIOR_STREAM = 5000, 2**23
#: Means of less variance tell no examples apart (Burda et al., 2016, section 5.2): what correlation
#: their rounding errors have means nothing.
_INACTIVE_VARIANCE = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class AggregateMoments:
    """Mean and covariance of q(z) = 1/N sum_j q(z|x_j), and how far they are from the prior's.

    The covariance is that of the posterior means plus the mean posterior covariance. A fully
    collapsed model has the prior's covariance, eigenvalues of 1 and no correlation, by the second
    part alone; whether codes tell examples apart is seen in the first, the covariance of means.

    Attributes:
        mean: NumPy float64 `(D,)`.
        covariance: NumPy float64 `(D, D)`.
        covariance_of_means: NumPy float64 `(D, D)`, the part of it that tells examples apart; the
            rest is the mean posterior covariance.
        count: Int N.
        prior_mean: NumPy float64 `(D,)`, or None for N(0, I).
        prior_covariance: NumPy float64 `(D, D)`, or None for N(0, I).
    """

    mean: np.ndarray
    covariance: np.ndarray
    covariance_of_means: np.ndarray
    count: int
    prior_mean: Any = None
    prior_covariance: Any = None

    @property
    def eigenvalues(self) -> Array:
        """Eigenvalues of the covariance of z, ascending, `(D,)`; all 1 if it is the prior's."""
        return np.linalg.eigvalsh(self.covariance)

    @property
    def eigenvalues_of_means(self) -> Array:
        """Eigenvalues of the covariance of posterior means, ascending, `(D,)`."""
        return np.linalg.eigvalsh(self.covariance_of_means)

    @property
    def mean_absolute_correlation(self) -> float:
        """Mean of |correlation| of z over all pairs of dimensions; 0 if D = 1.

        Dimensions without spread count as uncorrelated.
        """
        return _mean_absolute_correlation(self.covariance) if len(self.mean) > 1 else 0.0

    @property
    def mean_absolute_correlation_of_means(self) -> float:
        """Mean of |correlation| of posterior means over pairs of active dimensions.

        Active are those with Var(mean_d) >= 0.01; NaN if there are fewer than two.
        """
        active = np.diagonal(self.covariance_of_means) >= _INACTIVE_VARIANCE
        if np.sum(active) < 2:
            return float("nan")
        return _mean_absolute_correlation(self.covariance_of_means[np.ix_(active, active)])

    @property
    def divergence(self) -> float:
        """KL of the Gaussian with these moments to that with the prior's, in nats.

            1/2 ( tr P^-1 C + (m - p)^T P^-1 (m - p) - D - log det P^-1 C )

        with p = 0, P = I for N(0, I). 0 says that mean and covariance are the prior's, not that
        q(z) is; infinite for a singular covariance.
        """
        covariance, shift = self.covariance, self.mean
        if self.prior_covariance is not None:
            root = np.linalg.cholesky(self.prior_covariance)
            covariance = np.linalg.solve(root, np.linalg.solve(root, covariance).T)
            shift = np.linalg.solve(root, shift - self.prior_mean)
        sign, log_det = np.linalg.slogdet(covariance)
        if sign <= 0:
            return float("inf")
        return float(0.5 * (np.trace(covariance) + shift @ shift - len(shift) - log_det))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON knows it."""
        names = (
            "eigenvalues",
            "eigenvalues_of_means",
            "mean_absolute_correlation",
            "mean_absolute_correlation_of_means",
            "divergence",
        )
        return to_json({**vars(self), **{name: getattr(self, name) for name in names}})


def _mean_absolute_correlation(covariance):
    scale = np.sqrt(np.diagonal(covariance))
    scale = np.where(scale > 0.0, scale, np.inf)
    correlation = covariance / np.outer(scale, scale)
    return float(np.mean(np.abs(correlation[~np.eye(len(scale), dtype=bool)])))


def aggregate_moments(
    model_or_posterior: Model,
    data: ArrayLike = None,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    batch_size: int = 256,
) -> AggregateMoments:
    """Mean and covariance of the aggregate posterior.

        m = mean_j mean_j,   C = mean_j Cov(z|x_j) + mean_j (mean_j - m)(mean_j - m)^T

    A flow's mean and covariance at each x_j are those of draws. The moments of a learned prior, for
    the divergence, are those of 5,000 draws; without a model the prior is N(0, I).

    Args:
        model_or_posterior: `VAE`, path of an exported SavedModel, or encoder
            `x -> (mean, log_var)`; or a posterior value over `(N, D)`, deterministic ones too.
        data: `(N, *event)` for a model; nothing otherwise.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        num_samples: Int K of at least 2, draws per example from a flow.
        seed: Int in [0, 2^31) that fixes the draws.
        batch_size: Examples that a model encodes at once.

    Returns:
        `AggregateMoments`, exact for the mixture of these N posteriors unless of a flow.

    Raises:
        TypeError: If `model_or_posterior` or the data are of another kind, or the posterior of a
            flow comes without its model.
        ValueError: If there are fewer than 2 examples, values are not finite, or an argument is out
            of range.
    """
    num_samples = check_integer("num_samples", num_samples, 2)
    seed = check_seed("seed", seed, optional=False)
    posterior, subject = encoded(model_or_posterior, data, batch_size, decoder, likelihood)
    kinds = (DiagonalGaussian, HierarchicalGaussian, PointMass, FlowGaussian)
    if not isinstance(posterior, kinds):
        raise TypeError(
            "`model_or_posterior` must be a posterior value or a model that encodes to one. "
            f"Received: {type(posterior).__name__}"
        )
    means = ops.convert_to_numpy(posterior.mean).astype("float64")
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(
            "`model_or_posterior` must have means of shape (N, D) with at least 2 examples. "
            f"Received: shape={means.shape}"
        )
    if isinstance(posterior, FlowGaussian):
        subject = flow_subject(posterior, subject, "model_or_posterior")
        means, _, within = moments_of_draws(posterior, subject, num_samples, batch_size, seed)
    else:
        within = _mean_covariance(posterior)
    if not (np.all(np.isfinite(means)) and np.all(np.isfinite(within))):
        raise ValueError(
            "`model_or_posterior` must be finite. Received: NaN or infinity in the posterior"
        )
    mean = means.mean(axis=0)
    between = (means - mean).T @ (means - mean) / len(means)
    if isinstance(posterior, FlowGaussian):
        # What K draws leave open of each mean is in the scatter of the means, too.
        between = between - within / num_samples
    prior = (None, None) if subject is None else prior_moments(subject, seed)
    return AggregateMoments(mean, within + between, between, len(means), *prior)


def moments_of_draws(
    posterior: Posterior, subject: ModelAdapter, num_samples: int, batch_size: int, seed: Seed
) -> tuple[Array, Array, Array]:
    """Means and unbiased variances of K draws from each posterior, and their mean covariance.

    Returns:
        NumPy float64 `(N, D)`, `(N, D)` and `(D, D)`.
    """
    found = subject.draw_statistics(posterior, num_samples, batch_size, seed)
    within = found.scatter.astype("float64").sum(axis=0) / len(found.mean)
    return found.mean.astype("float64"), found.variance.astype("float64"), within


def prior_moments(subject: ModelAdapter, seed: Seed) -> tuple[Array | None, Array | None]:
    """Mean and covariance of a prior, a learned one's by draws; a pair of None for N(0, I)."""
    if isinstance(subject.prior, StandardNormal):
        return None, None
    if isinstance(subject.prior, IsotropicNormal):
        size = subject.latent_dim
        return np.zeros(size), float(subject.prior.scale) ** 2 * np.eye(size)
    draws = subject.sample_prior(_PRIOR_DRAWS, seed, PRIOR_STREAM).astype("float64")
    covariance = np.cov(draws, rowvar=False).reshape(draws.shape[1], -1)
    # A prior may be narrow to the last digit in a dimension.
    return draws.mean(axis=0), covariance + 1e-6 * np.eye(len(covariance))


def _mean_covariance(posterior):
    size = posterior.mean.shape[1]
    if isinstance(posterior, PointMass):
        return np.zeros((size, size))
    if isinstance(posterior, DiagonalGaussian):
        log_var = ops.convert_to_numpy(posterior.log_var).astype("float64")
        return np.diag(np.mean(np.exp(log_var), axis=0))
    # sum_n L_n L_n^T is one product of all columns.
    columns = np.swapaxes(ops.convert_to_numpy(posterior.scale_tril), 0, 1).reshape(size, -1)
    columns = columns.astype("float64")
    return columns @ columns.T / len(posterior.mean)
