"""The collapse doctor: what ails a VAE, by what evidence, and what to change."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.checks import check_flag, check_integer, check_seed
from ...core.progress import stages
from ...layers import Gaussian, get_likelihood
from ..estimate import to_json
from ..subject import as_subject, check_array, with_target
from . import rules
from .causes import causes, pays
from .conditions import condition_notes
from .measure import LARGE_INPUTS, STAGES, Measurements, measure
from .probes import probe_data, weights_not_finite
from .reference import reference, wants_reference
from .remedies import remedies
from .tried import is_vain

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import ArrayLike, FilePath, Model
    from ...layers.likelihoods import Likelihood
    from ..subject import ModelAdapter
    from .reference import Reference

#: Measurements as a person reads them, in the order of the report.
LABELS = {
    "rate": "rate: KL per example",
    "mutual_information": "information about x in z",
    "marginal_divergence": "aggregate posterior to prior",
    "moment_divergence": "... of which mean and covariance",
    "outside": "share of prior draws outside of the codes",
    "mutual_posterior_divergence": "divergence between posteriors (MPD)",
    "conditional_entropy": "entropy of a posterior (CE)",
    "elbo": "evidence lower bound",
    "rate_share": "share of the KL in the bound",
    "likelihood_scale": "scale of the Gaussian likelihood",
    "residual_scale": "... optimal for the residuals",
    "data_scale": "largest standard deviation of the data",
    "log_px_own": "log p(x|z), own z",
    "log_px_shuffled": "log p(x|z), another example's z",
    "log_px_prior": "log p(x|z), z from the prior",
    "gap_shuffled": "lost with another example's z",
    "gap_prior": "lost with z from the prior",
    "sensitivity": "moved by another example's z, either way",
    "refinement_gain": "bound gained by refining posteriors",
    "implied_weight": "KL weight that the variances imply",
    "implied_weight_of_means": "KL weight that the means imply",
    "lost_to_noise": "log p(x|z) lost to the noise of z",
    "further_gain": "bound gained by a hundred further steps",
    "active_units_0.001": "active units, Var(mean) >= 0.001",
    "active_units_0.01": "active units, Var(mean) >= 0.01",
    "active_units_0.1": "active units, Var(mean) >= 0.1",
}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Holds the findings of `diagnose`.

    Attributes:
        verdict: `"healthy"`, `"scale_too_large"`, `"scale_too_small"`, `"full_collapse"`,
            `"partial_collapse"`, `"decoder_ignores_z"`, `"lagging_encoder"`, `"prior_hole"`,
            `"variance_blow_up"`, `"over_regularized"` or `"under_regularized"`: the first of the
            findings; `"unfit_data"` or `"misread_outputs"` where nothing else can be judged;
            `"limited_encoder"` or `"inference_differs"` where a cause is found but no other fault.
        title: The verdict as a person reads it.
        meaning: One sentence on what it means.
        evidence: Sentences with the numbers and the thresholds that they were held against.
        findings: All faults found, the causes first; each has `name`, `title`, `evidence` and
            `consequence_of`, the name of the fault that brings it along, or None.
        causes: What to blame, first what gains most if it is removed; each has `name`, `title`,
            `evidence`, `remedy` and `gain`, in nats or None.
        remedies: What to change, the most promising first, those of the causes before all others;
            each has `what`, `why` and `code`.
        dimensions: Dict of lists of latent dimensions: `active`; `collapsed`, which are `silent`
            (the encoder) or `unread` (the decoder).
        measurements: Dict of `Estimate`s.
        arrays: Dict of NumPy arrays, most of them per dimension `(D,)`.
        notes: What was assumed, and what could not be measured.
        settings: Dict: what to repeat the diagnosis with.
        pictures: Dict of arrays of images, for image data.
        worth: Of an empty code, a sentence on whether one would pay, by a reference model.
    """

    verdict: str
    title: str
    meaning: str
    evidence: tuple
    findings: tuple
    remedies: tuple
    dimensions: dict
    measurements: dict
    arrays: dict = dataclasses.field(repr=False)
    notes: tuple
    settings: dict
    pictures: dict = dataclasses.field(default_factory=dict, repr=False)
    causes: tuple = ()
    worth: str = ""

    @property
    def healthy(self) -> bool:
        """Whether no fault was found."""
        return self.verdict == "healthy"

    @property
    def subject(self) -> str:
        """One line on what was examined."""
        size, used = self.settings["latent_dim"], self.settings["examples"]
        return (
            f"{self.settings['model']}: {size} latent dimensions, {used} of "
            f"{self.settings['available']} examples"
        )

    def summary(self) -> list[tuple[str, str]]:
        """Pairs `(label, text)` of the measurements that were taken."""
        return [
            (label, f"{self.measurements[name]:.4g}")
            for name, label in LABELS.items()
            if name in self.measurements
        ]

    def __str__(self) -> str:
        lines = [f"{self.title}  [{self.verdict}]", self.subject, "", *_wrapped(self.meaning)]
        if self.causes:
            lines += ["", "Causes, those first that gain most"]
        for number, cause in enumerate(self.causes, 1):
            gain = "" if cause.gain is None else f" ({cause.gain:.2f} nats)"
            said = " ".join(cause.evidence)
            lines += _wrapped(f"{cause.title}{gain}. {said}", f"  {number}. ", "     ")
        if self.worth:
            lines += ["", *_wrapped(self.worth)]
        lines += ["", "Evidence", *_bullets(self.evidence)]
        for finding in self.findings[1:]:
            cause = finding.consequence_of
            origin = f" (follows from: {rules.TITLES[cause].lower()})" if cause else ""
            lines += ["", f"Also: {finding.title}{origin}", *_bullets(finding.evidence)]
        if self.remedies:
            lines += ["", "Remedies, most promising first"]
        for number, remedy in enumerate(self.remedies, 1):
            lines += _wrapped(f"{remedy.what}. {remedy.why}", f"  {number}. ", "     ")
            lines.append(f"       {remedy.code}")
        lines += ["", "Measurements"]
        rows = self.summary()
        width = max((len(label) for label, _ in rows), default=0)
        lines += [f"  {label:<{width}}  {text}" for label, text in rows]
        if self.notes:
            lines += ["", "Notes", *_bullets(self.notes)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures and the points of plots, as JSON knows it."""
        shown = {name: array for name, array in self.arrays.items() if not name.startswith("shown")}
        return to_json(
            {
                "verdict": self.verdict,
                "title": self.title,
                "meaning": self.meaning,
                "evidence": self.evidence,
                "findings": [dataclasses.asdict(finding) for finding in self.findings],
                "causes": [dataclasses.asdict(cause) for cause in self.causes],
                "worth": self.worth,
                "remedies": [dataclasses.asdict(remedy) for remedy in self.remedies],
                "dimensions": self.dimensions,
                "measurements": self.measurements,
                "per_dimension": shown,
                "notes": self.notes,
                "settings": self.settings,
            }
        )

    def to_json(self, path: FilePath | None = None) -> str:
        """The diagnosis in JSON; written to `path` if given.

        Returns:
            The text.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, "utf-8")
        return text

    def to_html(self, path: FilePath | None = None) -> str:
        """One page with plots that needs nothing else to be read; written to `path` if given.

        Returns:
            The text.
        """
        from .page import page

        text = page(self)
        if path is not None:
            Path(path).write_text(text, "utf-8")
        return text


