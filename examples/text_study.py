"""Which VAEs keep a code of sentences, and what is it good for?

Trains each row on sentences with a sentiment label, which no model sees, and measures on held-out
ones how well they are modeled, what the code holds, and how well a linear classifier of a few
labeled codes tells good from bad. Then it lets each model write.

    python examples/text_study.py FOLDER [--models ROW ...]

The folder holds `train.txt`, `valid.txt` and `test.txt`, each line a label, a tab and a sentence.
Every row is written to the file as soon as it is done, and rows in the file are not trained again.
"""

import argparse
import itertools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from collapse_study import columns, pair, percentage, run_rows, show, with_error
from rich.table import Table

from vaezoo import data, metrics, runs
from vaezoo.callbacks import PlateauDecay
from vaezoo.losses import LinearSchedule
from vaezoo.metrics.probes import posterior_means

#: Preset and arguments of each row, those of DU-VAE's table 2. The two that take steps within a
#: step take fewer than published (99 and 20), to be done in time.
ROWS = {
    "vae": ("text_vae", {}),
    "free_bits": ("free_bits_vae", {"free_bits": 0.1}),
    "delta_vae": ("delta_vae", {"delta": 0.1}),
    "bn_vae": ("bn_vae", {"gamma": 0.6}),
    "du_vae": ("du_vae", {"gamma": 0.5, "keep_prob": 0.8}),
    "iaf_fb": ("iaf_vae", {"free_bits": 0.25}),
    "du_iaf": ("du_iaf", {"gamma": 0.6, "keep_prob": 0.7}),
    "agg_vae": ("agg_vae", {"window": 5, "max_inner_steps": 10}),
    "sa_vae": ("sa_vae", {"refine_steps": 5}),
    "ae": ("ae", {}),
    "beta_vae": ("beta_vae", {"beta": 0.4}),
    "iaf_bn": ("iaf_vae", {"free_bits": 0.0, "gamma": 0.7}),
    "mae": ("mae", {"diversity": 2.0, "smoothness": 0.2}),
    # DU-VAE with each gain held, without dropout on variances, and with it only after the warm-up.
    "du_vae_held": ("du_vae", {"gamma": 0.5, "keep_prob": 0.8, "gamma_mode": "fixed"}),
    "du_vae_undropped": ("du_vae", {"gamma": 0.5, "keep_prob": 1.0}),
    "du_vae_late": ("du_vae", {"gamma": 0.5, "keep_prob": 0.8, "reg_start_weight": 1.0}),
}
DEFAULT = list(ROWS)[:10]
#: Rows whose rate has the same weight from the first step on.
CONSTANT = ("ae", "beta_vae")
LABELS = (100, 500, 1000, 2000, 10_000)
METRICS = ("negative_log_likelihood", "mutual_information", "active_units")


def vocabulary_of(settings):
    """The most frequent words of the sentences that are trained on."""
    with open(Path(settings["data"]) / "train.txt", encoding="utf-8") as lines:
        chosen = list(itertools.islice(lines, settings["limit"]))
    return data.Vocabulary.build(chosen, max_size=settings["vocabulary_size"])


def study(row, settings):
    """Trains and measures one row; returns its numbers and some of what it writes."""
    start = time.monotonic()
    vocabulary = vocabulary_of(settings)
    limits = {
        "train": settings["limit"],
        "validation": settings["held_out"],
        "test": settings["held_out"],
    }
    texts = {
        split: data.load_text_arrays(settings["data"], split, vocabulary=vocabulary, limit=limit)
        for split, limit in limits.items()
    }
    warm_up = 0 if row in CONSTANT else settings["warm_up"]
    best = PlateauDecay(
        monitor="val_distortion" if row == "ae" else "val_distortion+val_rate",
        patience=1,
        start_epoch=warm_up,
        warm_up=warm_up,
    )
    run = runs.Run.create(None, spec_of(row, settings, vocabulary, texts["train"][0]))
    run.fit(
        [best],
        validation_data=(texts["validation"][0],),
        validation_batch_size=250,
        verbose=2,
    )
    model = run.model()
    trained = time.monotonic()

    test, _ = texts["test"]
    evaluation = metrics.evaluate(model, test, metrics=METRICS, num_samples=settings["num_samples"])
    found = evaluation.results
    return {
        "measured": {
            "nll": pair(found.get("negative_log_likelihood")),
            "perplexity": pair(found.get("perplexity")),
            "rate": pair(found.get("rate")),
            "distortion": pair(found.get("distortion")),
            "mi": pair(found.get("mutual_information")),
            "au": pair(found["active_units"]),
        },
        "accuracy": accuracies(model, texts, settings),
        "skipped": evaluation.skipped,
        "text": writings(model, test, vocabulary, settings["seed"]),
        "history": columns(run.history),
        "seconds": {"training": trained - start, "measuring": time.monotonic() - trained},
    }


