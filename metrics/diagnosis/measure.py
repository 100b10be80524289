"""Measurements of the collapse diagnosis; `rules` judges them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from keras import ops

from ...core.random import StatelessSeed
from ...core.scale import largest_variance
from ...layers import Gaussian, IsotropicNormal
from ...losses import (
    EmpiricalBayesELBO,
    FlowGaussian,
    MaximumMeanDiscrepancy,
    MuELBO,
    PointMass,
    kl_per_dimension,
    variance,
)
from ..aggregate import PRIOR_STREAM, moments_of_draws
from ..estimate import Estimate, mean_estimate
from ..gaussians import gaussians_of, log_sum_of_others
from ..inputs import Encoded, NotMeasurable
from ..mutual_information import mutual_information
from ..posterior_divergence import conditional_entropy, mutual_posterior_divergence
from ..rate import rates_of
from .memory import rows_at_once
from .probes import (
    probe_decoder,
    probe_encoder,
    probe_modes,
    probe_readings,
    probe_schedule,
    probe_training,
    probe_weights,
)
from .refine import refine

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...core.types import ArrayLike, Seed
    from ..subject import ModelAdapter

#: Decoded codes that a likelihood gap is averaged over, at least.
DECODED = 2000
#: Examples whose codes are taken apart per dimension; fewer of an autoregressive decoder.
SWAPPED, SWAPPED_AUTOREGRESSIVE = 200, 50
#: Beyond so many dimensions the decoder's use of each is not measured: it costs a decode each.
MAX_SWAPPED_DIMENSIONS = 256
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

_CHUNK = 512
#: Inputs of a root mean square above this count as large: standardized ones have 1.
LARGE_INPUTS = 3.0


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Numbers, arrays per dimension or example, and notes on what could not be measured.

    Its traits say what kind of model it is: `"flow"`, `"autoregressive"`, `"learned_prior"`,
    `"text"`, `"foreign"`, `"matches codes"`; and `"large inputs"` what data. Its facts are what
    `probes` found.
    """

    estimates: dict = dataclasses.field(default_factory=dict)
    arrays: dict = dataclasses.field(default_factory=dict)
    pictures: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    traits: frozenset = frozenset()
    facts: dict = dataclasses.field(default_factory=dict)

    def value(self, name: str) -> float:
        """Value of an estimate; NaN for one that was not measured."""
        return self.estimates[name].value if name in self.estimates else math.nan

    def error(self, name: str) -> float:
        """Its standard error; 0 where there is none."""
        error = self.estimates[name].standard_error if name in self.estimates else 0.0
        return error if math.isfinite(error) else 0.0


#: Times that `measure` says what begins.
STAGES = 7


