"""VampPrior: the posteriors of trained inputs as prior."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_keras
from ..losses import float32
from .priors import Prior
from .weight_normalization import paused_initialization

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Config, KerasObject, Seed, Shape, Tensor

#: How far from the ends of the support pseudo-inputs are put by `assign`, as a part of its width.
_MARGIN = 0.01


@keras.saving.register_keras_serializable(package="vaezoo")
class VampPrior(Prior):
    """Mixture of the posteriors of trained pseudo-inputs u_c.

        p(z) = 1/C sum_c q(z|u_c)
        log p(z) = logsumexp_c log q(z|u_c) - log C    (nats)

    Uses its model's encoder and head, in inference mode; any head whose posterior has a density
    will do. The KL term has no closed form.

    Args:
        num_components: Positive int C.
        initializer: Keras initializer of the trained weights w behind the pseudo-inputs; N(0, 1)
            by default. Under a likelihood with support [a, b] the pseudo-inputs are
            a + (b - a) sigmoid(w), else w.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        ValueError: If `num_components` is below 1; in a `VAE` whose head has no density, or in two
            of them; on use outside of one.

    Note: The code of the paper cuts pseudo-inputs off at the ends of [0, 1], where their gradient
    vanishes; here a sigmoid keeps them inside.

    Reference: Tomczak & Welling (2018), eqs. 9-10, arXiv:1705.07120.
    """

    nested_draws = True
    raw_inputs: Any

    def __init__(
        self, num_components: int = 500, initializer: KerasObject = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_components = check_integer("num_components", num_components)
        self.initializer = check_keras("initializer", initializer, keras.initializers)
        # A weak reference, so that Keras does not take the model for a part of its own prior.
        self._model: Any = None

    def bind_model(self, model: keras.Model) -> None:
        attached = None if self._model is None else self._model()
        if attached is not None and attached is not model:
            raise ValueError(
                "`prior` must be a VampPrior of this model alone: its density is that of one "
                f"encoder. Received: the prior of another model, {attached.name!r}"
            )
        if getattr(model, "conditional", False):
            raise ValueError(
                "`prior` must not be a VampPrior of a conditional model, whose encoder takes "
                "conditions that pseudo-inputs lack. Received: VampPrior"
            )
        if not model.head.has_density:
            raise ValueError(
                "`prior` can be a VampPrior only when the posterior has a density; a deterministic "
                f"encoder has none. Received: head={type(model.head).__name__}"
            )
        self._model = weakref.ref(model)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.event_shape is None or None in self.event_shape:
            raise ValueError(
                "A VampPrior needs the shape of an example to make its pseudo-inputs: build its "
                "VAE on data of a fixed shape. "
                f"Received: event_shape={self.event_shape}"
            )
        self.raw_inputs = self.add_weight(
            name="pseudo_inputs",
            shape=(self.num_components, *self.event_shape),
            initializer=self.initializer or keras.initializers.RandomNormal(stddev=1.0),
        )

    def get_build_config(self) -> Config:
        """Returns the shapes of codes and of data that the weights are made for."""
        config = super().get_build_config()
        return config and {**config, "event_shape": self.event_shape}

    def build_from_config(self, config: Config) -> None:
        """Makes the weights of a saved prior."""
        self.event_shape = tuple(config["event_shape"])
        super().build_from_config(config)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs u, tensor `(C, *event)`."""
        low, high = self._owner().likelihood.support
        weights = ops.convert_to_tensor(self.raw_inputs)
        if not np.isfinite(high - low):
            return weights
        return low + (high - low) * ops.sigmoid(weights)

    def assign(self, x: Tensor) -> None:
        """Makes examples of the data the pseudo-inputs to go on from.

        Values at the ends of the support are moved 1 % of its width inwards, where they can learn.

        Args:
            x: `(C, *event)`.

        Raises:
            ValueError: If the shape is another one.
        """
        x = np.asarray(x, "float32")
        shape = (self.num_components, *self.event_shape)
        if x.shape != shape:
            raise ValueError(
                f"`x` must be one example for each pseudo-input, {shape}. Received: shape={x.shape}"
            )
        low, high = self._owner().likelihood.support
        if np.isfinite(high - low):
            part = np.clip((x - low) / (high - low), _MARGIN, 1.0 - _MARGIN)
            x = np.log(part) - np.log1p(-part)
        self.raw_inputs.assign(x)

    def log_prob(self, z: Tensor) -> Tensor:
        z = float32(z)
        samples, size = z.shape[1:]
        points = ops.reshape(z, (1, -1, size))
        points = ops.broadcast_to(points, (self.num_components, ops.shape(points)[1], size))
        # `(C, batch * K)`: each pseudo-input's posterior at all points.
        log_q = self._owner().head.log_prob(self._posterior(), points)
        log_p = ops.logsumexp(log_q, axis=0) - float(np.log(self.num_components))
        return ops.reshape(log_p, (-1, samples))

    def sample(self, num_samples: int, seed: Seed) -> Tensor:
        component = keras.random.randint(
            (num_samples,), 0, self.num_components, dtype="int32", seed=seed
        )
        posterior = keras.tree.map_structure(
            lambda part: ops.take(part, component, axis=0), self._posterior()
        )
        return self._owner().head.sample_and_log_prob(posterior, 1, seed)[0][:, 0]

    def _posterior(self):
        # A batch that initializes the model's layers is to be one of data.
        with paused_initialization():
            model = self._owner()
            return model.head.posterior(model.encoder(self.pseudo_inputs, training=False))

    def _owner(self):
        model = None if self._model is None else self._model()
        if model is None:
            raise ValueError(
                "A VampPrior has a density only as the `prior` of a VAE, whose encoder it uses. "
                "Received: a VampPrior of no model"
            )
        return model
