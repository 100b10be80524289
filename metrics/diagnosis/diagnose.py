"""The collapse doctor: what ails a VAE, by what evidence, and what to change."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from ...core.checks import check_flag, check_integer, check_seed
from ...core.progress import stages
from ..estimate import to_json
from ..subject import as_subject, with_target
from . import rules
from .measure import STAGES, measure
from .remedies import remedies

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import ArrayLike, FilePath, Model
    from ...layers.likelihoods import Likelihood

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
            findings.
        title: The verdict as a person reads it.
        meaning: One sentence on what it means.
        evidence: Sentences with the numbers and the thresholds that they were held against.
        findings: All faults found, the causes first; each has `name`, `title`, `evidence` and
            `consequence_of`, the name of the fault that brings it along, or None.
        remedies: What to change, the most promising first; each has `what`, `why` and `code`.
        dimensions: Dict of lists of latent dimensions: `active`; `collapsed`, which are `silent`
            (the encoder) or `unread` (the decoder).
        measurements: Dict of `Estimate`s.
        arrays: Dict of NumPy arrays, most of them per dimension `(D,)`.
        notes: What was assumed, and what could not be measured.
        settings: Dict: what to repeat the diagnosis with.
        pictures: Dict of arrays of images, for image data.
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
    max_examples: int = 2000,
    refinement_steps: int = 50,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
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
        max_examples: Int of at least 2; of more examples, so many are chosen at random.
        refinement_steps: Non-negative int; 0 leaves the encoder's lag unmeasured.
        batch_size: Positive int, examples at once.
        seed: Int in [0, 2^31) that fixes the choice and all draws.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        `Diagnosis`. Print it, or call its `to_json` and `to_html`.

    Raises:
        TypeError: If the model or the data are of another kind.
        ValueError: If an argument is out of range, or the data do not fit the likelihood.

    Reference: Cremer et al. (2018), the gap of amortized inference, arXiv:1801.03558; He et al.
    (2019), lagging encoders, arXiv:1901.05534; Burda et al. (2016), active units,
    arXiv:1509.00519. The implied weight is our own.
    """
    max_examples = check_integer("max_examples", max_examples, 2)
    refinement_steps = check_integer("refinement_steps", refinement_steps, 0)
    batch_size = check_integer("batch_size", batch_size)
    seed = check_seed("seed", seed, optional=False)
    progress = check_flag("progress", progress)
    if data is None:
        decoder, data = None, decoder
    if data is None:
        raise ValueError(
            "`data` must be given: diagnose(model, data) or diagnose(encoder, decoder, data). "
            "Received: data=None"
        )
    subject = as_subject(model, decoder, data, likelihood)
    subject, data = with_target(subject, data, target)
    chosen = _choice(data, max_examples, seed)
    with stages(STAGES, progress) as begin:
        found = measure(subject, chosen, seed, refinement_steps, batch_size, begin)
    found.notes.extend(_objective(subject))
    findings = tuple(rules.find(found))
    verdict = findings[0].name if findings else "healthy"
    evidence = findings[0].evidence if findings else tuple(rules.healthy_evidence(found))
    return Diagnosis(
        verdict=verdict,
        title=rules.TITLES[verdict],
        meaning=rules.MEANINGS[verdict],
        evidence=evidence,
        findings=findings,
        remedies=remedies(findings, found),
        dimensions=rules.dimensions(found) if found.arrays else {},
        measurements=found.estimates,
        arrays=found.arrays,
        notes=tuple(found.notes),
        settings={
            "model": subject.name,
            "latent_dim": subject.latent_dim,
            "likelihood": type(subject.likelihood).__name__,
            "prior": type(subject.prior).__name__,
            "examples": len(chosen),
            "available": len(data),
            "max_examples": max_examples,
            "refinement_steps": refinement_steps,
            "batch_size": batch_size,
            "seed": seed,
        },
        pictures=found.pictures,
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
