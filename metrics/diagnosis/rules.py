"""From measurements to a verdict: the rules and their evidence.

All thresholds stand here, each with the reason for it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .measure import Measurements

#: Nats of information about x below which a code is empty: 0.1 nats cannot tell two halves of the
#: data apart (log 2 = 0.69), and the estimator gives exactly 0 when all posteriors coincide.
EMPTY_INFORMATION = 0.1

#: Var(mean_d) below which a dimension is inactive (Burda et al., 2016, section 5.2).
INACTIVE_VARIANCE = 0.01

#: A dimension of small means may still speak if its noise is smaller yet: it is silent only if as
#: a Gaussian channel it also carries less than this, in nats.
SILENT_CAPACITY = 0.01

#: A dimension is unread if exchanging it for another example's moves log p(x|z) by less, in nats,
#: on average over the examples and without regard to sign.
UNREAD = 0.01

#: A decoder that reads z makes an example's own code better than another's by at least the mutual
#: information (equal to I plus a divergence if q(z|x) is the true posterior). It ignores z if the
#: likelihood moves by less than this share of I, in whichever direction.
IGNORED_SHARE = 0.1

#: Posterior variance, in units of the prior's, that no bound rewards: a likelihood narrows the
#: prior on average, so more than the prior's own variance is paid for twice, in rate and
#: distortion. Half again leaves room for noise.
BLOWN_UP_VARIANCE = 1.5

#: Means so many prior standard deviations out (root mean square) have diverged.
RUNAWAY_MEAN = 100.0

#: Aggregate posterior and prior are apart if their means and covariances alone cost so many nats,
#: in all and per dimension, and so large a share of the rate. Moments never cost more than the
#: whole divergence to a normal prior. Trained models leave up to a nat, or 0.04 per dimension.
HOLE_NATS, HOLE_NATS_PER_DIMENSION, HOLE_SHARE = 1.0, 0.1, 0.2

#: Where the aggregate equals the prior, 1% of the prior's draws fall outside of it. Trained models
#: show up to a fifth; at a half every second new sample comes from a code never trained on.
HOLE_OUTSIDE = 0.5

#: Gain of the bound, in nats and as a share of the rate after refinement, at which posteriors are
#: not where the bound wants them; three standard errors are asked for besides. Amortized encoders
#: leave up to a tenth of the rate on the table in ordinary training, those with pinned moments up
#: to four tenths: without another sign of a fault it takes half the rate to speak of lag.
GAIN_NATS, GAIN_SHARE, LAG_SHARE, GAIN_ERRORS = 0.5, 0.25, 0.5, 3.0

#: An encoder lags only if refinement also gains this share of what its codes are worth to the
#: decoder, the likelihood lost with another example's: of codes worth 100 nats, an encoder that
#: leaves 4 on the table, as on rows held out from a small training set, does follow. What another
#: weight of the KL explains is a mismatch all the same.
LAG_OF_WORTH = 0.1

#: Weight of the KL implied by the posterior variances, 1 for the bound itself. A factor of 2 is
#: beyond what ordinary training leaves (0.6 to 1.3 on small models).
HEAVY_WEIGHT, LIGHT_WEIGHT = 2.0, 0.5

#: Weight from which the KL may have pressed dimensions out, errors aside.
PRESSING_WEIGHT = 1.5

#: Share of the mismatch that another KL weight must explain before that is blamed, rather than
#: an encoder that does not follow.
EXPLAINED = 0.5

#: Factor by which a Gaussian likelihood's scale is off that of the residuals before faults are laid
#: to it. The scale s divides the squared errors by s^2, so at a factor of 2 the KL weighs 4 times
#: what it does at the optimal scale: more than `HEAVY_WEIGHT`.
SCALE_FACTOR = 2.0

#: Means so many prior standard deviations out (root mean square) are bought by a likelihood that
#: asks for precision; those of a trained model have at most 1.
STRETCHED_CODES = 2.0

#: The information is at its limit from this share of log N on.
AT_LIMIT = 0.95

TITLES = {
    "healthy": "Healthy",
    "scale_too_large": "The likelihood's scale is too large",
    "scale_too_small": "The likelihood's scale is too small",
    "full_collapse": "Full posterior collapse",
    "partial_collapse": "Partial posterior collapse",
    "decoder_ignores_z": "The decoder ignores z",
    "lagging_encoder": "Lagging encoder",
    "prior_hole": "Prior hole",
    "variance_blow_up": "Variance blow-up",
    "over_regularized": "Over-regularized",
    "under_regularized": "Under-regularized",
    "unfit_data": "The data are not fit for it",
    "misread_outputs": "Outputs that mean something else",
    "limited_encoder": "The encoder's outputs are limited",
    "inference_differs": "The networks differ between training and inference",
}

MEANINGS = {
    "healthy": "The code is informative, the decoder uses it, and the prior matches it.",
    "scale_too_large": "The likelihood's scale exceeds the residuals, so a code gains little.",
    "scale_too_small": "The likelihood asks for more precision than the decoder has.",
    "full_collapse": "The encoder gives every example the same code, which carries no information.",
    "partial_collapse": "Some latent dimensions carry no information, or the decoder ignores them.",
    "decoder_ignores_z": "The code tells examples apart, but the decoder ignores it.",
    "lagging_encoder": "Other posteriors than the encoder's would suit the decoder better.",
    "prior_hole": "Codes lie where the prior does not: samples come from codes never trained on.",
    "variance_blow_up": "Posteriors are wider than the prior itself, or not finite at all.",
    "over_regularized": "Posteriors are as wide as under a KL weight above 1: information is lost.",
    "under_regularized": "Posteriors are as narrow as under a KL weight near 0: an auto-encoder.",
    "unfit_data": "What is seen of the model is the data's doing.",
    "misread_outputs": "An output of the networks is taken for another quantity than it is.",
    "limited_encoder": "An activation keeps the encoder's outputs within limits.",
    "inference_differs": "In inference the networks compute something else than in training.",
}

#: Which faults bring which others along: those are then told as consequences.
CONSEQUENCES = {
    "scale_too_large": {
        "full_collapse",
        "decoder_ignores_z",
        "partial_collapse",
        "over_regularized",
        "lagging_encoder",
    },
    "scale_too_small": {
        "variance_blow_up",
        "under_regularized",
        "prior_hole",
        "over_regularized",
        "lagging_encoder",
        "partial_collapse",
        "decoder_ignores_z",
    },
    "variance_blow_up": {
        "full_collapse",
        "decoder_ignores_z",
        "prior_hole",
        "lagging_encoder",
        "over_regularized",
        "under_regularized",
        "partial_collapse",
    },
    "decoder_ignores_z": {
        "lagging_encoder",
        "under_regularized",
        "over_regularized",
        "partial_collapse",
    },
    "under_regularized": {"prior_hole", "lagging_encoder"},
    "prior_hole": {"lagging_encoder"},
    "over_regularized": {"lagging_encoder", "partial_collapse"},
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        name: Machine-readable name, a key of `TITLES`.
        evidence: Sentences with the numbers and the thresholds.
        consequence_of: Name of the fault found that brings this one along, or None.
    """

    name: str
    evidence: tuple
    consequence_of: str | None = None

    @property
    def title(self) -> str:
        """The name as a person reads it."""
        return TITLES[self.name]


