"""Posterior heads: encoder features in, posterior and draws out."""

import keras
from keras import ops

from ..losses import PointMass, log_prob, reparameterize
from ..losses._serialization import ArgumentsConfig
from .reparameterization import DiagonalReparam


class PosteriorHead(ArgumentsConfig, keras.layers.Layer):
    """Base of the layers that turn features into `(posterior, z)`.

    Subclasses create `self.projection` and `self.reparam` in `__init__` and implement
    `parameters(features, training)`, the two tensors that `reparam` takes.
    Heads compute in float32 under every precision policy.

    Args:
        latent_dim: Positive int D.
        num_samples: Positive int K, draws per example.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `latent_dim` or `num_samples` is below 1.
    """

    #: Whether the posterior has a density.
    has_density = True
    #: Smallest training batch for which every part is defined, and for which it is well estimated.
    min_batch_size = 1
    advised_batch_size = 1

    def __init__(self, latent_dim, num_samples=1, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        for name, value in (("latent_dim", latent_dim), ("num_samples", num_samples)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value}")
        self.latent_dim, self.num_samples = latent_dim, num_samples

    def build(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(
                "The encoder must return features of shape (batch, F). Received: "
                f"shape={tuple(input_shape)}"
            )
        if not self.projection.built:
            self.projection.build(input_shape)

    def parameters(self, features, training=False):
        """What `reparam` is called with."""
        raise NotImplementedError

    def call(self, features, training=False):
        return self.reparam(*self.parameters(features, training), training=training)

    def posterior(self, features, training=False):
        """The posterior alone; draws nothing, so the noise of a training goes on undisturbed."""
        return self.reparam.posterior(*self.parameters(features, training), training)

    def sample(self, posterior, num_samples, seed):
        """K draws `(batch, K, D)` from a posterior that this head returned.

        Args:
            posterior: Posterior value over `(batch, D)`.
            num_samples: Positive int K.
            seed: `keras.random.SeedGenerator`.
        """
        mean = posterior.mean
        eps = keras.random.normal(
            (ops.shape(mean)[0], num_samples, self.latent_dim), dtype="float32", seed=seed
        )
        return reparameterize(posterior, eps)

    def log_prob(self, posterior, z):
        """Log q(z_k|x), `(batch, K)`; `+inf` for a head without a density."""
        if not self.has_density:
            return ops.full_like(z[:, :, 0], float("inf"))
        return log_prob(posterior, z)


@keras.saving.register_keras_serializable(package="vaezoo")
class GaussianHead(PosteriorHead):
    """Gaussian posterior from a string of layers on its mean and variance.

        m, r     = split(W features + b)
        mean     = clip(mean_norm(m))
        log_var  = variance_dropout(max(r, min_log_var))
        z_k      = mean + exp(log_var / 2) * eps_k,   eps_k ~ N(0, I)

    Each layer is optional. With a `CholeskyReparam` as `reparam`, r is the log standard deviation
    and the draws are correlated.

    Args:
        latent_dim: Positive int D.
        num_samples: Positive int K, draws per example.
        mean_norm: Optional layer on the raw mean, such as `MeanBatchNorm`.
        clip: Optional layer on the normalised mean, such as `LatentClip`.
        variance_dropout: Optional layer on the log-variance, such as `VarianceDropout`.
        reparam: Optional layer `(mean, r) -> (posterior, z)`; `DiagonalReparam` by default.
        scale: `"vector"`, or `"scalar"` for one r per example that all dimensions share.
        min_log_var: Optional float, smallest log-variance.
        use_bias: Whether the projection has a bias.
        kernel_initializer: Initialiser of the projection.
        seed: Optional int that fixes the noise.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, F)`.
        training: Passed on to the layers.

    Returns:
        `(posterior, z)`; `z` is `(batch, K, D)` and carries the gradient.

    Raises:
        ValueError: If an argument is out of range, or `reparam` draws another number of samples.

    Reference: Kingma & Welling (2014), section 2.4, arXiv:1312.6114.
    """

    def __init__(
        self,
        latent_dim,
        num_samples=1,
        mean_norm=None,
        clip=None,
        variance_dropout=None,
        reparam=None,
        scale="vector",
        min_log_var=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        seed=None,
        **kwargs,
    ):
        super().__init__(latent_dim, num_samples, **kwargs)
        if scale not in ("vector", "scalar"):
            raise ValueError(f"`scale` must be 'vector' or 'scalar'. Received: scale={scale!r}")
        if reparam is not None and reparam.num_samples != num_samples:
            raise ValueError(
                "`reparam` must draw `num_samples` samples. Received: "
                f"reparam.num_samples={reparam.num_samples}, num_samples={num_samples}"
            )
        self.mean_norm, self.clip, self.variance_dropout = mean_norm, clip, variance_dropout
        self.reparam = reparam or DiagonalReparam(num_samples, seed)
        # Known before `build`: `fit` asks for the least batch size of a model not yet built.
        self.reparam.latent_dim = latent_dim
        self.scale, self.min_log_var, self.seed = scale, min_log_var, seed
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection = keras.layers.Dense(
            latent_dim + (latent_dim if scale == "vector" else 1),
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype="float32",
            name="projection",
        )

    def build(self, input_shape):
        super().build(input_shape)
        mean_shape = (input_shape[0], self.latent_dim)
        scale_shape = (input_shape[0], self.projection.units - self.latent_dim)
        for part in (self.mean_norm, self.clip):
            if part is not None and not part.built:
                part.build(mean_shape)
        if self.variance_dropout is not None and not self.variance_dropout.built:
            self.variance_dropout.build(scale_shape)
        if not self.reparam.built:
            self.reparam.build(mean_shape, scale_shape)

    @property
    def min_batch_size(self):
        """The largest demand of any part."""
        return self._largest("min_batch_size")

    @property
    def advised_batch_size(self):
        """The largest advice of any part."""
        return self._largest("advised_batch_size")

    def _largest(self, name):
        parts = (self.mean_norm, self.clip, self.variance_dropout, self.reparam)
        return max(getattr(part, name, 1) for part in parts)

    def parameters(self, features, training=False):
        """Mean and log-variance (or log standard deviation) after all layers."""
        projected = self.projection(features)
        mean, log_var = projected[:, : self.latent_dim], projected[:, self.latent_dim :]
        if self.mean_norm is not None:
            mean = self.mean_norm(mean, training=training)
        if self.clip is not None:
            mean = self.clip(mean)
        if self.min_log_var is not None:
            log_var = ops.maximum(log_var, self.min_log_var)
        if self.variance_dropout is not None:
            log_var = self.variance_dropout(log_var, training=training)
        if self.scale == "scalar" and isinstance(self.reparam, DiagonalReparam):
            log_var = log_var + ops.zeros_like(mean)
        return mean, log_var


@keras.saving.register_keras_serializable(package="vaezoo")
class DeltaHead(PosteriorHead):
    """Gaussian posterior that cannot come closer to the prior than `delta` nats a dimension.

        l^2 < u^2  roots of  log v - v + 2 delta + 1 = 0
        sd   = l + (u - l) max(sigmoid(r), 1/50)
        mean = sqrt( 2 delta + 1 + log sd^2 - sd^2 + relu(m) + 1e-6 )
        KL_d = delta + relu(m) / 2 + 5e-7

    Args:
        latent_dim: Positive int D.
        delta: Positive float, least KL to N(0, 1) in nats per dimension.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, F)`.

    Returns:
        `(posterior, z)`; `z` is `(batch, K, D)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Razavi et al. (2019), section 2.1, arXiv:1901.03416, in the independent form of the
    official code of Zhu et al. (2020), arXiv:2004.12585.

    Note: All means are positive, so a floor on the rate does not make codes differ.
    """

    def __init__(self, latent_dim, delta=0.1, num_samples=1, seed=None, **kwargs):
        super().__init__(latent_dim, num_samples, **kwargs)
        if not delta > 0:
            raise ValueError(f"`delta` must be positive. Received: delta={delta}")
        self.delta, self.seed = delta, seed
        self.projection = keras.layers.Dense(2 * latent_dim, dtype="float32", name="projection")
        self.reparam = DiagonalReparam(num_samples, seed)
        self.low, self.high = (root**0.5 for root in _variance_range(delta))

    def parameters(self, features, training=False):
        """Mean and log-variance that keep the least KL."""
        shift, raw = ops.split(self.projection(features), 2, axis=-1)
        sd = self.low + (self.high - self.low) * ops.maximum(ops.sigmoid(raw), 0.02)
        log_var = 2.0 * ops.log(sd)
        slack = 2.0 * self.delta + 1.0 + log_var - ops.square(sd)
        # Rounding may push a slack of zero below it.
        mean = ops.sqrt(ops.maximum(slack, 0.0) + ops.relu(shift) + 1e-6)
        return mean, log_var


def _variance_range(delta):
    # log v - v + c = 0  <=>  v = -W(-exp(-c)), on both branches of Lambert's W.
    from scipy.special import lambertw

    argument = -float(ops.convert_to_numpy(ops.exp(-(2.0 * delta + 1.0))))
    return tuple(float(-lambertw(argument, branch).real) for branch in (0, -1))


@keras.saving.register_keras_serializable(package="vaezoo")
class PointHead(PosteriorHead):
    """Deterministic encoder: z = mean = W features + b.

    Args:
        latent_dim: Positive int D.
        num_samples: Positive int K; all K draws are equal.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, F)`.

    Returns:
        `(posterior, z)`: a `PointMass`, and `(batch, K, D)`.

    Raises:
        ValueError: If `latent_dim` or `num_samples` is below 1.
    """

    has_density = False

    def __init__(self, latent_dim, num_samples=1, **kwargs):
        super().__init__(latent_dim, num_samples, **kwargs)
        self.projection = keras.layers.Dense(latent_dim, dtype="float32", name="projection")

    def posterior(self, features, training=False):
        """The point."""
        return PointMass(self.projection(features))

    def call(self, features, training=False):
        mean = self.projection(features)
        return PointMass(mean), ops.repeat(mean[:, None], self.num_samples, axis=1)
