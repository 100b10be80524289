"""The diagnosis as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from .diagnose import Diagnosis
    from .trials import Trials

#: Ink of the plots, replaced by the page's own so that they suit light and dark alike.
INK = "#010203"
ACTIVE, SILENT, UNREAD, NEUTRAL = "#2a9d8f", "#e4572e", "#e9a820", "#7d8597"

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
header { border-left: .6rem solid var(--mark); padding: .2rem 1rem; margin-bottom: 1.5rem; }
h1 { margin: 0; font-size: 1.9rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
header p { margin: .2rem 0; }
.quiet { opacity: .7; font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: .4rem; padding: .6rem; }
figcaption { font-size: .9rem; opacity: .85; }
svg { width: 100%; height: auto; }
img { image-rendering: pixelated; width: 100%; max-width: 40rem; background: #fff; }
pre { background: #8882; padding: .5rem .8rem; border-radius: .3rem; overflow-x: auto;
  margin: .3rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; border-bottom: 1px solid #8883; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.trials { overflow-x: auto; margin-bottom: 1rem; }
li { margin: .25rem 0; }
"""


def page(diagnosis: Diagnosis, trials: Trials | None = None) -> str:
    """HTML text of a `Diagnosis`, and of the trials of its remedies."""
    mark = ACTIVE if diagnosis.healthy else SILENT
    title = f"{diagnosis.title}: {diagnosis.settings['model']}"
    body = [
        f'<header style="--mark: {mark}"><h1>{_text(diagnosis.title)}</h1>',
        f"<p>{_text(diagnosis.meaning)}</p>",
        f'<p class="quiet">{_text(diagnosis.subject)}, {_text(diagnosis.settings["likelihood"])} '
        "likelihood</p></header>",
    ]
    if diagnosis.causes:
        body += ["<h2>What is wrong</h2>", _causes(diagnosis.causes)]
    if diagnosis.worth:
        body.append(f"<p>{_text(diagnosis.worth)}</p>")
    body += ["<h2>How we know</h2>", _list(diagnosis.evidence)]
    if diagnosis.remedies:
        body += ["<h2>What to change</h2>", _remedies(diagnosis.remedies[:3], 1, trials)]
        if len(diagnosis.remedies) > 3:
            # What has helped best is not hidden.
            best = trials is not None and trials.winner
            found = best and any(_trial_of(r, trials) is best for r in diagnosis.remedies[3:])
            opened = " open" if found else ""
            body.append(f"<details{opened}><summary>Further remedies</summary>")
            body += [_remedies(diagnosis.remedies[3:], 4, trials), "</details>"]
    if trials is not None:
        body += ["<h2>What it gave when we tried</h2>", *_trials(trials)]
    for finding in diagnosis.findings[1:]:
        origin = " (follows from the above)" if finding.consequence_of else ""
        body += [f"<h2>Also: {_text(finding.title + origin)}</h2>", _list(finding.evidence)]
    figures = _figures(diagnosis)
    if figures:
        body += ["<h2>Plots</h2>", '<div class="plots">', *figures, "</div>"]
    body += ["<h2>Measurements</h2>", _measurements(diagnosis), _dimensions(diagnosis)]
    if diagnosis.notes:
        body += ["<h2>Notes</h2>", _list(diagnosis.notes)]
    settings = ", ".join(f"{name}={value}" for name, value in diagnosis.settings.items())
    body.append(f'<p class="quiet">{_text(settings)}</p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _text(value):
    return html.escape(str(value))


def _list(sentences):
    return "<ul>" + "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences) + "</ul>"


def _trial_of(remedy, trials):
    """The trial of a remedy, or of another one with the same change."""
    if trials is None or not remedy.change:
        return None
    return next((t for t in trials.trials[1:] if t.remedy.change == remedy.change), None)


def _remedies(remedies, start, trials):
    def outcome(remedy):
        trial = _trial_of(remedy, trials)
        if trial is None:
            return ""
        word = "It helped" if trial.helped else "It did not help"
        gain = trial.difference
        told = f"NLL {gain.value:+.2f} +- {gain.standard_error:.2f}"
        if not math.isfinite(gain.value):
            told = f"NLL {trial.nll.value:.2f}, against {trials.trials[0].nll.value:.2f}"
        return f" <b>{word} when we tried: {told}.</b>"

    items = "".join(
        f"<li><b>{_text(remedy.what)}.</b> {_text(remedy.why)}{outcome(remedy)}"
        f"<pre><code>{_text(remedy.code)}</code></pre></li>"
        for remedy in remedies
    )
    return f'<ol start="{start}">{items}</ol>'


def _causes(causes):
    items = ""
    for cause in causes:
        gain = "" if cause.gain is None else f" <b>{cause.gain:.2f} nats</b> to gain."
        said = _text(" ".join(cause.evidence))
        items += f"<li><b>{_text(cause.title)}.</b> {said}{gain}</li>"
    return f"<ol>{items}</ol>"


def _trials(trials):
    """Table of the trials, what came of them, and their pictures side by side."""
    head, *rows = trials.rows()
    numbers = range(2, len(head))
    lines = [
        "<tr>"
        + "".join(
            f"<{tag}{' class=number' if i in numbers else ''}>{_text(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for tag, row in (("th", head), *(("td", row) for row in rows))
    ]
    yield f"<p><b>{_text(trials.outcome)}</b></p>"
    yield (
        f'<p class="quiet">{trials.steps} steps each from the same seeds, scored on '
        f"{trials.held_out} held-out rows; nats per example with standard errors.</p>"
    )
    if trials.assumed:
        yield f"<p>{_text(trials.assumed)}</p>"
    yield '<div class="trials"><table>' + "".join(lines) + "</table></div>"
    shown = [trial for trial in trials.trials if trial.pictures]
    if shown:
        yield '<div class="plots">'
        for trial in shown:
            rows = ", ".join(trial.pictures)
            yield (
                f'<figure><img alt="{_text(rows)}" src="data:image/png;base64,'
                f'{_tiles(trial.pictures)}"><figcaption><b>{_text(trial.name)}</b>: {_text(rows)}.'
                "</figcaption></figure>"
            )
        yield "</div>"


def _measurements(diagnosis):
    rows = "".join(
        f'<tr><td>{_text(label)}</td><td class="number">{_text(text)}</td></tr>'
        for label, text in diagnosis.summary()
    )
    return f"<table>{rows}</table>"


def _dimensions(diagnosis):
    columns = {
        "kl_per_dimension": "KL (nats)",
        "mean_of_means": "mean of means",
        "variance_of_means": "variance of means",
        "posterior_variance": "posterior variance",
        "use": "lost when exchanged (nats)",
    }
    columns = {name: label for name, label in columns.items() if name in diagnosis.arrays}
    if not columns:
        return ""
    states = _states(diagnosis)
    head = "".join(f'<th class="number">{_text(label)}</th>' for label in columns.values())
    rows = "".join(
        f"<tr><td>{index}</td><td>{state}</td>"
        + "".join(
            f'<td class="number">{diagnosis.arrays[name][index]:.3g}</td>' for name in columns
        )
        + "</tr>"
        for index, state in enumerate(states)
    )
    return (
        "<details><summary>By latent dimension</summary><table>"
        f"<tr><th>dimension</th><th>state</th>{head}</tr>{rows}</table></details>"
    )


def _states(diagnosis):
    states = ["active"] * diagnosis.settings["latent_dim"]
    for kind in ("silent", "unread"):
        for index in diagnosis.dimensions[kind]:
            states[index] = kind
    return states


# -- plots -----------------------------------------------------------------------------------------


def figures(diagnosis: Diagnosis) -> list[tuple[str, Any]]:
    """List of `(caption, matplotlib Figure)`."""
    if "prior_variance" not in diagnosis.arrays:
        return []
    return [
        (
            "KL of each dimension. At zero it carries no information; unread by the decoder it is "
            "wasted.",
            _plot_rates(diagnosis),
        ),
        (
            "Variance of the codes: between examples (signal), and within each posterior (noise). "
            "Their sum should equal the prior's.",
            _plot_variances(diagnosis),
        ),
        (
            "Rate, information about x, and the effect of the code on the decoder.",
            _plot_nats(diagnosis),
        ),
        (
            "Codes of the data and draws from the prior, in the two most active dimensions; "
            "circles at one and two standard deviations of the prior. Both should cover the same "
            "area.",
            _plot_codes(diagnosis),
        ),
    ]


def _figures(diagnosis):
    parts = [
        f'<figure role="img" aria-label="{_text(caption)}">{_svg(figure)}'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for caption, figure in figures(diagnosis)
    ]
    if diagnosis.pictures:
        rows = ", ".join(diagnosis.pictures)
        parts.append(
            f'<figure><img alt="{_text(rows)}" src="data:image/png;base64,'
            f'{_tiles(diagnosis.pictures)}"><figcaption>From top to bottom: {_text(rows)}.'
            "</figcaption></figure>"
        )
    return parts


def _axes(height=2.7):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)
    return figure, axes


def _legend(axes, **options):
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, **options)


