"""The importance-weighted estimate of the likelihood, with error bars."""

import functools
import math
import sys
import time

import keras
import numpy as np
from keras import ops
from rich.progress import track

from ..core.checks import check_integer, check_seed
from ..core.random import StatelessSeed
from .estimate import mean_estimate
from .subject import as_subject, event_size, with_target

#: Bytes that one call may use for draws and what the decoder makes of them.
MEMORY = 128 * 2**20
#: Seconds from which the time that is to come is told beforehand.
PATIENCE = 60.0
#: Calls of the decoder from which it is worth the compilation to find out.
MANY = 50


def negative_log_likelihood(
    model,
    data,
    num_samples=500,
    *,
    decoder=None,
    likelihood=None,
    target=None,
    seed=0,
    batch_size=None,
    memory=MEMORY,
    num_tokens=None,
    progress=False,
):
    """Importance-weighted estimate of the negative log-likelihood.

        NLL_K(x) = log K - logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ],  z_k ~ q(z|x)

    In expectation an upper bound of -log p(x) that falls with K, exact when q(z|x) is the true
    posterior. Every example is encoded once; its draws are taken a chunk at a time inside one
    compiled loop, so memory depends neither on K nor on the number of examples.

    Args:
        model: `VAE`, path of an exported SavedModel, or encoder `x -> (mean, log_var)`.
        data: `(N, *event)`.
        num_samples: Positive int K.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        target: Optional array of the shape of `data`: what it is to be turned into, such as clean
            images from noisy ones. The likelihood is that of the targets.
        seed: Int in [0, 2^31) that fixes the draws.
        batch_size: Examples at once; chosen from `memory` by default.
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
    batch_size, chunk = _plan(subject, data, num_samples, batch_size, memory)
    chunks = math.ceil(num_samples / chunk)
    function = functools.partial(
        _moments, subject=subject, num_samples=num_samples, chunk=chunk, chunks=chunks
    )
    run = subject.compile(f"moments_{num_samples}_{chunk}", function, xla=True)
    columns = []
    if progress and chunks * len(data) > MANY * batch_size:
        _announce(subject, data, batch_size, chunk, chunks)
    for start in track(
        range(0, len(data), batch_size),
        f"NLL, {num_samples} draws",
        disable=not progress,
        transient=True,
    ):
        batch = data[start : start + batch_size]
        rows = len(batch)
        if rows < batch_size:
            # One shape for XLA.
            batch = np.concatenate([batch, np.repeat(batch[:1], batch_size - rows, axis=0)])
        stream = np.uint32(start // batch_size * chunks)
        result = run(ops.convert_to_tensor(batch), np.uint32(seed), stream)
        columns.append([ops.convert_to_numpy(part)[:rows].astype("float64") for part in result])
    total, squares, log_px, ratio = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    nll = math.log(num_samples) - total
    effective = np.exp(2.0 * total - squares)
    extra = {
        "elbo": float(np.mean(log_px - ratio)),
        "distortion": float(-np.mean(log_px)),
        "rate": float(np.mean(ratio)),
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
            "draws_at_once": chunk,
        },
        extra=extra,
    )


def _announce(subject, data, batch_size, chunk, chunks):
    """Says how long all draws will take, from those of one chunk, where it is minutes."""
    function = functools.partial(
        _moments, subject=subject, num_samples=chunk, chunk=chunk, chunks=1
    )
    batch = np.resize(data[:batch_size], (batch_size, *data.shape[1:]))
    run = subject.compile(f"moments_{chunk}_{chunk}_1", function, xla=True)
    arguments = ops.convert_to_tensor(batch), np.uint32(0), np.uint32(0)
    for _ in range(2):
        # The first call compiles.
        began = time.perf_counter()
        ops.convert_to_numpy(run(*arguments)[0])
        seconds = time.perf_counter() - began
    batches = math.ceil(len(data) / batch_size)
    total = seconds * chunks * batches
    if total >= PATIENCE:
        print(
            f"The likelihood of {len(data):,} examples with {chunk * chunks:,} draws each will "
            f"take about {_duration(total)}; of fewer examples, less.",
            file=sys.stderr,
            flush=True,
        )


def _duration(seconds):
    for size, unit in ((3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2.0 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def predicted_tokens(subject, data):
    """Returns the number of predicted tokens of each sentence, float64 `(N,)`."""
    return ops.convert_to_numpy(subject.likelihood.num_predicted(data)).astype("float64")


def bounded_exp(value):
    """exp(value) as a float that is finite."""
    return math.exp(min(value, 700.0))


def _moments(x, seed, stream, *, subject, num_samples, chunk, chunks):
    """Of each example: logsumexp of w and of 2 w, means of log p(x|z) and of log q - log p(z)."""
    posterior = subject.posterior(x)
    zero = ops.zeros_like(ops.cast(posterior.mean[:, 0], "float32"))

    def add(index, state):
        total, squares, log_px_sum, ratio_sum = state
        number = ops.cast(index, "int32")
        noise = StatelessSeed(seed, stream + ops.cast(number, "uint32"))
        z, log_qz = subject.sample_and_log_qz(posterior, chunk, noise)
        log_px = subject.log_px(x, z)
        ratio = log_qz - subject.log_pz(z)
        counted = number * chunk + ops.arange(chunk, dtype="int32") < num_samples
        log_weights = ops.where(counted, log_px - ratio, -float("inf"))
        return (
            ops.logaddexp(total, ops.logsumexp(log_weights, axis=1)),
            ops.logaddexp(squares, ops.logsumexp(2.0 * log_weights, axis=1)),
            log_px_sum + ops.sum(ops.where(counted, log_px, 0.0), axis=1),
            ratio_sum + ops.sum(ops.where(counted, ratio, 0.0), axis=1),
        )

    start = (zero - float("inf"), zero - float("inf"), zero, zero)
    total, squares, log_px_sum, ratio_sum = subject.loop(chunks, add, start)
    return total, squares, log_px_sum / num_samples, ratio_sum / num_samples


def _plan(subject, data, num_samples, batch_size, memory):
    """Examples at once, and draws of each at once, within the memory."""
    rows = draws_at_once(subject, data, memory)
    if batch_size is None:
        batch_size = min(len(data), 50, rows)
    return batch_size, max(1, min(num_samples, rows // batch_size))


def draws_at_once(subject, data, memory=MEMORY, gradients=False):
    """Estimates how many draws, over all examples, fit the memory; at least 1.

    Args:
        subject: `Subject`.
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
