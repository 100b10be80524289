"""First and second moments of the aggregate posterior, against those of the prior."""

import dataclasses

import numpy as np
from keras import ops

from ..losses import DiagonalGaussian, HierarchicalGaussian, PointMass
from ._estimate import to_json
from ._inputs import encoded


@dataclasses.dataclass(frozen=True, eq=False)
class AggregateMoments:
    """Mean and covariance of q(z) = 1/N sum_j q(z|x_j), and how far they are from N(0, I)'s.

    Attributes:
        mean: NumPy float64 `(D,)`.
        covariance: NumPy float64 `(D, D)`.
        covariance_of_means: NumPy float64 `(D, D)`, the part of it that tells examples apart; the
            rest is the mean posterior covariance.
        count: Int N.
    """

    mean: np.ndarray
    covariance: np.ndarray
    covariance_of_means: np.ndarray
    count: int

    @property
    def eigenvalues(self):
        """Of the covariance, ascending, `(D,)`; all 1 if it is the prior's."""
        return np.linalg.eigvalsh(self.covariance)

    @property
    def mean_absolute_correlation(self):
        """Mean of |correlation| over all pairs of dimensions; 0 if D = 1.

        Dimensions without spread count as uncorrelated.
        """
        size = len(self.mean)
        if size == 1:
            return 0.0
        scale = np.sqrt(np.diagonal(self.covariance))
        scale = np.where(scale > 0.0, scale, np.inf)
        correlation = self.covariance / np.outer(scale, scale)
        off_diagonal = np.abs(correlation[~np.eye(size, dtype=bool)])
        return float(np.mean(off_diagonal))

    @property
    def divergence(self):
        """KL of the Gaussian with these moments to the prior, in nats.

            1/2 ( tr C + |m|^2 - D - log det C )

        0 says that mean and covariance are the prior's, not that q(z) is; infinite for a singular
        covariance.
        """
        sign, log_det = np.linalg.slogdet(self.covariance)
        if sign <= 0:
            return float("inf")
        trace = np.trace(self.covariance)
        return float(0.5 * (trace + self.mean @ self.mean - len(self.mean) - log_det))

    def to_dict(self):
        """All of it as JSON knows it."""
        names = ("eigenvalues", "mean_absolute_correlation", "divergence")
        return to_json({**vars(self), **{name: getattr(self, name) for name in names}})


def aggregate_moments(
    model_or_posterior, data=None, *, decoder=None, likelihood=None, batch_size=256
):
    """Mean and covariance of the aggregate posterior.

        m = mean_j mean_j,   C = mean_j Cov(z|x_j) + mean_j (mean_j - m)(mean_j - m)^T

    Args:
        model_or_posterior: `VAE`, path of an exported SavedModel, or encoder
            `x -> (mean, log_var)`; or a posterior value over `(N, D)`, deterministic ones too.
        data: `(N, *event)` for a model; nothing otherwise.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        batch_size: Examples that a model encodes at once.

    Returns:
        `AggregateMoments`, exact for the mixture of these N posteriors.

    Raises:
        TypeError: If `model_or_posterior` or the data are of another kind.
        ValueError: If there are fewer than 2 examples, or values are not finite.
    """
    posterior, _ = encoded(model_or_posterior, data, batch_size, decoder, likelihood)
    if not isinstance(posterior, (DiagonalGaussian, HierarchicalGaussian, PointMass)):
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
    within = _mean_covariance(posterior)
    if not (np.all(np.isfinite(means)) and np.all(np.isfinite(within))):
        raise ValueError(
            "`model_or_posterior` must be finite. Received: NaN or infinity in the posterior"
        )
    mean = means.mean(axis=0)
    between = (means - mean).T @ (means - mean) / len(means)
    return AggregateMoments(mean, within + between, between, len(means))


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
