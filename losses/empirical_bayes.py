"""Hierarchical empirical Bayes: the batch's own mean and covariance against the prior's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.posteriors import HierarchicalGaussian, float32
from ..core.replicas import gather_batch
from .objective import Loss, Objective, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Tensor, Weighting
    from .objective import Regularizer, Terms


def batch_moments(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of posterior means over their batch.

        beta  = 1/B sum_i mean_i
        Sigma = 1/B sum_i (mean_i - beta)(mean_i - beta)^T

    Args:
        mean: Float tensor `(batch, D)`.

    Returns:
        `(beta (D,), Sigma (D, D))`.

    Reference: Cheng et al. (2020), eq. 7, arXiv:2007.10389; divisor B as in the official code.
    """
    beta = ops.mean(mean, axis=0)
    centered = mean - beta
    sigma = ops.matmul(ops.transpose(centered), centered) / ops.cast(ops.shape(mean)[0], mean.dtype)
    return beta, sigma


def shrink(sigma: Tensor, shrinkage: float) -> Tensor:
    """Pulls a covariance `(D, D)` toward the identity."""
    return (1.0 - shrinkage) * sigma + shrinkage * ops.eye(sigma.shape[-1], dtype=sigma.dtype)


def gaussian_kl_to_standard(mean: Tensor, scale_tril: Tensor) -> Tensor:
    """KL of a full-covariance Gaussian to the standard normal.

        KL( N(m, L L^T) || N(0, I) ) = 1/2 ( ||L||_F^2 + m.m - D - 2 sum_d log L_dd )    (nats)

    Args:
        mean: Float tensor `(..., D)`.
        scale_tril: Float tensor `(..., D, D)`, lower triangular with a positive diagonal.

    Returns:
        Float tensor `(...)`.

    Reference: Cheng et al. (2020), eq. 11, arXiv:2007.10389.

    Note: The paper subtracts m.m within the bracket, which would reward large means, and omits the
    1/2; this is the divergence itself, as in the official code.
    """
    diagonal = ops.diagonal(scale_tril, axis1=-2, axis2=-1)
    return 0.5 * ops.sum(
        ops.sum(ops.square(scale_tril), axis=-1) + ops.square(mean) - 1.0 - 2.0 * ops.log(diagonal),
        axis=-1,
    )


@keras.saving.register_keras_serializable(package="vaezoo")
class EmpiricalBayesELBO(Objective):
    """HEBAE's objective: reconstruction plus the KL of the means' distribution to the prior.

        loss = E_q[-log p(x|z)] + weight * KL( N(beta, Sigma) || N(0, I) )    (nats)

    beta and Sigma are the batch's in training and the running ones in evaluation, as the head
    `CholeskyReparam` provides them. The posterior scales do not enter the second term, so this is
    no bound on log p(x). The logs show it as `hyper_kl`.

    Args:
        weight: Non-negative float or schedule; the paper's lambda.
        regularizers: Sequence of `Regularizer`s that are added.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `weight` is negative.
        TypeError: If the posterior is not a `HierarchicalGaussian`.

    Reference: Cheng et al. (2020), eq. 11, arXiv:2007.10389.
    """

    prior_variance = 1.0
    masks_rows = True

    def __init__(
        self, weight: Weighting = 1.0, regularizers: Sequence[Regularizer] = (), **kwargs: Any
    ) -> None:
        super().__init__(regularizers, **kwargs)
        self._weight = Weight(weight, "weight")

    def _argument(self, name):
        return self._weight.initial if name == "weight" else super()._argument(name)

    @property
    def weight(self) -> Tensor:
        """The current weight of `hyper_kl`, a non-trainable variable."""
        return self._weight.variable

    @property
    def report_names(self) -> tuple[str, ...]:
        """The regularizer's own value, then further regularizers'."""
        return ("hyper_kl",) + super().report_names

    def bound(self, terms: Terms, training: bool) -> Loss:
        """Distortion plus the weighted KL of the hyper-distribution."""
        posterior = terms.posterior
        if not isinstance(posterior, HierarchicalGaussian):
            raise TypeError(
                "`EmpiricalBayesELBO` needs the posterior of a `CholeskyReparam` head. Received: "
                f"{type(posterior).__name__}"
            )
        kl = gaussian_kl_to_standard(
            _any_row(posterior.hyper_mean), _any_row(posterior.hyper_scale_tril)
        )
        weight = self._weight(training=training)
        return Loss(terms.distortion, weight * kl, {"hyper_kl": kl})


def _any_row(equal_rows):
    # A replica may have no row of a small last batch, so one is taken from the global batch.
    return float32(gather_batch(equal_rows[:1])[0])
