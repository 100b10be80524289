"""Rate of each latent dimension."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from ..core.checks import check_integer, check_seed
from ..layers import IsotropicNormal
from ..losses import FlowGaussian, kl_per_dimension
from .estimate import Estimate, mean_estimate
from .inputs import NUM_SAMPLES, NotMeasurable, encoded, flow_subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import ArrayLike, Posterior, Seed, Tensor
    from ..layers.likelihoods import Likelihood
    from .subject import ModelAdapter


def rate_per_dimension(
    posterior: Posterior,
    data: ArrayLike = None,
    batch_size: int = 256,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean rate of each latent dimension against the model's prior.

        R_d = E_x KL( q(z_d|x) || p(z_d) )    (nats)

    In closed form where there is one, as against N(0, I), which also stands for the prior of a
    posterior value alone. Otherwise, as of a flow or against a learned prior, by draws:

        R_d = E_x mean_k [ log q(z_kd|x) - log p(z_kd) ]

    where an autoregressive density gives each coordinate conditionally on those before it. For a
    diagonal posterior or a flow the dimensions add up to the rate.

    Args:
        posterior: Posterior value over `(N, D)`, or a model: a `VAE`, the path of an
            exported SavedModel, or an encoder given with its `decoder`.
        data: `(N, *event)` for a model; nothing otherwise.
        batch_size: Examples that a model encodes at once.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        num_samples: Positive int K, draws per example where there is no closed form.
        seed: Int in [0, 2^31) that fixes them.

    Returns:
        `Estimate` in nats: the sum over dimensions, with `extra["per_dimension"]` and their
        `extra["standard_errors"]`, lists of length D, and `per_example (N, D)`. Infinite for a
        deterministic encoder.

    Raises:
        TypeError: If `posterior` is neither a posterior value nor a model, or a density has no
            coordinates, such as that of a prior that is a mixture.
        ValueError: If a model comes without data, or data without a model.
    """
    num_samples = check_integer("num_samples", num_samples)
    seed = check_seed("seed", seed, optional=False)
    value, subject = encoded(posterior, data, batch_size, decoder, likelihood)
    if not hasattr(value, "_fields") or "mean" not in value._fields:
        raise TypeError(
            "`posterior` must be a posterior value or a model that encodes. Received: "
            f"{type(value).__name__}"
        )
    rates, estimator = rates_of(value, subject, num_samples, batch_size, seed)
    if not np.all(np.isfinite(rates)):
        errors, total = np.full(rates.shape[1], np.nan), Estimate(np.inf, count=len(rates))
    else:
        errors = np.std(rates, axis=0, ddof=1) / np.sqrt(len(rates))
        total = mean_estimate(np.sum(rates, axis=1))
    scale = _normal_scale(subject)
    settings: dict[str, Any] = {
        "prior": type(subject.prior).__name__ if scale is None else f"N(0, {scale**2:g})"
    }
    if estimator == "sampled":
        settings |= {"num_samples": num_samples, "seed": seed}
    return dataclasses.replace(
        total,
        estimator=estimator,
        unit="nats",
        settings={"batch_size": batch_size, **settings},
        per_example=rates,
        extra={
            "per_dimension": np.mean(rates, axis=0).tolist(),
            "standard_errors": errors.tolist(),
        },
    )


def rates_of(
    posterior: Posterior, subject: ModelAdapter, num_samples: int, batch_size: int, seed: Seed
) -> Any:
    """Rates by example and dimension, float64 `(N, D)`, and how they were found.

    Raises:
        NotMeasurable: If posterior or prior have no density per dimension.
    """
    flow = isinstance(posterior, FlowGaussian)
    if flow:
        flow_subject(posterior, subject, "posterior")
    scale = _normal_scale(subject)
    if scale is not None and not flow:
        rates = kl_per_dimension(posterior, scale)
    else:
        rates = subject.prior.kl_per_dimension(posterior)
    if rates is not None:
        return ops.convert_to_numpy(rates).astype("float64"), "closed_form"
    found = subject.draw_statistics(posterior, num_samples, batch_size, seed)
    rates = found.rate_per_dimension
    if rates is None:
        kinds = f"{type(posterior).__name__} and {type(subject.prior).__name__}"
        raise NotMeasurable(
            "`posterior` must be of a model whose posterior and prior have densities per "
            f"dimension. Received: {kinds}",
            f"no density per dimension: {kinds}",
        )
    return rates.astype("float64"), "sampled"


def _normal_scale(subject):
    """Standard deviation of an isotropic normal prior, 1 without a model, or None."""
    if subject is None:
        return 1.0
    return float(subject.prior.scale) if isinstance(subject.prior, IsotropicNormal) else None


def rate_per_example(
    posterior: Posterior,
    subject: ModelAdapter,
    num_samples: int = NUM_SAMPLES,
    batch_size: int = 256,
    seed: Seed = 0,
) -> Tensor:
    """KL of each posterior to the model's prior, float64 `(N,)`, and how it was found.

    In closed form, or as the mean of log q(z_k|x) - log p(z_k) over draws.
    """
    closed = subject.prior.kl_divergence(posterior)
    if closed is not None:
        return ops.convert_to_numpy(closed).astype("float64"), "closed_form"
    found = subject.draw_statistics(posterior, num_samples, batch_size, seed)
    return found.rate.astype("float64"), "sampled"