def _svg(figure):
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "vaezoo", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _ticks(axes, size):
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(min(size, 12), integer=True))
    axes.set(xlabel="latent dimension", xlim=(-0.7, size - 0.3))


def _plot_rates(diagnosis):
    figure, axes = _axes()
    values = diagnosis.arrays.get("kl_per_dimension")
    label = "KL (nats)"
    if values is None or not np.all(np.isfinite(values)):
        values, label = diagnosis.arrays["variance_of_means"], "variance of means"
    states = np.array(_states(diagnosis))
    for state, color in (("active", ACTIVE), ("silent", SILENT), ("unread", UNREAD)):
        inside = np.flatnonzero(states == state)
        if inside.size:
            axes.bar(inside, values[inside], color=color, label=f"{state} ({inside.size})")
    # A bar of no height is a silent dimension all the same: mark its place.
    silent = np.flatnonzero(states == "silent")
    axes.plot(silent, np.zeros(len(silent)), "x", color=SILENT, markersize=5, clip_on=False)
    axes.set_ylabel(label)
    # A conditional rate may lie below 0.
    axes.set_ylim(min(0.0, float(np.min(values)) * 1.25), max(float(np.max(values)) * 1.25, 0.1))
    _ticks(axes, len(values))
    _legend(axes, ncols=3, loc="upper right")
    return figure


