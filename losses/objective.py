"""Objectives: their inputs, their results, and the weights that they may own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import keras
from keras import ops

from ..core.checks import check_kind, check_real
from ..core.masks import weighed
from ..core.replicas import has_rows
from ..core.serialization import ArgumentsConfig
from .schedules import counts_epochs, final_value, initial_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ..core.types import Posterior, Tensor, Weighting


class Terms(NamedTuple):
    """The densities of one batch, in nats, float32.

    Attributes:
        log_px: log p(x|z_k), `(batch, K)`, summed over event axes.
        log_pz: log p(z_k), `(batch, K)`.
        log_qz: log q(z_k|x), `(batch, K)`; `+inf` for a deterministic posterior.
        kl: KL(q(z|x) || p(z)), `(batch,)`: closed form, or the mean of log_qz - log_pz over K.
        kl_per_dimension: The same per latent dimension, `(batch, D)`: closed form, or the mean over
            K of densities per dimension; None where these have none.
        posterior: Posterior value over `(batch, D)`.
        z: Posterior draws, `(batch, K, D)`.
        index: Number of each example in the training set, int `(batch,)`, or None.
        valid: Whether each row is an example, bool `(batch,)`, rather than there to fill the batch
            up, as at the end of an evaluation; None where all are.
    """

    log_px: Tensor
    log_pz: Tensor
    log_qz: Tensor
    kl: Tensor
    kl_per_dimension: Tensor
    posterior: Posterior
    z: Tensor
    index: Tensor = None
    valid: Tensor = None

    @property
    def kl_per_dim(self) -> Tensor:
        """`kl_per_dimension` by its former name, for one release."""
        return self.kl_per_dimension

    @property
    def distortion(self) -> Tensor:
        """E_q[-log p(x|z)], `(batch,)`, estimated from the K draws."""
        return -ops.mean(self.log_px, axis=1)


class Reported(NamedTuple):
    """A value for the logs that exists in some batches only.

    Attributes:
        value: `(batch,)` or scalar, finite in any case.
        exists: Scalar, 1 where it counts and 0 where it does not.
    """

    value: Tensor
    exists: Tensor


class Loss(NamedTuple):
    """Holds the value to minimize and the values to log.

    Attributes:
        per_example: `(batch,)`; `sample_weight` weighs it.
        batch: Scalar, terms that only a whole batch has.
        report: Dict of further values for the logs, each `(batch,)`, scalar or `Reported`.
    """

    per_example: Tensor
    batch: Tensor
    report: dict


@keras.saving.register_keras_serializable(package="vaezoo")
class Weight(ArgumentsConfig, keras.layers.Layer):
    """A weight in an objective: a variable that callbacks may set, or a schedule of the step.

    Args:
        value: Non-negative float, or a `LearningRateSchedule` of the training step.
        label: Name of the argument that it stands for.
    """

    def __init__(self, value: Weighting, label: str) -> None:
        super().__init__(name=label, dtype="float32")
        if isinstance(value, type) or not callable(value):
            value = check_real(label, value, "[0, inf)", also="a schedule of the training step")
        # What counts epochs counts those of one model.
        own: Any = value
        own = own.copy() if counts_epochs(own) else own
        self.initial = own
        self.schedule = own if callable(own) else None
        self._held = False
        start = initial_value(self.schedule) if self.schedule else value
        # Replicas agree on both, so the first one's value is everybody's.
        self.variable = self.add_weight(
            name="value",
            initializer=keras.initializers.Constant(start),
            trainable=False,
            aggregation="only_first_replica",
        )
        self.step = self.add_weight(
            name="step",
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
        )
        self.built = True

    def call(self, training: bool = False) -> Tensor:
        """The weight of this step; evaluations use the one that a schedule settles on."""
        if self.schedule is None:
            return ops.convert_to_tensor(self.variable)
        if not training:
            return ops.cast(self.final, "float32")
        value = ops.cast(self.schedule(self.step), "float32")
        if self._held:
            return value
        self.variable.assign(value)
        self.step.assign_add(1)
        return value

    def _base_config(self):
        return {}

    def _argument(self, name):
        return self.initial if name == "value" else self.name

    @contextlib.contextmanager
    def paused(self) -> Iterator[Any]:
        """Within it calls in training leave the schedule at its step."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @property
    def is_paused(self) -> bool:
        """Whether steps are being computed that do not count."""
        return self._held

    @property
    def final(self) -> float:
        """Weight of every evaluation."""
        return final_value(self.schedule)


class _Part(ArgumentsConfig, keras.layers.Layer):
    """A layer that computes in float32 whatever the policy and has nothing to build."""

    #: Smallest batch for which the term is defined. In a smaller one, as the last one of an epoch
    #: may be, it is left out of loss and logs; it must yet be finite there.
    min_batch_size: int = 1
    #: v of the prior N(0, v I) that the term draws the codes to whatever prior the model has: that
    #: must then be the same one. None for a term that takes the model's prior, or none.
    prior_variance: Any = None
    #: Whether outside of training rows that are not `Terms.valid` count nowhere. Each class says
    #: so for itself; batches of an evaluation are filled up if all parts do.
    masks_rows: bool = False

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.built = True


