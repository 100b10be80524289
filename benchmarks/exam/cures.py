"""Ten ill cases of the exam whose remedies are tried, and what the trials have shown."""

import json
import math

import numpy as np

from .cases import CASES

#: Of various causes and all kinds of data; none of those held out, since what they show decides on
#: the order of the remedies.
NAMES = (
    "weight 10, binary",
    "mean over text, compute_loss",
    "mean squared error, call",
    "scale 1.0, add_loss",
    "relu on log_var, binary",
    "without draws, gray",
    "weight 0.01, binary, call",
    "weight 10, BetaVAE",
    "wide code",
    "noise",
)
#: Remedies of each, and steps of each training: as many as the case was trained for.
REMEDIES, STEPS, BATCH, RATE = 4, 500, 50, 4e-3


def cases():
    """The cases that are tried."""
    return [next(case for case in CASES if case.name == name) for name in NAMES]


def tried(case, model, diagnosis):
    """What came of the trials of a case, as JSON values.

    Args:
        case: `Case`.
        model: What `try_remedies` is given.
        diagnosis: `Diagnosis` of it.
    """
    from vaezoo.metrics import try_remedies

    from . import keras_vae

    x = np.concatenate(case.arrays())
    ours = isinstance(case.recipe, dict)
    more = {} if ours else {"recipe": lambda *parts: keras_vae.compiled(case.recipe, *parts)}
    found = try_remedies(
        model, x, None if ours else case.told(), steps=STEPS, remedies=REMEDIES,
        learning_rate=RATE, batch_size=BATCH, diagnosis=diagnosis, **more,
    )  # fmt: skip
    return {
        "case": case.name,
        "planted": case.planted,
        "verdict": diagnosis.verdict,
        "cause": diagnosis.causes[0].title if diagnosis.causes else "-",
        "held_out": found.held_out,
        "ill": found.trials[0].nll.value,
        "trials": [
            {
                "remedy": trial.name,
                "change": trial.remedy.change,
                "nll": _number(trial.nll.value),
                "difference": _number(trial.difference.value),
                "error": _number(trial.difference.standard_error),
                "helped": trial.helped,
            }
            for trial in found.trials[1:]
        ],
    }


def _number(value):
    return float(value) if math.isfinite(value) else None


def best(found):
    """The trial of a case that helped most, or came nearest to it."""
    known = [t for t in found["trials"] if t["difference"] is not None]
    helped = [t for t in known if t["helped"]]
    return min(helped or known, key=lambda t: t["difference"], default=None)


def table(results):
    """Yields the lines of the table of cures."""
    yield (
        "| ill | the cause that is named first | remedy, the best of those tried | ill NLL | "
        "cured NLL | difference | verdict |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for found in results:
        trial = best(found)
        start = f"| {found['case']}: {found['planted']} | {found['cause']} | "
        if trial is None:
            yield f"{start}- | {found['ill']:.2f} | - | - | none helped |"
            continue
        told = "cured by > 3 s.e." if trial["helped"] else "none helped"
        yield (
            f"{start}{trial['remedy']} | {found['ill']:.2f} | {trial['nll']:.2f} | "
            f"{trial['difference']:.2f} +- {trial['error']:.2f} | {told} |"
        )


def shown(results):
    """What all trials show together: records of `metrics/diagnosis/tried.json`."""
    from vaezoo.metrics.diagnosis.causes import TITLES
    from vaezoo.metrics.diagnosis.tried import key

    records = {}
    for found in results:
        if found["cause"] == TITLES["nothing_to_encode"]:
            # Where no code pays, no remedy can show what it is worth.
            continue
        top = best(found)
        most = top["difference"] if top and top["helped"] else None
        for trial in found["trials"]:
            record = records.setdefault(
                key(found["verdict"], trial["change"]),
                {"verdict": found["verdict"], "change": trial["change"], "shares": []}
                | {"tried": 0, "helped": 0},
            )
            record["tried"] += 1
            record["helped"] += trial["helped"]
            record["shares"].append(trial["difference"] / most if trial["helped"] else 0.0)
    for record in records.values():
        record["share"] = round(float(np.mean(record.pop("shares"))), 3)
    return sorted(records.values(), key=lambda r: (r["verdict"], -r["share"], -r["tried"]))


def table_of(records):
    """Yields the lines of the table of what trials have shown."""
    yield "| verdict | change | tried | helped | share of the best gain |"
    yield "| --- | --- | --- | --- | --- |"
    for record in records:
        change = ", ".join(f"{name} {_short(value)}" for name, value in record["change"].items())
        yield (
            f"| {record['verdict']} | {change} | {record['tried']} | {record['helped']} | "
            f"{record['share']:.0%} |"
        )


def _short(value):
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def write(records, file):
    """Writes the records, one a line."""
    lines = ",\n".join(json.dumps(record, sort_keys=True) for record in records)
    file.write_text(f"[\n{lines}\n]\n", "utf-8")
