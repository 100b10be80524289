"""Commands that judge a model: `vaezoo evaluate` and `vaezoo diagnose`."""

import inspect
import itertools
import re
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ..core.checks import SEEDS
from ..core.files import check_writable, written
from . import runs, settings

SOURCE = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|MODEL",
        help="Run directory, .keras file or exported SavedModel.",
        show_default=False,
    ),
]
DATA = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="What to judge it on, as in `vaezoo train`; a run knows its own.",
        show_default="the run's",
    ),
]
DATA_DIR = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of prepared tensorflow-datasets.",
        show_default="TFDS_DATA_DIR",
    ),
]
SPLIT = Annotated[str, typer.Option(metavar="SPLIT", help="Which part of the data.")]
LIMIT = Annotated[
    int | None,
    typer.Option(metavar="N", min=2, help="Use only the first N examples.", show_default="all"),
]
BINARIZE = Annotated[
    bool | None,
    typer.Option(
        "--binarize/--grey",
        help="One fixed Bernoulli draw of each pixel, or grey levels.",
        show_default="as the run",
    ),
]
SEED = Annotated[
    int, typer.Option(metavar="N", min=0, max=SEEDS - 1, help="Fixes every random draw.")
]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
LIKELIHOOD = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Likelihood of a SavedModel that cannot tell: bernoulli or gaussian.",
        show_default=False,
    ),
]


class Opened(NamedTuple):
    """What a command was given.

    Attributes:
        model: `VAE`, or the path of a SavedModel.
        x: Data.
        y: Labels, or None.
        train: Pair of training data and labels, or None.
        description: Model, data and number of examples, in words.
        folder: Where reports go.
        validation: Pair of validation data and labels, or None.
        value_range: Values of black and white.
    """

    model: object
    x: object
    y: object
    train: tuple | None
    description: str
    folder: Path
    validation: tuple | None
    value_range: tuple


def open_source(
    source,
    data_name,
    data_dir,
    split,
    limit,
    binarize,
    with_train=False,
    with_validation=False,
    labels=True,
):
    """Opens model and data that a command was given.

    Args:
        source: Path of a run, a `.keras` file or a SavedModel.
        data_name: Name or path of data, or None for the run's.
        data_dir: Folder of prepared sets, or None.
        split: Split of the data.
        limit: Largest number of examples, or None.
        binarize: Whether pixels are drawn, or None for as the run has them.
        with_train: Whether training data are wanted, too.
        with_validation: Whether validation data are, which are then apart from training data.
        labels: As in `vaezoo.data.load`.

    Returns:
        `Opened`.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If the data are not known, or do not fit.
    """
    served = source.is_dir() and (source / "saved_model.pb").is_file()
    file = source if served else runs.find_model(source)
    from .. import data

    config = None if served else runs.run_of(file)
    args = runs.without_asked(config["settings"]["data"]) if config else {}
    if data_name is not None:
        args["name_or_path"] = data_name
    if "name_or_path" not in args:
        raise ValueError(f"`--data` must be given: '{file}' does not belong to a run that knows it")
    names = inspect.signature(data.load_arrays).parameters
    draws = bool(args.get("binarize")) if binarize is None else binarize
    args = {name: value for name, value in args.items() if name in names}
    args.pop("limit", None)
    args["binarize"] = "fixed" if draws else None
    if labels is not True:
        args["labels"] = labels
    if data_dir is not None:
        args["data_dir"] = data_dir
    model = file if served else runs.load_model(file)
    pairs = {"train": None, "validation": None}
    with runs.asking_again(config if data_name is None else None, args):
        if not served:
            args = _read_by_its_vocabulary(args, model, file)
        x, y = data.load_arrays(**{**args, "split": split, "limit": limit})
        # Several draws of one image are no examples of their own to learn from.
        held = {**args, "copies": 1} if "copies" in args else dict(args)
        if with_validation and held.get("validation_split") is None and runs.can_hold_out(held):
            held["validation_split"] = runs.HELD_OUT
        for name, wanted in (("train", with_train), ("validation", with_validation)):
            if wanted:
                one, labels_of_one = data.load_arrays(**{**held, "split": name})
                pairs[name] = (_reshaped(one, model), labels_of_one)
    x = _reshaped(x, model)
    drawn = ", binarised" if draws else ""
    description = f"{file} on {args['name_or_path']}[{split}], {len(x):,} examples{drawn}"
    folder = file.parent
    if folder.name == runs.CHECKPOINTS:
        folder = folder.parent
    value_range = tuple(args.get("value_range", (0.0, 1.0)))
    return Opened(
        model, x, y, pairs["train"], description, folder, pairs["validation"], value_range
    )


