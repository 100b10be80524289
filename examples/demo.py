"""One VAE collapses, two do not: train, compare, watch, serve, diagnose.

Trains three models on the 1,797 handwritten digits that come with scikit-learn, with the same
encoder, the same deep decoder and the same data. Needs no network and about two minutes of
processor time.

    python examples/demo.py [--out demo] [--epochs 60]
"""

import argparse
import sys
import time
from pathlib import Path

from vaezoo.cli.logs import hush

hush()  # Before TensorFlow is imported.

import keras
import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.decomposition import PCA

from vaezoo import data, metrics, runs
from vaezoo.callbacks import LatentMonitor

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (after the backend is chosen)

LATENT_DIM = 16
MODELS = {
    "VAE": ("vae_digits_mlp", {}),
    "DU-VAE": ("du_vae_digits_mlp", {"gamma": 0.6, "keep_prob": 0.8}),
    "Free bits": ("free_bits_vae_digits_mlp", {"free_bits": 0.3}),
}


class TrainingBar(keras.callbacks.Callback):
    """Shows the epochs of one model in a progress bar."""

    def __init__(self, progress, task):
        super().__init__()
        self.progress, self.task = progress, task

    def on_epoch_end(self, epoch, logs=None):
        shown = f"loss {logs['loss']:.1f}  rate {logs['rate']:.1f} nats"
        self.progress.update(self.task, advance=1, shown=shown)


def train(out, epochs):
    """Trains every model on the same batches; returns them by name."""
    arrays, labels = data.load_arrays("digits", "validation")
    models = {}
    columns = (TextColumn("{task.description:10}"), BarColumn(), TextColumn("{task.fields[shown]}"))
    with Progress(*columns, TimeElapsedColumn()) as progress:
        tasks = {name: progress.add_task(name, total=epochs, shown="waiting") for name in MODELS}
        for name, (preset, arguments) in MODELS.items():
            spec = runs.RunSpec(
                preset,
                model={"latent_dim": LATENT_DIM, "seed": 0, **arguments},
                training={"epochs": epochs},
                validation="none",
            )
            log_dir = out / "tensorboard" / slug(name)
            # Pictures twice in a run. The numbers of an epoch cost about as much as its training.
            monitor = LatentMonitor(
                arrays,
                labels,
                log_dir=str(log_dir),
                frequency=5,
                image_frequency=max(epochs // 2, 1),
            )
            run = runs.Run.create(None, spec)
            run.fit([TrainingBar(progress, tasks[name]), monitor], verbose=0)
            models[name] = run.model()
    return models


def measure(models, test, train_images):
    """Scores every model on the same binarized test digits."""
    rows = {}
    for name, model in models.items():
        # In one batch: each size is compiled by itself.
        logs = model.evaluate(test, batch_size=len(test), verbose=0, return_dict=True)
        log_px = model.log_prob(test, num_samples=500)
        rows[name] = {
            "nll": -log_px.mean(),
            "error": log_px.std(ddof=1) / np.sqrt(len(log_px)),
            "rate": logs["rate"],
            "distortion": logs["distortion"],
            "active": int(metrics.active_units(model, train_images)),
        }
    return rows


def table_of(rows):
    """The comparison as a table."""
    table = Table(title="Test digits, nats per image (NLL: 500 importance samples)")
    table.add_column("model")
    for heading in ("NLL ± s.e.", "rate", "distortion", f"active units of {LATENT_DIM}"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['nll']:.2f} ± {row['error']:.2f}",
            f"{row['rate']:.2f}",
            f"{row['distortion']:.2f}",
            str(row["active"]),
        )
    return table


