"""From measurements to causes: each a rule with its measurement, its threshold and a remedy.

All thresholds stand here, each with the reason for it. Verdicts name what is seen, in `rules`;
causes name what to blame for it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from . import rules
from .remedies import Remedy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .measure import Measurements
    from .reference import Reference
    from .rules import Finding

#: Data of fewer distinct rows than half are mostly repetitions: a model can learn them by heart.
DISTINCT_SHARE = 0.5
#: A hundredth of the rows is further from all that were trained on than 99% of those from each
#: other, if both are of one kind; a quarter is not chance.
STRANGE_SHARE = 0.25
#: Outputs of networks without a limit never repeat a value; a hundredth of exact zeros, or of
#: values at the largest or smallest one, is cut off there.
CUT_SHARE = 0.01
#: Means of a code that uses a dimension lie on both sides of 0, to 3 standard deviations among
#: hundreds; a tanh or a sigmoid ends them at 1. From that spread on a dimension is in use.
USED_SPREAD = 0.15
#: Noise of an encoder in inference, in standard deviations of its own posterior; and of a decoder,
#: as a share of its outputs' size. Rounding leaves a thousandth.
NOISE = 0.02
#: Batch normalization in inference is off if its moving means are further from a batch's than half
#: a standard deviation, or its variances by a factor of 2. A momentum of 0.99 that has had 500
#: steps leaves a hundredth of the first values.
SHIFTED_STATISTICS, SCALED_STATISTICS = 0.5, math.log(2.0)
#: Nats by which another reading of the outputs must be better, beside three standard errors: what
#: two models of one kind differ in by their seeds alone.
READING_NATS = 1.0
#: Outputs that move less than this share of their size, whatever z or x, do not depend on it: a
#: network that was trained to ignore its input still moves by a thousandth.
BLIND = 1e-6
#: A weight "near" a number of values is within a third of it.
NEAR = 1.0 / 3.0
#: Posteriors that no gradient narrowed keep the prior's variance to within a tenth, and their means
#: use at least this variance; draws then cost the likelihood more than the half nat of a dimension
#: that the bound allows for, by this factor.
UNTOUCHED_VARIANCE, LOST_FACTOR = 0.1, 2.0
#: Gain of the bound by a hundred further steps, as a share of what a trained model is still moving
#: by (a tenth of a nat each hundred steps at a tenth of the rate): one nat and three errors.
FURTHER_NATS = 1.0
#: A code pays if the reference model's bound is above that without any by so much, in nats, beside
#: three standard errors; and its code is empty below the information that `rules` asks for.
PAYS = 0.2
#: Dimensions that carry more nats each than this resolve twelve values of the prior's range: more
#: dimensions would hold the same for less.
FULL_DIMENSION = 1.2
#: Dimensions that have not collapsed by the letter, since a training was short or knows its rows by
#: heart, are spare all the same if each carries less than what is an empty code, and they are most
#: of the code with little of its information: less than half. Pinned gains, which spread a code
#: over all dimensions, leave most of it to such ones.
MOST, LITTLE = 0.5, 0.5
#: Gains of batch normalization on the means from which on they fill the prior: with a variance of
#: 0.8 and more, what is left to 1 is the posteriors' own.
FULL_GAIN = 0.9
#: Nats of rate below which the weight of the KL cannot be read off the posteriors.
FAINT_RATE = 0.01
_ERRORS = 3.0
#: Order of the causes before their gains: what spoils the data or all measurements; what is plainly
#: wrong with a network; the loss; how it was trained; the size of the code.
_SPOILT, _BROKEN, _LOSS, _TRAINED, _SIZE = range(5)
#: The bound as a loss, in the terms of any framework.
_LOSS_CODE = "loss = summed_over_values + beta * kl_summed_over_dimensions  # beta=1.0"

TITLES = {
    "data_not_finite": "The data hold NaN or infinity",
    "data_range": "The data do not fit the likelihood's range",
    "data_constant": "All examples are the same",
    "data_duplicated": "Most examples are repetitions",
    "data_shift": "The examples are unlike those that were trained on",
    "data_large": "The data are not scaled",
    "nothing_to_encode": "There is nothing to encode",
    "likelihood_scale": "The likelihood's scale does not fit the residuals",
    "mean_instead_of_sum": "The reconstruction is averaged where the bound sums",
    "logits_and_probabilities": "Logits and probabilities are mixed up",
    "mean_limited": "The posterior means are limited",
    "log_var_limited": "The log variances are limited",
    "log_var_is_deviation": "The encoder's second output is no log variance",
    "encoder_constant": "The encoder does not look at x",
    "noise_left_on": "Noise or dropout stays on in inference",
    "batch_statistics": "Batch normalization differs between training and inference",
    "diverged": "The training diverged",
    "kl_weight_heavy": "The KL is charged more than once",
    "gain_small": "Batch normalization holds the code below what pays",
    "kl_weight_light": "The KL is charged less than once",
    "kl_incomplete": "A term of the KL is missing",
    "trained_without_sampling": "The model was trained without sampling",
    "annealing_not_ended": "The KL's weight never reached its end",
    "decoder_untrained": "The decoder was never trained",
    "encoder_untrained": "The encoder was never trained",
    "encoder_behind": "The encoder stopped following the decoder",
    "stopped_early": "The training stopped early",
    "decoder_without_z": "The decoder can do without z",
    "code_too_wide": "The code has more dimensions than the data use",
    "code_too_narrow": "The code is too narrow",
    "prior_mismatch": "The codes do not meet the prior",
}


@dataclasses.dataclass(frozen=True)
class Cause:
    """What to blame.

    Attributes:
        name: Machine-readable name, a key of `TITLES`.
        evidence: Sentences with the measurements and their thresholds.
        remedy: `Remedy`.
        gain: Nats that its removal would gain, as far as that can be said, or None.
        verdict: Verdict that it stands for where no other fault is found, or None.
        rank: Int; causes of a lower one come first, whatever they gain.
    """

    name: str
    evidence: tuple
    remedy: Any
    gain: float | None = None
    verdict: str | None = None
    rank: int = _LOSS

    @property
    def title(self) -> str:
        """The name as a person reads it."""
        return TITLES[self.name]


def causes(
    found: Measurements, findings: Sequence[Finding], reference: Reference | None
) -> tuple[Cause, ...]:
    """The causes that hold, first those whose removal gains most.

    Args:
        found: `Measurements`.
        findings: The faults that `rules` found.
        reference: `Reference`, or None.
    """
    names = {finding.name for finding in findings}
    held = [cause for rule in _RULES for cause in rule(found, names, reference)]
    if names & _SCALES:
        # What the scale brings along has no cause of its own.
        held = [c for c in held if c.rank < _LOSS or c.name == "likelihood_scale"]
    order = sorted(
        enumerate(held), key=lambda pair: (pair[1].rank, -(pair[1].gain or 0.0), pair[0])
    )
    return tuple(cause for _, cause in order)


# -- data --------------------------------------------------------------------------------------


def _data(found, names, reference):
    facts = found.facts
    lost = facts.get("rows_not_finite")
    if lost is not None and len(lost):
        shown = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
        yield Cause(
            "data_not_finite",
            (
                f"{len(lost)} of {facts['rows']} examples hold NaN or infinity: rows {shown}. They "
                "were left out here; one of them in a batch makes every weight NaN.",
            ),
            Remedy(
                "Drop the rows that are not finite",
                "A loss on one of them is NaN, and so are all weights from then on.",
                "x = x[np.isfinite(x).reshape(len(x), -1).all(axis=1)]",
            ),
            verdict="unfit_data",
            rank=_SPOILT,
        )
    if facts.get("unfit"):
        low, high = facts["low"], facts["high"]
        yield Cause(
            "data_range",
            (facts["unfit"], f"The values run from {low:.4g} to {high:.4g}."),
            Remedy(
                "Bring the data to the range of the likelihood, or take a Gaussian one",
                "A Bernoulli likelihood is one of values in [0, 1]: beyond them its loss has no "
                "minimum.",
                "x = x / 255.0" if high > 100.0 else "x = (x - x.min()) / (x.max() - x.min())",
            ),
            verdict="unfit_data",
            rank=_SPOILT,
        )
    distinct = facts.get("distinct")
    if distinct is not None and facts["rows_compared"] > 2:
        share = distinct / facts["rows_compared"]
        if distinct == 1:
            yield Cause(
                "data_constant",
                (f"All {facts['rows_compared']} examples are the same: no code can tell them.",),
                Remedy(
                    "Look at what loads the data",
                    "Every example is the same one, so that an empty code is right.",
                    "assert len(np.unique(x.reshape(len(x), -1), axis=0)) > len(x) // 2",
                ),
                verdict="unfit_data",
                rank=_SPOILT,
            )
        elif share < DISTINCT_SHARE:
            yield Cause(
                "data_duplicated",
                (
                    f"Of {facts['rows_compared']} examples only {distinct} differ (repetitions "
                    f"from {1 - DISTINCT_SHARE:.0%} on): the code need not tell more than "
                    f"{math.log(distinct):.2f} nats.",
                ),
                Remedy(
                    "Drop the repetitions",
                    "They count as evidence that they are not, and held-out rows were trained on.",
                    "x = np.unique(x, axis=0)",
                ),
                rank=_BROKEN,
            )
    strange = facts.get("strange")
    if strange is not None and strange > STRANGE_SHARE:
        yield Cause(
            "data_shift",
            (
                f"{strange:.0%} of the examples are further from every one that was trained on "
                f"than 99% of those are from each other (1% if both were alike; other data from "
                f"{STRANGE_SHARE:.0%} on).",
            ),
            Remedy(
                "Prepare the examples as those that were trained on",
                "Another scale, sign or order of values is another kind of data.",
                "x = prepare(x)  # as before `fit`: the same scale, sign and order of values",
            ),
            verdict="unfit_data",
            rank=_SPOILT,
        )
    broken = bool(facts.get("weights_not_finite"))
    by_scale = names & _SCALES
    if "large inputs" in found.traits and (broken or (names & _OF_LARGE_INPUTS and not by_scale)):
        yield Cause(
            "data_large",
            (
                f"The values run from {facts['low']:.3g} to {facts['high']:.3g}. Networks start "
                "from values of order 1.",
            ),
            Remedy(
                "Standardize the data, whatever the likelihood's scale",
                "Networks are initialized for values of order 1; with larger inputs the codes "
                "start far from the prior, and need many more epochs.",
                # Pixels of a border have no spread.
                "x = (x - x.mean(0)) / (x.std(0) + 1e-6)",
            ),
            rank=_BROKEN,
        )


_OF_LARGE_INPUTS = {
    "variance_blow_up",
    "prior_hole",
    "lagging_encoder",
    "under_regularized",
}
_SCALES = {"scale_too_large", "scale_too_small"}


def _nothing(found, names, reference):
    if reference is None or pays(reference) or not _empty(names):
        return
    yield Cause(
        "nothing_to_encode",
        (
            f"An ordinary VAE on the same data does not do better with its code either: its bound "
            f"on held-out rows is {reference.gain:+.2f} +- {reference.error:.2f} nats from that of "
            "independent values.",
        ),
        Remedy(
            "Leave it: an empty code is right for these data",
            "No model can gain by a code whose values depend on nothing that they share.",
            "# look at other data, or at more of each example",
        ),
        rank=_BROKEN,
    )


def pays(reference: Reference) -> bool:
    """Whether a code pays for itself on the data of a `Reference`."""
    return reference.gain > max(PAYS, _ERRORS * reference.error)


def _empty(names):
    return bool(names & {"full_collapse", "decoder_ignores_z"})


# -- likelihood --------------------------------------------------------------------------------


def _outputs(found, names, reference):
    if found.value("other_outputs") > max(READING_NATS, _ERRORS * found.error("other_outputs")):
        taken = found.facts["taken_for"]
        other = "logits" if taken == "probabilities" else "probabilities"
        gain = found.value("other_outputs")
        loss = (
            "the decoder ends in a sigmoid, and the loss applies another one"
            if taken == "probabilities"
            else "the decoder has no sigmoid, and the loss expects one"
        )
        yield Cause(
            "logits_and_probabilities",
            (
                f"Taken for {taken}, which their values suggest, the decoder's outputs give a "
                f"log p(x|z) that is {gain:.2f} +- {found.error('other_outputs'):.2f} nats lower "
                f"than as {other}: {loss}.",
            ),
            Remedy(
                "Make loss and decoder agree on logits",
                "A loss on logits needs a decoder without a sigmoid: values in [0, 1] taken for "
                "logits can say no more than 0.5 to 0.73.",
                "Dense(values)(h) and binary_crossentropy(x, y, from_logits=True)",
            ),
            gain,
            "misread_outputs",
            _BROKEN,
        )


def _scale(found, names, reference):
    scale, residual = found.value("likelihood_scale"), found.value("residual_scale")
    if not math.isfinite(scale) or "matches codes" in found.traits:
        return
    # Of a Gaussian at its optimal scale, given the same residuals.
    ratio = max(residual, 1e-9) / scale
    gain = found.facts.get("values", 1) * (0.5 * ratio**2 - 0.5 - math.log(ratio))
    large = scale > rules.SCALE_FACTOR * residual
    small = residual > rules.SCALE_FACTOR**2 * scale and not _empty(names)
    if not names & {"scale_too_large", "scale_too_small"} and not (large or small):
        return
    word = "above" if ratio < 1.0 else "below"
    yield Cause(
        "likelihood_scale",
        (
            f"The scale {scale:.3g} is {word} that of the residuals, {residual:.3g}: at that scale "
            f"the same reconstructions have {gain:.1f} nats more, and the KL weighs "
            f"{ratio**2:.3g} times what it does now.",
        ),
        _scale_remedy(found),
        gain,
        "scale_too_large" if large else "scale_too_small" if small else None,
        _LOSS,
    )


def _scale_remedy(found):
    optimal = f"{found.value('residual_scale'):.2g}"
    if "foreign" in found.traits:
        return Remedy(
            f"Divide the squared error by 2 * {optimal}^2, the variance of the residuals",
            "That is a Gaussian likelihood of the optimal scale; take the variance of each batch's "
            "residuals, and it follows them as they shrink.",
            "variance = stop_gradient(mean((x - x_mean) ** 2)); "
            "loss = sum((x - x_mean) ** 2) / (2 * variance) + kl",
            change={"scale": "optimal"},
        )
    size = len(found.arrays["capacity"])
    return Remedy(
        f"Let the likelihood have the scale of the residuals, now {optimal}",
        "The maximum-likelihood scale of each batch takes no tuning and follows the residuals as "
        "they shrink.",
        f"zoo.VAE(encoder, decoder, latent_dim={size}, "
        'likelihood=layers.Gaussian(scale="optimal"))',
        change={"scale": "optimal"},
    )


# -- what the encoder gives out ----------------------------------------------------------------


def _encoder(found, names, reference):
    facts = found.facts
    if facts.get("noise_in_encoder", 0.0) > NOISE or facts.get("noise_in_decoder", 0.0) > NOISE:
        part = "encoder" if facts.get("noise_in_encoder", 0.0) > NOISE else "decoder"
        said = (
            f"the same rows, encoded twice in inference, have means "
            f"{facts['noise_in_encoder']:.2g} posterior standard deviations apart"
            if part == "encoder"
            else f"the same codes, decoded twice, differ by {facts['noise_in_decoder']:.1%}"
        )
        yield Cause(
            "noise_left_on",
            (f"The {part} is not deterministic: {said} (0 without noise; threshold {NOISE}).",),
            Remedy(
                "Switch dropout and noise off in inference",
                "Codes then tell less than the encoder knows, and the posteriors are wider than it "
                "says.",
                "Dropout(rate)(h)  # without training=True: Keras switches it on in `fit`",
            ),
            verdict="inference_differs",
            rank=_BROKEN,
        )
    statistics = facts.get("statistics")
    if statistics and (statistics[1] > SHIFTED_STATISTICS or statistics[2] > SCALED_STATISTICS):
        yield Cause(
            "batch_statistics",
            (
                f"The moving means of {statistics[0]} are {statistics[1]:.2g} standard deviations "
                f"from those of a batch, and its variances off by a factor of "
                f"{math.exp(min(statistics[2], 50.0)):.3g} (thresholds {SHIFTED_STATISTICS} and "
                f"{math.exp(SCALED_STATISTICS):g}): in inference the network is another one than "
                "in training.",
            ),
            Remedy(
                "Let the moving statistics arrive",
                "They are averages over 1 / (1 - momentum) steps: with 0.99 over a hundred.",
                "BatchNormalization(momentum=0.9), or train for more steps",
            ),
            verdict="inference_differs",
            rank=_BROKEN,
        )
    mean, log_var = facts.get("mean"), facts.get("log_var")
    if mean is None:
        return
    size = max(abs(mean["low"]), abs(mean["high"]), 1e-3)
    if mean["spread"] < BLIND * size and log_var["spread"] < BLIND * 10:
        yield Cause(
            "encoder_constant",
            (
                f"Its outputs are equal for every x: the means differ by {mean['spread']:.1g}, the "
                f"log variances by {log_var['spread']:.1g}.",
            ),
            Remedy(
                "Look at how x comes into the encoder",
                "No weight of the KL makes outputs exactly equal: x does not reach them, or all "
                "units of a layer are dead.",
                "encoder = keras.Model(x, [z_mean, z_log_var])  # of Dense(...)(Flatten()(x))",
            ),
            verdict="full_collapse",
            rank=_BROKEN,
        )
        return
    if "foreign" in found.traits:
        # Heads of the zoo may limit both by design, as that of a delta-VAE does.
        yield from _second_output(found)
        yield from _limited_mean(mean)


def _second_output(found):
    log_var = found.facts.get("log_var")
    if log_var is None or log_var["low"] < 0.0:
        return
    if log_var["spread"] < BLIND and log_var["zeros"] < CUT_SHARE:
        return
    better = {
        name: found.value(f"as_{name}")
        for name in ("deviation", "variance")
        if found.value(f"as_{name}") > max(READING_NATS, _ERRORS * found.error(f"as_{name}"))
    }
    if better and log_var["zeros"] < CUT_SHARE:
        name = max(better, key=better.__getitem__)
        word = {"deviation": "standard deviation", "variance": "variance"}[name]
        code = {
            "deviation": "z_log_var = 2.0 * ops.log(z_deviation)",
            "variance": "z_log_var = ops.log(z_variance)",
        }[name]
        yield Cause(
            "log_var_is_deviation",
            (
                f"The second output is never negative (it runs from {log_var['low']:.3g} to "
                f"{log_var['high']:.3g}). Taken for a {word} it gives a bound that is "
                f"{better[name]:.2f} +- {found.error(f'as_{name}'):.2f} nats higher than as a log "
                "variance.",
            ),
            Remedy(
                f"Hand over the log variance, not the {word}",
                "The encoder must return (mean, log_var); and a KL that takes one for the other is "
                "another loss.",
                code,
            ),
            better[name],
            "misread_outputs",
            _BROKEN,
        )
        return
    cut = log_var["zeros"] > CUT_SHARE
    yield Cause(
        "log_var_limited",
        (
            f"The log variances are never negative: they run from {log_var['low']:.3g} to "
            f"{log_var['high']:.3g}"
            + (f", and {log_var['zeros']:.0%} are exactly 0" if cut else "")
            + ". No posterior can be narrower than the prior, so codes cannot be precise.",
        ),
        Remedy(
            "Take the activation off the log variances",
            "A log variance is any number; a relu, softplus or sigmoid keeps it above 0.",
            "z_log_var = Dense(latent_dim)(h)  # no activation",
            change={"unlimited": True},
        ),
        verdict="limited_encoder",
        rank=_BROKEN,
    )


def _limited_mean(mean):
    used = mean["spreads"] > USED_SPREAD
    zeros = mean["zeros"] > CUT_SHARE
    one_sided = mean["low"] >= 0.0 or mean["high"] <= 0.0
    ends = False
    if np.any(used):
        largest = np.maximum(mean["highs"], -mean["lows"])[used]
        ends = bool(np.all(largest <= 1.0) and np.median(largest) > 0.9)
    if not (zeros or ends or (one_sided and np.any(used))):
        return
    said = [f"They run from {mean['low']:.3g} to {mean['high']:.3g}"]
    if zeros:
        said.append(f"{mean['zeros']:.0%} are exactly 0")
    if one_sided:
        said.append("and all lie on one side of 0")
    elif ends:
        said.append("and every dimension in use ends at 1")
    yield Cause(
        "mean_limited",
        (", ".join(said) + ". The prior draws beyond, where no code lies.",),
        Remedy(
            "Take the activation off the means",
            "Means are any numbers; a relu leaves them on one side of 0, a tanh or sigmoid within "
            "1, and the prior is not met.",
            "z_mean = Dense(latent_dim)(h)  # no activation",
            change={"unlimited": True},
        ),
        verdict="limited_encoder",
        rank=_BROKEN,
    )


# -- training ----------------------------------------------------------------------------------


def _weights(found, names, reference):
    bad = found.facts.get("weights_not_finite")
    if bad or found.value("not_finite") > 0 or found.value("not_finite_log_px") > 0:
        said = (
            f"{len(bad)} weights hold NaN or infinity, {bad[0]} among them"
            if bad
            else "The outputs are not finite"
        )
        yield Cause(
            "diverged",
            (f"{said}: a step was too large, or a batch held NaN.",),
            Remedy(
                "Lower the learning rate, and clip gradients",
                "One large step through exp(log_var) makes every weight NaN; so does one row of "
                "the data that is not finite.",
                "model.compile(optimizer=keras.optimizers.Adam(1e-4, clipnorm=1.0))",
                change={"rate": 0.1, "clip": 1.0},
            ),
            verdict="variance_blow_up",
            rank=_BROKEN,
        )
    for name in found.facts.get("untouched", ()):
        yield Cause(
            f"{name}_untrained",
            (
                f"All biases of the {name} are exactly 0, their first value: no step of training "
                "has moved them.",
            ),
            Remedy(
                f"Train the {name}",
                "Its weights are not among those that the optimizer moves.",
                f"{name}.trainable = True  # before compile, and part of the model that is fitted",
            ),
            verdict="lagging_encoder",
            rank=_BROKEN,
        )


def _weight_of_kl(found, names, reference):
    if "matches codes" in found.traits:
        return
    weight, error = found.value("implied_weight"), found.error("implied_weight")
    final, now = found.facts.get("beta_final"), found.facts.get("beta")
    if final is not None and now is not None and now < rules.LIGHT_WEIGHT * final:
        yield Cause(
            "annealing_not_ended",
            (
                f"The schedule of the KL's weight ends at {final:g}, and training left it at "
                f"{now:.3g}.",
            ),
            Remedy(
                "Train until the weight is at its end, or let it rise faster",
                "What it is until then is no bound: codes are wider apart than the prior allows.",
                "objective=losses.ELBO(losses.LinearSchedule(steps))  # fewer than are trained",
                change={"beta": 1.0, "ramp": 0.2},
            ),
            rank=_LOSS,
        )
    if now is not None and now > rules.PRESSING_WEIGHT and names & _HEAVY:
        yield Cause(
            "kl_weight_heavy",
            (
                f"The objective charges the KL {now:.3g} times (1 for the bound, heavy above "
                f"{rules.PRESSING_WEIGHT}).",
            ),
            Remedy(
                f"Charge the KL once: divide its weight by {now:.2g}",
                "Each nat of code must then gain only one nat of likelihood to stay.",
                _beta_code(found),
                change={"beta": 1.0},
            ),
            rank=_LOSS,
        )
        return
    size = found.facts.get("values", 1)
    unsampled = _unsampled(found)
    if unsampled is not None:
        yield unsampled
    gain = found.value("refinement_gain")
    further = found.value("further_gain")
    gains = max((g for g in (gain, further) if math.isfinite(g)), default=None)
    # Where the rate is a hundredth of a nat, gradients on it are those of chance.
    known = math.isfinite(weight) and not found.value("rate") < FAINT_RATE
    incomplete = _incomplete(found)
    if incomplete is not None and unsampled is None:
        yield incomplete
        return
    if (
        unsampled is None
        and known
        and weight - _ERRORS * error > rules.PRESSING_WEIGHT
        and (weight > rules.HEAVY_WEIGHT or rules.presses(found))
        and (names & _HEAVY)
    ):
        if _holds(found):
            yield _pinned(found, weight, error, gains)
        else:
            yield from _heavy(found, weight, error, size, gains)
    elif (
        _empty(names)
        and _sound(found)
        and (_escapes(found) or (reference is not None and pays(reference)))
        and "scale_too_large" not in names
    ):
        yield from _hidden_weight(found, size, reference)
    if known and weight + _ERRORS * error < rules.LIGHT_WEIGHT and (names & _LIGHT or not names):
        yield from _light(found, weight, error, gains)


_HEAVY = {
    "full_collapse",
    "over_regularized",
    "partial_collapse",
    "decoder_ignores_z",
    "lagging_encoder",
    "scale_too_large",
}
_LIGHT = {"under_regularized", "prior_hole", "variance_blow_up", "lagging_encoder"}


def _is_near(weight, number):
    return abs(math.log(max(weight, 1e-9) / number)) < math.log(1.0 + NEAR)


def _heavy(found, weight, error, size, gain):
    gaussian = "likelihood_scale" in found.estimates
    averaged = [n for n in ((size, size / 2.0) if gaussian else (size,)) if _is_near(weight, n)]
    if averaged and size > 8:
        yield Cause(
            "mean_instead_of_sum",
            (
                f"The posteriors are as wide as under a KL weight of {weight:.3g} +- {error:.2g}, "
                f"and an example has {size} values: the reconstruction was averaged over them, "
                "not summed.",
            ),
            _sum_remedy(size),
            gain,
            rank=_LOSS,
        )
        return
    yield Cause(
        "kl_weight_heavy",
        (
            f"The posteriors are as wide as under a KL weight of {weight:.3g} +- {error:.2g} (1 "
            f"for the bound, heavy above {rules.PRESSING_WEIGHT}).",
        ),
        Remedy(
            f"Charge the KL once: divide its weight by {weight:.2g}",
            "Each nat of code must then gain only one nat of likelihood to stay.",
            _LOSS_CODE if "foreign" in found.traits else _beta_code(found),
            change={"beta": 1.0},
        ),
        gain,
        rank=_LOSS,
    )


def _holds(found):
    """Whether batch normalization holds the means below the size that the prior has room for."""
    return found.facts.get("gain", math.inf) < FULL_GAIN


def _pinned(found, weight, error, gain):
    held, size = found.facts["gain"], len(found.arrays["capacity"])
    return Cause(
        "gain_small",
        (
            f"The means are held at a size of {held:g}, where the prior has room for more (small "
            f"below {FULL_GAIN:g}): the posteriors are as wide as under a KL weight of "
            f"{weight:.3g} +- {error:.2g}.",
        ),
        Remedy(
            f"Raise the gain of batch normalization from {held:g} to 1",
            "Means of size 1 are as far apart as the prior allows; their rate may then be larger.",
            f"zoo.DUVAE(encoder, decoder, latent_dim={size}, gamma=1.0)",
            change={"gamma": 1.0},
        ),
        gain,
        rank=_LOSS,
    )


def _beta_code(found):
    size = len(found.arrays["capacity"]) if "capacity" in found.arrays else 32
    return f"zoo.BetaVAE(encoder, decoder, latent_dim={size}, beta=1.0)"


def _sum_remedy(size):
    return Remedy(
        f"Sum the reconstruction over the {size} values of an example",
        f"Averaged, it weighs {size} times less against the KL than in the bound.",
        "loss = ops.sum(values, axis=event_axes) + kl, averaged over the batch alone",
        change={"beta": 1.0},
    )


def _sound(found):
    """Whether both networks have been trained, and look at what they are given."""
    mean, moved = found.facts.get("mean"), found.facts.get("decoder_moved")
    constant = mean is not None and mean["spread"] < BLIND
    blind = moved is not None and moved < BLIND
    untouched = found.facts.get("untouched") or "autoregressive" in found.traits
    return not (constant or blind or untouched)


def _escapes(found):
    """Whether further training on the plain bound brings the code up again."""
    gain, error = found.value("further_gain"), found.error("further_gain")
    rate = found.value("further_rate") - found.value("rate_then")
    return gain > max(0.3, _ERRORS * error) and rate > 0.2


def _hidden_weight(found, size, reference):
    """A loss that charges the KL more than once, where nothing else explains the collapse."""
    gain = None
    if _escapes(found):
        gain = found.value("further_gain")
        said = (
            f"A hundred further steps on the bound itself raise it by {gain:.2f} +- "
            f"{found.error('further_gain'):.2f} nats and bring {found.value('further_rate'):.2f} "
            "nats of code back: the loss that was trained on is another one than the bound."
        )
    else:
        gain = reference.gain
        said = (
            "Encoder and decoder do look at their inputs, and on these data a code pays for itself "
            f"({reference.gain:.2f} +- {reference.error:.2f} nats in an ordinary VAE): the loss "
            "charges the KL more than it is worth."
        )
    first = _is_near(found.value("implied_weight"), size)
    averaged = Cause(
        "mean_instead_of_sum",
        (
            f"An example has {size} values: a reconstruction averaged over them is such a loss"
            + (
                f", and the posteriors imply a KL weight of {found.value('implied_weight'):.3g}."
                if first
                else "."
            ),
        ),
        _sum_remedy(size),
        gain * (1.01 if first else 0.99),
        rank=_LOSS,
    )
    yield Cause(
        "kl_weight_heavy",
        (said,),
        Remedy(
            "Charge the KL once, against a reconstruction that is summed",
            f"Averaged over {size} values, the reconstruction weighs {size} times less than in the "
            "bound.",
            _LOSS_CODE if "foreign" in found.traits else _beta_code(found),
            change={"beta": 1.0},
        ),
        gain,
        rank=_LOSS,
    )
    if "foreign" in found.traits:
        yield averaged


def _light(found, weight, error, gain):
    size = len(found.arrays["capacity"])
    averaged = size > 1 and _is_near(weight, 1.0 / size)
    said = (
        f"The posteriors are as narrow as under a KL weight of {weight:.2g} +- {error:.1g} (1 for "
        f"the bound, light below {rules.LIGHT_WEIGHT})"
    )
    if averaged:
        said += f": near 1 / {size}, as if the KL were averaged over its {size} dimensions"
    elif weight < 0.02:
        said += ": it is missing from the loss"
    yield Cause(
        "kl_weight_light",
        (said + ".",),
        Remedy(
            "Charge the KL at weight 1"
            + (", summed over the dimensions" if averaged or weight < 0.02 else ""),
            "Samples from the prior and the likelihood are valid only then.",
            _LOSS_CODE
            if "foreign" in found.traits
            else f"zoo.VAE(encoder, decoder, latent_dim={size}, objective=losses.ELBO(beta=1.0))",
            change={"beta": 1.0},
        ),
        gain,
        rank=_LOSS,
    )


def _unsampled(found):
    """Posteriors with the prior's width around means that differ: no noise was ever seen."""
    if "mean" not in found.facts or "posterior_variance" not in found.arrays:
        return None
    if found.facts["log_var"]["low"] >= 0.0:
        # An activation keeps them wide.
        return None
    spread = found.arrays["variance_of_means"]
    used = spread > rules.INACTIVE_VARIANCE
    if not np.any(used):
        return None
    variances = found.arrays["posterior_variance"][used]
    untouched = np.abs(np.log(np.maximum(variances, 1e-12))) < UNTOUCHED_VARIANCE
    lost, error = found.value("lost_to_noise"), found.error("lost_to_noise")
    allowed = 0.5 * float(np.sum(used))
    if not np.all(untouched) or not lost - _ERRORS * error > LOST_FACTOR * allowed:
        return None
    return Cause(
        "trained_without_sampling",
        (
            f"log p(x|z) is {lost:.2f} +- {error:.2f} nats higher at the posterior means than at "
            f"draws (about {allowed:.1f} at most for a model that has seen draws), and the "
            f"posteriors of the {int(np.sum(used))} dimensions in use have the prior's variance: "
            "no gradient has narrowed them.",
        ),
        Remedy(
            "Decode draws, not means, in training",
            "Only noise that the decoder sees tells the encoder how precise a code must be.",
            "z = z_mean + ops.exp(0.5 * z_log_var) * keras.random.normal(ops.shape(z_mean))",
            change={"sample": True, "beta": 1.0},
        ),
        lost,
        "lagging_encoder",
        _LOSS,
    )


