"""Batch normalization of the posterior's mean, with a pinned gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_choice, check_real
from ..core.replicas import gather_batch, has_rows
from ..core.serialization import ArgumentsConfig
from ..losses import RootMeanSquare

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class MeanBatchNorm(ArgumentsConfig, keras.layers.Layer):
    """Normalizes posterior means over the batch and scales them by a pinned gain.

        mean_d = gamma_d * (m_d - E_B[m_d]) / sqrt(Var_B[m_d] + epsilon) + beta_d

    In training the batch then spends at least `D gamma^2 / 2` nats of rate. Statistics are those of
    the global batch (biased variance) in training, running ones in inference; the running variance
    is fed the unbiased one. A batch of one row, as the last one of an epoch may be, has none: the
    running statistics stand in, and are not fed.

    Args:
        gamma: Positive float, the gain.
        mode: `"rms"`: gamma_d are trained while their root mean square over the dimensions stays
            `gamma` (DU-VAE). `"fixed"`: every gamma_d stays `gamma` (BN-VAE). `"free"`: gamma_d
            start at `gamma` and are trained without constraint.
        momentum: Float in [0, 1), `running = momentum * running + (1 - momentum) * batch`.
        epsilon: Positive float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, D)`, raw means.
        training: Whether to use and collect batch statistics.

    Returns:
        Float32 tensor `(batch, D)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Zhu et al. (2020), BN-VAE, eq. 6, arXiv:2004.12585 (`fixed`); Shen et al. (2021),
    DU-VAE, algorithm 1, arXiv:2110.12381 (`rms`). Momentum and epsilon as in the official codes.
    """

    min_batch_size = 2

    def __init__(
        self,
        gamma: float,
        mode: str = "rms",
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self._initial_gamma = check_real("gamma", gamma, "(0, inf)")
        self.mode = check_choice("mode", mode, ("rms", "fixed", "free"))
        self.momentum = check_real("momentum", momentum, "[0, 1)")
        self.epsilon = check_real("epsilon", epsilon, "(0, inf)")

    def _argument(self, name):
        return self._initial_gamma if name == "gamma" else super()._argument(name)

    @property
    def target(self) -> float:
        """The gain that was asked for; `gamma` is the variable."""
        return self._initial_gamma

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(
            name="gamma",
            shape=shape,
            initializer=keras.initializers.Constant(self._initial_gamma),
            constraint=RootMeanSquare(self._initial_gamma) if self.mode == "rms" else None,
            trainable=self.mode != "fixed",
        )
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        statistics = {"shape": shape, "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **statistics)
        self.moving_variance = self.add_weight(
            name="moving_variance", initializer="ones", **statistics
        )

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if training:
            batch = gather_batch(inputs)
            mean, variance = ops.moments(batch, axes=0)
            size = ops.cast(ops.shape(batch)[0], inputs.dtype)
            unbiased = variance * size / ops.maximum(size - 1.0, 1.0)
            enough = has_rows(inputs, self.min_batch_size)
            mean, variance = (
                self._collect(self.moving_mean, mean, mean, enough),
                self._collect(self.moving_variance, unbiased, variance, enough),
            )
        else:
            mean, variance = self.moving_mean, self.moving_variance
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)
        return (inputs - mean) * scale + self.beta

    def _collect(self, running, value, batch, enough):
        """Feeds a running statistic; returns the batch's own one, where there are enough rows."""
        before = ops.convert_to_tensor(running)
        after = self.momentum * before + (1.0 - self.momentum) * value
        if enough is True:
            running.assign(after)
            return batch
        enough = ops.convert_to_tensor(enough, "bool")
        running.assign(ops.where(enough, after, before))
        return ops.where(enough, batch, before)
