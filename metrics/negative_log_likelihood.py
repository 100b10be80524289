"""The importance-weighted estimate of the likelihood, with error bars."""

from __future__ import annotations

import functools
import math
import sys
import time
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_seed
from ..core.compile import padded, rows_to_compile
from ..core.progress import tracked
from ..losses.importance_weighting import CHUNK, weigh_draws
from .estimate import mean_estimate
from .subject import as_subject, event_size, with_target

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import Array, ArrayLike, Model
    from ..layers.likelihoods import Likelihood
    from .estimate import Estimate
    from .subject import ModelAdapter

#: Bytes that one call may use for draws and what the decoder makes of them.
MEMORY = 128 * 2**20
#: Examples at once where the memory allows it, as in `VAE.log_prob`.
BATCH = 64
#: Seconds from which the time that is to come is told beforehand.
PATIENCE = 60.0
#: Calls of the decoder from which it is worth the compilation to find out.
MANY = 50


def negative_log_likelihood(
    model: Model,
    data: ArrayLike,
    num_samples: int = 500,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    target: ArrayLike = None,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int = MEMORY,
    num_tokens: int | None = None,
    progress: bool = False,
) -> Estimate:
    """Importance-weighted estimate of the negative log-likelihood.

        NLL_K(x) = log K - logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ],  z_k ~ q(z|x)

    In expectation an upper bound of -log p(x) that falls with K, exact when q(z|x) is the true
    posterior. Every example is encoded once; its draws are taken a few at a time inside one
    compiled loop, so memory depends neither on K nor on the number of examples. Equal to
    `-model.log_prob(data, num_samples, seed, batch_size)` at equal seeds and batch sizes.

    Args:
        model: `VAE`, path of an exported SavedModel, or encoder `x -> (mean, log_var)`.
        data: `(N, *event)`.
        num_samples: Positive int K.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        target: Optional array of the shape of `data`: what it is to be turned into, such as clean
            images from noisy ones. The likelihood is that of the targets.
        seed: Int in [0, 2^31) that fixes the draws.
        batch_size: Examples at once; by default 64, or fewer as `memory` demands.
        memory: Positive int, bytes that the draws in flight may take, about.
        num_tokens: Optional positive int, tokens predicted in all of `data`: adds `perplexity`. Of
            sentences under a `Tokens` likelihood it is known.
        progress: Whether to say beforehand how long it will take where that is minutes, and to
            show a progress bar with the time left.

    Returns:
        `Estimate` in nats: mean over the examples, its standard error (over examples, for the K at
        hand; what a finite K leaves out is a bias, not noise), `per_example (N,)`. Its `extra`:
        `elbo`, `distortion`, `rate` (from the same draws), `effective_samples` (mean of
        (sum w)^2 / sum w^2, from 1 to K), `effective_samples_min`; `bits_per_dim`, or of sentences
        `bits_per_token`; and `perplexity`.

    Raises:
        TypeError: If the model or the data are of another kind.
        ValueError: If an argument is out of range, the data do not fit the likelihood, or the
            posterior has no density.

    Reference: Burda et al. (2016), eq. 8, arXiv:1509.00519.
    """
    num_samples = check_integer("num_samples", num_samples)
    memory = check_integer("memory", memory)
    batch_size = check_integer("batch_size", batch_size, optional=True)
    num_tokens = check_integer("num_tokens", num_tokens, optional=True)
    seed = check_seed("seed", seed, optional=False)
    subject = as_subject(model, decoder, data, likelihood)
    subject, data = with_target(subject, data, target)
    if not subject.has_density:
        raise ValueError(
            "`model` must have a posterior with a density; a deterministic encoder has none. "
            f"Received: {subject.name}"
        )
    if batch_size is None:
        batch_size = min(len(data), BATCH, max(1, draws_at_once(subject, data, memory) // CHUNK))
    run = subject.compile("weighted", functools.partial(_weighted, subject))
    parts = []
    if progress and math.ceil(num_samples / CHUNK) * len(data) > MANY * batch_size:
        _announce(run, data, num_samples, batch_size)
    label = f"NLL, {num_samples} draws" if progress else None
    for start in tracked(range(0, len(data), batch_size), label):
        batch = data[start : start + batch_size]
        rows = len(batch)
        size = rows_to_compile(rows, batch_size, noise=True)
        # A batch of this size has been compiled for by now.
        (batch,) = padded((batch,), batch_size if start and size > rows else size)
        result = run(ops.convert_to_tensor(batch), *map(np.int32, (num_samples, seed, start)))
        parts.append([ops.convert_to_numpy(part)[:rows].astype("float64") for part in result])
    columns = zip(*parts, strict=True)
    log_prob, effective, distortion, rate = (np.concatenate(column) for column in columns)
    nll = -log_prob
    extra = {
        "elbo": float(-np.mean(distortion + rate)),
        "distortion": float(np.mean(distortion)),
        "rate": float(np.mean(rate)),
        "effective_samples": float(np.mean(effective)),
        "effective_samples_min": float(np.min(effective)),
    }
    if subject.of_text:
        num_tokens = num_tokens or int(predicted_tokens(subject, subject.observed(data)).sum())
        extra["bits_per_token"] = float(np.sum(nll)) / (num_tokens * math.log(2.0))
    else:
        extra["bits_per_dim"] = float(np.mean(nll)) / (
            event_size(subject.observed(data)) * math.log(2.0)
        )
    if num_tokens is not None:
        extra["perplexity"] = bounded_exp(float(np.sum(nll)) / num_tokens)
    return mean_estimate(
        nll,
        estimator="importance_weighted",
        unit="nats",
        settings={
            "num_samples": num_samples,
            "seed": seed,
            "batch_size": batch_size,
            "draws_at_once": CHUNK,
        },
        extra=extra,
    )


def _announce(run, data, num_samples, batch_size):
    """Says how long all draws will take, from those of one step, where it is minutes."""
    batch = np.resize(data[:batch_size], (batch_size, *data.shape[1:]))
    arguments = ops.convert_to_tensor(batch), *map(np.int32, (CHUNK, 0, 0))
    for _ in range(2):
        # The first call compiles.
        began = time.perf_counter()
        ops.convert_to_numpy(run(*arguments)[0])
        seconds = time.perf_counter() - began
    chunks = math.ceil(num_samples / CHUNK)
    batches = math.ceil(len(data) / batch_size)
    total = seconds * chunks * batches
    if total >= PATIENCE:
        print(
            f"The likelihood of {len(data):,} examples with {num_samples:,} draws each will "
            f"take about {_duration(total)}; of fewer examples, less.",
            file=sys.stderr,
            flush=True,
        )


def _duration(seconds):
    for size, unit in ((3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2.0 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def predicted_tokens(subject: ModelAdapter, data: ArrayLike) -> Array:
    """Returns the number of predicted tokens of each sentence, float64 `(N,)`."""
    return ops.convert_to_numpy(subject.likelihood.num_predicted(data)).astype("float64")


def bounded_exp(value: Any) -> float:
    """exp(value) as a float that is finite."""
    return math.exp(min(value, 700.0))


def _weighted(subject, x, num_samples, seed, start):
    """`WeightedDraws` of a batch, of which `start` is the number of the first example."""
    posterior = subject.posterior(x)

    def densities(noise):
        z, log_qz = subject.sample_and_log_qz(posterior, CHUNK, noise)
        return subject.log_px(x, z), subject.log_pz(z), log_qz

    return weigh_draws(densities, posterior.mean[:, 0], num_samples, seed, start, loop=subject.loop)


def draws_at_once(
    subject: ModelAdapter, data: ArrayLike, memory: int = MEMORY, gradients: bool = False
) -> int:
    """Estimates how many draws, over all examples, fit the memory; at least 1.

    Args:
        subject: `ModelAdapter`.
        data: `(N, *event)`.
        memory: Positive int, bytes.
        gradients: Whether every layer's output is kept for a gradient, or only those in use.
    """
    # Sentences have logits of the whole vocabulary at each place, and every layer works there.
    data = subject.observed(data)
    grid = (data.shape[1] - 1,) if subject.of_text else data.shape[1:-1]
    values = grid[0] if subject.of_text else event_size(data)
    params = 4 * values * subject.likelihood.params_per_value
    sizes = _layer_sizes(getattr(subject, "decoder", None), grid, dense=subject.of_text)
    if subject.model is not None:
        # The flow of a posterior and the networks of a prior see each draw, too.
        sizes += _layer_sizes(getattr(subject.model.head, "flow", None), ())
        sizes += _prior_sizes(subject.prior, subject.latent_dim)
    widest = sum(sizes) if gradients else max(sizes, default=0)
    return max(1, int(memory // (4 * (params + 2 * widest))))


def _layer_sizes(part, grid, dense=False):
    """Estimates how many values each layer of a network returns for one input.

    Convolutions return them at every position of `grid`, and with `dense` so do all others.
    """
    outputs = [
        keras.tree.flatten(getattr(layer, "output", None)) for layer in getattr(part, "layers", [])
    ]
    sizes = [math.prod(s.shape[1:]) for shapes in outputs for s in shapes if s is not None]
    if sizes:
        return sizes
    # Other layers do not tell: outputs by kernel.
    kernels = [tuple(v.shape) for v in getattr(part, "variables", []) if len(v.shape) >= 2]
    return [s[-1] * (math.prod(grid) if dense or len(s) > 2 else 1) for s in kernels]


def _prior_sizes(prior, latent_dim):
    if hasattr(prior, "flow"):
        return _layer_sizes(prior.flow, getattr(prior, "latent_shape", ())[:-1])
    # A mixture compares each draw with all of its components.
    shapes = [variable.shape for variable in prior.variables]
    return [shape[0] * latent_dim for shape in shapes if len(shape) >= 2]