def _incomplete(found):
    """The weights that means and variances imply, one of them the bound's and the other not."""
    by_variance, by_mean = found.value("implied_weight"), found.value("implied_weight_of_means")
    if not (math.isfinite(by_variance) and math.isfinite(by_mean)):
        return None
    size = float(np.max(np.sqrt(_second_moments(found))))
    # Alone, the weight that held-out means imply tells as much of a small training set.
    no_means = by_mean < 0.2 < 0.5 < by_variance and size > rules.STRETCHED_CODES
    no_variances = by_variance < 0.1 < 0.5 < by_mean and size < rules.STRETCHED_CODES
    if not no_means and not no_variances:
        return None
    part, term = ("means", "mean^2") if no_means else ("variances", "exp(log_var) - log_var - 1")
    return Cause(
        "kl_incomplete",
        (
            f"The posterior variances imply a KL weight of {by_variance:.2g}, the means one of "
            f"{by_mean:.2g} (both 1 for the bound): the KL does not charge the {part}.",
        ),
        Remedy(
            f"Put the term {term} back into the KL",
            "Without it nothing keeps the "
            + ("codes near the prior." if no_means else "posteriors from having no width."),
            "kl = 0.5 * ops.sum(z_mean**2 + ops.exp(z_log_var) - z_log_var - 1.0, axis=-1)",
            change={"beta": 1.0},
        ),
        found.value("refinement_gain") if found.value("refinement_gain") > 0 else None,
        "prior_hole" if no_means else "under_regularized",
        _LOSS,
    )


