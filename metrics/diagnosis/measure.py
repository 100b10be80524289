"""Measurements of the collapse diagnosis; `rules` judges them."""

import dataclasses
import functools
import math
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from ...core.random import StatelessSeed
from ...core.scale import largest_variance
from ...layers import Gaussian, IsotropicNormal
from ...losses import (
    DiagonalGaussian,
    FlowGaussian,
    HierarchicalGaussian,
    PointMass,
    kl_per_dimension,
    variance,
)
from ..aggregate import PRIOR_STREAM, moments_of_draws
from ..estimate import Estimate, mean_estimate
from ..gaussians import gaussians_of, log_sum_of_others
from ..inputs import Encoded, NotMeasurable
from ..mutual_information import mutual_information
from ..negative_log_likelihood import MEMORY, draws_at_once
from ..posterior_divergence import conditional_entropy, mutual_posterior_divergence
from ..rate import rates_of
from ..subject import _ForeignSubject

#: Decoded codes that a likelihood gap is averaged over, at least.
DECODED = 2000
#: Examples whose posteriors are refined, or whose codes are taken apart by dimension; fewer of an
#: autoregressive decoder, a pass through which costs a hundred times that of another.
REFINED, SWAPPED = 256, 200
REFINED_AUTOREGRESSIVE, SWAPPED_AUTOREGRESSIVE = 64, 50
#: Beyond so many dimensions the decoder's use of each is not measured: it costs a decode each.
MAX_SWAPPED_DIMENSIONS = 256
#: Draws per example in a refinement step, in its evaluation, and in each half of a gradient.
STEP_DRAWS, EVALUATION_DRAWS, GRADIENT_DRAWS = 4, 16, 16
#: Size of the first refinement step in posterior standard deviations; it shrinks linearly to 0.
STEP_SIZE = 0.15
#: Draws of the aggregate posterior that are less dense than so large a share of it lie outside.
OUTSIDE_QUANTILE = 0.01
#: Thresholds on Var(mean_d) at which active units are counted.
ACTIVE_THRESHOLDS = (0.001, 0.01, 0.1)
#: The information counts as bounded by the number of examples from this share of log N on.
NEAR_LIMIT = 0.85
#: Pictures in each row of the report, and of a decoder that makes them pixel by pixel.
PICTURES, PICTURES_AUTOREGRESSIVE = 10, 5
#: Draws per example that tell the moments and rates of posteriors without a closed form.
MOMENT_DRAWS = 32
#: Bytes for the layers of a decoder that a gradient is taken through.
GRADIENT_MEMORY = 512 * 2**20

