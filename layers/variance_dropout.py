"""Dropout on the posterior's variance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_choice, check_integer, check_real, check_seed
from ..core.random import SavesNoise, SeedGenerator
from ..core.serialization import ArgumentsConfig
from ..losses.schedules import UNITS, Clock

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Shape, Tensor

#: Variance at which a Gaussian's differential entropy is zero.
ENTROPY_FLOOR = 1.0 / (2.0 * math.pi * math.e)


@keras.saving.register_keras_serializable(package="vaezoo")
class VarianceDropout(SavesNoise, Clock, ArgumentsConfig, keras.layers.Layer):
    """Floors a posterior's variance and, in training, drops it to the floor at random.

        s2     = exp(log_var) + floor
        s2_hat = g * (s2 - floor) + floor,   g ~ Bernoulli(keep_prob) / keep_prob    (training)
        s2_hat = s2                                                                (inference)

    The mean over masks is s2. With the default floor every dimension keeps a non-negative
    differential entropy.

    Args:
        keep_prob: Float in (0, 1], probability that a variance is kept (not dropped).
        floor: Non-negative float, variance of a dropped unit; positive unless `keep_prob` is 1.
        seed: Optional int that fixes the masks.
        start_step: Non-negative int, number of training steps during which the layer is the
            identity (the official code waits for the end of the KL warm-up; the paper does not).
        unit: `"steps"`, or `"epochs"`: `start_step` is then a number of epochs, see `Schedule`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        log_var: Float tensor `(batch, D)`, log-variance as the encoder gives it.
        training: Whether to drop.

    Returns:
        Float32 tensor `(batch, D)`, log s2_hat. Both the draw and the KL are to be taken from it.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Shen et al. (2021), DU-VAE, algorithm 1, arXiv:2110.12381.
    """

    def __init__(
        self,
        keep_prob: float,
        floor: float = ENTROPY_FLOOR,
        seed: int | None = None,
        start_step: float = 0,
        unit: str = "steps",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        keep_prob = check_real("keep_prob", keep_prob, "(0, 1]")
        floor = check_real("floor", floor, "[0, inf)")
        if floor == 0 and keep_prob < 1:
            raise ValueError(
                "`floor` must be positive when variances are dropped to it. Received: "
                f"floor={floor}, keep_prob={keep_prob}"
            )
        self.keep_prob, self.floor, self.seed = keep_prob, floor, check_seed("seed", seed)
        self.unit = check_choice("unit", unit, UNITS)
        if self.counts_epochs:
            self.start_step = check_real("start_step", start_step, "[0, inf)")
        else:
            self.start_step = check_integer("start_step", start_step, least=0)
        self.noise = SeedGenerator(self.seed)

    def build(self, input_shape: Shape) -> None:
        self.step = self.add_weight(
            name="step",
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(self, log_var: Tensor, training: bool = False) -> Tensor:
        if self.start_step == 0:
            return self._regularize(log_var, training)
        if not training and self.counts_epochs and self.steps_per_epoch is None:
            # Not trained yet.
            return log_var
        active = self.step + self.shift >= self.in_steps(self.start_step)
        if training:
            self.step.assign_add(1)
        return ops.where(active, self._regularize(log_var, training), log_var)

    def _regularize(self, log_var, training):
        if self.floor == 0:
            return log_var
        log_floor = math.log(self.floor)
        if not training or self.keep_prob == 1:
            return ops.logaddexp(log_var, ops.full_like(log_var, log_floor))
        kept = ops.logaddexp(log_var - math.log(self.keep_prob), ops.full_like(log_var, log_floor))
        keep = keras.random.uniform(ops.shape(log_var), seed=self.noise) < self.keep_prob
        return ops.where(keep, kept, log_floor)
