"""What each latent dimension costs."""

import dataclasses

import numpy as np
from keras import ops

from ..losses import kl_per_dimension
from ._estimate import Estimate, mean_estimate
from ._inputs import encoded


def rate_per_dimension(posterior, data=None, batch_size=256, *, decoder=None, likelihood=None):
    """Mean rate of each latent dimension against a standard normal prior.

        R_d = E_x KL( q(z_d|x) || N(0, 1) )    (nats)

    For a diagonal posterior they add up to the rate.

    Args:
        posterior: Posterior value over `(N, D)`, or a model: a `VAE`, the path of an
            exported SavedModel, or an encoder given with its `decoder`.
        data: `(N, *event)` for a model; nothing otherwise.
        batch_size: Examples that a model encodes at once.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.

    Returns:
        `Estimate` in nats: the sum over dimensions, with `extra["by_dimension"]` and their
        `extra["standard_errors"]`, lists of length D, and `per_example (N, D)`. Infinite for a
        deterministic encoder.

    Raises:
        TypeError: If `posterior` is neither a posterior value nor a model.
        ValueError: If a model comes without data, or data without a model.
    """
    value, _ = encoded(posterior, data, batch_size, decoder, likelihood)
    if not hasattr(value, "_fields") or "mean" not in value._fields:
        raise TypeError(
            "`posterior` must be a posterior value or a model that encodes. Received: "
            f"{type(value).__name__}"
        )
    rates = ops.convert_to_numpy(kl_per_dimension(value)).astype("float64")
    if not np.all(np.isfinite(rates)):
        errors, total = np.full(rates.shape[1], np.nan), Estimate(np.inf, count=len(rates))
    else:
        errors = np.std(rates, axis=0, ddof=1) / np.sqrt(len(rates))
        total = mean_estimate(np.sum(rates, axis=1))
    return dataclasses.replace(
        total,
        estimator="closed_form",
        unit="nats",
        settings={"batch_size": batch_size, "prior": "N(0, 1)"},
        per_example=rates,
        extra={
            "by_dimension": np.mean(rates, axis=0).tolist(),
            "standard_errors": errors.tolist(),
        },
    )
