"""Importance weighting: the bound over K draws, from a batch at once or from a loop over draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from keras import ops

from ..core.random import StatelessSeed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import Tensor
    from .objective import Terms

#: Draws that a step of the loop takes. Fixed, because the noise of a seed depends on it.
CHUNK = 8
#: Streams of noise between one example and the next, of which each step of the loop takes one.
STREAMS = 64


class WeightedDraws(NamedTuple):
    """Estimates from K importance-weighted draws, each float32 `(batch,)`.

    Attributes:
        log_prob: Log-mean of the weights, in nats.
        effective_samples: (sum w)^2 / sum w^2, from 1 to K.
        distortion: Mean of -log p(x|z_k), in nats.
        rate: Mean of log q(z_k|x) - log p(z_k), in nats.
    """

    log_prob: Tensor
    effective_samples: Tensor
    distortion: Tensor
    rate: Tensor


def log_weights(log_px: Tensor, log_pz: Tensor, log_qz: Tensor) -> Tensor:
    """Returns log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x), `(batch, K)`."""
    return log_px + log_pz - log_qz


def importance_weighted_log_prob(terms: Terms) -> Tensor:
    """Log-mean of the K importance weights, `(batch,)`: in expectation below log p(x)."""
    weights = log_weights(terms.log_px, terms.log_pz, terms.log_qz)
    return ops.logsumexp(weights, axis=1) - math.log(weights.shape[1])


def weigh_draws(
    densities: Callable[[Any], tuple[Tensor, Tensor, Tensor]],
    like: Tensor,
    num_samples: Tensor,
    seed: Tensor,
    offset: Tensor = 0,
    loop: Callable[..., Any] | None = None,
) -> WeightedDraws:
    """Estimates by importance weighting with `CHUNK` draws at a time.

        log p(x) ~ logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ] - log K    (nats)

    Memory does not depend on K. Equal seeds, offsets and batches give equal draws.

    Args:
        densities: Function of a seed generator that takes `CHUNK` draws for each example and
            returns `(log_px, log_pz, log_qz)`, each `(batch, CHUNK)`.
        like: Tensor `(batch,)` of any numbers.
        num_samples: Int scalar K.
        seed: Int scalar.
        offset: Int scalar, number of the first example; separates the noise of batches.
        loop: Function `(count, body, state)` that repeats `state = body(i, state)`; compiled by
            default.

    Returns:
        `WeightedDraws`.

    Reference: Burda et al. (2016), eq. 8, arXiv:1509.00519.
    """
    num_samples = ops.cast(num_samples, "int32")

    def add_chunk(index, state):
        total, squares, sum_px, sum_ratio = state
        index = ops.cast(index, "int32")
        stream = ops.cast(offset, "int32") * STREAMS + index
        log_px, log_pz, log_qz = densities(StatelessSeed(seed, stream))
        counted = index * CHUNK + ops.arange(CHUNK, dtype="int32") < num_samples
        weights = ops.where(counted, log_weights(log_px, log_pz, log_qz), -float("inf"))
        return (
            ops.logaddexp(total, ops.logsumexp(weights, axis=1)),
            ops.logaddexp(squares, ops.logsumexp(2.0 * weights, axis=1)),
            sum_px + ops.sum(ops.where(counted, log_px, 0.0), axis=1),
            sum_ratio + ops.sum(ops.where(counted, log_qz - log_pz, 0.0), axis=1),
        )

    zero = ops.zeros_like(ops.cast(like, "float32"))
    nothing = ops.full_like(zero, -float("inf"))
    chunks = (num_samples + CHUNK - 1) // CHUNK
    start = (nothing, nothing, zero, zero)
    if loop is None:
        state = ops.fori_loop(0, chunks, add_chunk, start)
    else:
        state = loop(chunks, add_chunk, start)
    total, squares, sum_px, sum_ratio = state
    count = ops.cast(num_samples, "float32")
    return WeightedDraws(
        total - ops.log(count), ops.exp(2.0 * total - squares), -sum_px / count, sum_ratio / count
    )