def picture(models, rows, images, labels, path):
    """Reconstructions, samples and latent means of all models, side by side."""
    figure, axes = plt.subplots(
        len(models), 4, figsize=(14, 3.4 * len(models)), width_ratios=(1.25, 1, 1.1, 1.1)
    )
    shown = images[:24]
    for row, (name, model) in zip(axes, models.items(), strict=True):
        result = rows[name]
        row[0].set_ylabel(f"{name}\n{result['active']} of {LATENT_DIM} units", fontsize=13)
        pairs = np.concatenate(
            [
                np.concatenate(
                    [shown[start : start + 8], model.reconstruct(shown)[start : start + 8]]
                )
                for start in range(0, 24, 8)
            ]
        )
        row[0].imshow(tiles(pairs, 8), cmap="gray_r", vmin=0, vmax=1)
        row[1].imshow(tiles(model.generate(36, seed=0), 6), cmap="gray_r", vmin=0, vmax=1)
        means = model.encode(images, batch_size=256).mean
        codes = PCA(2).fit_transform(means)
        points = row[2].scatter(*codes.T, c=labels, s=7, cmap="tab10", vmin=-0.5, vmax=9.5)
        variances = np.sort(means.var(axis=0, ddof=1))[::-1]
        active = variances >= 0.01
        row[3].bar(range(LATENT_DIM), variances, color=np.where(active, "tab:blue", "tab:red"))
        row[3].set(yscale="log", ylim=(1e-5, 5), xlabel="unit, sorted")
        row[3].axhline(0.01, color="0.3", linestyle=":", linewidth=1)
        for axis in row[:3]:
            axis.set_xticks([])
            axis.set_yticks([])
        figure.colorbar(points, ax=row[2], ticks=range(10), fraction=0.046)
    titles = (
        "test digits above reconstructions",
        "samples from the prior",
        "latent means (two components), by digit",
        "variance of each unit's mean",
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tiles(images, columns):
    """Images `(N, H, W, 1)` as one, with a border between them."""
    framed = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))
    rows = framed.reshape(-1, columns, *framed.shape[1:])
    return rows.transpose(0, 2, 1, 3).reshape(rows.shape[0] * framed.shape[1], -1)


def serve(model, path, images):
    """Exports a model and calls what was written, as a server would."""
    import tensorflow as tf

    model.export(str(path), overwrite=True)
    signatures = tf.saved_model.load(str(path)).signatures
    codes = signatures["encode"](tf.constant(images[:2]))["mean"]
    seeded = {"count": tf.constant(3), "seed": tf.constant(7)}
    samples = next(iter(signatures["sample"](**seeded).values()))
    same = np.allclose(samples, model.generate(3, seed=7), atol=1e-5)
    if not same:
        sys.exit("The served samples differ from the model's own.")
    return (
        f"encode {tuple(images[:2].shape)} -> {tuple(codes.shape)}, "
        f"sample(count=3, seed=7) -> {tuple(samples.shape)}, equal to the model's"
    )


def examine(models, test, out):
    """Diagnoses every model and writes a page on each; returns a table of the verdicts."""
    table = Table(title="Diagnosis", show_lines=True)
    for heading in ("model", "verdict", "evidence", "best remedy"):
        table.add_column(heading)
    for name, model in models.items():
        diagnosis = metrics.diagnose(model, test)
        diagnosis.to_html(out / f"diagnosis_{slug(name)}.html")
        remedy = diagnosis.remedies[0].what if diagnosis.remedies else ""
        table.add_row(name, diagnosis.title, diagnosis.evidence[0], remedy)
    return table


def slug(name):
    """File name of a model."""
    return name.lower().replace(" ", "_").replace("-", "_")


def main():
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for what it makes")
    parser.add_argument("--epochs", type=int, default=60, help="epochs per model")
    arguments = parser.parse_args()
    out, console, start = arguments.out, Console(), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)

    console.print(
        f"Training {len(MODELS)} models on handwritten digits, {keras.backend.backend()}."
    )
    models = train(out, arguments.epochs)
    test = np.concatenate(
        list(data.load("digits", "test", binarize="fixed", labels=False, backend="numpy"))
    )
    gray, labels = data.load_arrays("digits", "test")
    rows = measure(models, test, data.load_arrays("digits", "train")[0])
    picture(models, rows, gray, labels, out / "comparison.png")
    for name, model in models.items():
        model.save(out / f"{slug(name)}.keras")
    served = serve(models["DU-VAE"], out / "saved_model", gray)
    verdicts = examine(models, test, out)

    console.print(table_of(rows))
    lost = LATENT_DIM - rows["VAE"]["active"]
    console.print(
        f"The plain VAE lost {lost} of its {LATENT_DIM} latent units; "
        f"DU-VAE lost {LATENT_DIM - rows['DU-VAE']['active']}."
    )
    console.print(verdicts)
    console.print(f"Done in {time.monotonic() - start:.0f} s. Look at", highlight=False)
    for what, where in {
        "pictures": out / "comparison.png",
        "diagnoses": f"{out}/diagnosis_*.html",
        "models": f"{out}/*.keras",
        "served DU-VAE": f"{out / 'saved_model'}  ({served})",
        "training runs": f"tensorboard --logdir {out / 'tensorboard'}",
    }.items():
        console.print(f"  {what:15}{where}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
