"""Divergence between posteriors of different examples, and their widths."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_choice, check_integer, check_seed
from ..losses import FlowGaussian
from .estimate import mean_estimate
from .gaussians import gaussians_of, generator, squared_spread
from .inputs import NUM_SAMPLES, base_of, encoded, flow_subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import ArrayLike, Model
    from ..layers.likelihoods import Likelihood
    from .estimate import Estimate

#: Floats that the covariances of one part of the posteriors may take.
_PART = 2**22


def mutual_posterior_divergence(
    model_or_posterior: Model,
    data: ArrayLike = None,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    pairs: str = "distinct",
    max_examples: int = 10_000,
    seed: int = 0,
    batch_size: int = 256,
    chunk: int = 1024,
    progress: bool = False,
) -> Estimate:
    """Mean divergence between the posteriors of two examples.

        MPD = mean_{i != j} KL( q(z|x_i) || q(z|x_j) )    (nats)

    In closed form, from moments of means and covariances: exact over all N (N - 1) ordered pairs,
    in time that grows with N, and in float64. The standard deviation over the pairs needs the pairs
    themselves and is taken over those of `max_examples` examples.

    Of a flow it is the divergence between the Gaussians that the flow bends, as in DU-VAE, and so
    that of the posteriors themselves only if the flow does the same to all examples.

    Args:
        model_or_posterior: `VAE`, path of an exported SavedModel, or encoder
            `x -> (mean, log_var)`; or a posterior value over `(N, D)`.
        data: `(N, *event)` for a model; nothing otherwise.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        pairs: `"distinct"`, or `"all"`: with every example paired with itself, too, as in the code
            of DU-VAE, which makes the mean smaller by (N - 1) / N.
        max_examples: Int of at least 2, how many examples, chosen at random, the standard deviation
            is taken over.
        seed: Int in [0, 2^31) that fixes the choice.
        batch_size: Examples that a model encodes at once.
        chunk: Positive int: memory for the standard deviation grows with its square.
        progress: Whether to show a progress bar.

    Returns:
        `Estimate` in nats, `count` N. `per_example (N,)`: mean divergence between an example and
        the others, of both directions. The standard error is over the choice of the examples:
        2 sd(per_example) / sqrt(N), since each of them enters two sums (Hoeffding). `extra`:
        `standard_deviation`, unbiased, of the total divergence over the distinct ordered pairs.

    Raises:
        TypeError: If `model_or_posterior` or the data are of another kind.
        ValueError: If an argument is out of range, or the posterior has no density.

    Reference: Ma et al. (2019), eqs. 5 and 9, arXiv:1901.01498; the closed form after Shen et al.
    (2021), DU-VAE, arXiv:2110.12381.
    """
    check_choice("pairs", pairs, ("distinct", "all"))
    max_examples = check_integer("max_examples", max_examples, 2)
    seed = check_seed("seed", seed, optional=False)
    chunk = check_integer("chunk", chunk)
    posterior, subject = encoded(model_or_posterior, data, batch_size, decoder, likelihood)
    flow = isinstance(posterior, FlowGaussian)
    if flow:
        posterior = base_of(posterior, subject)
    gaussians = gaussians_of(posterior, "model_or_posterior")
    size = len(gaussians)
    # The divergence of an example from itself is 0, so only the divisor tells the two apart.
    distinct = _symmetric_divergence(gaussians) * size / (size - 1)
    estimate = mean_estimate(
        distinct if pairs == "distinct" else distinct * (size - 1) / size,
        estimator=f"{pairs}_pairs" + (" of the flow's base" if flow else ""),
        unit="nats",
        settings={
            "pairs": pairs,
            "max_examples": max_examples,
            "seed": seed,
            "batch_size": batch_size,
        },
    )
    center = float(np.mean(distinct))
    if size > max_examples:
        chosen = generator(seed, "choice").choice(size, max_examples, replace=False)
        gaussians = gaussians.take(np.sort(chosen))
        size = max_examples
        center = float(np.mean(_symmetric_divergence(gaussians))) * size / (size - 1)
    squares = squared_spread(gaussians, center, chunk, progress)
    deviation = math.sqrt(squares / (size * (size - 1) - 1))
    return dataclasses.replace(
        estimate,
        standard_error=2.0 * estimate.standard_error,
        extra={"standard_deviation": deviation, "standard_deviation_examples": size},
    )


def conditional_entropy(
    model_or_posterior: Model,
    data: ArrayLike = None,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Mean entropy of the posteriors.

        CE = E_x H( q(z|x) ) = D/2 log(2 pi e) + 1/2 E_x log det Cov(z|x)    (nats)

    of Gaussian ones. Of a flow, for which a model and data are needed, by draws:

        CE = E_x mean_k -log q(z_k|x)

    Args:
        model_or_posterior: `VAE`, path of an exported SavedModel, or encoder
            `x -> (mean, log_var)`; or a posterior value over `(N, D)`.
        data: `(N, *event)` for a model; nothing otherwise.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        num_samples: Positive int K, draws per example from a flow.
        seed: Int in [0, 2^31) that fixes them.
        batch_size: Examples that a model encodes at once.

    Returns:
        `Estimate` in nats, exact for the examples given but for a flow's draws, with `per_example
        (N,)` and the standard error over examples and draws. A flow's `extra` has `base`, the mean
        entropy of the Gaussians that it bends.

    Raises:
        TypeError: If `model_or_posterior` or the data are of another kind, or the posterior of a
            flow comes without its model.
        ValueError: If an argument is out of range, or the posterior has no density.

    Reference: Shen et al. (2021), DU-VAE, arXiv:2110.12381.
    """
    num_samples = check_integer("num_samples", num_samples)
    seed = check_seed("seed", seed, optional=False)
    posterior, subject = encoded(model_or_posterior, data, batch_size, decoder, likelihood)
    fields: dict[str, Any] = {"unit": "nats", "settings": {"batch_size": batch_size}}
    if not isinstance(posterior, FlowGaussian):
        entropies = gaussians_of(posterior, "model_or_posterior").entropy()
        return mean_estimate(entropies, estimator="closed_form", **fields)
    subject = flow_subject(posterior, subject, "model_or_posterior")
    fields["settings"] |= {"num_samples": num_samples, "seed": seed}
    base = gaussians_of(subject.base(posterior), "model_or_posterior").entropy()
    return mean_estimate(
        subject.draw_statistics(posterior, num_samples, batch_size, seed).entropy,
        estimator="sampled",
        extra={"base": float(np.mean(base))},
        **fields,
    )


def _symmetric_divergence(gaussians):
    """Mean over all j, i itself among them, of (KL(i || j) + KL(j || i)) / 2: `(N,)`."""
    # E_j KL(i || j) = -H_i - E phi_i . mean_j c_j, and the other way round.
    size, parts = len(gaussians), _parts(gaussians)
    center = gaussians.center
    mean_coefficients = sum(np.sum(part.coefficients(center), axis=0) for part in parts) / size
    mean_features = sum(np.sum(part.expected_features(center), axis=0) for part in parts) / size
    cross = [
        part.expected_features(center) @ mean_coefficients
        + part.coefficients(center) @ mean_features
        for part in parts
    ]
    entropy = gaussians.entropy()
    return -0.5 * (entropy + np.mean(entropy) + np.concatenate(cross))


def _parts(gaussians):
    """The posteriors in parts whose covariances fit the memory."""
    rows = max(1, _PART // gaussians.latent_dim**2)
    return [gaussians.take(slice(first, first + rows)) for first in range(0, len(gaussians), rows)]
