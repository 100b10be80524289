"""Densities: the one door to TensorFlow Probability, and the posterior value types.

TFP distributions are built from tensors where a density is needed and never cross a layer boundary;
what layers pass on are the `NamedTuple`s below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import keras
from keras import ops

from .imports import as_if_without

if TYPE_CHECKING:
    from typing import Any

    from .types import Posterior, Tensor


def tfd() -> Any:
    """Returns `tfp.distributions` for the active Keras backend.

    Raises:
        RuntimeError: If the backend is neither TensorFlow nor JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from tensorflow_probability import distributions
    elif backend == "jax":
        # It takes docstrings from TensorFlow where there is one, for 2.5 s and 450 MB.
        with as_if_without("tensorflow"):
            from tensorflow_probability.substrates.jax import distributions
    else:
        raise RuntimeError(
            "vaezoo runs on the Keras backends 'tensorflow' and 'jax'. Received: "
            f"KERAS_BACKEND={backend!r}"
        )
    return distributions


class DiagonalGaussian(NamedTuple):
    """q(z|x) = N(mean, diag(exp(log_var))).

    Attributes:
        mean: Float tensor `(batch, D)`.
        log_var: Float tensor `(batch, D)`, natural logarithm of the variance.
    """

    mean: Tensor
    log_var: Tensor


class HierarchicalGaussian(NamedTuple):
    """q(z|x) = N(mean, L L^T) whose means are themselves drawn from N(hyper_mean, R R^T).

    Attributes:
        mean: Float tensor `(batch, D)`.
        scale_tril: Float tensor `(batch, D, D)`, lower triangular L.
        hyper_mean: Float tensor `(batch, D)`, equal rows: mean of the posterior means.
        hyper_scale_tril: Float tensor `(batch, D, D)`, equal rows: Cholesky factor R of their
            covariance.

    Reference: Cheng et al. (2020), HEBAE, eqs. 7-8, arXiv:2007.10389.
    """

    mean: Tensor
    scale_tril: Tensor
    hyper_mean: Tensor
    hyper_scale_tril: Tensor


class PointMass(NamedTuple):
    """q(z|x) concentrated on `mean`: a deterministic encoder. It has no density.

    Attributes:
        mean: Float tensor `(batch, D)`.
    """

    mean: Tensor


class FlowGaussian(NamedTuple):
    """q(z|x) of z = f(eps; context), eps ~ N(base_mean, diag(exp(base_log_var))): a flow's.

    Its density takes the flow f: `PosteriorHead.sample_and_log_prob` and `log_prob` of the head
    that made it.

    Attributes:
        mean: Float tensor `(batch, D)`, f(base_mean; context): where the base's center comes to
            lie, which is no exact mean of z.
        base_mean: Float tensor `(batch, D)`.
        base_log_var: Float tensor `(batch, D)`.
        context: Float tensor `(batch, C)`.
    """

    mean: Tensor
    base_mean: Tensor
    base_log_var: Tensor
    context: Tensor

    @property
    def base(self) -> DiagonalGaussian:
        """The `DiagonalGaussian` that the flow bends."""
        return DiagonalGaussian(self.base_mean, self.base_log_var)


def distribution(posterior: Posterior) -> Any:
    """The `tfp` distribution over `(batch, D)` events that a posterior value stands for.

    Raises:
        ValueError: If the posterior has no density.
    """
    if isinstance(posterior, PointMass):
        raise ValueError(
            "A deterministic posterior has no density, so neither a rate nor a likelihood estimate "
            "exists. Use a head that samples. Received: posterior of type PointMass"
        )
    if isinstance(posterior, DiagonalGaussian):
        return tfd().MultivariateNormalDiag(
            float32(posterior.mean), ops.exp(0.5 * float32(posterior.log_var))
        )
    if isinstance(posterior, HierarchicalGaussian):
        return tfd().MultivariateNormalTriL(float32(posterior.mean), float32(posterior.scale_tril))
    if isinstance(posterior, FlowGaussian):
        raise TypeError(
            "`posterior` must have a density of its own; that of a flow is known to its head "
            "(`head.sample_and_log_prob`, `head.log_prob`). Received: FlowGaussian"
        )
    raise TypeError(
        "`posterior` must be a DiagonalGaussian, HierarchicalGaussian or PointMass. Received: "
        f"{type(posterior).__name__}"
    )


def log_prob(posterior: Posterior, z: Tensor) -> Tensor:
    """Posterior log-density of K draws per example.

        log q(z_k | x)    (nats)

    Args:
        posterior: Posterior value over `(batch, D)`.
        z: Float tensor `(batch, K, D)`.

    Returns:
        Float tensor `(batch, K)`.
    """
    expanded = type(posterior)(*(part[:, None] for part in posterior))
    return distribution(expanded).log_prob(ops.cast(z, float32(posterior.mean).dtype))


