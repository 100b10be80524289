"""An early warning of posterior collapse."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import keras
import numpy as np

from ..core.checks import check_choice, check_integer, check_real
from ..core.replicas import host_value
from ..metrics import active_units
from ..metrics.diagnosis.early import early_causes
from ..metrics.inputs import Encoded
from ..metrics.rate import rate_per_example
from ..metrics.subject import as_subject, check_shape
from ._data import watched_data

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import ArrayLike

#: What `act` may be.
ACTIONS = ("raise_free_bits", "slow_ramp")


class PosteriorCollapse(UserWarning):
    """Category of the warnings, so that they can be filtered or turned into errors."""


class CollapseWarning(keras.callbacks.Callback):
    """Warns while a `VAE` is losing its latent code, and says why and what to do.

    After each epoch, on data held fixed, it takes

        rate          = mean KL(q(z|x) || p(z))                          (nats)
        active units  = #{ d : Var_x( mean_d(x) ) >= threshold }

    the rate of a flow, or against a prior without a closed form, by draws, and the means of a flow
    being those of the Gaussian that it bends; and warns, once for each fall, when one of these
    holds:

    - *collapsed*: no unit is active, or the rate is below `min_rate`;
    - *losing units*: over the last `patience` epochs the active units have become fewer and are
      below `min_share` of D, and the rate has fallen with them.

    Epochs before `start_epoch` are watched but not warned of. The logs gain `active_units`. What
    the rules of `metrics.diagnose` can tell of the cause by then is named with its remedy: a KL
    charged more than once, a likelihood's scale above the data, outputs of the encoder that are
    equal or cut off, examples that are all the same.

    Args:
        data: Array `(N, *event)` with N of at least 2, such as a thousand held-out examples, or
            what else `fit` takes as validation data save a generator: a rate needs no targets.
        start_epoch: Non-negative int, first epoch that may raise a warning, counted from 0.
        patience: Positive int, epochs over which a fall is judged.
        min_rate: Non-negative float in nats, a rate below which nothing is encoded.
        min_share: Float in (0, 1], share of active units below which a fall is worth a warning.
        threshold: Non-negative float, variance from which a unit is active.
        act: None to warn only; `"raise_free_bits"` to multiply the floor of a `FreeBits` objective
            by `factor`; `"slow_ramp"` to put the step schedule of `beta` back, to `1 / factor` of
            the steps that it has taken. Done before the next epoch.
        factor: Float above 1.
        max_actions: Positive int, how often to act at most.
        batch_size: Positive int, examples at once.

    Attributes:
        history: List of dicts `epoch, active_units, rate, reason, cause`; `reason` is empty or
            `"collapsed"` or `"losing units"`, and `cause` empty or a name of `Diagnosis.causes`.
        actions: List of dicts `epoch, action, value` of what was done.

    Raises:
        TypeError: If `data` are not numbers.
        ValueError: If an argument is out of range; before the first step, if the data do not fit
            the model, or its objective has nothing to act on.

    Reference: the active units are those of Burda et al. (2016), section 5.2, arXiv:1509.00519.
    """

    def __init__(
        self,
        data: ArrayLike,
        start_epoch: int = 1,
        patience: int = 2,
        min_rate: float = 0.1,
        min_share: float = 0.5,
        threshold: float = 0.01,
        act: str | None = None,
        factor: float = 2.0,
        max_actions: int = 3,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        self.data = watched_data(data).x
        self.start_epoch = check_integer("start_epoch", start_epoch, least=0)
        self.patience = check_integer("patience", patience)
        self.min_rate = check_real("min_rate", min_rate, "[0, inf)")
        self.min_share = check_real("min_share", min_share, "(0, 1]")
        self.threshold = check_real("threshold", threshold, "[0, inf)")
        self.act = check_choice("act", act, (*ACTIONS, None))
        self.factor = check_real("factor", factor, "(1, inf)")
        self.max_actions = check_integer("max_actions", max_actions)
        self.batch_size = check_integer("batch_size", batch_size)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Tries the data on the model, and looks for what can be acted on."""
        self.history: list[Any] = []
        self.actions: list[Any] = []
        self._warned, self._due = False, False
        if not isinstance(self.data, dict):
            check_shape(self.model.encoder, self.data)
        self._measure()
        objective = self.model.objective
        if self.act == "raise_free_bits" and not hasattr(objective, "free_bits"):
            raise ValueError(
                "`act='raise_free_bits'` needs the objective `FreeBits`. Received: objective "
                f"{type(objective).__name__}"
            )
        if self.act == "slow_ramp" and not getattr(objective, "scheduled", False):
            raise ValueError(
                "`act='slow_ramp'` needs an objective whose `beta` is a schedule of the training "
                f"step, such as ELBO(LinearSchedule(10_000)). Received: objective "
                f"{type(objective).__name__} without one"
            )

    def get_state(self) -> tuple[dict[str, Any], list[Any]]:
        """Returns what it has seen and done, for a checkpoint: JSON values, and no arrays."""
        names = ("history", "actions", "_warned", "_due")
        return {name.strip("_"): getattr(self, name) for name in names}, []

    def set_state(self, values: dict[str, Any], arrays: Any) -> None:
        """Goes on from what `get_state` returned, once the training has begun.

        Args:
            values: Dict of JSON values.
            arrays: Empty list.
        """
        self.history, self.actions = list(values["history"]), list(values["actions"])
        self._warned, self._due = values["warned"], values["due"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Does what the last warning asked for."""
        if self._due:
            self._due = False
            self.actions.append({"epoch": epoch, "action": self.act, "value": self._do()})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, and warns if need be."""
        active, rate = self._measure()
        if logs is not None:
            logs["active_units"] = active
        reason = self._reason(active, rate)
        cause = self._cause() if reason == "collapsed" else None
        self.history.append(
            {
                "epoch": epoch,
                "active_units": active,
                "rate": rate,
                "reason": reason,
                "cause": "" if cause is None else cause.name,
            }
        )
        if not reason:
            self._warned = False
        elif epoch >= self.start_epoch:
            self._due = self.act is not None and len(self.actions) < self.max_actions
            if not self._warned or self._due:
                warnings.warn(self._message(epoch, cause), PosteriorCollapse, stacklevel=2)
            self._warned = True

    def _measure(self):
        subject = as_subject(self.model)
        self._rows = subject.check_inputs(self.data) if subject.conditional else self.data
        posterior = subject.encode(self._rows, self.batch_size)
        self._subject, self._posterior = subject, posterior
        if not all(np.all(np.isfinite(part)) for part in posterior):
            return 0, float("nan")
        active = active_units(Encoded(posterior, subject), threshold=self.threshold)
        rates, _ = rate_per_example(posterior, subject, batch_size=self.batch_size)
        return int(active), float(np.mean(rates))

    def _cause(self):
        found = early_causes(self._subject, self._rows, self._posterior)
        return found[0] if found else None

    def _reason(self, active, rate):
        if active == 0 or rate < self.min_rate:
            return "collapsed"
        recent = self.history[-self.patience :]
        if (
            len(recent) == self.patience
            and active < recent[0]["active_units"]
            and rate < recent[0]["rate"]
            and active < self.min_share * self.model.latent_dim
        ):
            return "losing units"
        return ""

    def _message(self, epoch, cause):
        now = self.history[-1]
        start = self.history[-min(len(self.history), self.patience + 1)]
        size = self.model.latent_dim
        if now["reason"] == "collapsed":
            what = (
                f"the posterior has collapsed: {now['active_units']} of {size} units are active "
                f"and the rate is {now['rate']:.3g} nats. The decoder models the data without z"
            )
        else:
            what = (
                f"the code is being lost: {start['active_units']} -> {now['active_units']} of "
                f"{size} units active, rate {start['rate']:.3g} -> {now['rate']:.3g} nats since "
                f"epoch {start['epoch']}. The rate falls faster than the decoder learns to use z"
            )
        if self._due:
            remedy = {
                "raise_free_bits": f"the floor of free bits is multiplied by {self.factor:g}",
                "slow_ramp": "the ramp of beta goes back to 1/"
                f"{self.factor:g} of its steps before the next epoch",
            }[self.act]
        else:
            remedy = (
                "normalize the means (DUVAE or BNVAE, gamma=0.5), grant a floor "
                f"(FreeBits({max(0.1, 4.0 / size):.2g})), or ramp beta up over more steps "
                "(ELBO(LinearSchedule(10_000)))"
            )
        if cause is not None and not self._due:
            first = cause.remedy.what[0].lower() + cause.remedy.what[1:]
            remedy = f"{first} ({cause.remedy.code}); else {remedy}"
        if cause is not None:
            what += f". {cause.title}: {cause.evidence[0].rstrip('.')}"
        label = "Done about it" if self._due else "What helps"
        return f"After epoch {epoch} {what}. {label}: {remedy}."

    def _do(self):
        objective = self.model.objective
        if self.act == "slow_ramp":
            objective.rewind(1.0 / self.factor)
            return 1.0 / self.factor
        value = self.factor * float(host_value(objective.free_bits))
        objective.free_bits.assign(value)
        return value
