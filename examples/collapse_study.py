"""Which VAEs keep their code when the decoder could do without it?

Trains each row with a PixelCNN decoder, which can model the images alone, on binarized images, and
measures on held-out ones how well the images are modeled and what the code holds; of OMNIGLOT also
how well a linear classifier of a few codes knows the characters. Every row is written to the file
as soon as it is done, and rows in the file are not trained again.

    python examples/collapse_study.py [--data mnist --size 14 --examples 10000] [ROW ...]
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from vaezoo import data, metrics, runs
from vaezoo.losses import ELBO, LinearSchedule
from vaezoo.metrics.probes import posterior_means

#: Preset and arguments of each row. `anneal` is the part of the epochs in which beta rises to 1.
ROWS = {
    "vae": ("vae", {}),
    "vae_annealed": ("vae", {"anneal": 0.25}),
    "free_bits": ("free_bits_vae", {"free_bits": 0.1}),
    "bn_vae": ("bn_vae", {"gamma": 0.5}),
    "du_vae": ("du_vae", {"gamma": 0.5, "keep_prob": 0.9}),
    "du_vae_0.3": ("du_vae", {"gamma": 0.3, "keep_prob": 0.9}),
    "iaf": ("iaf_vae", {"free_bits": 0.0}),
    "iaf_fb": ("iaf_vae", {"free_bits": 0.15}),
    "iaf_bn": ("iaf_vae", {"free_bits": 0.0, "gamma": 0.5}),
    "du_iaf": ("du_iaf", {"gamma": 0.5, "keep_prob": 0.85}),
    "vlae": ("vlae", {"free_bits": 0.0}),
    "vlae_fb": ("vlae", {"free_bits": 0.64}),
    **{
        f"mae_{eta:g}_{gamma:g}": ("mae", {"diversity": eta, "smoothness": gamma})
        for eta in (0.5, 1.0, 2.0)
        for gamma in (0.1, 0.5)
    },
}
METRICS = (
    "negative_log_likelihood",
    "mutual_information",
    "active_units",
    "mutual_posterior_divergence",
    "rate_per_dimension",
)
#: Labeled drawings of each character.
DRAWINGS = (5, 10, 15)


def study(row, settings):
    """Trains and measures one row; returns its numbers."""
    start = time.monotonic()
    images = {"name_or_path": settings["data"], "image_size": settings["size"], "channels": 1}
    model, arguments = ROWS[row]
    arguments = dict(arguments, latent_dim=settings["latent_dim"], seed=settings["seed"])
    if "anneal" in arguments:
        count = data.describe(**images, limit=settings["examples"]).num_examples
        epochs = arguments.pop("anneal") * settings["epochs"]
        steps = epochs * (count // settings["batch_size"])
        arguments["objective"] = ELBO(LinearSchedule(max(1, round(steps))))
    spec = runs.RunSpec(
        f"{model}_digits_pixelcnn",
        model=arguments,
        # The presets of VLAE and MAE have weight normalization; here all networks are the same.
        networks={"normalization": "batch"},
        training={"epochs": settings["epochs"]},
        data={
            **images,
            "batch_size": settings["batch_size"],
            "binarize": "dynamic",
            "labels": False,
            "limit": settings["examples"],
        },
        validation="none",
        seed=settings["seed"],
    )
    run = runs.Run.create(None, spec)
    run.fit(verbose=2)
    trained = time.monotonic()
    held_out, _ = run.arrays("test", limit=settings["held_out"])
    evaluation = metrics.evaluate(
        run.model(), held_out, metrics=METRICS, num_samples=settings["num_samples"]
    )
    found = evaluation.results
    nll, mpd = found["negative_log_likelihood"], found["mutual_posterior_divergence"]
    return {
        "measured": {
            "nll": pair(nll),
            # What has no coordinates has no rate per dimension: then without a standard error.
            "rate": pair(found.get("rate_per_dimension", found["rate"])),
            "distortion": pair(found["distortion"]),
            "mi": pair(found.get("mutual_information")),
            "au": pair(found["active_units"]),
            "mpd": pair(mpd),
            "mpd_std": mpd.extra["standard_deviation"],
        },
        "accuracy": accuracies(run.model(), images) if settings["data"] == "omniglot" else {},
        "skipped": evaluation.skipped,
        "last_epoch": {name: values[-1] for name, values in columns(run.history).items()},
        "seconds": {"training": trained - start, "measuring": time.monotonic() - trained},
        "nll_per_example": [round(value, 3) for value in nll.per_example.tolist()],
    }


def accuracies(model, images):
    """Accuracy of linear classifiers of an alphabet's characters by the number of drawings."""
    coded = []
    for split in ("train", "test"):
        labels = []
        for name in ("alphabet", "alphabet_char_id"):
            x, y = data.load_arrays(split=split, binarize="fixed", labels=name, **images)
            labels.append(y)
        coded.append((posterior_means(model, x), np.stack(labels, axis=1)))
    return {
        str(number): pair(metrics.alphabet_probe(*coded, num_drawings=number, runs=3))
        for number in DRAWINGS
    }