def diagnose(
    model: Model,
    decoder: Any = None,
    data: ArrayLike = None,
    likelihood: str | Likelihood | None = None,
    *,
    target: ArrayLike = None,
    train_data: ArrayLike = None,
    max_examples: int = 2000,
    refinement_steps: int = 50,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
    trials: bool = True,
) -> Diagnosis:
    """Diagnoses posterior collapse and related faults of a VAE.

    Called as `diagnose(model, data)` or `diagnose(encoder, decoder, data, likelihood=...)`. It
    measures, on a random part of the data:

    - the information in z: KL per dimension, active units, mutual information, divergence between
      posteriors (MPD) and their entropy (CE), the gap between aggregate posterior and prior;
    - whether the decoder uses z: log p(x|z) with own, another example's and prior codes, and with
      single dimensions exchanged;
    - whether the encoder lags: the gain of a few gradient steps on each posterior,

          gain = mean_x [ max_{m, s} ELBO(x; m, s) - ELBO(x; mean(x), sd(x)) ]

      and the KL weight beta at which the posterior variances would be stationary,

          d/ds ( distortion + beta KL ) = 0,    1 for the bound itself;

    and names the cause separately from its consequences.

    Args:
        model: `VAE`; path of a SavedModel that `VAE.export` wrote; or an encoder, any callable
            `x -> (mean, log_var)`, further outputs being left alone.
        decoder: With an encoder, a callable `z (batch, D) -> (batch, *params)`: logits or
            probabilities under a Bernoulli likelihood, means under a Gaussian.
        data: `(N, *event)`, an array.
        likelihood: Name or `Likelihood` of a foreign pair; `"bernoulli"` by default.
        target: Optional array of the shape of `data`: what it is to be turned into, such as clean
            images from noisy ones.
        train_data: Optional array of the data that the model was trained on: tells whether `data`
            are of another kind.
        max_examples: Int of at least 2; of more examples, so many are chosen at random.
        refinement_steps: Non-negative int; 0 leaves the encoder's lag unmeasured.
        batch_size: Positive int, examples at once.
        seed: Int in [0, 2^31) that fixes the choice and all draws.
        progress: Whether to show a progress bar, on a terminal.
        trials: Whether to train copies: of the model, for a hundred steps, and of an empty code
            also a small VAE on the same data, for at most 15 seconds and once for the same data.

    Returns:
        `Diagnosis`. Print it, or call its `to_json` and `to_html`.

    Raises:
        TypeError: If the model or the data are of another kind.
        ValueError: If an argument is out of range, or the data do not fit the likelihood.

    Reference: Cremer et al. (2018), the gap of amortized inference, arXiv:1801.03558; He et al.
    (2019), lagging encoders, arXiv:1901.05534; Burda et al. (2016), active units,
    arXiv:1509.00519. The implied weight is our own.
    """
    return judge(
        *examine(
            model,
            decoder,
            data,
            likelihood,
            target=target,
            train_data=train_data,
            max_examples=max_examples,
            refinement_steps=refinement_steps,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
            trials=trials,
        )
    )


