"""From a posterior's parameters to its value and reparameterized draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_choice, check_flag, check_integer, check_real, check_seed
from ..core.random import SavesNoise, SeedGenerator
from ..core.replicas import gather_batch
from ..core.serialization import ArgumentsConfig
from ..losses import DiagonalGaussian, HierarchicalGaussian, batch_moments, reparameterize, shrink

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Posterior, Seed, Shape, Tensor


class _Reparameterization(SavesNoise, ArgumentsConfig, keras.layers.Layer):
    """Base: subclasses implement `posterior(mean, second, training)`."""

    #: What one unit of the second parameter is as a log-variance.
    log_vars_per_unit = 1.0

    def __init__(self, num_samples: int | None = None, seed: Seed = None, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_samples = check_integer("num_samples", num_samples, optional=True)
        self.seed = check_seed("seed", seed)
        self.noise = SeedGenerator(self.seed)

    def build(self, mean_shape, log_scale_shape=None):
        self.latent_dim = mean_shape[-1]

    def call(self, mean, log_scale, training=False):
        posterior = self.posterior(mean, log_scale, training)
        return posterior, self._draw(posterior)

    def _draw(self, posterior):
        shape = (ops.shape(posterior.mean)[0], self.num_samples or 1, self.latent_dim)
        eps = keras.random.normal(shape, dtype="float32", seed=self.noise)
        z = reparameterize(posterior, eps)
        return z[:, 0] if self.num_samples is None else z


@keras.saving.register_keras_serializable(package="vaezoo")
class DiagonalReparam(_Reparameterization):
    """Diagonal Gaussian posterior and K draws from it.

        z_k = mean + exp(log_var / 2) * eps_k,   eps_k ~ N(0, I)

    Args:
        num_samples: Positive int K, or None for a single draw without a sample axis.
        seed: Optional int that fixes the noise.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        mean: Float tensor `(batch, D)`.
        log_var: Float tensor `(batch, D)`.

    Returns:
        `(posterior, z)`: a `DiagonalGaussian`, and `(batch, K, D)` or `(batch, D)`.

    Raises:
        ValueError: If `num_samples` is not positive.

    Reference: Kingma & Welling (2014), section 2.4, arXiv:1312.6114.
    """

    def posterior(self, mean: Tensor, log_var: Tensor, training: bool = False) -> Posterior:
        """The posterior alone, without a draw."""
        return DiagonalGaussian(mean, log_var)


@keras.saving.register_keras_serializable(package="vaezoo")
class CholeskyReparam(_Reparameterization):
    """Posterior whose noise has the correlations of the batch's own means.

        beta, Sigma = mean and covariance of mean_i over the (global) batch
        Sigma       = (1 - shrinkage) Sigma + shrinkage I
        R R^T       = Sigma + jitter max(1, tr Sigma / D) I
        z_k         = mean + exp(log_scale) * (R eps_k),   eps_k ~ N(0, I)

    In inference, and in a training batch of at most D rows, whose covariance is singular, running
    statistics (bias-corrected exponential averages; N(0, I) before the first step) stand in for the
    batch's. A `VAE` refuses a nominal batch size of at most D.

    Args:
        num_samples: Positive int K, or None for a single draw without a sample axis.
        seed: Optional int that fixes the noise.
        shrinkage: Float in [0, 1], pull of Sigma toward the identity.
        jitter: Positive float added to the diagonal before the factorization, relative to the mean
            variance where that is above 1.
        sampling: `"cholesky"`, or `"diagonal"`, which drops the correlations from the noise as the
            official code does.
        stop_gradient: If True no gradient flows through R into the draw, as in the official code.
        statistics: `"running"`, or `"batch"` for batch statistics in inference, too.
        momentum: Float in [0, 1), decay of the running statistics.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        mean: Float tensor `(batch, D)`.
        log_scale: Float tensor `(batch, D)` or `(batch, 1)`, log standard deviations.
        training: Whether to use and collect batch statistics.

    Returns:
        `(posterior, z)`: a `HierarchicalGaussian`, and `(batch, K, D)` or `(batch, D)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Cheng et al. (2020), HEBAE, eqs. 7-8, arXiv:2007.10389.
    """

    #: The second parameter is a log standard deviation.
    log_vars_per_unit = 2.0

    def __init__(
        self,
        num_samples: int | None = None,
        seed: int | None = None,
        shrinkage: float = 0.0,
        jitter: float = 1e-6,
        sampling: str = "cholesky",
        stop_gradient: bool = False,
        statistics: str = "running",
        momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_samples, seed, **kwargs)
        self.shrinkage = check_real("shrinkage", shrinkage, "[0, 1]")
        self.jitter = check_real("jitter", jitter, "(0, inf)")
        self.momentum = check_real("momentum", momentum, "[0, 1)")
        self.sampling = check_choice("sampling", sampling, ("cholesky", "diagonal"))
        self.statistics = check_choice("statistics", statistics, ("running", "batch"))
        self.stop_gradient = check_flag("stop_gradient", stop_gradient)

    def build(self, mean_shape: Shape, log_scale_shape: Shape | None = None) -> None:
        super().build(mean_shape, log_scale_shape)
        dim = self.latent_dim
        statistics = {"trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=(dim,), initializer="zeros", **statistics
        )
        self.moving_covariance = self.add_weight(
            name="moving_covariance", shape=(dim, dim), initializer="identity", **statistics
        )
        self.updates = self.add_weight(
            name="updates",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    @property
    def min_batch_size(self) -> int:
        """A covariance of D dimensions needs more than D rows."""
        return self.latent_dim + 1

    @property
    def advised_batch_size(self) -> int:
        """Below twice D rows the batch covariance is a poor estimate."""
        return 2 * self.latent_dim

    def posterior(self, mean: Tensor, log_scale: Tensor, training: bool = False) -> Posterior:
        """The posterior alone, without a draw."""
        beta, sigma = self._moments(mean, training)
        # In proportion to codes of large spread, whose rounding errors are as large.
        jitter = self.jitter * ops.maximum(ops.mean(ops.diagonal(sigma)), 1.0)
        factor = ops.cholesky(sigma + jitter * ops.eye(self.latent_dim, dtype=sigma.dtype))
        noise_factor = factor
        if self.sampling == "diagonal":
            noise_factor = ops.diag(ops.sqrt(ops.diagonal(sigma) + jitter))
        if self.stop_gradient:
            noise_factor = ops.stop_gradient(noise_factor)
        rows = ops.zeros_like(mean)
        return HierarchicalGaussian(
            mean,
            ops.exp(log_scale)[:, :, None] * noise_factor,
            rows + beta,
            rows[:, :, None] + factor,
        )

    def _moments(self, mean, training):
        running = (
            ops.convert_to_tensor(self.moving_mean),
            ops.convert_to_tensor(self.moving_covariance),
        )
        if not training and self.statistics == "running":
            return running[0], shrink(running[1], self.shrinkage)
        rows = gather_batch(mean)
        beta, sigma = batch_moments(rows)
        enough = ops.cast(ops.shape(rows)[0], "int32") > self.latent_dim
        beta, sigma = (
            ops.where(enough, new, old) for new, old in zip((beta, sigma), running, strict=True)
        )
        if training:
            self._collect(beta, sigma, enough)
        return beta, shrink(sigma, self.shrinkage)

    def _collect(self, beta, sigma, enough):
        updates = self.updates + ops.cast(enough, "float32")
        # This rate makes the plain recursion equal to a bias-corrected exponential average.
        rate = (1.0 - self.momentum) / (1.0 - ops.power(self.momentum, ops.maximum(updates, 1.0)))
        rate = rate * ops.cast(enough, "float32")
        for running, value in ((self.moving_mean, beta), (self.moving_covariance, sigma)):
            running.assign(running + rate * (ops.stop_gradient(value) - running))
        self.updates.assign(updates)
