"""Evidence lower bounds: weighted, floored, importance-weighted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_choice, check_real
from ..core.posteriors import PointMass
from ..core.replicas import gather_batch
from .importance_weighting import importance_weighted_log_prob
from .objective import Loss, Objective, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Tensor, Weighting
    from .objective import Regularizer, Terms


@keras.saving.register_keras_serializable(package="vaezoo")
class ELBO(Objective):
    """Negative evidence lower bound with a weight on the rate.

        loss = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    Args:
        beta: Non-negative float, or a schedule of the training step such as `LinearSchedule`. A
            float is held in the variable `objective.beta`, which callbacks may set; a schedule is
            read inside the compiled step, shown in the logs as `beta`, and evaluations use the
            value that it settles on.
        regularizers: Sequence of `Regularizer`s that are added.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `beta` is negative or not finite.

    Reference: Kingma & Welling (2014), eq. 3, arXiv:1312.6114; Higgins et al. (2017), eq. 4.
    """

    masks_rows = True

    def __init__(
        self, beta: Weighting = 1.0, regularizers: Sequence[Regularizer] = (), **kwargs: Any
    ) -> None:
        super().__init__(regularizers, **kwargs)
        self._weight = Weight(beta, "beta")

    @property
    def beta(self) -> Tensor:
        """The current weight of the rate, a non-trainable variable."""
        return self._weight.variable

    @property
    def scheduled(self) -> bool:
        """Whether the weight follows a schedule of the training step."""
        return self._weight.schedule is not None

    @property
    def final_beta(self) -> float:
        """The weight that a schedule settles on; without one, the current weight."""
        if self.scheduled:
            return float(self._weight.final)
        return float(ops.convert_to_numpy(self.beta))

    def rewind(self, factor: float = 0.5) -> None:
        """Puts the schedule of the weight back to `factor` times the steps that it has taken."""
        steps = ops.cast(ops.convert_to_tensor(self._weight.step), "float32")
        self._weight.step.assign(ops.cast(factor * steps, "int32"))

    def _argument(self, name):
        return self._weight.initial if name == "beta" else super()._argument(name)

    @property
    def needs_density(self) -> bool:  # type: ignore[override]
        """False for an auto-encoder (`beta=0`), which has no rate."""
        return self._weight.initial != 0

    @property
    def report_names(self) -> tuple[str, ...]:
        """A scheduled weight is shown along with the regularizers."""
        own = ("beta",) if self._weight.schedule else ()
        return own + super().report_names

    def bound(self, terms: Terms, training: bool) -> Loss:
        """Distortion plus weighted rate."""
        if isinstance(terms.posterior, PointMass):
            return Loss(terms.distortion, 0.0, {})
        beta = self._weight(training=training)
        rate = self.rate(terms, training)
        report = {"beta": beta} if self._weight.schedule else {}
        return Loss(
            terms.distortion + beta * rate.per_example, beta * rate.batch, {**report, **rate.report}
        )

    def rate(self, terms: Terms, training: bool) -> Loss:
        """The rate as it is charged, a `Loss`."""
        return Loss(terms.kl, 0.0, {})


@keras.saving.register_keras_serializable(package="vaezoo")
class FreeBits(ELBO):
    """ELBO whose rate costs nothing below a floor.

    The training rate, by `variant`:

        dim_batch_max      sum_d max( mean_b KL_bd, free_bits )
        dim_sample_mask    sum_d KL_bd * 1[ KL_bd > free_bits ]
        total_sample_mask  KL_b * 1[ KL_b > free_bits ]
        total_batch_max    max( mean_b KL_b, free_bits )

    Evaluations charge the plain rate. Below the floor the gradient of the rate is zero.

    Args:
        free_bits: Non-negative float, the floor in nats: per latent dimension for the `dim_`
            variants, for all dimensions together for the `total_` ones. It is held in the
            variable `objective.free_bits`.
        variant: One of the four names above.
        beta: Weight or schedule as in `ELBO`.
        regularizers: Sequence of `Regularizer`s that are added.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `free_bits` is negative or `variant` unknown, or if a `dim_` variant meets a
            prior or posterior without a closed-form KL per dimension.

    Reference: Kingma et al. (2016), eq. 15, arXiv:1606.04934 (`dim_batch_max`); Zhu et al. (2020),
    arXiv:2004.12585 (the masks); Ma et al. (2019), arXiv:1901.01498 (`total_batch_max`).
    """

    masks_rows = True
    variants = ("dim_batch_max", "dim_sample_mask", "total_sample_mask", "total_batch_max")

    def __init__(
        self,
        free_bits: float = 0.1,
        variant: str = "dim_batch_max",
        beta: Weighting = 1.0,
        regularizers: Sequence[Regularizer] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(beta, regularizers, **kwargs)
        free_bits = check_real("free_bits", free_bits, "[0, inf)")
        self._initial_free_bits = free_bits
        self.variant = check_choice("variant", variant, self.variants)
        self.free_bits = self.add_weight(
            name="free_bits",
            initializer=keras.initializers.Constant(free_bits),
            trainable=False,
            aggregation="only_first_replica",
        )

    def _argument(self, name):
        return self._initial_free_bits if name == "free_bits" else super()._argument(name)

    def rate(self, terms: Terms, training: bool) -> Loss:
        """The rate above the floor in training, the plain rate otherwise."""
        if not training:
            return super().rate(terms, training)
        kl = terms.kl if self.variant.startswith("total") else terms.kl_per_dimension
        if kl is None:
            raise ValueError(
                "`variant` must be a `total_` one when the KL has no closed form per dimension. "
                f"Received: variant={self.variant!r}"
            )
        if self.variant.endswith("mask"):
            kept = ops.where(kl > self.free_bits, kl, 0.0)
            return Loss(kept if kept.ndim == 1 else ops.sum(kept, axis=-1), 0.0, {})
        mean = ops.mean(gather_batch(kl), axis=0)
        return Loss(ops.zeros_like(terms.kl), ops.sum(ops.maximum(mean, self.free_bits)), {})


@keras.saving.register_keras_serializable(package="vaezoo")
class ImportanceWeightedELBO(Objective):
    """Importance-weighted bound over the K draws on axis 1.

        loss = log K - logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ]
               (nats per example)

    One draw gives a one-sample ELBO; the bound tightens with K.

    Args:
        regularizers: Sequence of `Regularizer`s that are added.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Reference: Burda et al. (2016), eq. 8, arXiv:1509.00519.
    """

    masks_rows = True

    def bound(self, terms: Terms, training: bool) -> Loss:
        """The negative K-sample bound."""
        return Loss(-importance_weighted_log_prob(terms), 0.0, {})
