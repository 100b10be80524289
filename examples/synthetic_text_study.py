"""What five VAEs make of a code that is known: sentences written from a mixture in the plane.

An LSTM with random weights writes sentences of ten words. Each is written from a point of the
plane, drawn from five Gaussians, one in the middle and four around it. Five models with a code of
two dimensions, the prior N(0, I) and the same small networks are trained on the sentences; the
figure shows where each of them puts the sentences, colored by the Gaussian that they come from.

    python examples/synthetic_text_study.py [ROW ...] [--figure synthetic_text.png]

Every row is written to the file as soon as it is done, and rows in the file are not trained again.
"""

import argparse
import functools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from collapse_study import columns, pair, run_rows, show, with_error
from keras import ops
from rich.table import Table

from vaezoo import metrics, runs, zoo
from vaezoo.callbacks import PlateauDecay
from vaezoo.losses import LinearSchedule
from vaezoo.zoo import networks

#: Name, constructor and arguments of each row.
ROWS = {
    "vae": ("VAE", zoo.TextVAE, {}),
    "free_bits": ("free bits (0.5)", zoo.FreeBitsVAE, {"free_bits": 0.5}),
    "delta_vae": ("delta-VAE (0.5)", zoo.DeltaVAE, {"delta": 0.5}),
    "bn_vae": ("BN-VAE (0.9)", zoo.BNVAE, {"gamma": 0.9}),
    "du_vae": ("DU-VAE (0.9, 0.8)", zoo.DUVAE, {"gamma": 0.9, "keep_prob": 0.8}),
}
#: The centers of the mixture, whose components have equal weights, and their standard deviation.
CENTERS = np.array([(0, 0), (2, 2), (2, -2), (-2, 2), (-2, -2)], "float32")
DEVIATION = 0.5
WORDS, LENGTH = 1000, 10
FIRST_WORD = 4
SPLITS = {"train": 16_000, "validation": 2000, "test": 2000}
#: Half the width of the square that the figure shows.
EXTENT = 3.0


@functools.cache
def corpus(scale, seed, limit=None):
    """Sentences and components of each split.

    Args:
        scale: Positive float s; the LSTM's weights are from U(-s, s), those of the words that go
            in from U(-s/3, s/3), and those of the words that come out from U(-8s, 8s).
        seed: Non-negative int.
        limit: Largest number of sentences of a split, or None.

    Returns:
        Dict of split to `(x, component)`: int32 `(n, 12)` and `(n,)`.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    sizes = [min(count, limit or count) for count in SPLITS.values()]
    size = sum(sizes)
    component = rng.integers(len(CENTERS), size=size).astype("int32")
    z = CENTERS[component] + DEVIATION * rng.normal(size=(size, 2)).astype("float32")
    writer = networks.LSTMDecoder(
        2,
        (None,),
        FIRST_WORD + WORDS,
        embedding_dim=100,
        units=100,
        scale=scale,
        embedding_scale=scale / 3,
    )
    writer.start(z[:1])
    # Sharp choices that depend on the code first, and on the words before second.
    writer.readout.kernel.assign(8 * writer.readout.kernel)
    x = np.concatenate([written(writer, part, rng) for part in np.array_split(z, -(-size // 1000))])
    ends = np.cumsum(sizes)[:-1]
    parts = zip(np.split(x, ends), np.split(component, ends), strict=True)
    return dict(zip(SPLITS, parts, strict=True))


def written(writer, z, rng):
    """Draws a sentence of `LENGTH` words from each code, int32 `(n, LENGTH + 2)`."""
    sentences = np.full((len(z), LENGTH + 2), writer.end_id, "int32")
    sentences[:, 0] = writer.start_id
    state = writer.start(z)
    for place in range(LENGTH):
        logits, state = writer.step(sentences[:, place], z, state)
        scores = ops.convert_to_numpy(logits)[:, FIRST_WORD:]
        # The largest sum with Gumbel noise is a draw from the softmax.
        scores = scores + rng.gumbel(size=scores.shape)
        sentences[:, place + 1] = FIRST_WORD + np.argmax(scores, axis=1)
    return sentences


def study(row, settings):
    """Trains and measures one row; returns its numbers and its picture."""
    start = time.monotonic()
    splits = corpus(settings["scale"], settings["seed"], settings["limit"])
    (train, _), (validation, _), (test, component) = (splits[name] for name in SPLITS)
    batch_size = settings["batch_size"]
    _, constructor, arguments = ROWS[row]
    if settings["warm_up"]:
        steps = settings["warm_up"] * -(-len(train) // batch_size)
        arguments = {**arguments, "beta": LinearSchedule(steps)}
    dropout = {"embedding_dropout": settings["dropout"], "output_dropout": settings["dropout"]}
    spec = runs.RunSpec(
        constructor=constructor.__name__,
        model={"latent_dim": 2, "likelihood": "tokens", "seed": settings["seed"], **arguments},
        networks={
            "kind": "lstm",
            "input_shape": (LENGTH + 2,),
            "vocabulary_size": FIRST_WORD + WORDS,
            "embedding_dim": settings["units"],
            "units": settings["units"],
            "decoder": dropout,
        },
        training={
            "epochs": settings["epochs"],
            "optimizer": "sgd",
            "learning_rate": settings["learning_rate"],
            "global_clipnorm": 5.0,
        },
        seed=settings["seed"],
    )
    best = PlateauDecay(patience=2, start_epoch=settings["warm_up"], warm_up=settings["warm_up"])
    run = runs.Run.create(None, spec)
    run.fit(
        [best],
        x=train,
        batch_size=batch_size,
        validation_data=(validation,),
        validation_batch_size=500,
        verbose=2,
    )
    model = run.model()
    trained = time.monotonic()
    names = ("negative_log_likelihood", "mutual_information", "active_units")
    found = metrics.evaluate(
        model, test, metrics=names, num_samples=settings["num_samples"]
    ).results
    posterior = model.encode(test)
    mean, log_var = (ops.convert_to_numpy(part) for part in posterior)
    return {
        "measured": {
            "nll": pair(found["negative_log_likelihood"]),
            "rate": pair(found["rate"]),
            "distortion": pair(found["distortion"]),
            "mi": pair(found["mutual_information"]),
            "au": pair(found["active_units"]),
            "center": nearest_center(mean, component),
        },
        "last_epoch": {name: values[-1] for name, values in columns(run.history).items()},
        "epochs": len(run.history),
        "seconds": {"training": trained - start, "measuring": time.monotonic() - trained},
        "component": component.tolist(),
        "mean": np.round(mean, 4).tolist(),
        "log_var": np.round(log_var, 4).tolist(),
    }


def nearest_center(mean, component):
    """Share of codes nearest to the center of their own component's codes."""
    kinds = np.unique(component)
    centers = np.stack([mean[component == kind].mean(axis=0) for kind in kinds])
    distance = np.sum(np.square(mean[:, None] - centers), axis=-1)
    return float(np.mean(kinds[np.argmin(distance, axis=1)] == component))


