"""Everything that can be measured of a model, in one table and one file."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import hashlib
import importlib.metadata
import inspect
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.checks import check_classes, check_integer, check_kind, check_seed
from ..core.files import written
from ..core.progress import stages
from ..losses import FlowGaussian
from .active_units import active_units
from .aggregate import aggregate_moments
from .dependence import latent_dependence
from .estimate import Estimate, to_json
from .frechet import frechet_distance, kernel_distance
from .inputs import Encoded, NotMeasurable
from .mutual_information import mutual_information
from .negative_log_likelihood import negative_log_likelihood
from .perplexity import perplexity_of
from .posterior_divergence import conditional_entropy, mutual_posterior_divergence
from .probes import (
    alphabet_probe,
    classifier_probe,
    few_label_probe,
    kmeans_probe,
    knn_probe,
    linear_probe,
)
from .rate import rate_per_dimension
from .subject import as_subject, with_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import ArrayLike, FilePath, Model, Seed, Tensor
    from ..layers.likelihoods import Likelihood
    from .subject import ModelAdapter

#: What `evaluate` measures unless told otherwise: all that needs no labels.
STANDARD = (
    "negative_log_likelihood",
    "mutual_information",
    "mutual_posterior_divergence",
    "conditional_entropy",
    "rate_per_dimension",
    "active_units",
    "aggregate_divergence",
)
_PROBES = {
    "kmeans_probe": kmeans_probe,
    "knn_probe": knn_probe,
    "linear_probe": linear_probe,
    "classifier_probe": classifier_probe,
    "few_label_probe": few_label_probe,
    "alphabet_probe": alphabet_probe,
}
_SAMPLES = {"frechet_distance": frechet_distance, "kernel_distance": kernel_distance}
#: Functions behind the names, whose arguments `options` may have.
FUNCTIONS = {
    "negative_log_likelihood": negative_log_likelihood,
    "mutual_information": mutual_information,
    "mutual_posterior_divergence": mutual_posterior_divergence,
    "conditional_entropy": conditional_entropy,
    "rate_per_dimension": rate_per_dimension,
    "active_units": active_units,
    "aggregate_divergence": aggregate_moments,
    "latent_dependence": latent_dependence,
    **_SAMPLES,
    **_PROBES,
}
#: What can be asked for besides: samples and probes.
FURTHER = tuple(name for name in FUNCTIONS if name not in STANDARD)
#: Without a density q(z|x) these do not exist.
_NEED_DENSITY = frozenset(STANDARD) - {"active_units"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Holds the results of `evaluate` and their settings.

    Attributes:
        results: Dict of `Estimate`s by name.
        skipped: Dict of reasons, by the name of what could not be measured.
        provenance: Dict of JSON values: model and hash of its weights, data and their hash, seed,
            versions, time.
    """

    results: dict
    skipped: dict
    provenance: dict

    def __getitem__(self, name: str) -> Any:
        return self.results[name]

    def table(self) -> Any:
        """The results as a `rich` table."""
        table = Table("quantity", "value", "standard error", "unit", "n", "estimator")
        for name, result in self.results.items():
            error = result.standard_error
            row = (
                name,
                f"{result.value:.4g}",
                f"{error:.2g}" if np.isfinite(error) else "",
                result.unit,
                str(result.count),
                result.estimator,
            )
            # As text: what looks like markup in a name or a reason is none.
            table.add_row(*map(Text, row))
        for name, reason in self.skipped.items():
            table.add_row(*map(Text, (name, "-", "", "", "", reason)))
        return table

    def __str__(self) -> str:
        console = Console(width=110, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get()

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, without the values per example."""
        return to_json(
            {"results": self.results, "skipped": self.skipped, "provenance": self.provenance}
        )

    def save(self, path: FilePath, overwrite: bool = False) -> None:
        """Writes `to_dict()` to a JSON file.

        Raises:
            FileExistsError: If the file exists, unless it may be replaced.
            OSError: If it cannot be written.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"`path` must not exist unless overwrite=True. Received: {path}")
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        with written(path) as partial:
            partial.write_text(text, "utf-8")