def examine(
    model: Model,
    decoder: Any = None,
    data: ArrayLike = None,
    likelihood: str | Likelihood | None = None,
    *,
    target: ArrayLike = None,
    train_data: ArrayLike = None,
    max_examples: int = 2000,
    refinement_steps: int = 50,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
    trials: bool = True,
) -> tuple[Measurements, Reference | None, dict[str, Any]]:
    """Measures all that `judge` needs, by the arguments of `diagnose`."""
    max_examples = check_integer("max_examples", max_examples, 2)
    refinement_steps = check_integer("refinement_steps", refinement_steps, 0)
    batch_size = check_integer("batch_size", batch_size)
    seed = check_seed("seed", seed, optional=False)
    progress = check_flag("progress", progress)
    trials = check_flag("trials", trials)
    asked: dict[str, Any] = {
        "max_examples": max_examples,
        "refinement_steps": refinement_steps,
        "batch_size": batch_size,
        "seed": seed,
    }
    if data is None:
        decoder, data = None, decoder
    if data is None:
        raise ValueError(
            "`data` must be given: diagnose(model, data) or diagnose(encoder, decoder, data). "
            "Received: data=None"
        )
    conditional = None
    if getattr(model, "conditional", False) and isinstance(model, keras.Model):
        conditional = as_subject(model)
        data = conditional.check(data)
    array, facts = _finite_rows(data)
    broken = weights_not_finite(model, decoder)
    if broken and decoder is not None:
        # Nothing of such a pair can be measured, not even what its outputs are.
        told = get_likelihood(likelihood or "bernoulli")
        facts.update(unfit=_unfit(told, array), low=float(array.min()), high=float(array.max()))
        size = float(np.sqrt(np.mean(np.square(array, dtype="float64"))))
        facts["large"] = isinstance(told, Gaussian) and size > LARGE_INPUTS
        return _unmeasured(model, likelihood, {**facts, "weights_not_finite": broken}, asked)
    if facts["kept"] < 2:
        return _unmeasured(model, likelihood, facts, asked)
    subject = conditional or as_subject(model, decoder, array, likelihood)
    # Sentences that are not whole are no data of a wrong range, and refused as everywhere.
    ranged = target is None and not subject.of_text and not subject.conditional
    unfit = _unfit(subject.likelihood, array) if ranged else None
    if unfit is not None:
        facts.update(unfit=unfit, low=float(array.min()), high=float(array.max()))
        return _unmeasured(subject, likelihood, facts, asked)
    if target is not None and facts["kept"] < facts["rows"]:
        raise ValueError("`data` must hold finite numbers. Received: NaN or infinity among them")
    subject, array = with_target(subject, array, target)
    chosen = _choice(array, max_examples, seed)
    if subject.conditional:
        trials = False
        # What is decoded without an example has their conditions.
        chosen = subject.check(chosen)
    probed = Measurements(facts=facts)
    probe_data(probed, np.asarray(subject.values(chosen)), train_data)
    if broken:
        probed.facts["weights_not_finite"] = broken
    with stages(STAGES, progress) as begin:
        found = measure(
            subject, chosen, seed, refinement_steps, batch_size, begin, probed.facts,
            trials and target is None,
        )  # fmt: skip
        found.notes.extend(_objective(subject))
        if subject.conditional:
            means = subject.encode(chosen).mean
            found.notes.extend(condition_notes(means, subject.conditions(chosen)))
        known = None
        if trials and target is None and wants_reference(found):
            begin("Diagnosis: reference model")
            known = reference(subject, chosen, seed)
    asked.update(examples=len(chosen), available=len(array), values=probed.facts["values"])
    return found, known, {**settings_of(subject), **asked}