def _check_source(source):
    """Raises the error of a missing model, before the backend is imported."""
    if not (source / "saved_model.pb").is_file():
        runs.find_model(source)


def _read_by_its_vocabulary(args, model, file):
    """Arguments of `data.load_arrays` by which text has the ids that the model knows."""
    from ..data.text import text_path
    from .sentences import vocabulary_of, writes_text

    text = text_path(args["name_or_path"], args.get("data_dir")) is not None
    if text != writes_text(model):
        found, wanted = ("text", "images") if text else ("no text", "text")
        raise ValueError(
            f"'{file}' is a model of {wanted}. Received: {args['name_or_path']!r}, which is {found}"
        )
    if not text:
        return args
    return runs.with_vocabulary(args, vocabulary_of(model, file))


def _reshaped(x, model):
    """Flat rows for a model of flat inputs."""
    shape = getattr(getattr(model, "encoder", None), "input_shape", None)
    return x.reshape(len(x), -1) if isinstance(shape, tuple) and len(shape) == 2 else x


def check_target(path, overwrite):
    """Raises an `OSError` if a file would replace another unasked, or cannot be written at all."""
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder: name a file with --out")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"'{path}' exists: replace it with --overwrite, or name another --out"
        )
    check_writable(path)


def register(app, console):
    """Adds the commands to `app`; `console()` gives the console to print to."""

    @app.command()
    def evaluate(
        source: SOURCE,
        data_name: DATA = None,
        data_dir: DATA_DIR = None,
        split: SPLIT = "test",
        limit: LIMIT = None,
        binarize: BINARIZE = None,
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
        likelihood: LIKELIHOOD = None,
        seed: SEED = 0,
        out: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="JSON file with values, errors, settings, data, weights and versions.",
                show_default="evaluation.json beside the model",
            ),
        ] = None,
        overwrite: OVERWRITE = False,
    ):
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
          vaezoo evaluate runs/du -m probes --set kmeans_probe.num_clusters=[10,20,30]
          vaezoo evaluate runs/du -m knn_probe --set knn_probe.num_labels=[100,1000,none]
          vaezoo evaluate served/du/1 --data digits --binarize
        """
        _check_source(source)
        if out:
            check_target(out, overwrite)
        from .. import metrics

        names = _named(wanted)
        options = _options(assignments or [], names)
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
                if opened.y is None and "features" not in {**of_samples, **options.get(name, {})}:
                    raise ValueError(
                        f"{name} needs --features pixels, inception or the .keras file of a "
                        "network: the data have no labels to train a classifier on"
                    )
                options[name] = {**of_samples, **options.get(name, {})}
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
                options=options,
                source=opened.description,
                progress=True,
            )
        except RuntimeError as error:
            # Features that would have to be fetched.
            raise ValueError(str(error)) from error
        evaluation.save(out, overwrite)
        screen = console()
        screen.print(opened.description, highlight=False)
        screen.print(evaluation.table())
        screen.print(f"All of it: {out}", highlight=False)

    @app.command()
    def diagnose(
        source: SOURCE,
        data_name: DATA = None,
        data_dir: DATA_DIR = None,
        split: SPLIT = "test",
        limit: LIMIT = 2000,
        binarize: BINARIZE = None,
        likelihood: LIKELIHOOD = None,
        seed: SEED = 0,
        out: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="Page to write; the same in JSON lies beside it.",
                show_default="diagnosis.html beside the model",
            ),
        ] = None,
        overwrite: OVERWRITE = False,
    ):
        """Say whether a model's latent code is healthy, why, and what would help.

        The verdict comes with its evidence and with remedies, on the screen
        and as a page with pictures that needs no network.

        Examples:
          vaezoo diagnose runs/du
          vaezoo diagnose runs/du/checkpoints/best.keras --out best.html
          vaezoo diagnose served/du/1 --data digits --binarize
        """
        _check_source(source)
        from .. import metrics

        opened = open_source(source, data_name, data_dir, split, limit, binarize)
        out = out or opened.folder / "diagnosis.html"
        beside = out.with_suffix(".json")
        for path in (out, beside):
            check_target(path, overwrite)
        arguments = {"likelihood": likelihood} if likelihood else {}
        diagnosis = metrics.diagnose(opened.model, opened.x, seed=seed, **arguments)
        for path, write in ((out, diagnosis.to_html), (beside, diagnosis.to_json)):
            with written(path) as partial:
                write(partial)
        screen = console()
        screen.print(opened.description, highlight=False)
        screen.print(str(diagnosis), highlight=False, markup=False)
        screen.print(f"As a page: {out}", highlight=False)


_GROUPS = {
    "probes": ("kmeans_probe", "knn_probe", "linear_probe"),
    "samples": ("frechet_distance", "kernel_distance"),
}


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
    return runs.load_network(path)