def dimensions(found: Measurements) -> dict[str, list[int]]:
    """Sorted lists of dimensions: `active`, `collapsed` (`silent` or `unread`)."""
    spread = found.arrays["variance_of_means"]
    silent = (spread < INACTIVE_VARIANCE) & (found.arrays["capacity"] < SILENT_CAPACITY)
    reach = found.arrays.get("reach")
    unread = np.zeros_like(silent) if reach is None else ~silent & (reach < UNREAD)
    masks = {"active": ~silent & ~unread, "collapsed": silent | unread}
    masks |= {"silent": silent, "unread": unread}
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def find(found: Measurements) -> list[Finding]:
    """The faults in `Measurements`, causes before their consequences; none for a healthy model."""
    for name, what in (
        ("not_finite", "of the posterior means and variances are"),
        ("not_finite_log_px", "of the examples have a log p(x|z) that is"),
    ):
        if found.value(name) > 0:
            sentence = f"{found.value(name):.1%} {what} NaN or infinite."
            return [Finding("variance_blow_up", (sentence,))]
    # In the order of blame: what stands first explains what follows it.
    rules = {
        "variance_blow_up": _variance_blow_up,
        "full_collapse": _full_collapse,
        "decoder_ignores_z": _decoder_ignores_z,
        "under_regularized": _under_regularized,
        "prior_hole": _prior_hole,
        "over_regularized": _over_regularized,
        "lagging_encoder": _lagging_encoder,
        "partial_collapse": _partial_collapse,
    }
    findings: list[Finding] = []
    if "matches codes" in found.traits:
        # What is trained is no bound: only the codes as a whole are held to the prior.
        for name in ("under_regularized", "over_regularized", "lagging_encoder"):
            del rules[name]
    faults = {name: rule(found) for name, rule in rules.items()}
    scales = {
        "scale_too_large": _scale_too_large(found, faults),
        "scale_too_small": _scale_too_small(found, faults),
    }
    for name, evidence in {**scales, **faults}.items():
        if evidence:
            causes = [f.name for f in findings if name in CONSEQUENCES.get(f.name, ())]
            findings.append(Finding(name, tuple(evidence), causes[0] if causes else None))
    return sorted(findings, key=lambda finding: finding.consequence_of is not None)