def _second_moments(found):
    second = found.arrays["mean_of_means"] ** 2 + found.arrays["variance_of_means"]
    return second / found.arrays["prior_variance"]


def _behind(found, names, reference):
    # An encoder whose means are held cannot follow.
    if "lagging_encoder" in names and not ("over_regularized" in names and _holds(found)):
        yield Cause(
            "encoder_behind",
            (
                f"Gradient steps on each posterior alone raise the bound by "
                f"{found.value('refinement_gain'):.2f} nats: the decoder has gone on without the "
                "encoder.",
            ),
            Remedy(
                "Train encoder and decoder together, the encoder more often if need be",
                "A decoder that learns while the encoder stands still leaves it behind.",
                "callbacks=[callbacks.AggressiveTraining(x_validation)]"
                if "foreign" not in found.traits
                else "encoder.trainable = True  # and a smaller learning rate for the decoder",
            ),
            found.value("refinement_gain"),
            rank=_TRAINED,
        )
    gain, error = found.value("further_gain"), found.error("further_gain")
    if "matches codes" in found.traits:
        return
    if gain > max(FURTHER_NATS, _ERRORS * error):
        yield Cause(
            "stopped_early",
            (
                f"A hundred further steps on the bound raise it by {gain:.2f} +- {error:.2f} nats "
                "on rows held out from them.",
            ),
            Remedy(
                "Train for longer",
                "The bound still moves: codes form late, and dimensions one after the other.",
                "model.fit(x, epochs=...)  # until the bound on validation data stands still",
            ),
            gain,
            rank=_SIZE,
        )