def table_of(rows):
    """The rows as a table."""
    table = Table("row", "NLL", "perplexity", "KL", "MI", "AU", "own center")
    table.columns[0].no_wrap = True
    for name, row in rows.items():
        measured = row["measured"]
        table.add_row(
            name,
            with_error(*measured["nll"]),
            # The end is predicted as well.
            f"{np.exp(measured['nll'][0] / (LENGTH + 1)):.2f}",
            with_error(*measured["rate"]),
            with_error(*measured["mi"]),
            f"{measured['au'][0]:.0f}",
            f"{measured['center']:.0%}",
        )
    return table


def figure_of(rows, path):
    """Two pictures a row: the density of the aggregate posterior, and the posterior means."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        2,
        len(rows),
        figsize=(2.6 * len(rows), 5.4),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    colors = plt.get_cmap("tab10")(range(len(CENTERS)))
    for (top, bottom), (name, row) in zip(axes.T, rows.items(), strict=True):
        mean, log_var = np.array(row["mean"]), np.array(row["log_var"])
        edges = (-EXTENT, EXTENT, -EXTENT, EXTENT)
        top.imshow(density(mean, log_var), origin="lower", extent=edges, cmap="magma")
        top.set_title(ROWS[name][0], fontsize="medium")
        bottom.scatter(*mean.T, s=3, c=colors[row["component"]], linewidths=0)
        bottom.set(xlim=edges[:2], ylim=edges[2:], aspect="equal")
    axes[0, 0].set_ylabel("aggregate posterior")
    axes[1, 0].set_ylabel("posterior means")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def density(mean, log_var, points=121):
    """Mean density of the posteriors on a grid of the square, rows from below to above."""
    ticks = np.linspace(-EXTENT, EXTENT, points)

    def along(dim):
        deviation = ticks[:, None] - mean[:, dim]
        return np.exp(-0.5 * (np.square(deviation) / np.exp(log_var[:, dim]) + log_var[:, dim]))

    return along(1) @ along(0).T / (2 * np.pi * len(mean))


def main():
    """Runs the rows that the file does not have yet, and draws all that it has."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; else all")
    parser.add_argument("--limit", type=int, help="sentences of each split; else all")
    parser.add_argument("--epochs", type=int, default=12, help="at most")
    parser.add_argument("--warm-up", type=int, default=0, help="epochs until the KL counts fully")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--units", type=int, default=50, help="of the models' networks")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the models' decoder")
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--scale", type=float, default=0.3, help="of the writer's weights")
    parser.add_argument("--num-samples", type=int, default=100, help="importance samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("synthetic_text_study.json"))
    parser.add_argument("--figure", type=Path, default=Path("synthetic_text.png"))
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    settings = vars(parser.parse_args())
    names, out, figure, as_markdown = (
        settings.pop(name) for name in ("rows", "out", "figure", "markdown")
    )
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (choose from {', '.join(ROWS)})")

    rows = run_rows(study, names or ROWS, settings, out)
    rows = {row: rows[row] for row in ROWS if row in rows}
    show(table_of(rows), as_markdown)
    figure_of(rows, figure)


if __name__ == "__main__":
    main()