def evaluate(
    model: Model,
    data: ArrayLike,
    labels: ArrayLike = None,
    metrics: Sequence[str] = STANDARD,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    target: ArrayLike = None,
    train: Any = None,
    validation: Any = None,
    num_samples: int = 500,
    num_images: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    options: dict[str, Any] | None = None,
    source: str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measures a model on data it was not trained on.

    The quantities of `STANDARD` need only data: `negative_log_likelihood` (with `elbo`,
    `distortion` and `rate` from the same draws, and of sentences `perplexity`),
    `mutual_information` (with `marginal_divergence`), `mutual_posterior_divergence`,
    `conditional_entropy`, `rate_per_dimension` (value: its sum), `active_units`,
    `aggregate_divergence` (KL of the normal law with the aggregate posterior's moments to that with
    the prior's; with `aggregate_variance` and `variance_of_means`, the mean eigenvalues of the
    covariance of z and of the posterior means: after full collapse the former equals the prior's
    and the latter is 0). Those of `FURTHER` are measured when they are named: `latent_dependence`
    (MIC of the index of the example), `frechet_distance` and `kernel_distance` (which need
    `labels`, or `options` with features), and the probes `kmeans_probe`, `knn_probe`,
    `linear_probe` (which need `labels` and `train`).

    Where the posterior is a flow or the prior a learned one, rates, entropies and moments are those
    of posterior draws, active units and posterior divergence those of the Gaussian that the flow
    bends, and what has no coordinates, or would take an inverse pass of the flow for each pair of
    examples, is skipped.

    Args:
        model: `VAE`, path of an exported SavedModel, or encoder `x -> (mean, log_var)`.
        data: `(N, *event)`.
        labels: Optional `(N,)`, classes.
        metrics: Names from `STANDARD` and `FURTHER`.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        target: Optional array of the shape of `data`: what it is to be turned into, such as clean
            images from noisy ones. Likelihood, distortion and generated images are compared with
            the targets, probes learn from codes of `data`.
        train: Optional pair of training data and labels, what the probes learn from; several
            fixed draws of an image in it would count as several labeled examples.
        validation: Optional pair of validation data and labels, for `few_label_probe`.
        num_samples: Positive int K of the likelihood.
        num_images: Positive int, how many examples, drawn by `seed`, the likelihood is taken of;
            all by default.
        seed: Int in [0, 2^31).
        batch_size: Examples at once.
        options: Optional dict of further arguments by metric, as in
            `{"mutual_information": {"estimator": "code"}}`; or a list of such dicts, each of which
            is measured: `{"kmeans_probe": [{"num_clusters": 10}, {"num_clusters": 20}]}` gives
            `kmeans_probe[num_clusters=10]` and `kmeans_probe[num_clusters=20]`.
        source: Optional string for the file: where model and data came from.
        progress: Whether to show progress bars, and how long the likelihood will take.

    Returns:
        `Evaluation`. What cannot be measured of this model is in `skipped`, with the reason.

    Raises:
        TypeError: If the model or the data are of another kind.
        ValueError: If a name is unknown, labels are missing that a metric needs, or the data do not
            fit the model. Nothing has been measured then.
    """
    metrics = (metrics,) if isinstance(metrics, str) else metrics
    metrics = tuple(check_kind("metrics", metrics, (list, tuple, set), "a sequence of names"))
    options = check_kind("options", options, dict, "a dict by metric", optional=True) or {}
    _check_names(metrics, options)
    num_samples = check_integer("num_samples", num_samples)
    seed = check_seed("seed", seed, optional=False)
    if num_images is not None:
        num_images = check_integer("num_images", num_images, 2)
    subject = as_subject(model, decoder, data, likelihood)
    subject, data = with_target(subject, data, target)
    _check_labels(metrics, data, labels, train, validation, options)
    measure = _Measure(subject, data, labels, train, num_samples, seed, batch_size, progress)
    measure.validation, measure.num_images = validation, num_images
    results, skipped = {}, {}
    for position, name in enumerate(metrics):
        if name in _NEED_DENSITY and not subject.has_density:
            skipped[name] = "a deterministic encoder has no density"
        elif name in _SAMPLES and subject.model is None:
            skipped[name] = "only a vaezoo VAE can generate"
        elif name in _SAMPLES and subject.of_text:
            skipped[name] = "a distance between images; these are sentences"
        else:
            chosen = options.get(name, {})
            several = chosen if isinstance(chosen, list | tuple) else [chosen]
            for arguments in several:
                try:
                    # Two bars at once would break each other.
                    bar = progress and not _has_bar(name)
                    with stages(len(metrics), bar, position) as begin:
                        begin(name)
                        found = measure(name, arguments)
                except NotMeasurable as error:
                    skipped[name] = error.reason
                    continue
                if len(several) > 1:
                    shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
                    found = {f"{key}[{shown}]": value for key, value in found.items()}
                results.update(found)
    provenance = _provenance(subject, data, seed, source)
    return Evaluation(results, skipped, provenance)


class _Measure:
    """Runs one metric after the other on the same model and data."""

    validation: Any
    num_images: int | None

    def __init__(
        self,
        subject: ModelAdapter,
        data: ArrayLike,
        labels: ArrayLike,
        train: Any,
        num_samples: int,
        seed: Seed,
        batch_size: int,
        progress: bool,
    ) -> None:
        self.subject, self.data, self.labels, self.train = subject, data, labels, train
        self.num_samples, self.seed, self.batch_size = num_samples, seed, batch_size
        self.progress = progress

    @functools.cached_property
    def encoded(self):
        """Encodes the data once, for all metrics that need nothing else."""
        return Encoded(self.subject.encode(self.data, self.batch_size), self.subject)

    def __call__(self, name: str, options: dict[str, Any]) -> Tensor:
        if name in _PROBES:
            return {name: self._probe(_PROBES[name], options)}
        if name in _SAMPLES:
            return {name: self._samples(_SAMPLES[name], options)}
        if hasattr(self, f"_{name}"):
            return getattr(self, f"_{name}")(options)
        return {name: self._estimate(FUNCTIONS[name], options)}

    def _estimate(self, function, options):
        """Calls a function of a model and data, or of a posterior in the place of both."""
        parameters = inspect.signature(function).parameters
        common = {"seed": self.seed, "batch_size": self.batch_size, "progress": self.progress}
        # A default of None is chosen by what fits the memory.
        chosen = {
            name: value
            for name, value in common.items()
            if name in parameters and parameters[name].default is not None
        }
        of_model = next(iter(parameters)) == "model"
        source = (self.subject, self.data) if of_model else (self.encoded,)
        return function(*source, **{**chosen, **options})

    def _negative_log_likelihood(self, options):
        chosen = {"num_samples": self.num_samples, "seed": self.seed, "progress": self.progress}
        data = self.data
        if self.num_images is not None and self.num_images < len(data):
            rows = np.random.default_rng(self.seed).choice(len(data), self.num_images, False)
            data = data[np.sort(rows)]
        estimate = negative_log_likelihood(self.subject, data, **{**chosen, **options})
        found = {"negative_log_likelihood": estimate}
        for part in ("elbo", "distortion", "rate"):
            found[part] = Estimate(
                estimate.extra[part], count=estimate.count, estimator="same draws", unit="nats"
            )
        if self.subject.of_text:
            found["perplexity"] = perplexity_of(estimate, self.subject, self.subject.observed(data))
        return found

    def _mutual_information(self, options):
        chosen = {"seed": self.seed, "batch_size": self.batch_size, "progress": self.progress}
        estimate = mutual_information(self.encoded, **{**chosen, **options})
        divergence = Estimate(
            estimate.extra["marginal_divergence"],
            count=estimate.count,
            estimator=estimate.estimator,
            unit="nats",
            settings=estimate.settings,
        )
        return {"mutual_information": estimate, "marginal_divergence": divergence}

    def _mutual_posterior_divergence(self, options):
        chosen = {"seed": self.seed, "batch_size": self.batch_size, "progress": self.progress}
        estimate = mutual_posterior_divergence(self.encoded, **{**chosen, **options})
        deviation = Estimate(
            estimate.extra["standard_deviation"],
            count=estimate.extra["standard_deviation_examples"],
            estimator="standard deviation over pairs",
            unit="nats",
        )
        return {
            "mutual_posterior_divergence": estimate,
            "posterior_divergence_deviation": deviation,
        }

    def _aggregate_divergence(self, options):
        chosen = {"seed": self.seed, "batch_size": self.batch_size}
        moments = aggregate_moments(self.encoded, **{**chosen, **options})
        sampled = [
            name
            for name, drawn in (
                ("posteriors", isinstance(self.encoded.posterior, FlowGaussian)),
                ("prior", moments.prior_mean is not None),
            )
            if drawn
        ]
        origin = f" ({' and '.join(sampled)} by draws)" if sampled else ""
        estimate = Estimate(
            moments.divergence,
            count=moments.count,
            estimator=f"normal law of equal moments{origin}",
            unit="nats",
            extra={
                # Of the covariance of z: means and widths of the posteriors together.
                "eigenvalues": moments.eigenvalues.tolist(),
                "mean_absolute_correlation": moments.mean_absolute_correlation,
                "eigenvalues_of_means": moments.eigenvalues_of_means.tolist(),
                "mean_absolute_correlation_of_means": moments.mean_absolute_correlation_of_means,
                "mean": moments.mean.tolist(),
            },
        )
        return {
            "aggregate_divergence": estimate,
            "aggregate_variance": _spectrum(
                "z, means and widths together",
                moments.eigenvalues,
                moments.mean_absolute_correlation,
                moments.count,
            ),
            "variance_of_means": _spectrum(
                "posterior means alone, 0 after collapse",
                moments.eigenvalues_of_means,
                moments.mean_absolute_correlation_of_means,
                moments.count,
            ),
        }

    def _probe(self, probe, options):
        # What is encoded: of pairs of inputs and targets, the inputs.
        encoder = self.subject.of_inputs
        chosen = {"model": encoder, "seed": self.seed, "batch_size": self.batch_size}
        pairs = [self.train, (self.subject.inputs(self.data), self.labels)]
        if probe is few_label_probe:
            pairs.insert(1, self.validation)
            # Which labeled subsets are drawn is the protocol's, not the command's.
            chosen.pop("seed")
        return probe(*pairs, **{**chosen, **options})

    def _samples(self, distance, options):
        chosen = {"labels": self.labels, "seed": self.seed, "batch_size": self.batch_size}
        real = self.subject.observed(self.data)
        return distance(self.subject.generator, real, **{**chosen, **options})


def _spectrum(what, eigenvalues, correlation, count):
    """The mean eigenvalue of a covariance, that is the mean variance, with their range."""
    related = "none" if np.isnan(correlation) else f"{correlation:.2f}"
    return Estimate(
        float(np.mean(eigenvalues)),
        count=count,
        estimator=(
            f"{what}: eigenvalues {eigenvalues[0]:.2g} to {eigenvalues[-1]:.2g}, "
            f"mean |correlation| {related}"
        ),
        extra={
            "eigenvalues": eigenvalues.tolist(),
            "mean_absolute_correlation": correlation,
        },
    )


def _check_names(metrics, options):
    known = (*STANDARD, *FURTHER)
    for argument, names in (("metrics", metrics), ("options", tuple(options))):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(
                f"`{argument}` must be among {', '.join(known)}. Received: "
                + ", ".join(map(str, unknown))
            )
    if not metrics:
        raise ValueError("`metrics` must name at least one metric. Received: none")
    for name, chosen in options.items():
        several = chosen if isinstance(chosen, list | tuple) else [chosen]
        valid = [*_options_of(name)]
        for arguments in several:
            if not isinstance(arguments, dict):
                raise ValueError(
                    f"`options` of {name!r} must be a dict of arguments, or a list of such. "
                    f"Received: {arguments!r}"
                )
            for key in arguments:
                if key not in valid:
                    near = difflib.get_close_matches(key, valid, 1)
                    hint = f" (did you mean {near[0]}?)" if near else ""
                    raise ValueError(
                        f"`options` of {name!r} must be among {', '.join(valid)}. Received: "
                        f"{key}{hint}"
                    )


def _has_bar(name):
    """Whether a metric shows a bar of its own."""
    return "progress" in inspect.signature(FUNCTIONS[name]).parameters


def _options_of(name):
    """The arguments of a metric beside those that `evaluate` gives it."""
    given = ("train", "test", "validation", "model", "data", "generated", "labels", "decoder")
    given += ("likelihood", "model_or_posterior", "progress")
    function = FUNCTIONS[name]
    known = (*inspect.signature(function).parameters, *getattr(function, "former_arguments", ()))
    return [key for key in known if key not in given]


def _check_labels(metrics, data, labels, train, validation, options):
    if labels is not None and len(labels) != len(data):
        raise ValueError(
            f"`labels` must have shape ({len(data)},), one per example. Received: {len(labels)}"
        )
    if labels is not None and np.asarray(labels).dtype.kind == "i":
        check_classes("labels", np.asarray(labels))
    for name in metrics:
        chosen = options.get(name, {})
        several = chosen if isinstance(chosen, list | tuple) else [chosen]
        if name in _PROBES and (labels is None or train is None):
            raise ValueError(f"`labels` and `train` must be given for {name!r}. Received: none")
        if name == "few_label_probe":
            if validation is None:
                raise ValueError(f"`validation` must be given for {name!r}. Received: none")
            if not all("num_labels" in arguments for arguments in several):
                raise ValueError(
                    f"`options` of {name!r} must have `num_labels`, how many training examples "
                    "have labels. Received: none"
                )
        one = labels is None or np.ndim(labels) != 2
        if (name == "alphabet_probe") is one and labels is not None and name in _PROBES:
            shape = "(N, 2), alphabet and character," if one else "(N,)"
            raise ValueError(
                f"`labels` must have shape {shape} for {name!r}. Received: shape={np.shape(labels)}"
            )
        wanted = all("features" in arguments for arguments in several)
        if name in _SAMPLES and labels is None and not wanted:
            raise ValueError(
                f"`labels` must be given for {name!r}, or its features in `options`. Received: none"
            )


def _provenance(subject, data, seed, source):
    versions = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for name in (
        "vaezoo", "keras", "tensorflow", "jax", "tensorflow-probability", "tfp-nightly", "numpy",
    ):  # fmt: skip
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "model": subject.name,
        "latent_dim": subject.latent_dim,
        "prior": type(subject.prior).__name__,
        "likelihood": type(subject.likelihood).__name__,
        "weights_sha256": _hash(
            ops.convert_to_numpy(variable)
            for variable in (subject.model.weights if subject.model else subject.variables)
        ),
        "source": source,
        "data": _description(subject.inputs(data)),
        "target": None if subject.of_inputs is subject else _description(subject.observed(data)),
        "seed": seed,
        "assumptions": subject.notes,
        "versions": versions,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _description(array):
    return {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": _hash([array])}


def _hash(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