def measure(
    subject: ModelAdapter,
    data: ArrayLike,
    seed: Seed,
    refinement_steps: int,
    batch_size: int,
    begin: Callable[[str], None],
    facts: dict[str, Any] | None = None,
    trials: bool = False,
) -> Measurements:
    """All measurements of a `ModelAdapter` on checked data; tells `begin` what comes next."""
    begin("Diagnosis: posteriors")
    posterior = subject.encode(data, batch_size)
    # Of data in [0, 1], and of ids, it says nothing.
    gaussian = isinstance(subject.likelihood, Gaussian)
    size = np.sqrt(np.mean(np.square(subject.values(data), dtype="float64"))) if gaussian else 0.0
    kinds = {
        "flow": isinstance(posterior, FlowGaussian),
        "autoregressive": subject.autoregressive,
        "learned_prior": not isinstance(subject.prior, IsotropicNormal),
        "text": subject.of_text,
        "foreign": subject.model is None,
        "large inputs": size > LARGE_INPUTS,
        "matches codes": _matches_codes(getattr(subject.model, "objective", None)),
    }
    traits = frozenset(name for name, held in kinds.items() if held)
    found = Measurements(notes=list(subject.notes), traits=traits)
    if "large inputs" in traits:
        found.notes.append(
            f"The inputs have a root mean square of {size:.3g}. Networks start from values of "
            "order 1, so that posteriors start as far out and as wide as the inputs, and take many "
            "more epochs to come in: see whether the bound still moves."
        )
    found.facts.update(facts or {})
    probe_weights(found, subject)
    code = _code(found, subject, posterior, batch_size, seed)
    healthy = np.isfinite(code.mean) & np.isfinite(code.spread)
    found.estimates["not_finite"] = Estimate(
        float(np.mean(~healthy)), count=healthy.size, estimator="share of posterior parameters"
    )
    if not np.all(healthy):
        found.notes.append("Nothing else was measured, since the posteriors are not finite.")
        return found
    probe_encoder(found, subject, posterior, data)
    probe_modes(found, subject, data)
    probe_schedule(found, subject)
    _per_dimension(found, subject, posterior, code, batch_size, seed)
    begin("Diagnosis: likelihoods")
    z, log_qz, shuffled, prior = _codes(subject, data, seed, batch_size)
    own_log_px = _likelihoods(found, subject, data, z, shuffled, prior, batch_size)
    if not np.all(np.isfinite(own_log_px)):
        found.notes.append("Nothing else was measured, since log p(x|z) is not finite.")
        return found
    _scales(found, subject, data, own_log_px)
    probe_decoder(found, subject, z)
    probe_readings(found, subject, posterior, data, seed)
    _pictures(found, subject, data, z, prior)
    begin("Diagnosis: aggregate posterior and single dimensions")
    _aggregate(found, subject, code, z, prior)
    _use_of_dimensions(found, subject, data, z[:, 0], shuffled[:, 0])
    if isinstance(posterior, PointMass):
        found.notes.append(
            "The encoder is deterministic: there is no rate, no information in nats and no bound."
        )
        return found
    begin("Diagnosis: bound and information")
    _bound(found, subject, posterior, z, log_qz, own_log_px, batch_size)
    _information(found, Encoded(posterior, subject), z[:, 0], prior[:, 0], batch_size, seed)
    begin("Diagnosis: lag of the encoder")
    refine(found, subject, data, seed, refinement_steps)
    begin("Diagnosis: further training")
    if trials:
        probe_training(found, subject, data, seed)
    return found


def _matches_codes(objective):
    """Whether an objective holds the codes as a whole to the prior, rather than each posterior."""
    if isinstance(objective, (EmpiricalBayesELBO, MuELBO)):
        return True
    terms = getattr(objective, "regularizers", ())
    return any(isinstance(term, MaximumMeanDiscrepancy) for term in terms)


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


def _per_dimension(found, subject, posterior, code, batch_size, seed):
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
            found.notes.append(f"KL per dimension was not measured: {error.reason}.")
            return None
        found.notes.append(f"KL per dimension was taken to N(0, 1): {error.reason}.")
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
    rows = rows_at_once(subject, data, z.shape[1], batch_size)
    log_px = {
        name: np.mean(
            subject.run("log_px", subject.log_px, data, codes, **rows),
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
    center = code.mean.mean(axis=0)
    draws = prior.reshape(-1, prior.shape[-1]).astype("float64")
    if isinstance(subject.prior, IsotropicNormal):
        prior_mean = np.zeros_like(center)
        prior_covariance = np.eye(len(center)) * subject.prior.sampling_scale**2
    else:
        prior_mean = draws.mean(axis=0)
        prior_covariance = np.cov(draws, rowvar=False).reshape(covariance.shape)
        prior_covariance = prior_covariance + 1e-6 * np.eye(len(center))
    found.arrays["aggregate_variance"] = np.diagonal(covariance).copy()
    found.arrays["prior_mean"] = prior_mean
    found.arrays["prior_variance"] = np.diagonal(prior_covariance).copy()
    ratio = np.linalg.solve(prior_covariance, covariance)
    log_det = np.linalg.slogdet(ratio + 1e-12 * np.eye(len(center)))[1]
    shift = center - prior_mean
    found.estimates["moment_divergence"] = Estimate(
        0.5
        * float(
            np.trace(ratio)
            - len(center)
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

    rows = rows_at_once(subject, data[chosen], size, max(1, 4096 // size))
    values = subject.run(
        "use_of_dimensions", losses, data[chosen], z[chosen], shuffled[chosen], **rows
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
        decoded = subject.decode(codes)
        found.notes.append("Pictures were decoded greedily, value by value.")
    else:
        params = subject.params(ops.convert_to_tensor(codes[:, None]), None)
        decoded = ops.convert_to_numpy(subject.likelihood.mean(params))[:, 0]
    rows.update(zip(kinds, np.split(decoded, 2), strict=True))
    if all(np.shape(row)[1:] == shape for row in rows.values()):
        found.pictures.update(rows)
