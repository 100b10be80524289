"""What the rules can say of a cause while a model is trained, at the price of an encoding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...core.scale import largest_variance
from ...layers import Gaussian
from ..estimate import Estimate
from .causes import causes
from .measure import Measurements
from .probes import probe_data, probe_encoder, probe_schedule
from .rules import Finding

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Array
    from ..subject import ModelAdapter
    from .causes import Cause


def early_causes(subject: ModelAdapter, data: Array, posterior: Any) -> tuple[Cause, ...]:
    """The causes of a collapse that are known without decoding, the first to blame first.

    Args:
        subject: `ModelAdapter`.
        data: Checked data.
        posterior: Posterior value of all of them, in NumPy.
    """
    found = Measurements(traits=frozenset({"text"}) if subject.of_text else frozenset())
    names = ["full_collapse"]
    probe_data(found, np.asarray(data), None)
    probe_schedule(found, subject)
    if all(np.all(np.isfinite(part)) for part in posterior):
        probe_encoder(found, subject, posterior, data)
    else:
        found.estimates["not_finite"] = Estimate(1.0)
        names = ["variance_blow_up"]
    likelihood = subject.likelihood
    if isinstance(likelihood, Gaussian) and likelihood.fixed_scale is not None:
        scale = likelihood.fixed_scale
        # Without a code the best reconstruction of all is their mean.
        spread = math.sqrt(float(np.mean(np.var(data, axis=0, dtype="float64"))))
        found.estimates["likelihood_scale"] = Estimate(scale)
        found.estimates["residual_scale"] = Estimate(spread)
        found.arrays["capacity"] = np.zeros(subject.latent_dim)
        if largest_variance(data) <= scale**2:
            names.append("scale_too_large")
    return causes(found, [Finding(name, ()) for name in names], None)