def healthy_evidence(found: Measurements) -> list[str]:
    """Sentences on every check that was passed."""
    evidence = []
    if _known(found, "mutual_information"):
        evidence.append(
            f"The code carries {_nats(found, 'mutual_information')} of information about x "
            f"(empty below {EMPTY_INFORMATION}; the rate is {found.value('rate'):.2f} nats)."
        )
    elif _known(found, "rate"):
        evidence.append(
            f"The rate is {_nats(found, 'rate')}, of which the dimensions carry about "
            f"{_information(found):.2f} about x (empty below {EMPTY_INFORMATION})."
        )
    evidence.append(
        f"All {len(dimensions(found)['active'])} latent dimensions are active and read."
    )
    evidence.append(
        f"The decoder needs them: another example's code costs {_nats(found, 'gap_shuffled')} of "
        "log p(x|z)."
    )
    outside = ""
    if _known(found, "outside"):
        outside = (
            f", {found.value('outside'):.0%} of prior draws fall outside of the codes (a hole from "
            f"{HOLE_OUTSIDE:.0%} on)"
        )
    evidence.append(
        f"Aggregate posterior and prior agree: their moments are "
        f"{found.value('moment_divergence'):.2f} nats apart (a hole from "
        f"{_hole_limit(found):.2g} on){outside}."
    )
    if _known(found, "refinement_gain"):
        evidence.append(
            "The encoder does not lag: refining each posterior gains "
            f"{_nats(found, 'refinement_gain')} (lag from {_gain_limit(found, LAG_SHARE):.2f} on)."
        )
    return evidence


# -- rules: evidence, or nothing -------------------------------------------------------------------


def _scale_too_large(found, faults):
    """A scale is no fault of its own: it is the cause of those that it brings along."""
    scale, residual = found.value("likelihood_scale"), found.value("residual_scale")
    largest = found.value("data_scale")
    hidden = bool(faults["full_collapse"]) and largest <= scale
    if "matches codes" in found.traits and not faults["full_collapse"]:
        return []
    if not (hidden or scale > SCALE_FACTOR * residual) or not _brings("scale_too_large", faults):
        return []
    evidence = [
        f"The Gaussian likelihood has scale {scale:.3g}, the residuals x - E[x|z] have "
        f"{residual:.2g}, the optimal one (too large from {SCALE_FACTOR:g} times that on): squared "
        f"errors weigh {(residual / scale) ** 2:.2g} times what they should against the KL.",
    ]
    if hidden:
        evidence.append(
            f"The data vary by {largest:.3g} at most, along their first principal component. With "
            f"noise of {scale:.3g} on a linear decoder the optimum of the bound is an empty code."
        )
    return evidence