def spec_of(row, settings, vocabulary, x):
    """What a row trains, on the sentences `x`."""
    preset, arguments = ROWS[row]
    arguments = {**arguments, "latent_dim": settings["latent_dim"], "seed": settings["seed"]}
    if row not in CONSTANT:
        start = 0.1 if row in ("agg_vae", "sa_vae") else 0.0
        steps = max(1, settings["warm_up"] * (len(x) // settings["batch_size"]))
        arguments["beta"] = LinearSchedule(steps, start=start)
    training = {"epochs": settings["epochs"], "plateau": None}
    for name in ("optimizer", "learning_rate"):
        if settings[name]:
            training[name] = settings[name]
    return runs.RunSpec(
        f"{preset}_{settings['preset']}",
        model=arguments,
        networks={"embedding_dim": settings["units"] // 2, "units": settings["units"]},
        training=training,
        data={
            "name_or_path": settings["data"],
            "vocabulary": vocabulary,
            "batch_size": settings["batch_size"],
            "buckets": _buckets(x),
            "labels": False,
            "limit": settings["limit"],
        },
        validation="none",
        seed=settings["seed"],
    )


def _buckets(x):
    """Three lengths of batches, so that there are three or four shapes to compile."""
    lengths = np.count_nonzero(x, axis=1)
    return np.unique(np.quantile(lengths, (1 / 3, 2 / 3, 1), method="inverted_cdf")).tolist()


def accuracies(model, texts, settings):
    """Accuracy of a linear classifier by the number of labels, as `[value, standard error]`."""
    coded = {
        split: (posterior_means(model, x), labels)
        for split, (x, labels) in texts.items()
        if labels is not None
    }
    if len(coded) < len(texts):
        return {}
    found = {}
    for number in LABELS:
        if number <= len(coded["train"][1]):
            probe = metrics.few_label_probe(
                *(coded[split] for split in ("train", "validation", "test")),
                num_labels=number,
                runs=settings["probe_runs"],
            )
            found[str(number)] = pair(probe)
    return found


def writings(model, x, vocabulary, seed):
    """Sentences from the prior, some with their reconstructions, and those between two codes."""

    def text(ids):
        return data.to_text(ids, vocabulary)

    return {
        "drawn": text(model.generate(6, seed=seed)),
        "original": text(x[:4]),
        "reconstructed": text(model.reconstruct(x[:4])),
        "interpolated": text(model.interpolate(x[:1], x[1:2], steps=6)[0]),
    }


def table_of(rows):
    """The rows as a table."""
    labels = [
        number for number in map(str, LABELS) if any(number in r["accuracy"] for r in rows.values())
    ]
    table = Table("row", "NLL", "perplexity", "KL", "MI", "AU", *(f"{n} labels" for n in labels))
    table.columns[0].no_wrap = True
    for name, row in rows.items():
        measured = row["measured"]
        table.add_row(
            name,
            with_error(*measured["nll"]),
            with_error(*measured["perplexity"]),
            with_error(*measured["rate"]),
            with_error(*measured["mi"]),
            f"{measured['au'][0]:.0f}",
            *(percentage(*row["accuracy"].get(number, (None, None))) for number in labels),
        )
    return table


def read_out(rows):
    """Prints what the models have written."""
    for name, row in rows.items():
        text = row["text"]
        print(f"\n{name}\n  drawn from the prior:")
        for sentence in text["drawn"]:
            print(f"    {sentence}")
        print("  reconstructed:")
        for original, sentence in zip(text["original"], text["reconstructed"], strict=True):
            print(f"    {original}\n      -> {sentence}")
        print("  from the first of these to the second:")
        for sentence in text["interpolated"]:
            print(f"    {sentence}")


def main():
    """Runs the rows that the file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", metavar="FOLDER", help="with train.txt, valid.txt and test.txt")
    parser.add_argument(
        "--models", nargs="+", default=DEFAULT, metavar="ROW", help=f"of {', '.join(ROWS)}"
    )
    parser.add_argument("--limit", type=int, default=20_000, help="training sentences")
    parser.add_argument("--held-out", type=int, default=1000, help="validation, test sentences")
    parser.add_argument("--epochs", type=int, default=8, help="at most")
    parser.add_argument("--warm-up", type=int, default=3, help="epochs until the KL counts fully")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--preset",
        choices=("text_tiny", "yelp_sentences"),
        default="text_tiny",
        help="ours, or what was published: dropout, first weights, SGD at 1.0, here in small",
    )
    parser.add_argument("--optimizer", choices=("adam", "sgd"), help="in place of the preset's")
    parser.add_argument(
        "--learning-rate", type=float, help="in place of the preset's; 0.002 with text_tiny"
    )
    parser.add_argument("--vocabulary-size", type=int, default=4000)
    parser.add_argument("--units", type=int, default=128, help="of the LSTMs; embeddings have half")
    parser.add_argument("--latent-dim", type=int, default=32)
    parser.add_argument("--num-samples", type=int, default=100, help="importance samples")
    parser.add_argument("--probe-runs", type=int, default=3, help="draws of labeled sentences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("text_study.json"))
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    settings = vars(parser.parse_args())
    names, out, as_markdown = (settings.pop(name) for name in ("models", "out", "markdown"))
    if settings["learning_rate"] is None and settings["preset"] == "text_tiny":
        settings["learning_rate"] = 2e-3
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (choose from {', '.join(ROWS)})")

    rows = run_rows(study, names, settings, out)
    rows = {row: rows[row] for row in ROWS if row in rows}
    show(table_of(rows), as_markdown)
    read_out(rows)


if __name__ == "__main__":
    main()