def columns(history):
    """The logs of a run, a list of the epochs' values each."""
    names = [name for name in history[0] if name not in ("epoch", "seconds", "val_bound")]
    return {name: [record[name] for record in history] for name in names}


def pair(estimate):
    """Value and standard error, None where there is none."""
    if estimate is None:
        return [None, None]
    error = estimate.standard_error
    return [estimate.value, error if np.isfinite(error) else None]


def table_of(rows):
    """The rows as a table; differences of NLL are those to the first row, image by image."""
    headings = ("row", "NLL", "- first row's", "KL", "MI", "AU", "MPD", "STD", "KL in training")
    numbers = [n for n in map(str, DRAWINGS) if any(n in row["accuracy"] for row in rows.values())]
    table = Table(*headings, *(f"{number} drawings" for number in numbers))
    table.columns[0].no_wrap = True
    first = np.array(next(iter(rows.values()))["nll_per_example"])
    for name, row in rows.items():
        measured = row["measured"]
        difference = np.array(row["nll_per_example"]) - first
        table.add_row(
            name,
            with_error(*measured["nll"]),
            with_error(difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5),
            with_error(*measured["rate"]),
            with_error(*measured["mi"]),
            f"{measured['au'][0]:.0f}",
            with_error(*measured["mpd"]),
            f"{measured['mpd_std']:.3g}",
            f"{row['last_epoch']['rate']:.2f}",
            *(percentage(*row["accuracy"].get(number, (None, None))) for number in numbers),
        )
    return table


def with_error(value, error):
    """A number and how sure it is."""
    if value is None:
        return "-"
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def percentage(value, error):
    """A share in per cent and how sure it is."""
    return with_error(*(None if part is None else 100 * part for part in (value, error)))


def markdown(table):
    """A `rich` table as markdown."""
    columns = [[str(column.header), *column.cells] for column in table.columns]
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def run_rows(measure, names, settings, out):
    """The rows of a file, after measuring those named that it does not have yet.

    Args:
        measure: Function of a row's name and the settings; what it returns goes into the file.
        names: Names of rows.
        settings: Dict of whatever the rows depend on. A file of other settings ends the program.
        out: `Path` of the file, written after each row.
    """
    saved = {"settings": settings, "versions": versions(), "rows": {}}
    if out.exists():
        saved = json.loads(out.read_text("utf-8"))
        if saved["settings"] != settings:
            sys.exit(f"{out} holds rows of other settings: {saved['settings']}")
    for row in names:
        if row not in saved["rows"]:
            print(f"{row}:", flush=True)
            saved["rows"][row] = measure(row, settings)
            out.write_text(json.dumps(saved) + "\n", "utf-8")
            keras.backend.clear_session()
    return saved["rows"]


def show(table, as_markdown):
    """Prints a `rich` table, or the same as markdown."""
    if as_markdown:
        print(markdown(table))
    else:
        Console().print(table)


def main():
    """Runs the rows that the file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; else all")
    parser.add_argument("--data", default="digits", help="image set, see vaezoo.data.load")
    parser.add_argument("--size", type=int, default=8, help="height and width of the images")
    parser.add_argument("--examples", type=int, help="training images; else all")
    parser.add_argument("--held-out", type=int, default=1000, help="at most so many test images")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--latent-dim", type=int, default=32)
    parser.add_argument("--num-samples", type=int, default=100, help="importance samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("collapse_study.json"))
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    settings = vars(parser.parse_args())
    names, out, as_markdown = (settings.pop(name) for name in ("rows", "out", "markdown"))
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (choose from {', '.join(ROWS)})")

    rows = run_rows(study, names or ROWS, settings, out)
    show(table_of({row: rows[row] for row in ROWS if row in rows}), as_markdown)


def versions():
    """What the numbers were made with."""
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }


if __name__ == "__main__":
    main()