def _scale_too_small(found, faults):
    scale, residual = found.value("likelihood_scale"), found.value("residual_scale")
    # A decoder that is told nothing has large residuals at the right scale, too, and so has one
    # whose codes are drowned in noise.
    told_nothing = faults["full_collapse"] or faults["decoder_ignores_z"]
    stretched = faults.get("under_regularized") or _largest_code(found) > STRETCHED_CODES
    # So large a factor is laid to the scale whatever the codes look like.
    stretched = stretched or residual > SCALE_FACTOR**2 * scale
    if not residual > SCALE_FACTOR * scale or told_nothing or not stretched:
        return []
    if not _brings("scale_too_small", faults):
        return []
    paid = f" The rate is {_nats(found, 'rate')}." if _known(found, "rate") else ""
    return [
        f"The Gaussian likelihood has scale {scale:.3g}, the residuals x - E[x|z] have "
        f"{residual:.3g}, the optimal one (too small below 1/{SCALE_FACTOR:g} of that): squared "
        f"errors weigh {(residual / scale) ** 2:.3g} times what they should against the KL.{paid}",
    ]


def _code_sizes(found):
    """Root mean square of the posterior means per dimension, in prior standard deviations."""
    second = found.arrays["mean_of_means"] ** 2 + found.arrays["variance_of_means"]
    return np.sqrt(second / found.arrays["prior_variance"])


def _largest_code(found):
    return float(np.max(_code_sizes(found)))


def _brings(name, faults):
    return any(faults.get(fault) for fault in CONSEQUENCES[name])


def _variance_blow_up(found):
    relative = found.arrays["posterior_variance"] / found.arrays["prior_variance"]
    wide = np.flatnonzero(relative > BLOWN_UP_VARIANCE)
    if wide.size:
        worst = int(np.argmax(relative))
        return [
            f"Dimensions {_list(wide)} have posteriors wider than the prior: up to "
            f"{relative[worst]:.3g} times its variance, in dimension {worst} (no bound rewards "
            f"more than 1; threshold {BLOWN_UP_VARIANCE}).",
            *_gain_evidence(found),
        ]
    size = _code_sizes(found)
    if np.max(size) > RUNAWAY_MEAN:
        return [
            f"Posterior means diverge: {np.max(size):.3g} prior standard deviations in "
            f"dimension {int(np.argmax(size))} (threshold {RUNAWAY_MEAN:g})."
        ]
    return []


def _full_collapse(found):
    if _known(found, "mutual_information"):
        if found.value("mutual_information") > EMPTY_INFORMATION:
            return []
        evidence = [
            f"The code carries {_nats(found, 'mutual_information')} of information about x (empty "
            f"below {EMPTY_INFORMATION}).",
            f"The rate is {_nats(found, 'rate')}"
            + (
                "."
                if found.value("rate") < 2 * EMPTY_INFORMATION
                else ": paid, but the same for every x."
            ),
        ]
    elif found.value("rate") <= EMPTY_INFORMATION:
        evidence = [
            f"The rate, at least the information about x, is {_nats(found, 'rate')} (empty below "
            f"{EMPTY_INFORMATION})."
        ]
    elif dimensions(found)["silent"] == list(range(len(found.arrays["capacity"]))):
        evidence = [f"Var(mean_d) is below {INACTIVE_VARIANCE} in every dimension."]
    else:
        return []
    active = int(found.value("active_units_0.01"))
    size = len(found.arrays["capacity"])
    evidence.append(f"{active} of {size} units are active at Var(mean_d) >= {INACTIVE_VARIANCE}.")
    if decoder_reads(found):
        evidence.append(
            "The decoder does respond to z (other codes move log p(x|z) by "
            f"{found.value('sensitivity'):.2f} nats), so the encoder is at fault."
        )
    else:
        evidence.append(
            "The decoder does not respond to z either: own and prior codes give it "
            f"log p(x|z) = {found.value('log_px_own'):.2f} and {found.value('log_px_prior'):.2f}."
        )
    return evidence


