"""All measurements, one after the other: `python -m benchmarks.all [--write] [--only NAME ...]`.

They take hours on two cores. An interrupted run goes on after the last one that ended; `--again`
begins anew. What each took the last time is told before it starts.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from .__main__ import HERE

#: Modules, the first of them `benchmarks` itself.
NAMES = (
    "__main__",
    "evaluate",
    "flows",
    "softmax",
    "text",
    "networks",
    "starts",
    "memory",
    "idle",
    "xla",
    "steps",
    "refinement",
)
#: What has ended, and seconds by the clock and of processor time that each took.
STATE = HERE.parent / ".venv-bench" / "measured.json"


def read(path, write):
    """What an unfinished run of the same kind has done, and what each took, by name."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return [], {}
    same = state["write"] == write and set(state["done"]) != set(NAMES)
    return state["done"] if same else [], state["took"]


def keep(path, write, done, took):
    """Writes it, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps({"write": write, "done": done, "took": took}, indent=1))
    beside.replace(path)


def run(name, arguments):
    """Runs one; returns seconds by the clock and of processor time, or exits with its status."""
    module = "benchmarks" if name == "__main__" else f"benchmarks.{name}"
    wall, before = time.monotonic(), os.times()
    status = subprocess.run([sys.executable, "-m", module, *arguments], cwd=HERE.parent).returncode
    if status:
        sys.exit(status)
    after = os.times()
    cpu = sum(getattr(after, f) - getattr(before, f) for f in ("children_user", "children_system"))
    return time.monotonic() - wall, cpu


def minutes(took):
    """Of one, in words."""
    if took is None:
        return "not timed yet"
    return f"{took[0] / 60:.0f} minutes the last time, {took[1] / 60:.0f} of processor time"


def main(arguments=None, path=STATE, run=run):
    """Runs those that are left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NAMES, nargs="+", help="some, also those that are done")
    parser.add_argument("--again", action="store_true", help="begin anew")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    chosen = parser.parse_args(arguments)
    done, took = read(Path(path), chosen.write)
    if chosen.again:
        done = []
    for name in chosen.only or [name for name in NAMES if name not in done]:
        print(f"{name}: {minutes(took.get(name))}", flush=True)
        took[name] = run(name, ["--write"] if chosen.write else [])
        done = [*(one for one in done if one != name), name]
        keep(Path(path), chosen.write, done, took)


if __name__ == "__main__":
    main()
