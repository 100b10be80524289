"""The scale of the data against the model's: warned of in time, named when a loss is not finite."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import keras
import numpy as np

from ...core.posteriors import float32
from ...core.scale import largest_variance
from ...layers import Gaussian
from ...losses import ELBO, ImportanceWeightedELBO

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Array
    from .model import VAE

#: Data further than that from 0 (root mean square, in units of the likelihood's scale where that is
#: above 1) are taken for unscaled: a head starts with log-variances of about their size, and 20 is
#: where `layers.heads.LOG_VAR_RANGE` ends.
UNSCALED = 20.0
#: Examples from which the spread of the data is read, at least.
_FEWEST = 16
#: Columns that a message names, at most.
_NAMED = 3


class NonFiniteGuard(keras.callbacks.Callback):
    """Ends `fit` when the loss is NaN or infinite, and says what to look at.

    Keras hands every callback the logs of each step in Python numbers, from a thread beside the
    training where all callbacks allow for it: the check costs nothing that could be measured. The
    logged loss is a mean over the epoch, and so stays NaN.

    Args:
        sample: NumPy `(n, *event)`, some of the data, or None.
    """

    #: Keras may call it from another thread.
    async_safe = True

    def __init__(self, sample: Array | None) -> None:
        super().__init__()
        self.sample = sample
        self._epoch, self._rate = 0, None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        if keras.backend.backend() == "jax":
            # Between here and the end of the epoch the training holds the variables.
            self._rate = _learning_rate(self.model)

    def on_train_batch_end(self, batch: Any, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        # On JAX `self.model` puts the variables back, which the step that the training is at in the
        # meantime has used up.
        model = self._model
        rate = _learning_rate(model) if self._rate is None else self._rate
        raise FloatingPointError(
            f"The loss became {loss} in epoch {self._epoch + 1}, by batch {batch + 1}, so training "
            f"has ended. {_reason(model, self.sample, rate)}"
        )


def watched(model: VAE, sample: Array | None, callbacks: Any) -> Any:
    """The callbacks of a `fit` with a `NonFiniteGuard`, after warnings about the data's scale.

    Args:
        model: `VAE`.
        sample: Some examples of what is observed, `(n, *event)`, or None.
        callbacks: As `fit` was given them.
    """
    if sample is not None:
        sample = np.asarray(keras.ops.convert_to_numpy(sample))
        for told in (_unscaled(model, sample), _too_wide(model, sample)):
            if told:
                warnings.warn(told, stacklevel=4)
    guard = NonFiniteGuard(sample)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        guard.set_model(model)
        kept = [one for one in callbacks.callbacks if not isinstance(one, NonFiniteGuard)]
        callbacks.callbacks = [*kept, guard]
        return callbacks
    return [*keras.tree.flatten(callbacks), guard] if callbacks else [guard]


def _fixed(likelihood):
    return likelihood.fixed_scale if isinstance(likelihood, Gaussian) else None


def _unscaled(model, sample):
    if not isinstance(model.likelihood, Gaussian):
        return None
    limit = UNSCALED * max(1.0, _fixed(model.likelihood) or 1.0)
    told = _beyond(sample, limit)
    if told is None:
        return None
    return (
        f"`x` is not scaled: {told}. Networks start from values of order "
        f"1, and training may be slow or end in a loss that is not finite. {_standardize(sample)}"
    )


def _too_wide(model, sample):
    scale = _fixed(model.likelihood)
    charged = type(model.objective) in (ELBO, ImportanceWeightedELBO)
    if scale is None or not charged or model.autoregressive or len(sample) < _FEWEST:
        return None
    if getattr(model.head, "mean_norm", None) is not None or not model.head.has_density:
        return None
    weight = 1.0
    if type(model.objective) is ELBO:
        weight = 1.0 if model.objective.scheduled else float(float32(model.objective.beta))
    spread = largest_variance(sample)
    # See there for what this is the limit of; the weight of the rate multiplies the noise.
    if spread == 0.0 or spread > weight * scale**2:
        return None
    return (
        f"The likelihood's scale, {scale:g}, is above all there is in `x`, whose largest principal "
        f"component has a standard deviation of {math.sqrt(spread):.3g}: the posterior will "
        "probably collapse (rate 0). Use likelihood=layers.Gaussian('optimal'), or a scale of the "
        "size of the errors that count as noise."
    )


def _beyond(sample, limit):
    """Mean and standard deviation of the columns furthest from 0, or None within the limit.

    Of data other than tables, those of all values.
    """
    values = sample.astype("float64")
    if values.ndim != 2:
        if not math.sqrt(np.mean(values**2)) > limit:
            return None
        mean, sd = values.mean(), values.std()
        return f"its values have mean {mean:.3g} and standard deviation {sd:.3g}"
    size = np.sqrt(np.mean(values**2, axis=0))
    worst = [column for column in np.argsort(-size, kind="stable") if size[column] > limit]
    named = [
        f"column {column} has mean {values[:, column].mean():.3g} and standard deviation "
        f"{values[:, column].std():.3g}"
        for column in worst[:_NAMED]
    ]
    if len(worst) > _NAMED:
        named.append(f"and so on for {len(worst) - _NAMED} more")
    return ", ".join(named) or None


def _standardize(sample):
    if sample.ndim == 2:
        return "Standardize the columns: x = (x - x.mean(0)) / x.std(0)."
    return "Divide it by its largest value, or standardize it."


def _learning_rate(model):
    return float(float32(model.optimizer.learning_rate))


def _reason(model, sample, rate):
    smaller = (
        f"Train with a smaller learning rate (now {rate:.3g}) or clipped gradients: "
        "keras.optimizers.Adam(1e-4, clipnorm=1.0)."
    )
    if sample is None or not isinstance(model.likelihood, Gaussian):
        return smaller
    scale = _fixed(model.likelihood)
    told = _beyond(sample, UNSCALED * max(1.0, scale or 1.0))
    has = f"scale {scale:g}" if scale is not None else f"scale={model.likelihood.scale!r}"
    if told is None:
        told, remedy = _beyond(sample, -1.0), smaller
    else:
        remedy = f"{_standardize(sample)} {smaller}"
    return f"Of the data {told}; the Gaussian likelihood has {has}. {remedy}"