def _decoder_ignores_z(found):
    information = _information(found)
    moved = found.value("sensitivity")
    if information <= EMPTY_INFORMATION or moved >= IGNORED_SHARE * information:
        return []
    return [
        f"The code is informative ({information:.2f} nats about x), but exchanging it for another "
        f"example's moves log p(x|z) by {moved:.3f} nats (a decoder that reads z: at least "
        f"{information:.2f}; it ignores z below {IGNORED_SHARE:.0%} of that).",
        f"log p(x|z) with own, shuffled and prior z: {found.value('log_px_own'):.2f}, "
        f"{found.value('log_px_shuffled'):.2f}, {found.value('log_px_prior'):.2f}.",
    ]


def _under_regularized(found):
    if not _known(found, "rate"):
        return [
            "The encoder is deterministic: posteriors have no width, the rate is infinite, and "
            "there is no bound on the likelihood.",
            "A Wasserstein auto-encoder is so by design and matches its codes as a whole: here "
            f"their moments are {found.value('moment_divergence'):.2f} nats from the prior's (a "
            f"hole from {_hole_limit(found):.2g} on).",
        ]
    weight = found.value("implied_weight")
    if not weight < LIGHT_WEIGHT or not _explained(found) or not _gains(found):
        return []
    evidence = [
        f"Posteriors are as narrow as under a KL weight of {weight:.2g} (1 for the bound; light "
        f"below {LIGHT_WEIGHT}).",
        *_gain_evidence(found),
    ]
    if not _known(found, "mutual_information"):
        return evidence
    limit = found.estimates["mutual_information"].count
    if found.value("mutual_information") > AT_LIMIT * math.log(limit):
        evidence.append(
            f"The information, {found.value('mutual_information'):.2f} nats, is at its limit "
            f"log {limit} = {math.log(limit):.2f}; the rate is {found.value('rate'):.1f} nats."
        )
    return evidence


def _prior_hole(found):
    apart = found.value("moment_divergence")
    rate = found.value("rate")
    outside = found.value("outside")
    share = apart / rate if rate > 0 else math.nan
    by_moments = apart > _hole_limit(found) and not share < HOLE_SHARE
    if not by_moments and not outside > HOLE_OUTSIDE:
        return []
    scale = np.sqrt(found.arrays["prior_variance"])
    shift = (found.arrays["mean_of_means"] - found.arrays["prior_mean"]) / scale
    ratio = found.arrays["aggregate_variance"] / found.arrays["prior_variance"]
    worst = int(np.argmax(np.abs(shift) + np.abs(np.log(np.maximum(ratio, 1e-12)))))
    evidence = [
        f"Mean and covariance of the aggregate posterior alone are {apart:.2f} nats from the "
        f"prior's (a hole from {_hole_limit(found):.2g} nats and {HOLE_SHARE:.0%} of the rate on).",
        f"Worst is dimension {worst}: center {shift[worst]:+.2f} prior standard deviations off, "
        f"variance {ratio[worst]:.2g} of the prior's.",
    ]
    if not math.isnan(outside):
        evidence.append(
            f"{outside:.0%} of prior draws fall where codes are less dense than around 99% of the "
            f"codes themselves (1% if both agreed; a hole from {HOLE_OUTSIDE:.0%} on)."
        )
    return evidence


def _over_regularized(found):
    weight = found.value("implied_weight")
    if not weight > HEAVY_WEIGHT or not _explained(found) or not _gains(found):
        return []
    return [
        f"Posteriors are as wide as under a KL weight of {weight:.2g} (1 for the bound; heavy "
        f"above {HEAVY_WEIGHT}).",
        f"The rate is {_nats(found, 'rate')}; at weight 1 the same decoder would reach "
        f"{found.value('rate_after'):.2f} nats.",
        *_gain_evidence(found),
    ]


def _lagging_encoder(found):
    evidence = _gain_evidence(found, LAG_SHARE)
    worth = LAG_OF_WORTH * found.value("gap_shuffled")
    by_weight = _known(found, "implied_weight") and _explained(found)
    if not evidence or (found.value("refinement_gain") < worth and not by_weight):
        return []
    if _known(found, "implied_weight"):
        explained = found.estimates["implied_weight"].extra["explained"]
        evidence.append(
            f"A different KL weight explains {explained:.0%} of the mismatch (to be blamed from "
            f"{EXPLAINED:.0%} on)."
        )
    if found.value("gap_shuffled") < 0:
        evidence.append("Another example's code even suits the decoder better than the own one.")
    return evidence