def judge(found: Measurements, known: Reference | None, settings: dict[str, Any]) -> Diagnosis:
    """The `Diagnosis` that measurements lead to.

    Args:
        found: `Measurements`.
        known: `Reference`, or None.
        settings: What was examined, and how.
    """
    findings = tuple(rules.find(found)) if found.estimates else ()
    blamed = causes(found, findings, known)
    findings = _with_causes(findings, blamed)
    verdict = findings[0].name if findings else "healthy"
    evidence = findings[0].evidence if findings else tuple(rules.healthy_evidence(found))
    return Diagnosis(
        verdict=verdict,
        title=rules.TITLES[verdict],
        meaning=rules.MEANINGS[verdict],
        evidence=evidence,
        findings=findings,
        remedies=_remedies(findings, blamed, found),
        dimensions=rules.dimensions(found) if found.arrays else {},
        measurements=found.estimates,
        arrays=found.arrays,
        notes=tuple(found.notes),
        settings=settings,
        pictures=found.pictures,
        causes=blamed,
        worth=_worth(known, findings),
    )


def settings_of(subject: ModelAdapter) -> dict[str, Any]:
    """What a diagnosis says of its subject."""
    return {
        "model": subject.name,
        "latent_dim": subject.latent_dim,
        "likelihood": type(subject.likelihood).__name__,
        "prior": type(subject.prior).__name__,
    }


def _finite_rows(data):
    """The array without rows that are not finite, and which those are."""
    array = check_array("data", data)
    facts = {"rows": len(array), "kept": len(array)}
    if array.dtype.kind in "iub":
        return array, facts
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not np.all(finite):
        facts.update(rows_not_finite=np.flatnonzero(~finite), kept=int(np.sum(finite)))
        array = array[finite]
    return array, facts


