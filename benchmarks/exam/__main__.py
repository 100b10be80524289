"""Examines the doctor: `python -m benchmarks.exam [--cases PART] [--tuned] [--write]`.

Trains each case once and keeps its weights and its measurements in the folder `.exam`, so that
rules are tuned without training anew.
"""

import argparse
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .cases import CASES

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".exam"
PAGE = Path(__file__).with_name("EXAM.md")
HEAD = """# The doctor's exam

Written by `python -m benchmarks.exam --write`: small VAEs of binary digits, gray images and short
text, each with one planted mistake, and healthy ones among them. A cause counts as named if it
comes first, or if one of the first two remedies removes it.

"""


def trained(case):
    """The model of a case: arguments for `diagnose`, before the data. Trained once, then loaded."""
    from . import keras_vae, zoo_vae

    x, _ = case.arrays()
    file = CACHE / f"{slug(case)}.npz"
    ours = isinstance(case.recipe, dict)
    if not file.exists():
        model = (zoo_vae.train if ours else _train_keras)(*((case, x) if ours else (case, x)))
        values = [np.array(w) for w in model.get_weights()] if ours else keras_vae.values_of(model)
        CACHE.mkdir(exist_ok=True)
        np.savez(file, *values, steps=int(model.optimizer.iterations) if ours else 0)
        return model if ours else model
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


def _train_keras(case, x):
    from . import keras_vae

    return keras_vae.train(case.recipe, x)


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
    file.write_bytes(pickle.dumps(found))
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
        yield f"| {s.case.name} | {wrong} | {s.case.planted} | {s.diagnosis.verdict} | {said} |"


def _share(number, total):
    return f"{number} of {total} ({number / max(total, 1):.0%})"


def main(arguments):
    """Trains what is not there, examines it, and prints the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="only those with this in their name")
    parser.add_argument("--tuned", action="store_true", help="leave out those held out")
    parser.add_argument("--write", action="store_true", help="write the page EXAM.md")
    parser.add_argument("--fresh", action="store_true", help="measure anew what was trained")
    parser.add_argument("--show", action="store_true", help="print the diagnoses")
    given = parser.parse_args(arguments)
    cases = [case for case in CASES if given.cases in case.name]
    if given.tuned:
        cases = [case for case in cases if not case.held_out]
    scores, begun = [], sum(os.times()[:2])
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
        "| cases | right verdicts | causes named | healthy ones called ill |",
        "| --- | --- | --- | --- |",
        *table(scores),
        "",
        "| missed | what | planted | verdict | causes |",
        "| --- | --- | --- | --- | --- |",
        *misses(scores),
    ]
    print("\n".join(lines))
    print(f"{len(scores)} cases in {sum(os.times()[:2]) - begun:.0f} s of processor time")
    if given.write:
        PAGE.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