def _partial_collapse(found):
    kinds = dimensions(found)
    size = len(found.arrays["capacity"])
    # With none left it is a fault of another name.
    if not kinds["collapsed"] or not kinds["active"]:
        return []
    evidence = [f"{len(kinds['collapsed'])} of {size} latent dimensions are not in use."]
    if kinds["silent"]:
        evidence.append(
            f"Silent: {_list(kinds['silent'])}. Var(mean_d) < {INACTIVE_VARIANCE} and less than "
            f"{SILENT_CAPACITY} nats each{_paid(found, kinds['silent'])}."
        )
    if kinds["unread"]:
        evidence.append(
            f"Unread: {_list(kinds['unread'])}. They are informative, but exchanging one for "
            f"another example's moves log p(x|z) by less than {UNREAD} nats"
            f"{_paid(found, kinds['unread'])}."
        )
    if presses(found):
        weight = found.value("implied_weight")
        evidence.append(
            f"The widths of the posteriors imply a KL weight of {weight:.2g} (1 for the bound, "
            f"suspect above {PRESSING_WEIGHT}): the weight may have collapsed them."
        )
    return evidence


def _paid(found, dimensions):
    if "kl_per_dimension" not in found.arrays:
        return ""
    paid = np.sum(found.arrays["kl_per_dimension"][dimensions])
    return f"; their KL adds up to {paid:.2f} nats"


def _information(found):
    """The information about x in nats, or what is known of it without a density of all codes."""
    if _known(found, "mutual_information"):
        return found.value("mutual_information")
    limit = math.log(found.estimates["gap_shuffled"].count)
    if not _known(found, "rate"):
        # Codes of a deterministic encoder are all different.
        return limit
    # Never more than the rate; nor, about, than the dimensions carry as Gaussian channels.
    return min(limit, found.value("rate"), float(np.sum(found.arrays["capacity"])))


def presses(found: Measurements) -> bool:
    """Returns whether the KL weight may have pressed dimensions out."""
    weight, error = found.value("implied_weight"), found.error("implied_weight")
    return weight - GAIN_ERRORS * error > PRESSING_WEIGHT and _explained(found)


def _known(found, name):
    return math.isfinite(found.value(name))


def decoder_reads(found: Measurements) -> bool:
    """Returns whether the likelihood depends on whose code the decoder is given."""
    return found.value("sensitivity") > EMPTY_INFORMATION


def _explained(found):
    return found.estimates["implied_weight"].extra["explained"] >= EXPLAINED


def _hole_limit(found):
    return max(HOLE_NATS, HOLE_NATS_PER_DIMENSION * len(found.arrays["capacity"]))


def _gain_limit(found, share):
    least = share * max(found.value("rate_after"), 0.0)
    return max(GAIN_NATS, least, GAIN_ERRORS * found.error("refinement_gain"))


def _gains(found, share=GAIN_SHARE):
    if not _known(found, "refinement_gain"):
        return False
    return found.value("refinement_gain") > _gain_limit(found, share)


def _gain_evidence(found, share=GAIN_SHARE):
    if not _gains(found, share):
        return []
    steps = found.estimates["refinement_gain"].settings["steps"]
    limit = _gain_limit(found, share)
    return [
        f"{steps} gradient steps on each posterior alone raise the bound by "
        f"{_nats(found, 'refinement_gain')} (threshold {limit:.2f}) and take the rate from "
        f"{found.value('rate_before'):.2f} to {found.value('rate_after'):.2f}."
    ]


def _nats(found, name):
    error = found.error(name)
    return f"{found.value(name):.2f}" + (f" +- {error:.2f}" if error else "") + " nats"


def _list(indices, most=12):
    """Dimensions in short: runs as ranges."""
    indices, runs = [int(index) for index in indices], []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    parts = [f"{a}" if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in runs]
    return ", ".join(parts[:most]) + (", ..." if len(parts) > most else "")