_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Numbers, arrays by dimension or example, and notes on what could not be measured.

    Its traits say what kind of model it is: `"flow"`, `"autoregressive"`, `"learned_prior"`,
    `"text"`, `"foreign"`.
    """

    estimates: dict = dataclasses.field(default_factory=dict)
    arrays: dict = dataclasses.field(default_factory=dict)
    pictures: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    traits: frozenset = frozenset()

    def value(self, name):
        """Value of an estimate; NaN for one that was not measured."""
        return self.estimates[name].value if name in self.estimates else math.nan

    def error(self, name):
        """Its standard error; 0 where there is none."""
        error = self.estimates[name].standard_error if name in self.estimates else 0.0
        return error if math.isfinite(error) else 0.0


def measure(subject, data, seed, refinement_steps, batch_size):
    """All measurements of a `Subject` on checked data."""
    posterior = subject.encode(data, batch_size)
    kinds = {
        "flow": isinstance(posterior, FlowGaussian),
        "autoregressive": subject.autoregressive,
        "learned_prior": not isinstance(subject.prior, IsotropicNormal),
        "text": subject.of_text,
        "foreign": subject.model is None,
    }
    traits = frozenset(name for name, held in kinds.items() if held)
    found = Measurements(notes=list(subject.notes), traits=traits)
    code = _code(found, subject, posterior, batch_size, seed)
    healthy = np.isfinite(code.mean) & np.isfinite(code.spread)
    found.estimates["not_finite"] = Estimate(
        float(np.mean(~healthy)), count=healthy.size, estimator="share of posterior parameters"
    )
    if not np.all(healthy):
        found.notes.append("Nothing else was measured, since the posteriors are not finite.")
        return found
    _by_dimension(found, subject, posterior, code, batch_size, seed)
    z, log_qz, shuffled, prior = _codes(subject, data, seed, batch_size)
    own_log_px = _likelihoods(found, subject, data, z, shuffled, prior, batch_size)
    if not np.all(np.isfinite(own_log_px)):
        found.notes.append("Nothing else was measured, since log p(x|z) is not finite.")
        return found
    _scales(found, subject, data, own_log_px)
    _pictures(found, subject, data, z, prior)
    _aggregate(found, subject, code, z, prior)
    _use_of_dimensions(found, subject, data, z[:, 0], shuffled[:, 0])
    if isinstance(posterior, PointMass):
        found.notes.append(
            "The encoder is deterministic: there is no rate, no information in nats and no bound."
        )
        return found
    _bound(found, subject, posterior, z, log_qz, own_log_px, batch_size)
    _information(found, Encoded(posterior, subject), z[:, 0], prior[:, 0], batch_size, seed)
    _refinement(found, subject, data, seed, refinement_steps)
    return found


class _Code(NamedTuple):
    """Mean and variance of z under each posterior, `(N, D)`, and their moments over examples.

    Attributes:
        mean: `(N, D)`.
        spread: `(N, D)`.
        variance_of_means: `(D,)`.
        covariance: `(D, D)`, of z under the aggregate posterior.
    """

    mean: np.ndarray
    spread: np.ndarray
    variance_of_means: np.ndarray
    covariance: np.ndarray


def _code(found, subject, posterior, batch_size, seed):
    if isinstance(posterior, FlowGaussian):
        found.notes.append(
            f"The posterior is a flow: its means, variances and rates are those of {MOMENT_DRAWS} "
            "draws from each, and the divergence between posteriors is that of the Gaussians that "
            "it bends."
        )
        mean, spread, within = moments_of_draws(posterior, subject, MOMENT_DRAWS, batch_size, seed)
        # What the draws leave open of a mean is no difference between examples.
        between = np.cov(mean, rowvar=False).reshape(within.shape) - within / MOMENT_DRAWS
        return _Code(mean, spread, np.maximum(np.diagonal(between), 0.0), between + within)
    mean = np.asarray(posterior.mean, "float64")
    spread = np.asarray(ops.convert_to_numpy(variance(posterior)), "float64")
    covariance = np.cov(mean, rowvar=False).reshape(mean.shape[1], -1)
    covariance = covariance + np.diag(spread.mean(axis=0))
    return _Code(mean, spread, np.var(mean, axis=0, ddof=1), covariance)


def _by_dimension(found, subject, posterior, code, batch_size, seed):
    found.arrays["mean_of_means"] = code.mean.mean(axis=0)
    found.arrays["variance_of_means"] = code.variance_of_means
    found.arrays["posterior_variance"] = code.spread.mean(axis=0)
    rates = _rates(found, subject, posterior, batch_size, seed)
    if rates is not None:
        found.arrays["kl_per_dimension"] = np.mean(rates, axis=0)
    # Information of a Gaussian channel with this signal and this noise.
    noise = np.maximum(found.arrays["posterior_variance"], 1e-8)
    found.arrays["capacity"] = 0.5 * np.log1p(found.arrays["variance_of_means"] / noise)
    for threshold in ACTIVE_THRESHOLDS:
        found.estimates[f"active_units_{threshold:g}"] = Estimate(
            float(np.sum(found.arrays["variance_of_means"] >= threshold)),
            count=len(code.mean),
            estimator=f"#Var(mean_d) >= {threshold:g}",
        )


def _rates(found, subject, posterior, batch_size, seed):
    """Rates by example and dimension `(N, D)`, or None."""
    if isinstance(posterior, PointMass):
        return ops.convert_to_numpy(kl_per_dimension(posterior))
    try:
        return rates_of(posterior, subject, MOMENT_DRAWS, batch_size, seed)[0]
    except NotMeasurable as error:
        if isinstance(posterior, FlowGaussian):
            found.notes.append(f"KL by dimension was not measured: {error.reason}.")
            return None
        found.notes.append(f"KL by dimension was taken to N(0, 1): {error.reason}.")
        return ops.convert_to_numpy(kl_per_dimension(posterior)).astype("float64")


def _codes(subject, data, seed, batch_size):
    """Codes `(n, K, D)` of their own example with log q(z|x), of another one, from the prior."""
    draws = max(1, math.ceil(DECODED / len(data)))

    def draw(x, noise, stream):
        return subject.sample_and_log_qz(subject.posterior(x), draws, StatelessSeed(noise, stream))

    z, log_qz = subject.run(f"draw_{draws}", draw, data, batch_size=batch_size, seed=seed)
    # A cyclic shift of a random order gives nobody a code of their own.
    order = np.random.default_rng(seed).permutation(len(data))
    shuffled = np.empty_like(z)
    shuffled[order] = z[np.roll(order, 1)]
    prior = subject.sample_prior(len(data) * draws, seed, PRIOR_STREAM)
    return z, log_qz, shuffled, prior.reshape(z.shape).astype("float32")


def _likelihoods(found, subject, data, z, shuffled, prior, batch_size):
    rows = _rows(subject, data, z.shape[1], batch_size)
    log_px = {
        name: np.mean(
            subject.run("log_px", subject.log_px, data, codes, batch_size=rows),
            axis=1,
            dtype="float64",
        )
        for name, codes in (("own", z), ("shuffled", shuffled), ("prior", prior))
    }
    broken = ~np.isfinite(log_px["own"])
    found.estimates["not_finite_log_px"] = Estimate(
        float(np.mean(broken)), count=len(broken), estimator="share of examples"
    )
    if np.any(broken):
        return log_px["own"]
    for name, values in log_px.items():
        found.estimates[f"log_px_{name}"] = mean_estimate(
            values, estimator=f"log p(x|z), {name} z", unit="nats"
        )
    for name in ("shuffled", "prior"):
        found.estimates[f"gap_{name}"] = mean_estimate(
            log_px["own"] - log_px[name],
            estimator=f"log p(x|own z) - log p(x|{name} z)",
            unit="nats",
        )
    found.estimates["sensitivity"] = mean_estimate(
        np.abs(log_px["own"] - log_px["shuffled"]),
        estimator="|log p(x|own z) - log p(x|shuffled z)|",
        unit="nats",
    )
    return log_px["own"]


def _scales(found, subject, data, log_px):
    """The given scale of a Gaussian likelihood, that of the residuals, and that of the data."""
    likelihood = subject.likelihood
    if not isinstance(likelihood, Gaussian) or likelihood.fixed_scale is None:
        return
    scale, size = likelihood.fixed_scale, math.prod(subject.observed(data).shape[1:])
    # log p(x|z) is their sum of squares but for constants.
    constants = math.log(scale) + 0.5 * math.log(2.0 * math.pi)
    squares = np.maximum(-2.0 * scale**2 * (log_px / size + constants), 0.0)
    mean = mean_estimate(squares)
    optimal = math.sqrt(mean.value)
    found.estimates["likelihood_scale"] = Estimate(
        scale, count=len(log_px), estimator="given to the likelihood"
    )
    found.estimates["residual_scale"] = Estimate(
        optimal,
        mean.standard_error / (2.0 * optimal) if optimal > 0.0 else 0.0,
        len(log_px),
        "root mean square of x - E[x|z]: the likelihood's optimal scale",
    )
    found.estimates["data_scale"] = Estimate(
        math.sqrt(largest_variance(data)),
        count=len(data),
        estimator="standard deviation of the data along their first principal component",
    )


def _rows(subject, data, draws, most, gradients=False):
    """Examples at once whose draws are decoded within the memory, in batches of about one size."""
    memory = GRADIENT_MEMORY if gradients else MEMORY
    rows = max(1, min(most, draws_at_once(subject, data, memory, gradients) // draws))
    return math.ceil(len(data) / math.ceil(len(data) / rows))


def _bound(found, subject, posterior, z, log_qz, log_px, batch_size):
    closed = subject.prior.kl_divergence(posterior)
    if closed is None:
        log_pz = subject.run(f"log_pz_{z.shape[1]}", subject.log_pz, z, batch_size=batch_size)
        rate = np.mean(log_qz - log_pz, axis=1, dtype="float64")
    else:
        rate = ops.convert_to_numpy(closed).astype("float64")
    found.estimates["rate"] = mean_estimate(
        rate, estimator="sampled" if closed is None else "closed form", unit="nats"
    )
    found.estimates["elbo"] = mean_estimate(log_px - rate, estimator="log p(x|z) - KL", unit="nats")
    distortion = -float(np.mean(log_px))
    # A density may exceed 1, and then shares mean nothing.
    share = float(np.mean(rate)) / (float(np.mean(rate)) + distortion) if distortion > 0 else np.nan
    found.estimates["rate_share"] = Estimate(
        share, count=len(rate), estimator="rate / (rate + distortion)"
    )


def _information(found, encoded, z, prior, batch_size, seed):
    """Mutual information, marginal divergence, posterior divergence, entropy, prior hole."""
    found.estimates["conditional_entropy"] = conditional_entropy(
        encoded, num_samples=MOMENT_DRAWS, seed=seed, batch_size=batch_size
    )
    found.estimates["mutual_posterior_divergence"] = mutual_posterior_divergence(
        encoded, max_examples=_CHUNK, seed=seed
    )
    posterior = encoded.posterior
    try:
        information = mutual_information(posterior, seed=seed)
    except NotMeasurable as error:
        found.notes.append(
            "The information about x and the prior draws outside of the codes were not measured: "
            f"{error.reason}. The rate is a bound of the information, and a prior hole was looked "
            "for in the moments alone."
        )
        return
    found.estimates["mutual_information"] = information
    found.estimates["marginal_divergence"] = Estimate(
        found.value("rate") - information.value,
        math.hypot(found.error("rate"), found.error("mutual_information")),
        information.count,
        "rate - mutual information; an upper bound where that is at its limit",
        "nats",
    )
    limit = math.log(information.count)
    if information.value > NEAR_LIMIT * limit:
        found.notes.append(
            f"The information is near log N = {limit:.2f}, which {information.count} examples "
            "allow for: it is at least so much, and the aggregate posterior at most so far from "
            "the prior. More examples would tell."
        )
    # How dense the aggregate is where the prior draws, against where it draws itself. Leaving a
    # draw's own posterior out makes both alike if the aggregate is the prior, in any dimension.
    gaussians = gaussians_of(posterior)
    count, z, prior = len(gaussians), z.astype("float64"), prior.astype("float64")
    others = log_sum_of_others(gaussians, z, np.arange(count), _CHUNK)
    at_prior = log_sum_of_others(gaussians, prior, np.full(count, -1), _CHUNK)
    outside = float(np.mean(at_prior < np.quantile(others, OUTSIDE_QUANTILE)))
    found.estimates["outside"] = Estimate(
        outside,
        math.sqrt(max(outside * (1.0 - outside), 1.0 / count) / count),
        count,
        f"share of prior draws less dense than {1 - OUTSIDE_QUANTILE:.0%} of the aggregate's",
    )


def _aggregate(found, subject, code, z, prior):
    """Moments of the aggregate posterior against the prior's."""
    covariance = code.covariance
    centre = code.mean.mean(axis=0)
    draws = prior.reshape(-1, prior.shape[-1]).astype("float64")
    if isinstance(subject.prior, IsotropicNormal):
        prior_mean = np.zeros_like(centre)
        prior_covariance = np.eye(len(centre)) * subject.prior.sampling_scale**2
    else:
        prior_mean = draws.mean(axis=0)
        prior_covariance = np.cov(draws, rowvar=False).reshape(covariance.shape)
        prior_covariance = prior_covariance + 1e-6 * np.eye(len(centre))
    found.arrays["aggregate_variance"] = np.diagonal(covariance).copy()
    found.arrays["prior_mean"] = prior_mean
    found.arrays["prior_variance"] = np.diagonal(prior_covariance).copy()
    ratio = np.linalg.solve(prior_covariance, covariance)
    log_det = np.linalg.slogdet(ratio + 1e-12 * np.eye(len(centre)))[1]
    shift = centre - prior_mean
    found.estimates["moment_divergence"] = Estimate(
        0.5
        * float(
            np.trace(ratio)
            - len(centre)
            - log_det
            + shift @ np.linalg.solve(prior_covariance, shift)
        ),
        count=len(z),
        estimator="KL between Gaussians with the moments of aggregate posterior and prior",
        unit="nats",
    )
    chosen = np.argsort(-code.variance_of_means, kind="stable")[:2]
    found.arrays["shown_dimensions"] = chosen
    found.arrays["shown_codes"] = z[:, 0, chosen]
    found.arrays["shown_prior"] = draws[: len(z), chosen]


