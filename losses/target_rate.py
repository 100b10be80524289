"""ELBO under a constraint on the rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_real, is_real, wrong
from ..core.replicas import gather_batch
from .elbo import ELBO
from .objective import Loss, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.types import Tensor, Weighting
    from .objective import Regularizer, Terms


@keras.saving.register_keras_serializable(package="vaezoo")
class TargetRate(ELBO):
    """ELBO whose weight of the rate is a Lagrange multiplier, which holds the rate at a target.

        loss = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    After each training step

        error <- smoothing * error + (1 - smoothing) * (mean_b KL_b - nats) / max(nats, 1)
        beta  <- beta * exp(speed * error), within `limits`

    so beta falls while the code holds less than the target, and rises while it holds more. It ends
    where the smallest distortion at that rate is, if the networks can reach it. The logs show
    `beta`; a target that follows a schedule is shown, too, as `target_rate`. Evaluations charge
    the rate at weight 1: their loss is the negative ELBO.

    Args:
        nats: Non-negative float, the target in nats per example, or a schedule of the training
            step, such as `LinearSchedule(20_000, 0.0, 25.0)` for a capacity that grows. A float is
            held in the variable `objective.nats`, which callbacks may set.
        speed: Positive float, by how much log(beta) changes in a step at a relative error of 1.
        smoothing: Float in [0, 1), share of the error before in that of a step.
        limits: Pair of positive floats, the smallest and the largest beta.
        regularizers: Sequence of `Regularizer`s that are added.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Attributes:
        beta: The multiplier, a non-trainable variable that starts at 1.

    Raises:
        ValueError: If an argument is out of range.

    Note: The papers constrain the distortion (GECO) or charge the distance from a capacity with a
    fixed large weight. Here the multiplier of GECO acts on the rate, in relative units, so that one
    speed fits rates of any size.

    Reference: Rezende & Viola (2018), GECO, arXiv:1810.00597; Burgess et al. (2018), controlled
    capacity increase, arXiv:1804.03599.
    """

    masks_rows = True

    def __init__(
        self,
        nats: Weighting,
        speed: float = 0.01,
        smoothing: float = 0.9,
        limits: Sequence[float] = (1e-4, 1e4),
        regularizers: Sequence[Regularizer] = (),
        **kwargs: object,
    ) -> None:
        super().__init__(1.0, regularizers, **kwargs)
        self.speed = check_real("speed", speed, "(0, inf)")
        self.smoothing = check_real("smoothing", smoothing, "[0, 1)")
        pair = isinstance(limits, (list, tuple)) and len(limits) == 2 and all(map(is_real, limits))
        if not (pair and 0.0 < limits[0] <= 1.0 <= limits[1] < math.inf):
            rule = "a pair of positive numbers with 1, where the multiplier starts, between them"
            raise wrong("limits", rule, limits)
        self.limits = tuple(map(float, limits))
        self._target = Weight(nats, "nats")
        self._error = self.add_weight(
            name="error",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    @property
    def nats(self) -> Tensor:
        """The current target, a non-trainable variable."""
        return self._target.variable

    def _argument(self, name):
        return self._target.initial if name == "nats" else super()._argument(name)

    @property
    def report_names(self) -> tuple[str, ...]:
        """The multiplier, and a target that changes, along with the regularizers."""
        target = ("target_rate",) if self._target.schedule else ()
        return ("beta", *target, *(n for part in self.regularizers for n in part.report_names))

    def bound(self, terms: Terms, training: bool) -> Loss:
        """Distortion plus weighted rate; a step of training moves the multiplier."""
        # A copy, since TensorFlow reads the variable where it is used: after it has moved.
        beta, target = ops.copy(self.beta.value), self._target(training=training)
        report = {"beta": beta, **({"target_rate": target} if self._target.schedule else {})}
        if not training:
            return Loss(terms.distortion + terms.kl, 0.0, report)
        if not self._weight.is_paused:
            self._move(beta, ops.mean(gather_batch(ops.stop_gradient(terms.kl))), target)
        return Loss(terms.distortion + beta * terms.kl, 0.0, report)

    def _move(self, beta, rate, target):
        before = ops.convert_to_tensor(self._error)
        relative = (rate - target) / ops.maximum(target, 1.0)
        # A batch that overflows, as one in half precision may, says nothing.
        relative = ops.where(ops.isfinite(relative), relative, before)
        error = self.smoothing * before + (1.0 - self.smoothing) * relative
        self._error.assign(error)
        # Rates of networks at their start may be thousands of nats.
        factor = ops.exp(ops.clip(self.speed * error, -1.0, 1.0))
        lowest, highest = self.limits
        self.beta.assign(ops.clip(beta * factor, lowest, highest))
