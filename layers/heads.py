"""Posterior heads: encoder features in, posterior and draws out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_keras,
    check_kind,
    check_real,
    check_seed,
)
from ..core.serialization import ArgumentsConfig
from ..losses import (
    DiagonalGaussian,
    FlowGaussian,
    PointMass,
    float32,
    log_prob,
    log_prob_per_dimension,
    reparameterize,
)
from .flow import Flow
from .reparameterization import DiagonalReparam

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import KerasObject, Posterior, Seed, Shape, Tensor

#: Log-variances that heads pass on as they are, see `bounded_log_var`.
LOG_VAR_RANGE = (-30.0, 20.0)


def bounded_log_var(log_var: Tensor, log_vars_per_unit: float = 1.0) -> Tensor:
    """Keeps log-variances within what float32 can train, and is the identity there.

        v                            for low <= v <= high,   low = -30, high = 20
        high + log(1 + v - high)     above: the variance grows along its tangent at `high`
        low - log(1 + low - v)       below: so does the precision, at `low`

    The limits follow from float32, of 24 bits and a range of 1e+-38:

    - Below -30 the standard deviation, 3e-7, is that of the rounding error of a code of size 1 to
      5 (6e-8 to 2.4e-7): neither the decoder nor log q(z|x) can tell the draw from the mean. The
      precision, 1e13, is finite.
    - At 20 the variance is 5e8. The slope of the KL by v is 2.4e8, and its square, which Adam
      keeps, 6e16. A decoder that amplifies a code by W over N values has a squared error of
      N W^2 5e8, whose slope may be squared up to N W^2 = 4e10; beyond the limit that falls with
      1 / (1 + v - high).

    Outside the gradient is that of the bound times 1 / (1 + distance): it never vanishes, and since
    the KL's slope by the variance does not change sign there, it points back. The KL's by v stays
    5e8 / 2, however far outside v lies. All this has no effect on a model whose log-variances stay
    inside: values and gradients are equal to the last bit.

    Args:
        log_var: Float tensor, or of another unit.
        log_vars_per_unit: Positive float, 2 if `log_var` holds log standard deviations.

    Returns:
        Tensor of the same shape and unit.
    """
    low, high = (limit / log_vars_per_unit for limit in LOG_VAR_RANGE)
    unit = log_vars_per_unit
    above, below = ops.relu(log_var - high), ops.relu(low - log_var)
    outside = ops.clip(log_var, low, high)
    outside = outside + (ops.log1p(unit * above) - ops.log1p(unit * below)) / unit
    # Chosen by a mask, so that nothing is added to what lies inside.
    return ops.where((log_var >= low) & (log_var <= high), log_var, outside)


class PosteriorHead(ArgumentsConfig, keras.layers.Layer):
    """Base of the layers that turn features into `(posterior, z)`.

    Two methods do the work: `posterior(features)` samples nothing, and `sample_and_log_prob` draws
    from what it returned. The call, Keras' entry, does both with the head's own noise.

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

    def __init__(self, latent_dim: int, num_samples: int = 1, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.latent_dim = check_integer("latent_dim", latent_dim)
        self.num_samples = check_integer("num_samples", num_samples)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 2:
            raise ValueError(
                "The encoder must return features of shape (batch, F). Received: "
                f"shape={tuple(input_shape)}"
            )
        if not self.projection.built:
            self.projection.build(input_shape)

    def set_projection(
        self, use_bias: bool | None = None, kernel_initializer: KerasObject = None
    ) -> None:
        """Sets how the projection starts, of a head that a constructor has made.

        Args:
            use_bias: Optional bool, whether it has a bias.
            kernel_initializer: Optional Keras initializer, of which a copy is used.

        Raises:
            RuntimeError: If the projection has its weights already.
            ValueError: If the head has no projection.
        """
        if not isinstance(self.projection, keras.layers.Dense):
            raise ValueError("`set_projection` needs a head with a projection. Received: none")
        if self.projection.built:
            raise RuntimeError("`set_projection` must be called before the model is built.")
        if use_bias is not None:
            self.use_bias = self.projection.use_bias = check_flag("use_bias", use_bias)
        if kernel_initializer is not None:
            initializer = keras.initializers.get(kernel_initializer)
            # An unseeded object would give every model the same weights.
            initializer = getattr(initializer, "clone", lambda: initializer)()
            self.kernel_initializer = self.projection.kernel_initializer = initializer

    def _dense(self, units, use_bias, kernel_initializer):
        """The projection that a subclass asks for, with its two arguments kept."""
        self.use_bias = check_flag("use_bias", use_bias)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype="float32",
            name="projection",
        )

    def parameters(self, features: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Returns the arguments of `reparam`."""
        raise NotImplementedError

    def call(self, features: Tensor, training: bool = False, density: bool = False) -> Any:
        posterior, z = self.reparam(*self.parameters(features, training), training=training)
        return self._with_density(posterior, z) if density else (posterior, z)

    def _with_density(self, posterior, z):
        return posterior, z, log_prob_per_dimension(posterior, z)

    def posterior(self, features: Tensor, training: bool = False) -> Posterior:
        """Returns the posterior without sampling; the random state does not change."""
        return self.reparam.posterior(*self.parameters(features, training), training)

    def sample_and_log_prob(
        self, posterior: Posterior, num_samples: int, seed: Seed
    ) -> tuple[Tensor, Tensor]:
        """Draws from a posterior that this head returned.

        Args:
            posterior: Posterior value over `(batch, D)`.
            num_samples: Positive int K.
            seed: `keras.random.SeedGenerator`.

        Returns:
            `(z, log_qz)`: `(batch, K, D)`, and log q(z_k|x) per dimension, `(batch, K, D)`, or
            `(batch, K, 1)` where it has no coordinates.
        """
        mean = posterior.mean
        eps = keras.random.normal(
            (ops.shape(mean)[0], num_samples, self.latent_dim), dtype="float32", seed=seed
        )
        z = reparameterize(posterior, eps)
        return z, log_prob_per_dimension(posterior, z)

    def log_prob(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Log q(z_k|x), `(batch, K)`; `+inf` for a head without a density."""
        if not self.has_density:
            return ops.full_like(z[:, :, 0], float("inf"))
        return log_prob(posterior, z)

    def draw(self, features: Tensor, training: bool = False) -> tuple[Posterior, Tensor, Tensor]:
        """The call with `density=True` by its former name, for one release."""
        return self(features, training=training, density=True)

    def sample(self, posterior: Posterior, num_samples: int, seed: Seed) -> Tensor:
        """The draws of `sample_and_log_prob` alone, as formerly, for one release."""
        return self.sample_and_log_prob(posterior, num_samples, seed)[0]


@keras.saving.register_keras_serializable(package="vaezoo")
class GaussianHead(PosteriorHead):
    """Gaussian posterior from a string of layers on its mean and variance.

        m, r     = split(W features + b)
        mean     = clip(mean_norm(m))
        log_var  = variance_dropout(bounded(max(r, min_log_var)))
        z_k      = mean + exp(log_var / 2) * eps_k,   eps_k ~ N(0, I)

    Each layer is optional. With a `CholeskyReparam` as `reparam`, r is the log standard deviation
    and the draws are correlated. `bounded` is `bounded_log_var`: the identity for log-variances in
    [-30, 20], where those of all models that train lie; it keeps the first loss finite on data
    that were not scaled.

    Args:
        latent_dim: Positive int D.
        num_samples: Positive int K, draws per example.
        mean_norm: Optional layer on the raw mean, such as `MeanBatchNorm`.
        clip: Optional layer on the normalized mean, such as `LatentClip`.
        variance_dropout: Optional layer on the log-variance, such as `VarianceDropout`.
        reparam: Optional layer `(mean, r) -> (posterior, z)`; `DiagonalReparam` by default.
        scale: `"vector"`, or `"scalar"` for one r per example that all dimensions share.
        min_log_var: Optional float, smallest log-variance.
        project: Whether there is a projection. Without one the features are m and r themselves,
            side by side, as those of a convolutional encoder whose latent code is a feature map.
        use_bias: Whether the projection has a bias.
        kernel_initializer: Initializer of the projection.
        seed: Optional int that fixes the noise.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, F)`.
        training: Passed on to the layers.
        density: Whether to return log q(z_k|x), too, as `sample_and_log_prob` does.

    Returns:
        `(posterior, z)`; `z` is `(batch, K, D)` and carries the gradient.

    Raises:
        ValueError: If an argument is out of range, or `reparam` draws another number of samples.

    Reference: Kingma & Welling (2014), section 2.4, arXiv:1312.6114.
    """

    def __init__(
        self,
        latent_dim: int,
        num_samples: int = 1,
        mean_norm: keras.layers.Layer | None = None,
        clip: keras.layers.Layer | None = None,
        variance_dropout: keras.layers.Layer | None = None,
        reparam: keras.layers.Layer | None = None,
        scale: str = "vector",
        min_log_var: float | None = None,
        project: bool = True,
        use_bias: bool = True,
        kernel_initializer: KerasObject = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_dim, num_samples, **kwargs)
        latent_dim, num_samples = self.latent_dim, self.num_samples
        check_choice("scale", scale, ("vector", "scalar"))
        for part, value in (
            ("mean_norm", mean_norm),
            ("clip", clip),
            ("variance_dropout", variance_dropout),
            ("reparam", reparam),
        ):
            check_kind(part, value, keras.layers.Layer, "a layer", optional=True)
        project, use_bias = check_flag("project", project), check_flag("use_bias", use_bias)
        seed = check_seed("seed", seed)
        if reparam is not None and reparam.num_samples != num_samples:
            raise ValueError(
                "`reparam` must draw `num_samples` samples. Received: "
                f"reparam.num_samples={reparam.num_samples}, num_samples={num_samples}"
            )
        self.mean_norm, self.clip, self.variance_dropout = mean_norm, clip, variance_dropout
        self.reparam = reparam or DiagonalReparam(num_samples, seed)
        # Known before `build`: `fit` asks for the least batch size of a model not yet built.
        self.reparam.latent_dim = latent_dim
        self.scale, self.seed, self.project, self.use_bias = scale, seed, project, use_bias
        self.min_log_var = check_real("min_log_var", min_log_var, optional=True)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        self._num_scales = latent_dim if scale == "vector" else 1
        units = latent_dim + self._num_scales
        self.projection = self._make_projection(units) if project else _Identity(units)

    def _make_projection(self, units):
        return self._dense(units, self.use_bias, self.kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        mean_shape = (input_shape[0], self.latent_dim)
        scale_shape = (input_shape[0], self._num_scales)
        for part in (self.mean_norm, self.clip):
            if part is not None and not part.built:
                part.build(mean_shape)
        if self.variance_dropout is not None and not self.variance_dropout.built:
            self.variance_dropout.build(scale_shape)
        if not self.reparam.built:
            self.reparam.build(mean_shape, scale_shape)

    @property
    def min_batch_size(self) -> int:  # type: ignore[override]
        """The largest demand of any part."""
        return self._largest("min_batch_size")

    @property
    def advised_batch_size(self) -> int:  # type: ignore[override]
        """The largest advice of any part."""
        return self._largest("advised_batch_size")

    def _largest(self, name):
        parts = (self.mean_norm, self.clip, self.variance_dropout, self.reparam)
        return max(getattr(part, name, 1) for part in parts)

    def parameters(self, features: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (or log standard deviation) after all layers."""
        projected = self.projection(features)
        mean, log_var = projected[:, : self.latent_dim], projected[:, self.latent_dim :]
        return self._regularized(mean, log_var, training)

    def _regularized(self, mean, log_var, training):
        if self.mean_norm is not None:
            mean = self.mean_norm(mean, training=training)
        if self.clip is not None:
            mean = self.clip(mean)
        if self.min_log_var is not None:
            log_var = ops.maximum(log_var, self.min_log_var)
        log_var = bounded_log_var(log_var, getattr(self.reparam, "log_vars_per_unit", 1.0))
        if self.variance_dropout is not None:
            log_var = self.variance_dropout(log_var, training=training)
        if self.scale == "scalar" and isinstance(self.reparam, DiagonalReparam):
            log_var = log_var + ops.zeros_like(mean)
        return mean, log_var


@keras.saving.register_keras_serializable(package="vaezoo")
class _Identity(keras.layers.Layer):
    """Stands for a projection where the encoder has made it."""

    def __init__(self, units: int) -> None:
        super().__init__(dtype="float32", name="projection")
        self.units = units

    def build(self, input_shape):
        if input_shape[-1] != self.units:
            raise ValueError(
                f"The encoder must return mean and log-variance side by side, (batch, "
                f"{self.units}), to a head of `project=False`. Received: "
                f"shape={tuple(input_shape)}"
            )

    def call(self, features):
        return features


@keras.saving.register_keras_serializable(package="vaezoo")
class FlowHead(GaussianHead):
    """Posterior that a flow bends, with the regularizing layers of `GaussianHead` on its base.

        m, a, c  = split(W features + b)
        eps_k    ~ N( mean_norm(m), variance_dropout(softplus(a)^2) )
        z_k      = flow(eps_k; c)
        log q(z_k|x) = log N(eps_k) - log_det_k    (nats)

    Args:
        latent_dim: Positive int D.
        flow: `Flow` such as `InverseAutoregressiveFlow`.
        num_samples: Positive int K, draws per example.
        context_dim: Non-negative int C, size of the context c; 2 D by default, 0 for none.
        mean_norm: Optional layer on the raw mean, such as `MeanBatchNorm`.
        variance_dropout: Optional layer on the log-variance, such as `VarianceDropout`.
        use_bias: Whether the projection has a bias.
        kernel_initializer: Initializer of the projection.
        seed: Optional int that fixes the noise.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, F)`.
        training: Passed on to the layers.

    Returns:
        `(posterior, z)`: a `FlowGaussian`, and `(batch, K, D)`, which carries the gradient.

    Raises:
        TypeError: If `flow` is no `Flow`.
        ValueError: If an argument is out of range.

    Reference: Kingma et al. (2016), algorithm 1, arXiv:1606.04934; Shen et al. (2021), section
    3.4, arXiv:2110.12381.
    """

    def __init__(
        self,
        latent_dim: int,
        flow: Flow,
        num_samples: int = 1,
        context_dim: int | None = None,
        mean_norm: keras.layers.Layer | None = None,
        variance_dropout: keras.layers.Layer | None = None,
        use_bias: bool = True,
        kernel_initializer: KerasObject = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_kind("flow", flow, Flow, "a vaezoo Flow")
        latent_dim = check_integer("latent_dim", latent_dim)
        context_dim = check_integer("context_dim", context_dim, least=0, optional=True)
        self._size_of_context = 2 * latent_dim if context_dim is None else context_dim
        super().__init__(
            latent_dim,
            num_samples,
            mean_norm=mean_norm,
            variance_dropout=variance_dropout,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            seed=seed,
            **kwargs,
        )
        self.flow, self.context_dim = flow, context_dim

    def _make_projection(self, units):
        return super()._make_projection(units + self._size_of_context)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if not self.flow.built:
            context = (input_shape[0], self._size_of_context) if self._size_of_context else None
            self.flow.build((input_shape[0], self.num_samples, self.latent_dim), context)

    def _base(self, features, training):
        projected = self.projection(features)
        mean, raw, context = ops.split(projected, [self.latent_dim, 2 * self.latent_dim], axis=-1)
        # Below -15 a softplus is an exponential, whose logarithm float32 would lose.
        scale = ops.log(ops.softplus(ops.maximum(raw, -15.0))) + ops.minimum(raw + 15.0, 0.0)
        return DiagonalGaussian(*self._regularized(mean, 2.0 * scale, training)), context

    def _context(self, context):
        return context if self._size_of_context else None

    def call(self, features: Tensor, training: bool = False, density: bool = False) -> Any:
        posterior = self.posterior(features, training)
        noise = self._noise(posterior, self.num_samples)
        if density:
            return posterior, *self._bend(posterior, noise)
        source = reparameterize(posterior.base, noise)
        return posterior, self.flow.forward_and_log_det(source, self._context(posterior.context))[0]

    def _noise(self, posterior, num_samples, seed=None):
        shape = (ops.shape(posterior.mean)[0], num_samples, self.latent_dim)
        return keras.random.normal(shape, dtype="float32", seed=seed or self.reparam.noise)

    def posterior(self, features: Tensor, training: bool = False) -> Posterior:
        return self._posterior(*self._base(features, training))

    def _posterior(self, base, context):
        center, _ = self.flow.forward_and_log_det(base.mean[:, None], self._context(context))
        return FlowGaussian(center[:, 0], base.mean, base.log_var, context)

    def _bend(self, posterior, eps):
        source = reparameterize(posterior.base, eps)
        z, log_scale = self.flow.forward_and_log_det(source, self._context(posterior.context))
        density = log_prob_per_dimension(posterior.base, source)
        return z, self.flow.permute(density) - log_scale

    def sample_and_log_prob(
        self, posterior: Posterior, num_samples: int, seed: Seed
    ) -> tuple[Tensor, Tensor]:
        return self._bend(posterior, self._noise(posterior, num_samples, seed))

    def log_prob(self, posterior: Posterior, z: Tensor) -> Tensor:
        """Log q(z_k|x) of any z, `(batch, K)`, by the flow's inverse: D passes of an IAF."""
        source, log_det = self.flow.inverse(float32(z), self._context(posterior.context))
        return log_prob(posterior.base, source) + log_det


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
        use_bias: Whether the projection has a bias.
        kernel_initializer: Initializer of the projection.
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

    def __init__(
        self,
        latent_dim: int,
        delta: float = 0.1,
        num_samples: int = 1,
        seed: int | None = None,
        use_bias: bool = True,
        kernel_initializer: KerasObject = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_dim, num_samples, **kwargs)
        self.delta = delta = check_real("delta", delta, "(0, inf)")
        self.seed = check_seed("seed", seed)
        self.projection = self._dense(2 * self.latent_dim, use_bias, kernel_initializer)
        self.reparam = DiagonalReparam(self.num_samples, self.seed)
        self.low, self.high = (root**0.5 for root in _variance_range(delta))

    def parameters(self, features: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
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
        use_bias: Whether the projection has a bias.
        kernel_initializer: Initializer of the projection.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, F)`.

    Returns:
        `(posterior, z)`: a `PointMass`, and `(batch, K, D)`.

    Raises:
        ValueError: If `latent_dim` or `num_samples` is below 1.
    """

    has_density = False

    def __init__(
        self,
        latent_dim: int,
        num_samples: int = 1,
        use_bias: bool = True,
        kernel_initializer: KerasObject = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_dim, num_samples, **kwargs)
        self.projection = self._dense(self.latent_dim, use_bias, kernel_initializer)

    def posterior(self, features: Tensor, training: bool = False) -> Posterior:
        """The point."""
        return PointMass(self.projection(features))

    def call(self, features: Tensor, training: bool = False, density: bool = False) -> Any:
        mean = self.projection(features)
        posterior, z = PointMass(mean), ops.repeat(mean[:, None], self.num_samples, axis=1)
        return self._with_density(posterior, z) if density else (posterior, z)