class Regularizer(_Part):
    """A term that is added to an objective.

    Subclasses implement `call(terms, training) -> Loss` with their weights multiplied in, report
    their own values unweighted, and list the reported names in `report_names`. Those that draw the
    codes to a prior which is not the model's own say so in `prior_variance`.
    """

    report_names: tuple[str, ...] = ()
    #: Whether the term needs a posterior with a density.
    needs_density = False

    def prepare(self, latent_dim: int) -> None:
        """Makes what takes knowing the dimension of the codes; called when the model is built."""


def _where_defined(regularizer, loss, terms):
    """The `Loss` of a regularizer, of which nothing counts in a batch too small for it."""
    enough = regularizer.min_batch_size <= 1 or has_rows(
        terms.kl, regularizer.min_batch_size, terms.valid
    )
    if enough is True:
        return loss
    enough = ops.convert_to_tensor(enough, "bool")

    def where_defined(value):
        return ops.where(enough, value, ops.zeros_like(value))

    exists = ops.cast(enough, "float32")
    report = {name: Reported(where_defined(v), exists) for name, v in loss.report.items()}
    return Loss(where_defined(loss.per_example), where_defined(loss.batch), report)


@keras.saving.register_keras_serializable(package="vaezoo")
class _MeanOfExisting(keras.metrics.Mean):
    """The mean over the examples of the batches that have the value, NaN if there is none."""

    def add(self, value, rows, valid=None):
        """Adds what a batch of `rows` examples reports, which are those that are `valid`."""
        value, exists = value if isinstance(value, Reported) else (value, 1.0)
        value = ops.convert_to_tensor(value, "float32")
        if len(value.shape) == 0:
            self.update_state(value, exists * ops.cast(rows, "float32"))
            return
        exists = ops.broadcast_to(exists, ops.shape(value))
        self.update_state(*weighed(value, exists, valid))

    def result(self):
        """The mean."""
        return ops.where(self.count > 0, super().result(), float("nan"))


class Objective(_Part):
    """Base of everything that a `VAE` minimizes.

    Subclasses implement `bound(terms, training) -> Loss`; regularizers are added here, so any can
    go with any objective.

    Args:
        regularizers: Sequence of `Regularizer`s.
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    #: Whether the objective needs a posterior with a density.
    needs_density = True

    def __init__(self, regularizers: Sequence[Regularizer] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regularizers: list[Regularizer] = []
        self.trackers: list[_MeanOfExisting] = []
        check_kind("regularizers", regularizers, (list, tuple), "a list of vaezoo regularizers")
        for regularizer in regularizers:
            self.add(regularizer)

    def add(self, regularizer: Regularizer) -> None:
        """Adds a `Regularizer`."""
        rule = "of vaezoo regularizers such as MaximumMeanDiscrepancy"
        self.regularizers.append(check_kind("regularizers", regularizer, Regularizer, rule))

    def make_trackers(self) -> None:
        """Makes `trackers`, the metrics that average the reported values for the logs."""
        known = {tracker.name for tracker in self.trackers}
        self.trackers.extend(_MeanOfExisting(n) for n in self.report_names if n not in known)

    @property
    def report_names(self) -> tuple[str, ...]:
        """Names of the values that are logged beside loss, distortion and rate."""
        return tuple(name for part in self.regularizers for name in part.report_names)

    @property
    def num_examples(self) -> int | None:
        """Number of training examples whose indices a term needs, or None."""
        found = [getattr(part, "num_examples", None) for part in self.regularizers]
        return next(filter(None, found), None)

    @property
    def min_batch_size(self) -> int:  # type: ignore[override]
        """Smallest batch for which every term is defined."""
        return max((part.min_batch_size for part in self.regularizers), default=1)

    def call(self, terms: Terms, training: bool = False) -> Loss:
        """Returns the `Loss` of a batch.

        Args:
            terms: `Terms` of the batch.
            training: Whether schedules advance and training-only terms apply.
        """
        loss = self.bound(terms, training)
        for regularizer in self.regularizers:
            extra = _where_defined(regularizer, regularizer(terms, training=training), terms)
            loss = Loss(
                loss.per_example + extra.per_example,
                loss.batch + extra.batch,
                {**loss.report, **extra.report},
            )
        return loss

    def bound(self, terms: Terms, training: bool) -> Loss:
        """Returns the objective's own `Loss`, without regularizers."""
        raise NotImplementedError

    @contextlib.contextmanager
    def paused(self) -> Iterator[Any]:
        """Within it the schedules of all weights stay at their step, for steps that do not count.

        Entered while the step is traced.
        """
        with contextlib.ExitStack() as stack:
            for layer in self._flatten_layers():
                if isinstance(layer, Weight):
                    stack.enter_context(layer.paused())
            yield

    def held(self) -> Any:
        """`paused` by its former name, for one release."""
        return self.paused()
