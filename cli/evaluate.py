"""`vaezoo evaluate`: measures a model on held-out data."""

from __future__ import annotations

import inspect
import itertools
import re
from pathlib import Path
from typing import Annotated

import typer

from ..runs import settings
from ..runs.models import load_network
from . import options
from .console import open_console
from .source import check_source, check_target, open_source

_GROUPS = {
    "probes": ("kmeans_probe", "knn_probe", "linear_probe"),
    "samples": ("frechet_distance", "kernel_distance"),
}


def evaluate(
    source: options.SOURCE_OR_SERVED,
    data_name: options.DATA = None,
    data_dir: options.DATA_DIR = None,
    split: options.SPLIT = "test",
    limit: options.LIMIT = None,
    binarize: options.BINARIZE = None,
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="NAME",
            help="What to measure, as often as needed; 'probes' and 'samples' name groups.",
            show_default="all that needs no labels",
        ),
    ] = None,
    num_samples: Annotated[
        int,
        typer.Option(
            "--samples", "-k", metavar="K", min=1, help="Draws per example, for the likelihood."
        ),
    ] = 500,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            min=2,
            help="Take the likelihood of N examples only, drawn by the seed.",
            show_default="all",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Features of frechet_distance and kernel_distance: pixels, inception, "
            "classifier (trained on labels), or the .keras file of a network.",
            show_default="classifier",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METRIC.KEY=VALUE",
            help="Argument of a metric, as often as needed; of a list each value is measured.",
        ),
    ] = None,
    likelihood: options.LIKELIHOOD = None,
    seed: options.SEED = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file with values, errors, settings, data, weights and versions.",
            show_default="evaluation.json beside the model",
        ),
    ] = None,
    overwrite: options.OVERWRITE = False,
) -> None:
    """Measure a model on held-out data, with error bars: one table, one JSON file.

    The standard metrics are the importance-weighted likelihood, mutual
    information, marginal divergence, active units, rates and posterior
    divergence. Of samples: frechet_distance, kernel_distance. With labels:
    kmeans_probe, knn_probe, linear_probe, classifier_probe, few_label_probe,
    and of OMNIGLOT alphabet_probe.

    Examples:
      vaezoo evaluate runs/du
      vaezoo evaluate runs/du -k 4096 --images 1000 --out nll.json
      vaezoo evaluate runs/du -m samples --features pixels --out fid.json
      vaezoo evaluate runs/du -m probes --set kmeans_probe.num_clusters=[10,20,30] --out p.json
      vaezoo evaluate runs/du -m knn_probe --set knn_probe.num_labels=[100,none] --overwrite
      vaezoo evaluate served/du/1 --data digits --binarize
    """
    check_source(source)
    if out:
        check_target(out, overwrite)
    from .. import metrics

    names = _named(wanted)
    chosen = _options(assignments or [], names)
    opened = open_source(
        source,
        data_name,
        data_dir,
        split,
        limit,
        binarize,
        with_train=any(name.endswith("_probe") for name in names),
        with_validation="few_label_probe" in names,
        labels="characters" if "alphabet_probe" in names else True,
    )
    out = out or opened.folder / "evaluation.json"
    check_target(out, overwrite)
    of_samples = {"value_range": opened.value_range}
    if features is not None:
        of_samples["features"] = _network(features)
    for name in _GROUPS["samples"]:
        if name in names:
            if opened.y is None and "features" not in {**of_samples, **chosen.get(name, {})}:
                raise ValueError(
                    f"{name} needs --features pixels, inception or the .keras file of a "
                    "network: the data have no labels to train a classifier on"
                )
            chosen[name] = {**of_samples, **chosen.get(name, {})}
    try:
        evaluation = metrics.evaluate(
            opened.model,
            opened.x,
            opened.y,
            names,
            likelihood=likelihood,
            train=opened.train,
            validation=opened.validation,
            num_samples=num_samples,
            num_images=num_images,
            seed=seed,
            options=chosen,
            source=opened.description,
            progress=True,
        )
    except RuntimeError as error:
        # Features that would have to be fetched.
        raise ValueError(str(error)) from error
    evaluation.save(out, overwrite)
    screen = open_console()
    screen.print(opened.description, highlight=False)
    screen.print(evaluation.table())
    screen.print(f"All of it: {out}", highlight=False)


def _named(wanted):
    """The names of metrics that were asked for, groups spelt out."""
    if not wanted:
        from ..metrics import STANDARD

        return STANDARD
    return tuple(name for entry in wanted for name in _GROUPS.get(entry, (entry,)))


def _options(assignments, names):
    """Reads `["kmeans_probe.num_clusters=[10,20]"]`: dict of a metric to its options, or several.

    Raises:
        ValueError: If one has another form, or belongs to no metric that is measured.
    """
    options = {}
    for assignment in assignments:
        match = re.fullmatch(r"(\w+)\.(\w+)=(.*)", assignment.strip(), re.DOTALL)
        if not match or match[1] not in names:
            raise ValueError(
                "`--set` takes METRIC.KEY=VALUE, where the metric is one that is measured: "
                f"{', '.join(names)}. Received: --set {assignment}"
            )
        options.setdefault(match[1], {})[match[2]] = settings.parse_value(match[3])
    return {name: _each(name, chosen) for name, chosen in options.items()}


def _each(name, chosen):
    """Options of a metric, or several where an argument that is no list has a list of values."""
    from ..metrics.evaluate import FUNCTIONS

    parameters = inspect.signature(FUNCTIONS[name]).parameters if name in FUNCTIONS else {}
    lists = {
        key: values
        for key, values in chosen.items()
        if isinstance(values, list)
        and not (key in parameters and isinstance(parameters[key].default, list | tuple))
    }
    if not lists:
        return chosen
    return [
        {**chosen, **dict(zip(lists, values, strict=True))}
        for values in itertools.product(*lists.values())
    ]


def _network(features):
    """A network of features by its name, or from its file."""
    path = Path(features)
    if path.suffix != ".keras":
        return features
    if not path.is_file():
        raise FileNotFoundError(f"No file '{path}' with a network of features")
    return load_network(path)
