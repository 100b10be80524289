"""A mixture of Gaussians as prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_integer, check_keras
from ..losses import float32, tfd
from .priors import Prior

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import KerasObject, Seed, Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class GaussianMixturePrior(Prior):
    """p(z) = sum_c w_c N(mean_c, diag(exp(log_var_c))), all of it trained.

        log p(z) = logsumexp_c [ log w_c + log N(z; mean_c, diag(exp(log_var_c))) ]    (nats)

    Weights start equal and variances at 1. The rate has no closed form.

    Args:
        num_components: Positive int C.
        initializer: Keras initializer of the means; N(0, 1) by default.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        ValueError: If `num_components` is below 1.

    Reference: Dilokthanakul et al. (2016), arXiv:1611.02648; Tomczak & Welling (2018), section 4
    ("MoG"), arXiv:1705.07120.
    """

    def __init__(
        self, num_components: int = 10, initializer: KerasObject = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_components = check_integer("num_components", num_components)
        self.initializer = check_keras("initializer", initializer, keras.initializers)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (self.num_components, self.latent_dim)
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        self.means = self.add_weight(
            name="means",
            shape=shape,
            initializer=self.initializer or keras.initializers.RandomNormal(stddev=1.0),
        )
        self.log_vars = self.add_weight(name="log_vars", shape=shape, initializer="zeros")

    def log_prob(self, z: Tensor) -> Tensor:
        weights = tfd().Categorical(logits=ops.convert_to_tensor(self.logits))
        scales = ops.exp(0.5 * ops.convert_to_tensor(self.log_vars))
        components = tfd().MultivariateNormalDiag(ops.convert_to_tensor(self.means), scales)
        return tfd().MixtureSameFamily(weights, components).log_prob(float32(z))

    def sample(self, num_samples: int, seed: Seed) -> Tensor:
        logits = ops.convert_to_tensor(self.logits)[None]
        component = keras.random.categorical(logits, num_samples, seed=seed)[0]
        eps = keras.random.normal((num_samples, self.latent_dim), dtype="float32", seed=seed)
        scales = ops.exp(0.5 * ops.take(self.log_vars, component, axis=0))
        return ops.take(self.means, component, axis=0) + scales * eps
