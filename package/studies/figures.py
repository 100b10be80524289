"""Figures of studies, drawn from their records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.files import written
from . import records
from .measures import COMPONENTS, unpacked

if TYPE_CHECKING:
    from typing import Any

    from .study import Study

_CLASSES = "tab10"


def draw(study: Study, results: str | Path, path: str | Path | None = None) -> Path | None:
    """Draws the figure of a study from the rows that were measured.

    Args:
        study: `Study` with a `figure`.
        results: Folder of the records.
        path: PNG file; by default `figure.png` beside the records.

    Returns:
        The path, or None if nothing was measured yet.
    """
    from matplotlib import pyplot as plt

    held = {}
    for row in study.rows:
        found = records.read_all(Path(results), study, row.name)
        measured = [record for record in found if record["state"] == records.MEASURED]
        if measured:
            held[row.name] = measured[0]
    if not held:
        return None
    path = Path(path or Path(results) / study.paper / study.name / "figure.png")
    figure = FIGURES[study.figure](study, held)
    with written(path) as partial:
        figure.savefig(partial, dpi=100, format="png")
    plt.close(figure)
    return path


def _grid(rows, columns, width=2.4, height=2.4, **options):
    from matplotlib import pyplot as plt

    options = {"squeeze": False, "layout": "constrained", **options}
    return plt.subplots(rows, columns, figsize=(width * columns, height * rows), **options)


def _title(study, name):
    return study.row(name).title


def _curves(axis, label, history, name, sign=1.0, **style):
    values = np.array([np.nan if v is None else sign * v for v in history[name]], "float64")
    axis.plot(np.arange(1, len(values) + 1), values, label=label, **style)


def objective_curves(study: Study, held: dict[str, Any]) -> Any:
    """Objective by epoch, a panel a size of the code."""
    sizes = list(dict.fromkeys(name.partition("_")[2] for name in held))
    figure, axes = _grid(1, len(sizes), 3.2, 2.8)
    for axis, size in zip(axes[0], sizes, strict=True):
        for model in ("hebae", "vae"):
            if f"{model}_{size}" in held:
                history = held[f"{model}_{size}"]["history"]
                _curves(axis, model.upper(), history, "loss", -1.0)
        axis.set(title=size.replace("k", "k = "), xlabel="epoch")
        axis.legend(fontsize="small")
    axes[0, 0].set_ylabel("objective (nats)")
    return figure


def weight_curves(study: Study, held: dict[str, Any]) -> Any:
    """Largest objective by the weight lambda."""
    figure, axes = _grid(1, 1, 4.4, 3.4)
    for model, style in (("hebae", "o-"), ("vae", "s--")):
        points = sorted(
            (float(name.partition("_")[2]), records.value_of(record, "max:-loss")[0])  # type: ignore[index]
            for name, record in held.items()
            if name.startswith(f"{model}_")
        )
        if points:
            axes[0, 0].plot(*zip(*points, strict=True), style, label=model.upper())
    axes[0, 0].set(xscale="log", xlabel="lambda", ylabel="largest objective (nats)")
    axes[0, 0].legend()
    return figure


def covariance_maps(study: Study, held: dict[str, Any]) -> Any:
    """Covariance (upper rows) and correlation (lower rows), a column a model and size."""
    models = [m for m in ("hebae", "vae", "wae") if any(n.startswith(m) for n in held)]
    sizes = list(dict.fromkeys(name.partition("_")[2] for name in held))
    figure, axes = _grid(2 * len(sizes), len(models), 2.3, 2.1)
    image = None
    for place, size in enumerate(sizes):
        for column, model in enumerate(models):
            for part in (0, 1):
                axis = axes[2 * place + part, column]
                axis.set(xticks=[], yticks=[])
                record = held.get(f"{model}_{size}")
                if record is None:
                    axis.set_axis_off()
                    continue
                shown = np.array(record["figure"]["covariance"])
                if part:
                    spread = np.sqrt(np.maximum(np.diag(shown), 1e-12))
                    shown = shown / np.outer(spread, spread)
                image = axis.imshow(np.abs(shown), vmin=0, vmax=1, cmap="viridis")
                if not place and not part:
                    axis.set_title(model.upper())
                if not column:
                    kind = "correlation" if part else "covariance"
                    axis.set_ylabel(f"{kind}\n{size.replace('k', 'k = ')}", fontsize="small")
    figure.colorbar(image, ax=axes, shrink=0.5, label="absolute value, 1 and more alike")
    return figure


def posterior_maps(study: Study, held: dict[str, Any]) -> Any:
    """Density of the aggregate posterior above, means below; the true code at the left."""
    from matplotlib import pyplot as plt

    from .synthetic import CENTERS

    extent = 3.0
    figure, axes = _grid(2, 1 + len(held), 2.3, 2.4, sharex=True, sharey=True)
    colors = plt.get_cmap(_CLASSES)(range(len(CENTERS)))
    rng = np.random.default_rng(0)
    kinds = rng.integers(len(CENTERS), size=2000)
    centers = np.array(CENTERS, "float64")
    true = centers[kinds] + rng.normal(size=(2000, 2))
    log_var = np.zeros((len(centers), 2))
    panels = [("the true code", centers, log_var, true, kinds)]
    for name, record in held.items():
        drawn = record["figure"]
        mean, spread = np.array(drawn["mean"]).T, np.array(drawn["log_var"]).T
        panels.append((_title(study, name), mean, spread, mean, np.array(drawn["label"])))
    edges = (-extent, extent, -extent, extent)
    for (top, bottom), (title, mean, log_var, points, labels) in zip(axes.T, panels, strict=True):
        top.imshow(_density(mean, log_var, extent), origin="lower", extent=edges, cmap="magma")
        top.set_title(title, fontsize="medium")
        bottom.scatter(*points.T, s=3, c=colors[labels % len(colors)], linewidths=0)
        bottom.set(xlim=edges[:2], ylim=edges[2:], aspect="equal")
    axes[0, 0].set_ylabel("aggregate posterior")
    axes[1, 0].set_ylabel("posterior means")
    return figure


def _density(mean, log_var, extent, points=121):
    """Mean density of diagonal Gaussians on a grid of a square, rows from below to above."""
    ticks = np.linspace(-extent, extent, points)

    def along(dim):
        deviation = ticks[:, None] - mean[:, dim]
        return np.exp(-0.5 * (np.square(deviation) / np.exp(log_var[:, dim]) + log_var[:, dim]))

    return along(1) @ along(0).T / (2 * np.pi * len(mean))


def code_maps(study: Study, held: dict[str, Any]) -> Any:
    """Codes in the plane, a row an activation, a column an objective."""
    rows = list(dict.fromkeys(_parts(name)[0] for name in held))
    columns = list(dict.fromkeys(_parts(name)[1] for name in held))
    figure, axes = _grid(len(rows), len(columns), 2.8, 2.8)
    for axis in axes.flat:
        axis.set_axis_off()
    for name, record in held.items():
        activation, objective = _parts(name)
        axis = axes[rows.index(activation), columns.index(objective)]
        axis.set_axis_on()
        _scatter(axis, record["figure"])
        axis.set_title(_title(study, name), fontsize="small")
        axis.set_aspect("equal", "datalim")
    return figure


def _parts(name):
    """Activation and objective of a row of the toy."""
    activation = next(a for a in ("leaky_relu", "relu", "tanh") if name.startswith(f"{a}_"))
    return activation, name.removeprefix(f"{activation}_")


def _scatter(axis, drawn):
    from matplotlib import pyplot as plt

    labels = np.array(drawn["label"])
    colors = plt.get_cmap(_CLASSES)(labels % 10)
    axis.scatter(*np.array(drawn["mean"]), s=3, c=colors, linewidths=0)
    axis.tick_params(labelsize="x-small")


def tsne_maps(study: Study, held: dict[str, Any]) -> Any:
    """A map a model, colored by class."""
    figure, axes = _grid(1, len(held), 2.8, 3.0)
    for axis, (name, record) in zip(axes[0], held.items(), strict=True):
        _scatter(axis, record["figure"])
        axis.set(title=_title(study, name), xticks=[], yticks=[])
    return figure


def training_curves(study: Study, held: dict[str, Any]) -> Any:
    """Reconstruction error and rate by epoch, a line a model."""
    figure, axes = _grid(1, 2, 3.8, 3.0)
    for name, record in held.items():
        for axis, log in zip(axes[0], ("distortion", "rate"), strict=True):
            _curves(axis, _title(study, name), record["history"], log)
    axes[0, 0].set(xlabel="epoch", ylabel="distortion (nats)")
    axes[0, 1].set(xlabel="epoch", ylabel="rate (nats)")
    axes[0, 1].legend(fontsize="x-small")
    return figure


def histogram_panels(study: Study, held: dict[str, Any]) -> Any:
    """A histogram a latent dimension, a row a model."""
    size = max(len(record["figure"]["histograms"]) for record in held.values())
    figure, axes = _grid(len(held), size, 1.3, 1.2, sharex="row")
    for line, (name, record) in zip(axes, held.items(), strict=True):
        reach = record["figure"]["reach"]
        edges = np.linspace(-reach, reach, 61)
        for axis, counts in zip(line, record["figure"]["histograms"], strict=False):
            axis.stairs(counts, edges, fill=True)
            axis.set(yticks=[])
            axis.tick_params(labelsize="xx-small")
        line[0].set_ylabel(_title(study, name), fontsize="xx-small")
    return figure


def _tiled(images):
    """Rows of images `(rows, columns, H, W[, C])` as one picture, a gray line between them."""
    rows, columns, height, width = images.shape[:4]
    padding = [(0, 0), (0, 0), (0, 1), (0, 1), *[(0, 0)] * (images.ndim - 4)]
    padded = np.pad(images, padding, constant_values=128)
    order = (0, 2, 1, 3, *range(4, images.ndim))
    return padded.transpose(order).reshape(
        rows * (height + 1), columns * (width + 1), *images.shape[4:]
    )


def _show(axis, images, title=""):
    axis.imshow(_tiled(images), cmap="gray", vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize="small")


def traversal_panels(study: Study, held: dict[str, Any]) -> Any:
    """A panel a model: a line a latent dimension, of which every fourth step is shown."""
    figure, axes = _grid(1, len(held), 3.2, 3.4)
    for axis, (name, record) in zip(axes[0], held.items(), strict=True):
        drawn = record["figure"]
        title = f"{_title(study, name)}, ±{drawn['reach']:g}"
        _show(axis, unpacked(drawn["traversals"]), title)
    return figure


def sample_panels(study: Study, held: dict[str, Any]) -> Any:
    """A panel of samples a model."""
    figure, axes = _grid(1, len(held), 2.8, 3.0)
    for axis, (name, record) in zip(axes[0], held.items(), strict=True):
        _show(axis, _square(unpacked(record["figure"]["samples"])), _title(study, name))
    return figure


def _square(images):
    side = int(len(images) ** 0.5)
    return images[: side * side].reshape(side, side, *images.shape[1:])


def reconstruction_panels(study: Study, held: dict[str, Any]) -> Any:
    """A panel a model: images, and their reconstructions below."""
    figure, axes = _grid(len(held), 1, 6.4, 1.7)
    for (axis,), (name, record) in zip(axes, held.items(), strict=True):
        drawn = record["figure"]
        _show(axis, _pairs(drawn), _title(study, name))
    return figure


def _pairs(drawn, count=15):
    return np.stack([unpacked(drawn[key])[:count] for key in ("images", "reconstructions")])


def reconstruction_grid(study: Study, held: dict[str, Any]) -> Any:
    """Columns: the original, then what each model makes of it."""
    figure, axes = _grid(1, 1 + len(held), 1.9, 5.2)
    first = next(iter(held.values()))["figure"]
    panels = [("original", unpacked(first["images"]))]
    panels += [
        (_title(study, name), unpacked(record["figure"]["reconstructions"]))
        for name, record in held.items()
    ]
    for axis, (title, images) in zip(axes[0], panels, strict=True):
        few = images[: len(images) // 4 * 4]
        _show(axis, few.reshape(-1, 4, *few.shape[1:]), title)
    return figure


def model_panels(study: Study, held: dict[str, Any]) -> Any:
    """A column a model: samples, reconstructions and interpolations."""
    figure, axes = _grid(3, len(held), 3.0, 2.4, height_ratios=(3, 1, 2))
    for line, (name, record) in zip(axes.T, held.items(), strict=True):
        drawn = record["figure"]
        _show(line[0], _square(unpacked(drawn["samples"])), _title(study, name))
        _show(line[1], _pairs(drawn, 10))
        _show(line[2], unpacked(drawn["interpolations"]))
    for axis, label in zip(
        axes[:, 0], ("samples", "images,\nreconstructions", "between\ntwo"), strict=True
    ):
        axis.set_ylabel(label, fontsize="small")
    return figure


def dependence_bars(study: Study, held: dict[str, Any]) -> Any:
    """MIC, with its floor as a line, and TIC, a bar a model."""
    figure, axes = _grid(1, 2, 3.2, 2.8)
    names = [_title(study, name).partition(",")[0] for name in held]
    for axis, measure in zip(axes[0], ("mic", "tic"), strict=True):
        values = [records.value_of(r, f"index_{measure}")[0] for r in held.values()]  # type: ignore[index]
        axis.bar(names, values, color="tab:blue")
        axis.set_ylabel(measure.upper())
    floors = [records.value_of(r, "index_mic_floor")[0] for r in held.values()]  # type: ignore[index]
    axes[0, 0].plot(names, floors, "k_", markersize=30)
    axes[0, 0].set_title("line: index shuffled", fontsize="small")
    return figure


def estimate_curves(study: Study, held: dict[str, Any]) -> Any:
    """Information, divergence and their sum by epoch; all components after the last as lines."""
    figure, axes = _grid(1, 3, 3.8, 3.4)
    (information, divergence, total) = axes[0]
    for name, record in held.items():
        history, title = record["history"], _title(study, name)
        mi, md = (
            np.array(history[k], "float64") for k in ("mutual_information", "marginal_divergence")
        )
        for axis, values in ((information, mi), (divergence, md), (total, mi + md)):
            axis.plot(np.arange(1, len(values) + 1), values, label=title)
    first = next(iter(held.values()))
    for size in COMPONENTS:
        names = [f"monte_carlo_{k}_{size}" for k in ("mi", "md")]
        if all(name in first["history"] for name in names):
            mi, md = (np.array(first["history"][name], "float64") for name in names)
            for axis, values in ((information, mi), (divergence, md), (total, mi + md)):
                axis.plot(np.arange(1, len(values) + 1), values, ls="--", lw=0.8, color="gray")
                axis.text(len(values), values[-1], f"{size:,}", fontsize="xx-small", va="bottom")
            continue
        numbers = [records.value_of(first, name) for name in names]
        if None in numbers:
            continue
        of_mi, of_md = (value[0] for value in numbers)  # type: ignore[index]
        for axis, value in ((information, of_mi), (divergence, of_md), (total, of_mi + of_md)):
            axis.axhline(value, ls=":", lw=0.8, color="gray")
            axis.text(1, value, f"{size:,}", fontsize="xx-small", va="bottom")
    _curves(total, "KL", first["history"], "rate", color="black", ls=":")
    for axis, title in zip(
        axes[0], ("mutual information", "marginal divergence", "their sum"), strict=True
    ):
        axis.set(title=title, xlabel="epoch", ylabel="nats")
    total.legend(fontsize="x-small")
    return figure


def gain_curves(study: Study, held: dict[str, Any]) -> Any:
    """NLL and MI by the keep probability, a line a gain."""
    figure, axes = _grid(1, 2, 3.6, 3.0)
    lines: dict[str, list] = {}
    for name, record in held.items():
        gain, keep = name.removeprefix("du_vae_").split("_")
        values = [
            records.value_of(record, source)
            for source in ("negative_log_likelihood", "mutual_information")
        ]
        if None not in values:
            lines.setdefault(gain, []).append((float(keep), *[v[0] for v in values]))  # type: ignore[index]
    for gain, points in lines.items():
        kept, nll, mi = zip(*sorted(points), strict=True)
        axes[0, 0].plot(kept, nll, "o-", label=f"gain {gain}")
        axes[0, 1].plot(kept, mi, "o-", label=f"gain {gain}")
    axes[0, 0].set(xlabel="keep probability", ylabel="NLL (nats)")
    axes[0, 1].set(xlabel="keep probability", ylabel="MI (nats)")
    axes[0, 0].legend(fontsize="small")
    return figure


#: The functions by name, as `Study.figure` has them.
FIGURES = {
    function.__name__: function
    for function in (
        objective_curves,
        weight_curves,
        covariance_maps,
        posterior_maps,
        code_maps,
        tsne_maps,
        training_curves,
        histogram_panels,
        traversal_panels,
        sample_panels,
        reconstruction_panels,
        reconstruction_grid,
        model_panels,
        dependence_bars,
        estimate_curves,
        gain_curves,
    )
}
