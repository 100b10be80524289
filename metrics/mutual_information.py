"""Mutual information between code and data, and divergence of the aggregate posterior."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_choice, check_integer, check_seed
from ..layers import IsotropicNormal
from .estimate import mean_estimate
from .gaussians import LOG_2PI, gaussians_of, generator, log_sum_of_others
from .inputs import encoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import ArrayLike, Model
    from ..layers.likelihoods import Likelihood
    from .estimate import Estimate

ESTIMATORS = ("same_sample", "code", "batch")


def mutual_information(
    model_or_posterior: Model,
    data: ArrayLike = None,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    estimator: str = "same_sample",
    num_samples: int = 1,
    aggregate_size: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    chunk: int = 1024,
    progress: bool = False,
) -> Estimate:
    """Mutual information of x and z under the encoder, over the examples given.

        I = mean_b [ log q(z_b|x_b) - log q(z_b) ],   q(z) = 1/N sum_j q(z|x_j),   z_b ~ q(z|x_b)

    In nats, and at most log N: N examples cannot be told apart by more than that, so a value near
    `upper_limit` says that N is too small to measure with, not how informative the code is. Every
    density is computed in float64. Memory grows with N and with the square of `chunk`, time with
    N^2: a minute or two for N = 60,000 and D = 32 on two cores.

    Estimators, not comparable with each other:

    - `"same_sample"`, as above: 0 when all posteriors coincide, and never above log N;
    - `"code"`, of the official codes of BN-VAE and DU-VAE: the entropy of q(z|x_b) in closed form
      in place of `-log q(z_b|x_b)`. The same in expectation, with a noise of sqrt(D / 2N) at
      collapse that makes it negative or takes it above log N;
    - `"batch"`, of the aggressive training's code: `"code"` inside each batch of `batch_size`
      consecutive examples, with only their posteriors in q(z). At most about log `batch_size`.

    Args:
        model_or_posterior: `VAE`, path of an exported SavedModel, or encoder
            `x -> (mean, log_var)`; or a posterior value over `(N, D)`, with a prior N(0, I).
        data: `(N, *event)` for a model; nothing otherwise.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        estimator: `"same_sample"`, `"code"` or `"batch"`.
        num_samples: Positive int K, draws per example.
        aggregate_size: Optional int S from 2 to N: measures on S examples chosen at random, with
            their posteriors alone in q(z), each draw's own among them (Hoffman & Johnson). The
            limit is then log S, and what the mutual information misses the marginal divergence
            has too much.
        seed: Int in [0, 2^31) that fixes draws and choice, alike on both backends.
        batch_size: Examples that a model encodes at once, and the batches of `"batch"`.
        chunk: Positive int: draws, and posteriors, that meet at once.
        progress: Whether to show a progress bar.

    Returns:
        `Estimate` in nats with `per_example (N,)`, in the order of the data (of the choice with
        `aggregate_size`). Its standard error is that of a mean over independent examples, each
        with its draws, for q(z) as it is; over repetitions with other seeds and the same data the
        value spreads less, with `num_samples` above 1 by `extra["draw_error"]`. What the choice of
        the other examples does to q(z) is in neither. Further in `extra`: `upper_limit`,
        `marginal_divergence` and `rate`, their sum to the last digits, from the same draws.

    Raises:
        TypeError: If `model_or_posterior` or the data are of another kind, or the posterior is a
            flow's: the density of a draw at another example's posterior takes an inverse pass.
        ValueError: If an argument is out of range, or the posterior has no density.

    Reference: Hoffman & Johnson (2016), ELBO surgery, eq. 8; He et al. (2019), arXiv:1901.05534,
    for `"batch"`; Zhu et al. (2020), arXiv:2004.12585, for `"code"`.
    """
    information, _ = _measure(
        model_or_posterior,
        data,
        decoder,
        likelihood,
        estimator,
        num_samples,
        aggregate_size,
        seed,
        batch_size,
        chunk,
        progress,
    )
    return information


def marginal_divergence(
    model_or_posterior: Any,
    data: ArrayLike = None,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    estimator: str = "same_sample",
    num_samples: int = 1,
    aggregate_size: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    chunk: int = 1024,
    progress: bool = False,
) -> Estimate:
    """Divergence of the aggregate posterior from the prior.

        MD = mean_b [ log q(z_b) - log p(z_b) ],   q(z) = 1/N sum_j q(z|x_j),   z_b ~ q(z|x_b)

    An estimate of KL(q(z) || p(z)) in nats. Draws and densities are those of `mutual_information`,
    with the same arguments: both add up to the rate of the same draws.

        mean_b [ log q(z_b|x_b) - log p(z_b) ] = I + MD

    Args:
        model_or_posterior: As in `mutual_information`; the prior is the model's own.
        data: `(N, *event)` for a model; nothing otherwise.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        estimator: `"same_sample"`, `"code"` or `"batch"`; the first two differ in `extra` alone.
        num_samples: Positive int K, draws per example.
        aggregate_size: Optional int S from 2 to N, components of q(z).
        seed: Int in [0, 2^31) that fixes draws and choice.
        batch_size: Examples that a model encodes at once, and the batches of `"batch"`.
        chunk: Positive int: draws, and posteriors, that meet at once.
        progress: Whether to show a progress bar.

    Returns:
        `Estimate` in nats with `per_example (N,)` and a standard error as `mutual_information` has
        them; `extra`: `mutual_information`, `rate`, `upper_limit` (of the mutual information).

    Raises:
        TypeError: If `model_or_posterior` or the data are of another kind, or the posterior is a
            flow's: the density of a draw at another example's posterior takes an inverse pass.
        ValueError: If an argument is out of range, or the posterior has no density.

    Reference: Hoffman & Johnson (2016), ELBO surgery, eq. 8.
    """
    _, divergence = _measure(
        model_or_posterior,
        data,
        decoder,
        likelihood,
        estimator,
        num_samples,
        aggregate_size,
        seed,
        batch_size,
        chunk,
        progress,
    )
    return divergence


def _measure(
    source,
    data,
    decoder,
    likelihood,
    estimator,
    num_samples,
    aggregate_size,
    seed,
    batch_size,
    chunk,
    progress,
):
    """Both estimates, from one set of draws."""
    check_choice("estimator", estimator, ESTIMATORS)
    num_samples = check_integer("num_samples", num_samples)
    chunk = check_integer("chunk", chunk)
    seed = check_seed("seed", seed, optional=False)
    if aggregate_size is not None:
        aggregate_size = check_integer("aggregate_size", aggregate_size, 2)
        if estimator == "batch":
            raise ValueError(
                "`aggregate_size` must be None for the estimator 'batch', whose aggregates are the "
                f"batches. Received: aggregate_size={aggregate_size}"
            )
    posterior, subject = encoded(source, data, batch_size, decoder, likelihood)
    gaussians = gaussians_of(posterior, "model_or_posterior")
    size = len(gaussians)
    if aggregate_size is not None:
        if aggregate_size > size:
            raise ValueError(
                f"`aggregate_size` must be at most the number of examples, {size}. Received: "
                f"aggregate_size={aggregate_size}"
            )
        chosen = generator(seed, "choice").choice(size, aggregate_size, replace=False)
        gaussians = gaussians.take(np.sort(chosen))
        size = aggregate_size
    z = gaussians.sample(num_samples, generator(seed, "draws"))
    own = gaussians.own_log_prob(z)
    log_pz = _log_prior(subject, z, batch_size)
    limit = min(batch_size, size) if estimator == "batch" else size
    batches = [slice(first, first + limit) for first in range(0, size, limit)]
    progress = progress and len(batches) == 1
    others = np.concatenate(
        [_others(gaussians.take(batch), z[batch], chunk, progress) for batch in batches]
    )
    # The last batch may be a smaller one.
    components = np.minimum(limit, size - np.arange(size) // limit * limit)[:, None]
    # With the own term apart the information of a draw is at most log N in floating point, too.
    information = np.log(components) - np.logaddexp(0.0, others - own)
    log_qz = own - information
    if estimator != "same_sample":
        own = -np.repeat(gaussians.entropy()[:, None], num_samples, axis=1)
        information = own - log_qz
    fields = {
        "estimator": estimator,
        "unit": "nats",
        "settings": {
            "num_samples": num_samples,
            "aggregate_size": size if aggregate_size is not None else None,
            "seed": seed,
            "batch_size": batch_size,
            "chunk": chunk,
            "prior": "StandardNormal" if subject is None else type(subject.prior).__name__,
        },
    }
    divergence = log_qz - log_pz
    shared = {"upper_limit": math.log(limit), "rate": float(np.mean(own - log_pz))}
    values = {"mutual_information": information, "marginal_divergence": divergence}
    estimates = []
    for name, other in (
        ("mutual_information", "marginal_divergence"),
        ("marginal_divergence", "mutual_information"),
    ):
        extra = {**shared, other: float(np.mean(values[other]))}
        if num_samples > 1:
            noise = np.mean(np.var(values[name], axis=1, ddof=1))
            extra["draw_error"] = math.sqrt(noise / (num_samples * size))
        estimate = mean_estimate(np.mean(values[name], axis=1), **fields)
        estimates.append(dataclasses.replace(estimate, extra=extra))
    return estimates


def _others(gaussians, z, chunk, progress):
    """Log-sum over the other posteriors of the density of each draw, `(n, K)`."""
    num_samples = z.shape[1]
    owners = np.repeat(np.arange(len(gaussians)), num_samples)
    flat = z.reshape(-1, gaussians.latent_dim)
    return log_sum_of_others(gaussians, flat, owners, chunk, progress).reshape(-1, num_samples)


def _log_prior(subject, z, batch_size):
    """Log p(z), `(N, K)`: in float64 for a normal, else as the model has it."""
    if subject is None or isinstance(subject.prior, IsotropicNormal):
        scale = 1.0 if subject is None else float(subject.prior.scale)
        return -0.5 * np.sum((z / scale) ** 2 + LOG_2PI + 2.0 * np.log(scale), axis=2)
    name = f"log_pz_{z.shape[1]}"
    return subject.run(name, subject.log_pz, z.astype("float32"), batch_size=batch_size).astype(
        "float64"
    )
