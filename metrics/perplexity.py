"""The perplexity of sentences, with error bars."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from .negative_log_likelihood import bounded_exp, negative_log_likelihood, predicted_tokens
from .subject import as_subject

if TYPE_CHECKING:
    from ..core.types import Model, Tensor
    from .estimate import Estimate
    from .subject import ModelAdapter


def perplexity(
    model: Model,
    data: Tensor,
    num_samples: int = 500,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Estimate:
    """Importance-weighted estimate of a sentence model's perplexity.

        exp( sum_i NLL_K(x_i) / sum_i n_i )

    n_i is the number of tokens that are predicted in sentence i: its words and its end symbol, not
    its start symbol, and no padding.

    Args:
        model: `VAE` with a `Tokens` likelihood.
        data: Int `(N, T)`, sentences of token ids, padded at the end.
        num_samples: Positive int K, draws per sentence.
        seed: Int in [0, 2^31) that fixes the draws.
        batch_size: Sentences at once; chosen by memory by default.
        progress: Whether to show a progress bar with the time left.

    Returns:
        `Estimate`, a plain number; its standard error is that over sentences, by the delta method.
        Its `extra`: `negative_log_likelihood` (nats, mean over sentences), `num_tokens` and
        `bits_per_token`.

    Raises:
        TypeError: If the model or the data are of another kind.
        ValueError: If an argument is out of range, or the model is not one of sentences.
    """
    subject = as_subject(model, data=data)
    if not subject.of_text:
        raise ValueError(
            "`model` must be one of sentences, with a Tokens likelihood. Received: likelihood="
            f"{type(subject.likelihood).__name__}"
        )
    estimate = negative_log_likelihood(
        subject, data, num_samples, seed=seed, batch_size=batch_size, progress=progress
    )
    return perplexity_of(estimate, subject, subject.observed(subject.check(data)))


def perplexity_of(estimate: Estimate, subject: ModelAdapter, data: Tensor) -> Estimate:
    """The perplexity behind an `Estimate` of the negative log-likelihood.

    Args:
        estimate: What `negative_log_likelihood` returned, with its values per example.
        subject: The `ModelAdapter` that was measured, of sentences.
        data: Int `(N, T)`.
    """
    counts, nll = predicted_tokens(subject, data), estimate.per_example
    total = float(np.sum(counts))
    rate = float(np.sum(nll)) / total
    # Sentences are what is drawn independently, so both sums of the ratio vary with them.
    spread = np.std(nll - rate * counts, ddof=1) * math.sqrt(len(nll)) / total
    value = bounded_exp(rate)
    return dataclasses.replace(
        estimate,
        value=value,
        standard_error=value * float(spread),
        estimator=f"exp({estimate.estimator} / tokens)",
        unit="",
        per_example=None,
        extra={
            "negative_log_likelihood": estimate.value,
            "num_tokens": int(total),
            "bits_per_token": rate / math.log(2.0),
        },
    )
