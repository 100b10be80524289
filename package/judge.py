"""Commands that judge a model: `vaezoo evaluate` and `vaezoo diagnose`."""

import inspect
from pathlib import Path
from typing import Annotated

import typer

from . import data, metrics, runs
from .core.files import check_writable, written
from .data.text import text_path
from .sentences import vocabulary_of, writes_text

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
SEED = Annotated[int, typer.Option(metavar="N", min=0, help="Fixes every random draw.")]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
LIKELIHOOD = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Likelihood of a SavedModel that cannot tell: bernoulli or gaussian.",
        show_default=False,
    ),
]


def open_source(source, data_name, data_dir, split, limit, binarize, with_train=False):
    """What a command was given: `(model, x, y, train, description, folder)`.

    `train` is a pair of training data and labels, or None; `folder` is where reports go.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If the data are not known, or do not fit.
    """
    served = source.is_dir() and (source / "saved_model.pb").is_file()
    file = source if served else runs.find_model(source)
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
    if data_dir is not None:
        args["data_dir"] = data_dir
    model = file if served else runs.load_model(file)
    train = None
    with runs.asking_again(config if data_name is None else None, args):
        if not served:
            args = _read_by_its_vocabulary(args, model, file)
        x, y = data.load_arrays(**{**args, "split": split, "limit": limit})
        x = _reshaped(x, model)
        if with_train:
            train_x, train_y = data.load_arrays(**{**args, "split": "train"})
            train = (_reshaped(train_x, model), train_y)
    drawn = ", binarised" if draws else ""
    description = f"{file} on {args['name_or_path']}[{split}], {len(x):,} examples{drawn}"
    folder = file.parent
    if folder.name == runs.CHECKPOINTS:
        folder = folder.parent
    return model, x, y, train, description, folder


def _read_by_its_vocabulary(args, model, file):
    """Arguments of `data.load_arrays` by which text has the ids that the model knows."""
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
            int, typer.Option("--samples", "-k", metavar="K", min=1, help="Draws per example.")
        ] = 500,
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
        divergence. With labels: kmeans_probe, knn_probe, linear_probe,
        frechet_distance, kernel_distance.

        Examples:
          vaezoo evaluate runs/du
          vaezoo evaluate runs/du -k 4096 --limit 1000 --out nll.json
          vaezoo evaluate runs/du -m linear_probe -m knn_probe --out probes.json
          vaezoo evaluate served/du/1 --data digits --binarize
        """
        names = _named(wanted)
        probes = any(name in _GROUPS["probes"] for name in names)
        model, x, y, train, description, folder = open_source(
            source, data_name, data_dir, split, limit, binarize, with_train=probes
        )
        out = out or folder / "evaluation.json"
        check_target(out, overwrite)
        evaluation = metrics.evaluate(
            model,
            x,
            y,
            names,
            likelihood=likelihood,
            train=train,
            num_samples=num_samples,
            seed=seed,
            source=description,
            progress=True,
        )
        evaluation.save(out, overwrite)
        screen = console()
        screen.print(description, highlight=False)
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
        model, x, _, _, description, folder = open_source(
            source, data_name, data_dir, split, limit, binarize
        )
        out = out or folder / "diagnosis.html"
        beside = out.with_suffix(".json")
        for path in (out, beside):
            check_target(path, overwrite)
        arguments = {"likelihood": likelihood} if likelihood else {}
        diagnosis = metrics.diagnose(model, x, seed=seed, **arguments)
        for path, write in ((out, diagnosis.to_html), (beside, diagnosis.to_json)):
            with written(path) as partial:
                write(partial)
        screen = console()
        screen.print(description, highlight=False)
        screen.print(str(diagnosis), highlight=False, markup=False)
        screen.print(f"As a page: {out}", highlight=False)


_GROUPS = {
    "probes": ("kmeans_probe", "knn_probe", "linear_probe"),
    "samples": ("frechet_distance", "kernel_distance"),
}


def _named(wanted):
    """The names of metrics that were asked for, groups spelt out."""
    if not wanted:
        return metrics.STANDARD
    return tuple(name for entry in wanted for name in _GROUPS.get(entry, (entry,)))