# -- the model ---------------------------------------------------------------------------------


def _model(found, names, reference):
    moved = found.facts.get("decoder_moved")
    blind = moved is not None and moved < BLIND
    if blind or ("autoregressive" in found.traits and _empty(names)):
        said = (
            f"Codes drawn from the prior move its outputs by {moved:.1g} of their size: z does not "
            "reach them."
            if blind
            else "It is shown the values before each one, and models them without z: own and prior "
            f"codes give log p(x|z) = {found.value('log_px_own'):.2f} and "
            f"{found.value('log_px_prior'):.2f}."
        )
        yield Cause(
            "decoder_without_z",
            (said,),
            Remedy(
                "Let z reach the decoder"
                if blind
                else "Withhold words from the decoder"
                if "text" in found.traits
                else "Narrow the decoder's field of view",
                "Outputs that do not depend on z leave no gain for a code to have."
                if blind
                else "With less of what comes before in view, the decoder needs z.",
                "decoder = keras.Model(z, y)  # y computed from z, without a product with 0"
                if blind
                else "networks.LSTMDecoder(latent_dim, (None,), vocabulary_size, word_dropout=0.4)"
                if "text" in found.traits
                else "networks.ResidualPixelCNN(latent_dim, output_shape, kernels=(5, 3, 3))",
            ),
            reference.gain if reference is not None and pays(reference) else None,
            verdict="decoder_ignores_z",
            rank=_BROKEN,
        )
    yield from _size_of_code(found, names, reference)
    if "prior_hole" in names and not (found.value("implied_weight") < rules.LIGHT_WEIGHT):
        yield Cause(
            "prior_mismatch",
            (
                f"Mean and covariance of the codes are {found.value('moment_divergence'):.2f} nats "
                "from the prior's.",
            ),
            Remedy(
                "Match the codes to the prior, or the prior to the codes",
                "New samples come from the prior: it must cover what was trained on.",
                _LOSS_CODE
                if "foreign" in found.traits
                else "losses.ELBO(regularizers=[losses.MaximumMeanDiscrepancy(weight=10.0)])",
                change={"beta": 1.0},
            ),
            found.value("moment_divergence"),
            rank=_TRAINED,
        )


