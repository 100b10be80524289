"""The three studies of VAE-AS: weights on information, estimates of it, and the decoder's depth.

    python examples/auxiliary_softmax_study.py weights [ROW ...]     tables 2 and 3: (alpha, beta)
    python examples/auxiliary_softmax_study.py estimates             section 5.2, with its figure
    python examples/auxiliary_softmax_study.py depth                 table 1: active units

Without further options the studies have the paper's sizes: all training images (of MNIST 55,000, as
there; the 5,000 left out are the last ones, and are used for nothing), all test images, and 300
epochs, of `estimates` 120. `--data` takes any image set of `vaezoo.data.load`, in gray and 28x28
pixels; the paper's OMNIGLOT is the file `chardata.mat`. Published rows are shown beside ours where
the paper has the data.

Every row is written to the file as soon as it is done, and rows in the file are not trained again.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from collapse_study import columns, pair, run_rows, show, with_error
from rich.table import Table

from vaezoo import data, metrics, runs, zoo

#: Published rows, MNIST and OMNIGLOT: test NLL, test KL, AU, train NLL, train KL, MI, MD, SC.
PUBLISHED = {
    "mnist": {
        "vae": (100.99, 18.39, 8, 73.45, 18.57, None, None, None),
        "1_1": (96.32, 21.84, 11, 71.66, 21.22, 10.78, 10.66, 0.35),
        "1_0.1": (116.61, 64.70, 36, 58.39, 65.70, 10.86, 54.89, 0.11),
        "1_0.2": (106.92, 46.99, 25, 61.16, 45.14, 10.87, 34.35, 0.12),
        "1_0.5": (96.63, 29.52, 18, 65.64, 29.40, 10.83, 18.71, 0.22),
        "1_2": (101.34, 15.68, 7, 81.61, 15.87, 10.58, 5.78, 0.82),
        "1_5": (141.38, 5.35, 2, 145.04, 5.56, 3.34, 2.27, 7.62),
        "0.1_1": (97.22, 21.53, 11, 72.13, 21.22, 10.80, 10.63, 0.31),
        "0.2_1": (97.51, 21.23, 10, 71.84, 20.92, 10.81, 10.32, 0.31),
        "0.5_1": (98.23, 21.57, 10, 72.23, 20.91, 10.80, 10.32, 0.33),
        "2_1": (96.56, 21.13, 11, 71.85, 20.99, 10.75, 10.48, 0.41),
        "5_1": (97.33, 20.38, 10, 75.94, 19.79, 10.44, 9.80, 0.93),
        "10_1": (104.69, 21.84, 10, 93.05, 20.28, 9.00, 12.60, 3.23),
    },
    "omniglot": {
        "vae": (147.21, 9.33, 3, 133.70, 9.25, None, None, None),
        "1_0.1": (158.54, 81.14, 40, 61.31, 82.70, 10.10, 72.61, 0.00),
        "1_0.2": (144.05, 61.90, 34, 63.96, 61.59, 10.10, 51.50, 0.01),
        "1_0.5": (133.44, 37.22, 21, 70.27, 37.59, 10.09, 27.52, 0.02),
        "1_1": (140.08, 22.81, 10, 83.91, 22.56, 10.07, 12.53, 0.07),
        "1_2": (146.47, 8.38, 3, 135.03, 8.56, 6.17, 2.56, 4.10),
        "1_5": (161.17, 2.35, 1, 161.56, 2.66, 1.83, 0.84, 8.28),
        "1_10": (174.49, 1.46, 0, 177.22, 2.09, 0.59, 1.55, 9.56),
        "0.1_1": (136.82, 23.23, 11, 82.03, 23.45, 10.07, 13.41, 0.06),
        "0.2_1": (140.38, 21.17, 9, 86.22, 21.49, 10.07, 11.45, 0.06),
        "0.5_1": (137.52, 21.57, 10, 84.68, 22.13, 10.07, 12.10, 0.07),
        "2_1": (140.60, 21.16, 9, 86.02, 21.27, 10.06, 11.25, 0.08),
        "5_1": (133.10, 20.97, 10, 86.42, 21.31, 10.04, 11.35, 0.13),
        "10_1": (175.63, 41.15, 7, 145.96, 39.76, 4.22, 36.84, 7.18),
    },
}
#: Published active units by hidden layers of the decoder (table 1).
DEPTHS = {1: 23, 2: 21, 3: 17, 4: 12, 5: 8}
#: Epochs of each study.
EPOCHS = {"weights": 300, "estimates": 120, "depth": 300}
#: Training images that the paper leaves out.
LEFT_OUT = {"mnist": 5000}
#: Components of the aggregate posterior in the Monte-Carlo estimates, at most all examples.
COMPONENTS = (100, 500, 1000, 5000, 10_000, 55_000)
#: Logs of the last epoch: NLL and KL of training data, MI, MD, SC.
LOGGED = (
    "distortion",
    "rate",
    "mutual_information",
    "marginal_divergence",
    "classifier_loss",
)


def published_as(name):
    """The paper's name of a data set, or None if it has another one."""
    return "omniglot" if name.endswith(".mat") else name if name in PUBLISHED else None


