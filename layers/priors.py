"""Priors over the latent code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_real
from ..core.serialization import ArgumentsConfig
from ..losses import DiagonalGaussian, HierarchicalGaussian, PointMass, float32, kl_divergence, tfd
from ..losses import kl_per_dimension as _kl_per_dimension

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Posterior, Seed, Shape, Tensor


class Prior(ArgumentsConfig, keras.layers.Layer):
    """Base of the priors; `call` is the log-density.

    Subclasses implement `log_prob` and `sample`; those with a closed-form KL also `kl_divergence`
    and `kl_per_dimension`, and those whose density has coordinates `log_prob_per_dimension`, which
    return None otherwise.
    """

    #: Shape of one example of the data, which the `VAE` tells before it builds its prior.
    event_shape: Any = None
    #: Whether the first draws of `sample` are the same however many follow; only then more may be
    #: drawn than are needed.
    nested_draws = False

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def build(self, input_shape: Shape) -> None:
        self.latent_dim = input_shape[-1]

    def call(self, z: Tensor) -> Tensor:
        return self.log_prob(z)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return input_shape[:-1]

    def bind_model(self, model: keras.Model) -> None:
        """Lets a prior know the `VAE` that it belongs to, before anything is built."""

    def attach(self, model: keras.Model) -> None:
        """`bind_model` by its former name, for one release."""
        self.bind_model(model)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z_k), `(batch, K)`, of `z (batch, K, D)`."""
        raise NotImplementedError

    def log_prob_per_dimension(self, z: Tensor) -> Tensor:
        """Log p(z_kd), or of z_kd given coordinates before it, `(batch, K, D)`, or None."""
        return None

    def sample(self, num_samples: int, seed: Seed) -> Tensor:
        """Draws `(num_samples, D)` with a `keras.random.SeedGenerator`."""
        raise NotImplementedError

    def kl_divergence(self, posterior: Posterior) -> Tensor:
        """KL(q(z|x) || p(z)), `(batch,)`, or None without a closed form."""
        return None

    def kl_per_dimension(self, posterior: Posterior) -> Tensor:
        """KL per dimension, `(batch, D)`, or None without a closed form."""
        return None


@keras.saving.register_keras_serializable(package="vaezoo")
class IsotropicNormal(Prior):
    """p(z) = N(0, scale^2 I).

    Args:
        scale: Positive float, standard deviation of every coordinate.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        ValueError: If `scale` is not positive.
    """

    nested_draws = True

    def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = check_real("scale", scale, "(0, inf)")

    @property
    def sampling_scale(self) -> float:
        """Standard deviation of the draws of `sample`."""
        return self.scale

    def log_prob(self, z: Tensor) -> Tensor:
        return ops.sum(self.log_prob_per_dimension(z), axis=-1)

    def log_prob_per_dimension(self, z: Tensor) -> Tensor:
        z = float32(z)
        return tfd().Normal(ops.zeros_like(z), float(self.scale)).log_prob(z)

    def sample(self, num_samples: int, seed: Seed) -> Tensor:
        eps = keras.random.normal((num_samples, self.latent_dim), dtype="float32", seed=seed)
        return self.sampling_scale * eps

    def kl_divergence(self, posterior: Posterior) -> Tensor:
        if isinstance(posterior, (DiagonalGaussian, HierarchicalGaussian, PointMass)):
            return kl_divergence(posterior, float(self.scale))
        return None

    def kl_per_dimension(self, posterior: Posterior) -> Tensor:
        if not isinstance(posterior, DiagonalGaussian):
            return None
        return _kl_per_dimension(posterior, float(self.scale))


@keras.saving.register_keras_serializable(package="vaezoo")
class StandardNormal(IsotropicNormal):
    """p(z) = N(0, I).

    Args:
        sampling_scale: Positive float, standard deviation of the draws of `sample`. The density
            stays N(0, I); mu-VAE draws with 3, since nothing ties its codes to unit variance. For
            a density of another variance take `IsotropicNormal`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        ValueError: If `sampling_scale` is not positive.
    """

    def __init__(self, sampling_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sampling_scale = check_real("sampling_scale", sampling_scale, "(0, inf)")

    @property
    def sampling_scale(self) -> float:
        """Standard deviation of the draws of `sample`, whatever the density."""
        return self._sampling_scale