def _size_of_code(found, names, reference):
    if "capacity" not in found.arrays:
        return
    kinds = rules.dimensions(found)
    size, active = len(found.arrays["capacity"]), len(kinds["active"])
    spare = _spare(found, names)
    if spare is not None:
        yield spare
    if "partial_collapse" in names:
        yield Cause(
            "code_too_wide",
            (f"{active} of {size} dimensions are in use, and the KL's weight is not to blame.",),
            _narrower(active),
            rank=_SIZE,
        )
    rate = found.value("rate")
    if not names and math.isfinite(rate) and rate / size > FULL_DIMENSION and size <= 3:
        if reference is None or reference.rate < rate + 0.5:
            return
        yield Cause(
            "code_too_narrow",
            (
                f"Each of {size} dimensions carries {rate / size:.2f} nats (full from "
                f"{FULL_DIMENSION} on); an ordinary VAE of 8 dimensions has a rate of "
                f"{reference.rate:.2f} on the same data.",
            ),
            Remedy(
                f"Give the code {2 * size + 2} dimensions",
                "The same information costs less when it is spread.",
                f"latent_dim = {2 * size + 2}",
            ),
            rank=_SIZE,
        )


def _spare(found, names):
    """More dimensions than the data use, where none is silent."""
    capacity = found.arrays["capacity"]
    small = capacity < rules.EMPTY_INFORMATION
    share = float(np.sum(capacity[small]) / max(np.sum(capacity), 1e-12))
    if names or not (np.mean(small) > MOST and share < LITTLE):
        return None
    size, used = len(capacity), int(np.sum(~small))
    return Cause(
        "code_too_wide",
        (
            f"{size - used} of {size} dimensions carry less than {rules.EMPTY_INFORMATION} nats "
            f"each, as little as an empty code, and {share:.0%} of the information between them "
            f"(spare from {MOST:.0%} of the dimensions with less than {LITTLE:.0%} of it on).",
        ),
        _narrower(used),
        verdict="partial_collapse",
        rank=_SIZE,
    )


def _narrower(used):
    return Remedy(
        f"Use {used} dimensions, or keep all of them by batch-normalized means",
        "Unused dimensions cost little; pinned gains spread the code over all of them.",
        f"latent_dim = {used}  # or z_mean = layers.MeanBatchNorm(0.5)(z_mean)",
        change={"gamma": 0.5},
    )


_RULES = (
    _data,
    _outputs,
    _encoder,
    _weights,
    _weight_of_kl,
    _scale,
    _nothing,
    _model,
    _behind,
)
