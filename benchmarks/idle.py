"""Time in which `fit` on TensorFlow does nothing: `python -m benchmarks.idle [--write]`."""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

from .__main__ import HERE, OURS, machine, yes
from .parts import publish_parts

#: Source of the data: whether the goal holds for it. A pipeline of one's own keeps its options.
SOURCES = {
    "array": True,
    "load": True,
    "tf.data": False,
    "tf.data, options.autotune.enabled = False": False,
}
NAMES = {"array": "NumPy array", "load": "`vaezoo.data.load` of a file"}
GOAL = 0.02
COLUMNS = ("source", "CPU s of a `fit`", "idle, s", "idle share of both", "goal", "met")


def confine():
    """Leaves one core, on which waiting shows every time."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def rows_of(source):
    """The row of a source, without its name."""
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [OURS, str(Path(HERE) / "idle_worker.py"), source],
            env={**os.environ, "IDLE_FOLDER": folder},
            capture_output=True,
            text=True,
            preexec_fn=confine,
        )
    if found.returncode:
        raise RuntimeError(f"A worker died:\n{found.stderr[-3000:]}")
    fits = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("[")]
    seconds, idle = (sum(values) / len(fits) for values in zip(*fits, strict=True))
    # By the clock a core of one's own would take both; here other work may hold it, too.
    share = idle / (seconds + idle)
    judged = [f"under {GOAL:.0%}", yes(share < GOAL)] if SOURCES[source] else ["-", "-"]
    return [[f"{seconds:.2f}", f"{idle:.3f}", f"{share:.1%}", *judged]]


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SOURCES, nargs="+", help="sources; rows of others stay")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    publish_parts(
        machine(),
        COLUMNS,
        ((NAMES.get(one, f"`{one}`"), rows_of(one)) for one in arguments.only or SOURCES),
        [NAMES.get(one, f"`{one}`") for one in SOURCES],
        "idle" if arguments.write else None,
    )


if __name__ == "__main__":
    main()
