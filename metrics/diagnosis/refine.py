"""Refinement of posteriors: the bound that gradient steps on each one alone would gain."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.random import StatelessSeed
from ...losses import DiagonalGaussian, FlowGaussian, HierarchicalGaussian, variance
from ..estimate import Estimate, mean_estimate
from .memory import rows_at_once

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import ArrayLike, Seed
    from ..subject import ModelAdapter
    from .measure import Measurements

#: Examples whose posteriors are refined; fewer of an autoregressive decoder, a pass through which
#: costs a hundred times that of another.
REFINED, REFINED_AUTOREGRESSIVE = 256, 64
#: Draws per example in a refinement step, in its evaluation, and in each half of a gradient.
STEP_DRAWS, EVALUATION_DRAWS, GRADIENT_DRAWS = 4, 16, 16
#: Size of the first refinement step in posterior standard deviations; it shrinks linearly to 0.
STEP_SIZE = 0.15


def refine(
    found: Measurements, subject: ModelAdapter, data: ArrayLike, seed: Seed, steps: Any
) -> None:
    """Measures how far gradient steps on each posterior alone raise the bound."""
    if not subject.differentiable:
        found.notes.append(
            "Encoder lag was not measured: the model cannot be differentiated on this backend."
        )
        return
    if steps == 0:
        found.notes.append("Encoder lag was not measured: refinement_steps=0.")
        return
    most = REFINED_AUTOREGRESSIVE if subject.autoregressive else REFINED
    chosen = data[:most]
    rows = rows_at_once(subject, chosen, EVALUATION_DRAWS, most, gradients=True)
    gradients = subject.run(
        "gradients", functools.partial(_gradients, subject), chosen, seed=seed, **rows
    )
    before, after, rate_before, rate_after = (
        np.asarray(part, "float64")
        for part in subject.run(
            f"refined_{steps}",
            functools.partial(_refined, subject, steps),
            chosen,
            seed=seed,
            **rows,
        )
    )
    settings = {"steps": steps, "examples": len(chosen), "step_size": STEP_SIZE}
    for name, values in (
        ("refinement_gain", after - before),
        ("elbo_before", before),
        ("elbo_after", after),
        ("rate_before", rate_before),
        ("rate_after", rate_after),
    ):
        found.estimates[name] = mean_estimate(
            values, estimator="refinement", unit="nats", settings=settings
        )
    _implied_weight(found, [np.asarray(part, "float64") for part in gradients])


def _implied_weight(found, gradients):
    """The KL weight at which the posterior variances would be at their optimum."""
    scale_a, scale_b, scale_rate, shift_a, shift_b, shift_rate = gradients
    slope = -np.sum(0.5 * (scale_a + scale_b) * scale_rate, axis=1)
    norm = np.sum(scale_rate**2, axis=1)
    if np.mean(norm) < 1e-6:
        found.notes.append("No implied KL weight: every posterior has the prior's variance.")
        return
    weight = float(np.mean(slope) / np.mean(norm))
    error = float(np.std(slope - weight * norm, ddof=1) / math.sqrt(len(norm)) / np.mean(norm))

    def residual(beta):
        # Two independent halves make the square of a noisy gradient unbiased.
        return float(
            np.mean(
                np.sum((scale_a + beta * scale_rate) * (scale_b + beta * scale_rate), axis=1)
                + np.sum((shift_a + beta * shift_rate) * (shift_b + beta * shift_rate), axis=1)
            )
        )

    of_means = np.sum(shift_rate**2, axis=1)
    if np.mean(of_means) >= 1e-4:
        pull = -np.sum(0.5 * (shift_a + shift_b) * shift_rate, axis=1)
        implied = float(np.mean(pull) / np.mean(of_means))
        spread = np.std(pull - implied * of_means, ddof=1) / math.sqrt(len(pull))
        found.estimates["implied_weight_of_means"] = Estimate(
            implied,
            float(spread / np.mean(of_means)),
            len(pull),
            "KL weight at which the gradient on the posterior means vanishes",
        )
    at_one, at_weight = residual(1.0), residual(weight)
    explained = 1.0 - at_weight / at_one if at_one > 0 else 0.0
    found.estimates["implied_weight"] = Estimate(
        weight,
        error,
        len(norm),
        "KL weight at which the gradient on the posterior variances vanishes",
        extra={"explained": float(np.clip(explained, 0.0, 1.0))},
    )


def _moved(posterior, shift, log_scale):
    """The posterior with its mean moved by `shift` standard deviations, and rescaled.

    Of a flow it is its base that is moved, under the context that the encoder gives.
    """
    if isinstance(posterior, FlowGaussian):
        base = _moved(posterior.base, shift, log_scale)
        return posterior._replace(base_mean=base.mean, base_log_var=base.log_var)
    mean = posterior.mean + ops.sqrt(variance(posterior)) * shift
    if isinstance(posterior, DiagonalGaussian):
        return DiagonalGaussian(mean, posterior.log_var + 2.0 * log_scale)
    if isinstance(posterior, HierarchicalGaussian):
        scaled = posterior.scale_tril * ops.exp(log_scale)[:, :, None]
        return posterior._replace(mean=mean, scale_tril=scaled)
    raise TypeError(f"A posterior of type {type(posterior).__name__} cannot be refined.")


def _distortion_and_rate(subject, x, posterior, draws, seed, stream):
    """Both by example; equal seeds and streams mean equal noise, whatever the posterior."""
    z, log_qz = subject.sample_and_log_qz(posterior, draws, StatelessSeed(seed, stream))
    rate = subject.prior.kl_divergence(posterior)
    if rate is None:
        rate = ops.mean(log_qz - subject.log_pz(z), axis=1)
    return -ops.mean(subject.log_px(x, z), axis=1), rate


def _gradient(function, values):
    """Gradients of a scalar function of a list of tensors."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda inner: function(*inner))(list(values))
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        result = function(*values)
    return tape.gradient(result, values, unconnected_gradients="zero")