def images_of(settings):
    """Arguments of `data.load` for the images of a study."""
    images = {"name_or_path": settings["data"], "image_size": 28, "channels": 1}
    if settings["data"] in LEFT_OUT:
        images["validation_split"] = LEFT_OUT[settings["data"]]
    return images


def num_examples(settings):
    """How many images are trained on."""
    return data.describe(**images_of(settings), limit=settings["examples"]).num_examples


def run_of(preset, settings, model=None, networks=None, labels=None):
    """A run of a preset, in memory alone.

    With `labels` a classifier of so many classes measures along with a model that has none.
    """
    size, taught = num_examples(settings), "num_examples" in zoo.presets()[preset][1]["model"]
    classes = min(labels, size) if labels else None
    spec = runs.RunSpec(
        preset,
        model={**(model or {}), "seed": settings["seed"]},
        networks=networks or {},
        training={"epochs": settings["epochs"]},
        data={
            **images_of(settings),
            "binarize": "dynamic",
            "limit": settings["examples"],
            "labels": False,
            "with_index": taught or labels is not None,
        },
        regularizers=[zoo.auxiliary_softmax(size, num_labels=classes)] if labels else [],
        validation="none",
        seed=settings["seed"],
    )
    return runs.Run.create(None, spec)


def evaluated(run, settings):
    """Measures of test images, binarized once."""
    names = ("negative_log_likelihood", "active_units")
    held_out, _ = run.arrays("test", limit=settings["held_out"])
    found = metrics.evaluate(
        run.model(), held_out, metrics=names, num_samples=settings["num_samples"]
    ).results
    return {name: pair(found[name]) for name in (*names, "rate", "distortion")}


# -- tables 2 and 3: weights on information and divergence -----------------------------------------


def weights_row(row, settings):
    """Trains and measures the plain VAE, or VAE-AS with the weights in the row's name."""
    name = published_as(settings["data"]) or "mnist"
    if row == "vae":
        run = run_of(f"vae_{name}_500", settings)
    else:
        alpha, beta = map(float, row.split("_"))
        weights = {"alpha": alpha, "beta": beta}
        run = run_of(f"vae_as_{name}", settings, weights)
    last = run.fit(verbose=2)[-1]
    return {
        "test": evaluated(run, settings),
        "train": {name: last[name] for name in LOGGED if name in last},
    }


def weights_table(rows, settings):
    """Ours, and under it the published row of the paper's data sets."""
    headings = (
        "alpha_beta",
        "NLL test",
        "KL test",
        "AU",
        "NLL train",
        "KL train",
        "MI",
        "MD",
        "SC",
    )
    table = Table(*headings)
    name = published_as(settings["data"])
    for row, published in PUBLISHED[name or "mnist"].items():
        if row not in rows:
            continue
        test, training = rows[row]["test"], rows[row]["train"]
        table.add_row(
            row,
            with_error(*test["negative_log_likelihood"]),
            with_error(*test["rate"]),
            f"{test['active_units'][0]:.0f}",
            *(f"{training[name]:.2f}" if name in training else "-" for name in LOGGED),
        )
        if name:
            values = ("-" if value is None else f"{value:g}" for value in published)
            table.add_row("published", *values)
    return table


# -- section 5.2: estimates of information ---------------------------------------------------------


class MonteCarlo(keras.callbacks.Callback):
    """Information by components: the aggregate posterior of the first S examples, own included."""

    def __init__(self, images, seed):
        super().__init__()
        self.images, self.seed, self.found = images, seed, []

    def on_epoch_end(self, epoch, logs=None):
        posterior = self.model.encode(self.images, batch_size=500)
        sizes = [size for size in COMPONENTS if size < len(self.images)] + [len(self.images)]
        epoch_found = {}
        for size in sizes:
            part = type(posterior)(*(values[:size] for values in posterior))
            estimate = metrics.mutual_information(part, seed=self.seed)
            divergence = estimate.extra["marginal_divergence"]
            epoch_found[str(size)] = [float(estimate.value), float(divergence)]
        self.found.append(epoch_found)


def estimates_row(row, settings):
    """Trains the plain VAE with a classifier that measures: of all examples, or shared labels."""
    size = num_examples(settings)
    labels = size if row == "all" else min(int(row), size)
    run = run_of("vae_mnist_500_estimation", settings, labels=labels)
    # The model is trained alike in all rows, so one of them measures by Monte-Carlo, too.
    first = run.arrays("train")[0] if row == "all" else None
    monte_carlo = [] if first is None else [MonteCarlo(first, settings["seed"])]
    history = columns(run.fit(monte_carlo, verbose=2))
    found = {"labels": labels, "history": {name: history[name] for name in LOGGED}}
    return {**found, "monte_carlo": monte_carlo[0].found} if monte_carlo else found