def _use_of_dimensions(found, subject, data, z, shuffled):
    """Measures how much likelihood is lost when a dimension is taken from another example."""
    size = z.shape[1]
    if size > MAX_SWAPPED_DIMENSIONS:
        found.notes.append(f"The decoder's use of each of {size} dimensions was not measured.")
        return
    chosen = slice(0, SWAPPED_AUTOREGRESSIVE if subject.autoregressive else SWAPPED)
    swap = np.eye(size, dtype="float32")

    def losses(x, own, other):
        swapped = own[:, None] + (other - own)[:, None] * swap
        return subject.log_px(x, own[:, None]) - subject.log_px(x, swapped)

    rows = _rows(subject, data[chosen], size, max(1, 4096 // size))
    values = subject.run(
        "use_of_dimensions", losses, data[chosen], z[chosen], shuffled[chosen], batch_size=rows
    ).astype("float64")
    found.arrays["use"] = values.mean(axis=0)
    found.arrays["reach"] = np.abs(values).mean(axis=0)
    found.arrays["use_error"] = values.std(axis=0, ddof=1) / math.sqrt(len(values))


def _pictures(found, subject, data, z, prior):
    data = subject.observed(data)
    shape = data.shape[1:]
    if (
        len(shape) not in (2, 3)
        or min(shape[:2]) < 4
        or (len(shape) == 3 and shape[2] not in (1, 3))
    ):
        return
    number = PICTURES_AUTOREGRESSIVE if subject.autoregressive else PICTURES
    rows = {"data": data[:number]}
    kinds = ("reconstructions", "draws from the prior")
    codes = np.concatenate([codes[:number, 0] for codes in (z, prior)])
    if subject.autoregressive:
        # In one batch, for which its loop is compiled.
        decoded = subject.model.decode(codes, batch_size=len(codes))
        found.notes.append("Pictures were decoded greedily, value by value.")
    else:
        params = subject.params(ops.convert_to_tensor(codes[:, None]), None)
        decoded = ops.convert_to_numpy(subject.likelihood.mean(params))[:, 0]
    rows.update(zip(kinds, np.split(decoded, 2), strict=True))
    if all(np.shape(row)[1:] == shape for row in rows.values()):
        found.pictures.update(rows)


# -- refinement of posteriors ---------------------------------------------------------------------


def _refinement(found, subject, data, seed, steps):
    if isinstance(subject, _ForeignSubject):
        found.notes.append(
            "Encoder lag was not measured: the model cannot be differentiated on this backend."
        )
        return
    if steps == 0:
        found.notes.append("Encoder lag was not measured: refinement_steps=0.")
        return
    chosen = data[: REFINED_AUTOREGRESSIVE if subject.autoregressive else REFINED]
    rows = _rows(subject, chosen, EVALUATION_DRAWS, len(chosen), gradients=True)
    gradients = subject.run(
        "gradients", functools.partial(_gradients, subject), chosen, batch_size=rows, seed=seed
    )
    before, after, rate_before, rate_after = (
        np.asarray(part, "float64")
        for part in subject.run(
            f"refined_{steps}",
            functools.partial(_refined, subject, steps),
            chosen,
            batch_size=rows,
            seed=seed,
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
