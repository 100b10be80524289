"""First and second starts of a training: `python -m benchmarks.starts [--write]`.

Processor time of `vaezoo train du_vae_omniglot`, from the start of the process until its first step
has run (TensorFlow) or begun to run (JAX), with an empty cache of compiled steps and once more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .__main__ import HERE, JAX, OURS, TF, machine, yes
from .parts import publish_parts
from .protocol import confined

BACKENDS = {"TensorFlow": TF, "JAX": JAX}
#: Start: the most seconds of processor time.
STARTS = {"first": 40, "second": 15}
COLUMNS = ("by", "start", "CPU s", "of it before `fit`", "of it the step", "goal", "met")


def rows_of(backend):
    """The rows of a backend, without its name."""
    with tempfile.TemporaryDirectory() as folder:
        for start, goal in STARTS.items():
            done = subprocess.run(
                [OURS, str(HERE / "starts_worker.py"), str(Path(folder) / start)],
                env={**os.environ, "KERAS_BACKEND": backend, "XDG_CACHE_HOME": folder},
                # Threads that wait for a core that other work holds count as processor time.
                preexec_fn=confined(1),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(f"A start died:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
            before, step, seconds = json.loads(done.stdout.splitlines()[-1])
            parts = (f"{value:.1f}" for value in (seconds, before, seconds - step))
            yield [start, *parts, f"at most {goal}", yes(seconds <= goal)]


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BACKENDS, nargs="+", help="backends; rows of others stay")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    publish_parts(
        machine(),
        COLUMNS,
        ((name, list(rows_of(BACKENDS[name]))) for name in arguments.only or BACKENDS),
        BACKENDS,
        "starts" if arguments.write else None,
    )


if __name__ == "__main__":
    main()