def estimates_table(rows, settings):
    """Each estimate after the last epoch; MI + MD should be the rate."""
    table = Table("estimate", "at most", "MI", "MD", "MI + MD", "KL")
    for row in rows.values():
        last = {name: values[-1] for name, values in row["history"].items()}
        information, divergence = last["mutual_information"], last["marginal_divergence"]
        table.add_row(
            f"classifier, {row['labels']:,} labels",
            f"{np.log(row['labels']):.2f}",
            *(f"{value:.2f}" for value in (information, divergence, information + divergence)),
            f"{last['rate']:.2f}",
        )
        for size, (information, divergence) in (row.get("monte_carlo") or [{}])[-1].items():
            table.add_row(
                f"Monte-Carlo, {int(size):,} components",
                f"{np.log(int(size)):.2f}",
                *(f"{value:.2f}" for value in (information, divergence, information + divergence)),
                f"{last['rate']:.2f}",
            )
    return table


def estimates_figure(rows, path):
    """Estimates by epoch in three panels: MI, MD, and their sum beside the rate."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    lines = []
    for row in rows.values():
        history = row["history"]
        values = (history["mutual_information"], history["marginal_divergence"])
        lines.append((f"classifier, {row['labels']:,} labels", "-", *map(np.array, values)))
        if "monte_carlo" in row:
            for size in row["monte_carlo"][0]:
                pairs = np.array([epoch[size] for epoch in row["monte_carlo"]])
                lines.append((f"{int(size):,} components", "--", *pairs.T))
    for label, style, information, divergence in lines:
        epochs = np.arange(1, len(information) + 1)
        for axis, values in zip(
            axes, (information, divergence, information + divergence), strict=True
        ):
            axis.plot(epochs, values, style, label=label)
    rate = next(iter(rows.values()))["history"]["rate"]
    axes[2].plot(np.arange(1, len(rate) + 1), rate, "k:", label="KL")
    titles = ("mutual information", "marginal divergence", "their sum")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="epoch", ylabel="nats")
    axes[2].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


# -- table 1: active units by the decoder's depth --------------------------------------------------


def depth_row(row, settings):
    """Trains the plain VAE with so many hidden layers in its decoder."""
    networks = {"decoder": {"hidden_units": (500,) * int(row)}}
    run = run_of("vae_mnist_500", settings, networks=networks)
    run.fit(verbose=2)
    return {"test": evaluated(run, settings)}


def depth_table(rows, settings):
    """Active units, ours and published."""
    table = Table("hidden layers", "AU", "published", "KL test", "distortion test")
    for depth, published in DEPTHS.items():
        if str(depth) in rows:
            test = rows[str(depth)]["test"]
            table.add_row(
                str(depth),
                f"{test['active_units'][0]:.0f}",
                str(published),
                with_error(*test["rate"]),
                with_error(*test["distortion"]),
            )
    return table


STUDIES = {
    "weights": (weights_row, weights_table),
    "estimates": (estimates_row, estimates_table),
    "depth": (depth_row, depth_table),
}


def names_of(study, settings):
    """The rows that a study has."""
    if study == "weights":
        return list(PUBLISHED[published_as(settings["data"]) or "mnist"])
    return ["all", "10000"] if study == "estimates" else [str(depth) for depth in DEPTHS]


def timed(measure):
    """The same function of a row, with the seconds that it took among its numbers."""

    def call(row, settings):
        start = time.monotonic()
        found = measure(row, settings)
        return {**found, "seconds": time.monotonic() - start}

    return call


def main():
    """Runs the rows that the file does not have yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="of the study; else all")
    parser.add_argument(
        "--data", default="mnist", help="image set of vaezoo.data.load, such as fashion_mnist"
    )
    parser.add_argument("--examples", type=int, help="training images; else all")
    parser.add_argument("--held-out", type=int, help="at most so many test images; else all")
    parser.add_argument("--epochs", type=int, help="300, of `estimates` 120, as in the paper")
    parser.add_argument("--num-samples", type=int, default=4096, help="importance samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="auxiliary_softmax_STUDY.json by default")
    parser.add_argument("--figure", type=Path, help="where `estimates` draws its figure")
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    settings = vars(parser.parse_args())
    study, names, out, figure, as_markdown = (
        settings.pop(name) for name in ("study", "rows", "out", "figure", "markdown")
    )
    settings["epochs"] = settings["epochs"] or EPOCHS[study]
    known = names_of(study, settings)
    unknown = [
        name
        for name in names
        if name not in known and not (study == "estimates" and name.isdigit())
    ]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (choose from {', '.join(known)})")
    out = out or Path(f"auxiliary_softmax_{study}.json")
    measure, table_of = STUDIES[study]
    left_out = LEFT_OUT.get(settings["data"])
    if left_out:
        print(
            f"{left_out:,} of the training images of {settings['data']} are left out.", flush=True
        )
    rows = run_rows(timed(measure), names or known, settings, out)
    show(table_of(rows, settings), as_markdown)
    if figure and study == "estimates":
        estimates_figure(rows, figure)


if __name__ == "__main__":
    main()
