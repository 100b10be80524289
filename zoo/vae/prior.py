"""The prior that an objective asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ...layers import IsotropicNormal, StandardNormal

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Config
    from ...layers.priors import Prior
    from ...losses.objective import Objective


def _own_variance(objective):
    """Variance of the normal prior that an objective, or the first of its terms, has of its own."""
    parts = (objective, *getattr(objective, "regularizers", ()))
    return next(filter(None, (getattr(part, "prior_variance", None) for part in parts)), None)


def matched_prior(objective: Objective | None) -> Prior:
    """Returns the prior that an objective matches codes to, else N(0, I)."""
    variance = _own_variance(objective)
    return StandardNormal() if variance in (None, 1) else IsotropicNormal(variance**0.5)


def check_same_prior(part: Any, prior: Prior) -> None:
    """Raises a `ValueError` if an objective or regularizer matches codes to another prior."""
    variance = getattr(part, "prior_variance", None)
    if variance is None:
        return
    scales = (prior.scale, prior.sampling_scale) if isinstance(prior, IsotropicNormal) else ()
    if not scales or any(abs(scale**2 / variance - 1.0) > 1e-5 for scale in scales):
        drawn = f", draws of sd {scales[1]:g}" if scales else ""
        known = f" of sd {scales[0]:g}{drawn}" if scales else ""
        raise ValueError(
            f"`prior` must be N(0, {variance:g} I), which {type(part).__name__} matches the codes "
            f"to: leave it out, or give IsotropicNormal({variance**0.5:.6g}). Received: "
            f"prior={type(prior).__name__}{known}"
        )


def with_matched_prior(config: Config) -> Config:
    """Returns a model's configuration, with the prior of files from before it was matched.

    Such a file says N(0, I) beside an objective that matches codes to another normal.
    """
    config = dict(config)
    for name in ("prior", "objective"):
        if isinstance(config.get(name), dict):
            config[name] = keras.saving.deserialize_keras_object(config[name])
    prior, variance = config.get("prior"), _own_variance(config.get("objective"))
    if type(prior) is StandardNormal and prior.sampling_scale == 1 and variance not in (None, 1):
        config["prior"] = None
    return config
