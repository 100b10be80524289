"""Examines the doctor: `python -m benchmarks.exam [--cures] [--cases PART] [--tuned] [--write]`.

Trains each case once and keeps its weights and its measurements in the folder `.exam`, so that
rules are tuned without training anew, and an exam that was interrupted goes on. `--cures` tries
the remedies of ten ill cases, which are kept there, too.
"""

import argparse
import json
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import cures
from .cases import CASES

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".exam"
PAGE = Path(__file__).with_name("EXAM.md")
#: What orders the remedies.
TRIED = ROOT / "metrics" / "diagnosis" / "tried.json"


def trained(case):
    """The model of a case: arguments for `diagnose`, before the data. Trained once, then loaded."""
    from . import keras_vae, zoo_vae

    x, _ = case.arrays()
    file = CACHE / f"{slug(case)}.npz"
    ours = isinstance(case.recipe, dict)
    if not file.exists():
        model = zoo_vae.train(case, x) if ours else keras_vae.train(case.recipe, x)
        values = [np.array(w) for w in model.get_weights()] if ours else keras_vae.values_of(model)
        CACHE.mkdir(exist_ok=True)
        # Complete or absent, also if the exam is interrupted.
        partial = file.with_name(f".{os.getpid()}.npz")
        np.savez(partial, *values, steps=int(model.optimizer.iterations) if ours else 0)
        os.replace(partial, file)
        return model
    values = np.load(file)
    arrays = [values[f"arr_{i}"] for i in range(len(values.files) - 1)]
    if ours:
        model = zoo_vae.build(case)
        model.compile("adam", jit_compile=False)
        model.fit(**zoo_vae.given(case, x[:100]), batch_size=50, epochs=1, verbose=0)
        model.set_weights(arrays)
        model.optimizer.iterations.assign(int(values["steps"]))
        return model
    parts = keras_vae.networks(case.recipe)
    keras_vae.set_values(parts, arrays)
    return parts


def slug(case):
    """Name of a case as a file has it."""
    return "".join(c if c.isalnum() else "_" for c in case.name)


def examined(case):
    """What was measured of a case: arguments for `judge`. Measured once, then read."""
    from vaezoo.metrics.diagnosis.diagnose import examine

    file = CACHE / f"{slug(case)}.pickle"
    if file.exists():
        return pickle.loads(file.read_bytes())
    x, examined = case.arrays()
    model = trained(case)
    more = {"train_data": x} if case.with_train else {}
    ours = isinstance(case.recipe, dict)
    parts = (model, None, examined) if ours else (*model, examined, case.told())
    found = examine(*parts, **more)
    _keep(file, pickle.dumps(found))
    return found


def _keep(file, content):
    partial = file.with_name(f".{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, file)


def cured(case, fresh=False):
    """What came of the trials of an ill case. Tried once, then read."""
    file = CACHE / f"{slug(case)}.cures.json"
    if file.exists() and not fresh:
        return json.loads(file.read_text("utf-8"))
    found = cures.tried(case, trained(case), scored(case).diagnosis)
    _keep(file, json.dumps(found).encode())
    return found


def scored(case):
    """A case with its `Diagnosis`, and whether verdict and cause are right."""
    from vaezoo.metrics.diagnosis.diagnose import judge

    diagnosis = judge(*examined(case))
    named = {cause.name for cause in diagnosis.causes[:1]}
    named |= {remedy.cause for remedy in diagnosis.remedies[:2]}
    return Score(case, diagnosis, case.accepts(diagnosis.verdict), bool(named & case.causes))


class Score(NamedTuple):
    """What came out for a case."""

    case: object
    diagnosis: object
    verdict: bool
    cause: bool


def table(scores):
    """Yields the lines of the score, and of the table of misses."""
    for title, chosen in (
        ("All", scores),
        ("Tuned on", [s for s in scores if not s.case.held_out]),
        ("Held out", [s for s in scores if s.case.held_out]),
    ):
        ill = [s for s in chosen if s.case.ill]
        healthy = [s for s in chosen if not s.case.ill]
        wrong = sum(not s.verdict for s in healthy)
        yield (
            f"| {title} | {_share(sum(s.verdict for s in chosen), len(chosen))} | "
            f"{_share(sum(s.cause for s in ill), len(ill))} | {wrong} of {len(healthy)} |"
        )


def misses(scores):
    """Yields the lines of the table of misses."""
    for s in scores:
        if s.verdict and (s.cause or not s.case.ill):
            continue
        said = ", ".join(cause.name for cause in s.diagnosis.causes) or "-"
        wrong = " and ".join(
            word
            for word, right in (("verdict", s.verdict), ("cause", s.cause or not s.case.ill))
            if not right
        )
        held = "yes" if s.case.held_out else ""
        yield (
            f"| {s.case.name} | {held} | {wrong} | {s.case.planted} | {s.diagnosis.verdict} | "
            f"{said} |"
        )


def _share(number, total):
    return f"{number} of {total} ({number / max(total, 1):.0%})"


def write(part, lines):
    """Puts a table into its place on the page."""
    begin, end = f"<!-- {part} -->\n", "<!-- end -->"
    head, rest = PAGE.read_text("utf-8").split(begin)
    PAGE.write_text(head + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1], "utf-8")


def main(arguments):
    """Trains what is not there, examines it, and prints the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="only those with this in their name")
    parser.add_argument("--tuned", action="store_true", help="leave out those held out")
    parser.add_argument("--cures", action="store_true", help="try the remedies of ten ill cases")
    parser.add_argument("--write", action="store_true", help="write the page EXAM.md")
    parser.add_argument("--fresh", action="store_true", help="measure anew what was trained")
    parser.add_argument("--show", action="store_true", help="print the diagnoses")
    given = parser.parse_args(arguments)
    begun = sum(os.times()[:2])
    (_cure if given.cures else _examine)(given)
    print(f"{sum(os.times()[:2]) - begun:.0f} s of processor time")


def _cure(given):
    results = []
    for case in cures.cases():
        if given.cases in case.name:
            results.append(cured(case, given.fresh))
            if given.show:
                print(json.dumps(results[-1], indent=1), flush=True)
    records = cures.shown(results)
    lines = [*cures.table(results), "", *cures.table_of(records)]
    print("\n".join(lines))
    if given.write and not given.cases:
        write("cures", lines)
        cures.write(records, TRIED)


def _examine(given):
    cases = [case for case in CASES if given.cases in case.name]
    if given.tuned:
        cases = [case for case in cases if not case.held_out]
    scores = []
    for case in cases:
        if given.fresh:
            (CACHE / f"{slug(case)}.pickle").unlink(missing_ok=True)
        before = sum(os.times()[:2])
        try:
            scores.append(scored(case))
        except Exception:
            print(f"{case.name}: {traceback.format_exc()}", flush=True)
            continue
        last = scores[-1]
        seconds = sum(os.times()[:2]) - before
        if seconds > 0.5:
            print(f"{seconds:6.1f} s  {case.name}: {last.diagnosis.verdict}", flush=True)
        if given.show:
            print(f"=== {case.name}\n{last.diagnosis}\n")
    lines = [
        f"{len(scores)} of {len(CASES)} cases.",
        "",
        "| cases | right verdicts | causes named | healthy ones called ill |",
        "| --- | --- | --- | --- |",
        *table(scores),
        "",
        "| missed | held out | what | planted | verdict | causes |",
        "| --- | --- | --- | --- | --- | --- |",
        *misses(scores),
    ]
    print("\n".join(lines))
    if given.write:
        write("score", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