def _plot_variances(diagnosis):
    figure, axes = _axes()
    signal, noise = (diagnosis.arrays[name] for name in ("variance_of_means", "posterior_variance"))
    places = np.arange(len(signal))
    prior = diagnosis.arrays["prior_variance"]
    axes.bar(places, signal, color=ACTIVE, label="signal: Var(mean)")
    axes.bar(places, noise, bottom=signal, color=NEUTRAL, label="noise: posterior variance")
    edges = np.append(places - 0.5, places[-1] + 0.5)
    axes.stairs(prior, edges, baseline=None, color=INK, linestyle="--", label="prior")
    top = float(np.max(signal + noise))
    if top > 20 * np.max(prior):
        axes.set_yscale("symlog", linthresh=float(np.max(prior)))
        axes.set_ylim(0, top * 10)
    else:
        axes.set_ylim(0, max(top, float(np.max(prior))) * 1.35)
    axes.set_ylabel("variance of z")
    _ticks(axes, len(signal))
    _legend(axes, ncols=3, loc="upper right", columnspacing=1.0, handlelength=1.2)
    return figure


def _plot_nats(diagnosis):
    shown = {
        "rate": ("rate (KL)", NEUTRAL),
        "mutual_information": ("information about x", ACTIVE),
        "gap_shuffled": ("lost with another's z", ACTIVE),
        "gap_prior": ("lost with prior z", ACTIVE),
        "moment_divergence": ("codes from prior (moments)", SILENT),
        "refinement_gain": ("gained by refining", SILENT),
    }
    shown = {
        label: (diagnosis.measurements[name], color)
        for name, (label, color) in shown.items()
        if name in diagnosis.measurements and math.isfinite(diagnosis.measurements[name].value)
    }
    values = np.array([estimate.value for estimate, _ in shown.values()])
    errors = np.nan_to_num([estimate.standard_error for estimate, _ in shown.values()])
    figure, axes = _axes()
    places = -np.arange(len(values))
    axes.barh(
        places,
        values,
        xerr=errors,
        color=[color for _, color in shown.values()],
        error_kw={"ecolor": INK, "elinewidth": 1},
    )
    sizes = np.abs(values)
    if np.max(sizes) > 100:
        axes.set_xscale("symlog", linthresh=1.0)
    low, high = min(0.0, values.min()), max(0.1, values.max())
    room = 8.0 if np.max(sizes) > 100 else 1.2
    axes.set_xlim(low * room, high * room)
    for place, value, error in zip(places, values, errors, strict=True):
        axes.annotate(
            f"{value:.2f}",
            (max(value + error, 0.0), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(places, list(shown))
    axes.set_xlabel("nats per example")
    return figure


def _plot_codes(diagnosis):
    figure, axes = _axes()
    codes, prior = diagnosis.arrays["shown_codes"], diagnosis.arrays["shown_prior"]
    chosen = diagnosis.arrays["shown_dimensions"]
    if len(chosen) == 1:
        bins = np.histogram_bin_edges(np.concatenate([codes, prior]), 40)
        axes.hist(prior[:, 0], bins, color=NEUTRAL, alpha=0.5, label="prior")
        axes.hist(codes[:, 0], bins, color=ACTIVE, alpha=0.7, label="codes")
        axes.set(xlabel=f"z[{chosen[0]}]", ylabel="examples")
    else:
        # Pictures of points: thousands of them would make the page heavy.
        options = {"s": 5, "linewidths": 0, "rasterized": True}
        axes.scatter(*prior.T, color=NEUTRAL, alpha=0.35, label="prior", **options)
        axes.scatter(*codes.T, color=ACTIVE, alpha=0.7, label="codes", **options)
        center = diagnosis.arrays["prior_mean"][chosen]
        scale = np.sqrt(diagnosis.arrays["prior_variance"][chosen])
        angle = np.linspace(0.0, 2.0 * np.pi, 100)
        for radius in (1, 2):
            axes.plot(
                center[0] + radius * scale[0] * np.cos(angle),
                center[1] + radius * scale[1] * np.sin(angle),
                color=INK,
                linewidth=0.8,
            )
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel=f"z[{chosen[0]}]", ylabel=f"z[{chosen[1]}]")
    _legend(axes, loc="upper right", markerscale=2.5)
    return figure


def _tiles(pictures):
    """PNG in base64: one row of images for each name."""
    from matplotlib.image import imsave

    rows = []
    for images in pictures.values():
        images = np.asarray(images, "float32")
        images = images[..., None] if images.ndim == 3 else images
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
        rows.append(np.concatenate(list(padded), axis=1))
    tiled = np.concatenate(rows, axis=0)
    low, high = float(pictures["data"].min()), float(pictures["data"].max())
    tiled = np.clip((tiled - low) / max(high - low, 1e-6), 0.0, 1.0)
    buffer = io.BytesIO()
    imsave(buffer, np.repeat(tiled, 3, axis=2) if tiled.shape[2] == 1 else tiled, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
