"""What the collapse diagnosis measures; `_verdicts` judges it."""

import dataclasses
import functools
import math

import keras
import numpy as np
from keras import ops

from ..layers import StandardNormal
from ..losses import (
    DiagonalGaussian,
    HierarchicalGaussian,
    PointMass,
    kl_per_dimension,
    log_prob,
    reparameterize,
    variance,
)
from ..losses._replicas import GivenSeed
from ._estimate import Estimate, mean_estimate
from ._gaussians import gaussians_of, log_sum_of_others
from ._subject import _ForeignSubject
from .mutual_information import mutual_information
from .posterior_divergence import conditional_entropy, mutual_posterior_divergence

#: Decoded codes that a likelihood gap is averaged over, at least.
DECODED = 2000
#: Examples whose posteriors are refined, or whose codes are taken apart by dimension.
REFINED, SWAPPED = 256, 200
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
#: Pictures in each row of the report.
PICTURES = 10

_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Numbers, arrays by dimension or example, and notes on what could not be measured."""

    estimates: dict = dataclasses.field(default_factory=dict)
    arrays: dict = dataclasses.field(default_factory=dict)
    pictures: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)

    def value(self, name):
        """Value of an estimate; NaN for one that was not measured."""
        return self.estimates[name].value if name in self.estimates else math.nan

    def error(self, name):
        """Its standard error; 0 where there is none."""
        error = self.estimates[name].standard_error if name in self.estimates else 0.0
        return error if math.isfinite(error) else 0.0


def measure(subject, data, seed, refinement_steps, batch_size):
    """All measurements of a `Subject` on checked data."""
    found = Measurements(notes=list(subject.notes))
    posterior = subject.encode(data, batch_size)
    mean = np.asarray(posterior.mean, "float64")
    spread = np.asarray(ops.convert_to_numpy(variance(posterior)), "float64")
    healthy = np.isfinite(mean) & np.isfinite(spread)
    found.estimates["not_finite"] = Estimate(
        float(np.mean(~healthy)), count=healthy.size, estimator="share of posterior parameters"
    )
    if not np.all(healthy):
        found.notes.append("Nothing else was measured, since the posteriors are not finite.")
        return found
    _by_dimension(found, subject, posterior, mean, spread)
    z, shuffled, prior = _codes(subject, data, posterior, seed, batch_size)
    own_log_px = _likelihoods(found, subject, data, z, shuffled, prior, batch_size)
    if not np.all(np.isfinite(own_log_px)):
        found.notes.append("Nothing else was measured, since log p(x|z) is not finite.")
        return found
    _pictures(found, subject, data, z, prior)
    _aggregate(found, subject, mean, spread, z, prior)
    _use_of_dimensions(found, subject, data, z[:, 0], shuffled[:, 0])
    if isinstance(posterior, PointMass):
        found.notes.append(
            "The encoder is deterministic: there is no rate, no information in nats and no bound."
        )
        return found
    _bound(found, subject, posterior, z, own_log_px)
    _information(found, posterior, z[:, 0], prior[:, 0], seed)
    _refinement(found, subject, data, seed, refinement_steps)
    return found


def _by_dimension(found, subject, posterior, mean, spread):
    found.arrays["mean_of_means"] = mean.mean(axis=0)
    found.arrays["variance_of_means"] = np.var(mean, axis=0, ddof=1)
    found.arrays["posterior_variance"] = spread.mean(axis=0)
    closed = None
    if not isinstance(posterior, PointMass):
        closed = subject.prior.kl_per_dimension(posterior)
        if closed is None:
            found.notes.append(
                "KL by dimension was taken to N(0, 1): the prior has no closed form for it."
            )
    by_example = ops.convert_to_numpy(kl_per_dimension(posterior) if closed is None else closed)
    found.arrays["kl_per_dimension"] = np.mean(by_example, axis=0, dtype="float64")
    # Information of a Gaussian channel with this signal and this noise.
    noise = np.maximum(found.arrays["posterior_variance"], 1e-8)
    found.arrays["capacity"] = 0.5 * np.log1p(found.arrays["variance_of_means"] / noise)
    for threshold in ACTIVE_THRESHOLDS:
        found.estimates[f"active_units_{threshold:g}"] = Estimate(
            float(np.sum(found.arrays["variance_of_means"] >= threshold)),
            count=len(mean),
            estimator=f"#Var(mean_d) >= {threshold:g}",
        )


def _codes(subject, data, posterior, seed, batch_size):
    """Codes `(n, K, D)` of their own example, of another example, and from the prior."""
    draws = max(1, math.ceil(DECODED / len(data)))

    def draw(x, noise, stream):
        return subject.sample(subject.posterior(x), draws, GivenSeed(noise, stream))

    z = subject.run(f"draw_{draws}", draw, data, batch_size=batch_size, seed=seed)
    # A cyclic shift of a random order gives nobody a code of their own.
    order = np.random.default_rng(seed).permutation(len(data))
    shuffled = np.empty_like(z)
    shuffled[order] = z[np.roll(order, 1)]
    prior = subject.prior.sample(len(data) * draws, GivenSeed(seed, 2**23))
    prior = ops.convert_to_numpy(prior).reshape(z.shape).astype("float32")
    return z, shuffled, prior


def _likelihoods(found, subject, data, z, shuffled, prior, batch_size):
    log_px = {
        name: np.mean(
            subject.run("log_px", subject.log_px, data, codes, batch_size=batch_size),
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


def _bound(found, subject, posterior, z, log_px):
    closed = subject.prior.kl_divergence(posterior)
    if closed is None:
        rate = np.mean(
            ops.convert_to_numpy(log_prob(posterior, z) - subject.log_pz(z)), axis=1
        ).astype("float64")
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


def _information(found, posterior, z, prior, seed):
    """Mutual information, marginal divergence, posterior divergence, entropy, prior hole."""
    information = mutual_information(posterior, seed=seed)
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
    found.estimates["conditional_entropy"] = conditional_entropy(posterior)
    found.estimates["mutual_posterior_divergence"] = mutual_posterior_divergence(
        posterior, max_examples=_CHUNK, seed=seed
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


def _aggregate(found, subject, mean, spread, z, prior):
    """Moments of the aggregate posterior against the prior's."""
    covariance = np.cov(mean, rowvar=False).reshape(mean.shape[1], -1)
    covariance = covariance + np.diag(spread.mean(axis=0))
    centre = mean.mean(axis=0)
    draws = prior.reshape(-1, prior.shape[-1]).astype("float64")
    if isinstance(subject.prior, StandardNormal):
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
        count=len(mean),
        estimator="KL between Gaussians with the moments of aggregate posterior and prior",
        unit="nats",
    )
    chosen = np.argsort(-np.var(mean, axis=0), kind="stable")[:2]
    found.arrays["shown_dimensions"] = chosen
    found.arrays["shown_codes"] = z[:, 0, chosen]
    found.arrays["shown_prior"] = draws[: len(mean), chosen]