def log_prob_per_dimension(posterior: Posterior, z: Tensor) -> Tensor:
    """Posterior log-density of K draws per example, per dimension where it has coordinates.

        log q(z_kd | x),    summing to log q(z_k | x)    (nats)

    Args:
        posterior: Posterior value over `(batch, D)`.
        z: Float tensor `(batch, K, D)`.

    Returns:
        Float tensor `(batch, K, D)` for a `DiagonalGaussian`, `(batch, K, 1)` for others; `+inf`
        for a `PointMass`.
    """
    if isinstance(posterior, PointMass):
        return ops.full_like(float32(z)[:, :, :1], float("inf"))
    if not isinstance(posterior, DiagonalGaussian):
        return log_prob(posterior, z)[:, :, None]
    mean = float32(posterior.mean)[:, None]
    scale = ops.exp(0.5 * float32(posterior.log_var))[:, None]
    return tfd().Normal(mean, scale).log_prob(ops.cast(z, mean.dtype))


#: Former name, for one release.
log_prob_by_coordinate = log_prob_per_dimension


def kl_divergence(posterior: Posterior, scale: float = 1.0) -> Tensor:
    """Closed-form KL to a centered isotropic normal.

        KL( q(z|x) || N(0, scale^2 I) )    (nats per example)

    Args:
        posterior: Posterior value over `(batch, D)`.
        scale: Positive float, standard deviation of the prior.

    Returns:
        Float tensor `(batch,)`; infinite for a `PointMass`.
    """
    if isinstance(posterior, PointMass):
        return ops.full_like(float32(posterior.mean)[:, 0], float("inf"))
    if isinstance(posterior, DiagonalGaussian):
        return ops.sum(kl_per_dimension(posterior, scale), axis=-1)
    prior = tfd().MultivariateNormalDiag(
        ops.zeros_like(float32(posterior.mean)), scale * ops.ones_like(float32(posterior.mean))
    )
    return tfd().kl_divergence(distribution(posterior), prior)


def kl_per_dimension(posterior: Posterior, scale: float = 1.0) -> Tensor:
    """Closed-form KL of each marginal q(z_d|x) to N(0, scale^2).

        KL_d = 1/2 (mean_d^2 + var_d - log var_d - 1)    (nats; scale = 1)

    For a diagonal posterior the dimensions add up to `kl_divergence`; for a full covariance they
    leave out its correlations.

    Args:
        posterior: `DiagonalGaussian` or `HierarchicalGaussian` over `(batch, D)`.
        scale: Positive float, standard deviation of the prior.

    Returns:
        Float tensor `(batch, D)`; infinite for a `PointMass`.
    """
    if isinstance(posterior, PointMass):
        return ops.full_like(float32(posterior.mean), float("inf"))
    mean = float32(posterior.mean)
    prior = tfd().Normal(ops.zeros_like(mean), scale * ops.ones_like(mean))
    return tfd().kl_divergence(tfd().Normal(mean, ops.sqrt(variance(posterior))), prior)


def variance(posterior: Posterior) -> Tensor:
    """Marginal posterior variances, float tensor `(batch, D)`; zero for a `PointMass`."""
    if isinstance(posterior, PointMass):
        return ops.zeros_like(float32(posterior.mean))
    if isinstance(posterior, DiagonalGaussian):
        return ops.exp(float32(posterior.log_var))
    return ops.sum(ops.square(float32(posterior.scale_tril)), axis=-1)


def float32(value: Any) -> Tensor:
    """Densities are computed in float32 under every precision policy, that of float64 included."""
    value = ops.convert_to_tensor(value)
    # float64 that is handed over as such stays, so that identities can be checked to its precision.
    given = keras.backend.standardize_dtype(value.dtype) == "float64"
    policies = keras.config.floatx(), keras.config.dtype_policy().compute_dtype
    return value if given and "float64" not in policies else ops.cast(value, "float32")


def reparameterize(posterior: Posterior, eps: Tensor) -> Tensor:
    """Posterior draws as a differentiable function of standard normal noise.

        z_k = mean + exp(log_var / 2) * eps_k    or    mean + L eps_k

    Args:
        posterior: Posterior value over `(batch, D)`.
        eps: Float tensor `(batch, K, D)`.

    Returns:
        Float tensor `(batch, K, D)`; K copies of the mean for a `PointMass`.

    Reference: Kingma & Welling (2014), section 2.4, arXiv:1312.6114.
    """
    mean = float32(posterior.mean)[:, None]
    if isinstance(posterior, PointMass):
        return mean + ops.zeros_like(eps)
    if isinstance(posterior, DiagonalGaussian):
        return mean + ops.exp(0.5 * float32(posterior.log_var))[:, None] * eps
    # Rows of eps are draws, hence L on the right and transposed.
    return mean + ops.matmul(eps, ops.swapaxes(float32(posterior.scale_tril), 1, 2))