def _gradients(subject, x, seed, stream):
    """Gradients by log-scale and by shift: of the distortion twice, and of the rate."""
    posterior = subject.posterior(x)
    start = [ops.zeros_like(posterior.mean), ops.zeros_like(posterior.mean)]

    def part(number, half):
        noise = stream + ops.cast(2**21 + half * 2**20, "uint32")

        def total(shift, scale):
            moved = _moved(posterior, shift, scale)
            terms = _distortion_and_rate(subject, x, moved, GRADIENT_DRAWS, seed, noise)
            return ops.sum(terms[number])

        return _gradient(total, start)

    (shift_a, scale_a), (shift_b, scale_b) = part(0, 0), part(0, 1)
    shift_rate, scale_rate = part(1, 0)
    return scale_a, scale_b, scale_rate, shift_a, shift_b, shift_rate


def _refined(subject, steps, x, seed, stream):
    """Bound and rate of each example at its posterior, and after Adam has worked on that alone."""
    posterior = subject.posterior(x)
    zeros = ops.zeros_like(posterior.mean)

    def terms(shift, scale, draws, number):
        moved = _moved(posterior, shift, scale)
        noise = stream + ops.cast(number, "uint32")
        return _distortion_and_rate(subject, x, moved, draws, seed, noise)

    def step(index, state):
        values, first, second = state[:2], state[2:4], state[4:]
        number = ops.cast(index, "float32")
        # Batches, of streams below 256, have noise of their own in each step.
        stage = ops.cast(2**20, "uint32") + 256 * ops.cast(index, "uint32")
        slopes = _gradient(
            lambda shift, scale: ops.sum(sum(terms(shift, scale, STEP_DRAWS, stage))),
            [values[0], values[1]],
        )
        first = [0.9 * old + 0.1 * new for old, new in zip(first, slopes, strict=True)]
        second = [0.99 * old + 0.01 * new**2 for old, new in zip(second, slopes, strict=True)]
        rate = STEP_SIZE * (1.0 - number / steps)
        scale_1, scale_2 = 1.0 - 0.9 ** (number + 1.0), 1.0 - 0.99 ** (number + 1.0)
        values = [
            value - rate * (m / scale_1) / (ops.sqrt(v / scale_2) + 1e-8)
            for value, m, v in zip(values, first, second, strict=True)
        ]
        return (*values, *first, *second)

    shift, scale, *_ = subject.loop(steps, step, (zeros,) * 6)
    # Noise that the steps have not seen, the same before and after.
    before, after = (
        terms(*point, EVALUATION_DRAWS, 2**22) for point in ((zeros, zeros), (shift, scale))
    )
    return -sum(before), -sum(after), before[1], after[1]