def _use_of_dimensions(found, subject, data, z, shuffled):
    """What the likelihood loses when one dimension of the code is another example's."""
    size = z.shape[1]
    if size > MAX_SWAPPED_DIMENSIONS:
        found.notes.append(f"The decoder's use of each of {size} dimensions was not measured.")
        return
    chosen = slice(0, SWAPPED)
    swap = np.eye(size, dtype="float32")

    def losses(x, own, other):
        swapped = own[:, None] + (other - own)[:, None] * swap
        return subject.log_px(x, own[:, None]) - subject.log_px(x, swapped)

    rows = max(1, 4096 // size)
    values = subject.run(
        "use_of_dimensions", losses, data[chosen], z[chosen], shuffled[chosen], batch_size=rows
    ).astype("float64")
    found.arrays["use"] = values.mean(axis=0)
    found.arrays["reach"] = np.abs(values).mean(axis=0)
    found.arrays["use_error"] = values.std(axis=0, ddof=1) / math.sqrt(len(values))


def _pictures(found, subject, data, z, prior):
    shape = data.shape[1:]
    if (
        len(shape) not in (2, 3)
        or min(shape[:2]) < 4
        or (len(shape) == 3 and shape[2] not in (1, 3))
    ):
        return
    rows = {"data": data[:PICTURES]}
    for name, codes in (("reconstructions", z), ("draws from the prior", prior)):
        params = subject.params(ops.convert_to_tensor(codes[:PICTURES, :1]))
        rows[name] = ops.convert_to_numpy(subject.likelihood.mean(params))[:, 0]
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
    chosen = data[:REFINED]
    gradients = subject.run(
        "gradients", functools.partial(_gradients, subject), chosen, batch_size=REFINED, seed=seed
    )
    before, after, rate_before, rate_after = (
        np.asarray(part, "float64")
        for part in subject.run(
            f"refined_{steps}",
            functools.partial(_refined, subject, steps),
            chosen,
            batch_size=REFINED,
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
    """The posterior with its mean moved by `shift` standard deviations, and rescaled."""
    mean = posterior.mean + ops.sqrt(variance(posterior)) * shift
    if isinstance(posterior, DiagonalGaussian):
        return DiagonalGaussian(mean, posterior.log_var + 2.0 * log_scale)
    if isinstance(posterior, HierarchicalGaussian):
        scaled = posterior.scale_tril * ops.exp(log_scale)[:, :, None]
        return posterior._replace(mean=mean, scale_tril=scaled)
    raise TypeError(f"A posterior of type {type(posterior).__name__} cannot be refined.")


def _distortion(subject, x, posterior, eps):
    return -ops.mean(subject.log_px(x, reparameterize(posterior, eps)), axis=1)


def _rate(subject, posterior, eps):
    closed = subject.prior.kl_divergence(posterior)
    if closed is not None:
        return closed
    z = reparameterize(posterior, eps)
    return ops.mean(log_prob(posterior, z) - subject.log_pz(z), axis=1)


def _noise(posterior, draws, seed):
    batch, size = ops.shape(posterior.mean)[0], posterior.mean.shape[1]
    return keras.random.normal((batch, draws, size), dtype="float32", seed=seed)


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
    noise = GivenSeed(seed, stream + ops.cast(2**21, "uint32"))
    halves = [_noise(posterior, GRADIENT_DRAWS, noise) for _ in range(2)]

    def distortion(eps):
        return lambda shift, scale: ops.sum(
            _distortion(subject, x, _moved(posterior, shift, scale), eps)
        )

    def rate(shift, scale):
        return ops.sum(_rate(subject, _moved(posterior, shift, scale), halves[0]))

    (shift_a, scale_a), (shift_b, scale_b), (shift_rate, scale_rate) = (
        _gradient(function, start)
        for function in (distortion(halves[0]), distortion(halves[1]), rate)
    )
    return scale_a, scale_b, scale_rate, shift_a, shift_b, shift_rate


def _refined(subject, steps, x, seed, stream):
    """Bound and rate of each example at its posterior, and after Adam has worked on that alone."""
    posterior = subject.posterior(x)
    zeros = ops.zeros_like(posterior.mean)

    def loss(shift, scale, eps):
        moved = _moved(posterior, shift, scale)
        return _distortion(subject, x, moved, eps) + _rate(subject, moved, eps)

    def step(index, state):
        values, first, second = state[:2], state[2:4], state[4:]
        number = ops.cast(index, "float32")
        noise = GivenSeed(seed, stream + ops.cast(2**20, "uint32") + ops.cast(index, "uint32"))
        eps = _noise(posterior, STEP_DRAWS, noise)
        slopes = _gradient(
            lambda shift, scale: ops.sum(loss(shift, scale, eps)), [values[0], values[1]]
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
    eps = _noise(posterior, EVALUATION_DRAWS, GivenSeed(seed, stream + ops.cast(2**22, "uint32")))
    before, after = loss(zeros, zeros, eps), loss(shift, scale, eps)
    rates = [
        _rate(subject, _moved(posterior, *point), eps) for point in ((zeros, zeros), (shift, scale))
    ]
    return -before, -after, *rates