def _unfit(likelihood, data):
    """Why the likelihood cannot observe the data, or None."""
    try:
        likelihood.check(data)
    except ValueError as error:
        return str(error).replace("`x`", "The data", 1).replace("Received:", "They hold", 1)
    return None


def _unmeasured(model, likelihood, facts, asked):
    """What `examine` returns of what cannot be measured at all."""
    name = getattr(model, "name", type(model).__name__)
    size = getattr(model, "latent_dim", None)
    if size is None:
        shapes = getattr(model, "output_shape", None)
        first = keras.tree.flatten(shapes)[-1:] if shapes is not None else []
        size = first[0] if first and first[0] else 1
    told = getattr(model, "likelihood", likelihood) or "bernoulli"
    settings = {
        "model": name,
        "latent_dim": size,
        "likelihood": told if isinstance(told, str) else type(told).__name__,
        "prior": "StandardNormal",
        **asked,
        "examples": facts["kept"],
        "available": facts["rows"],
    }
    found = Measurements(
        facts=facts, traits=frozenset({"large inputs"} if facts.get("large") else ())
    )
    found.notes.append("Nothing was measured of the code.")
    return found, None, settings


def _with_causes(findings, blamed):
    """The findings, with the faults that only a cause tells of."""
    names = {finding.name for finding in findings}
    more = []
    for cause in blamed:
        # Where these hold, nothing that was measured means what it seems to.
        first = cause.verdict in ("unfit_data", "misread_outputs")
        wanted = cause.verdict is not None and (first or not findings)
        if wanted and cause.verdict not in names:
            names.add(cause.verdict)
            more.append(rules.Finding(cause.verdict, cause.evidence))
    held = [finding for finding in more if finding.name in ("unfit_data", "misread_outputs")]
    consequences = [
        dataclasses.replace(finding, consequence_of=finding.consequence_of or held[0].name)
        if held
        else finding
        for finding in findings
    ]
    return (*held, *consequences, *(finding for finding in more if finding not in held))


def _remedies(findings, blamed, found):
    """Those of the causes first, then those of what is seen; last those that never helped."""
    own = [dataclasses.replace(cause.remedy, cause=cause.name) for cause in blamed]
    verdict = findings[0].name if findings else "healthy"
    vain = [remedy for remedy in own if is_vain(verdict, remedy.change)]
    others = [remedy for remedy in own if remedy not in vain]
    return tuple(dict.fromkeys([*others, *remedies(findings, found), *vain]))


def _worth(known, findings):
    if known is None:
        return ""
    if pays(known):
        blame = ": the cause is in your model or its training" if findings else ""
        return (
            f"Would a code pay? On these data {known.rate:.1f} nats of code pay for themselves in "
            f"an ordinary VAE (its bound on held-out rows is {known.gain:.2f} +- {known.error:.2f} "
            f"nats above that without a code){blame}."
        )
    return (
        "Would a code pay? On these data an ordinary VAE gains nothing by one either "
        f"({known.gain:+.2f} +- {known.error:.2f} nats on held-out rows): nothing to encode."
    )


def _objective(subject):
    """Returns notes on the training of one of the zoo's models."""
    objective = getattr(subject.model, "objective", None)
    if objective is None:
        return []
    beta = getattr(objective, "beta", None)
    weight = "" if beta is None else f", its KL weight now {float(ops.convert_to_numpy(beta)):g}"
    return [f"The model's objective is {type(objective).__name__}{weight}."]


def _choice(data, most, seed):
    if len(data) <= most:
        return data
    rows = np.random.default_rng(seed).choice(len(data), most, replace=False)
    return data[np.sort(rows)]


def _wrapped(text, first="", rest=""):
    return textwrap.wrap(
        text, 96, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _bullets(sentences):
    return [line for text in sentences for line in _wrapped(text, "  - ", "    ")]
