"""Memory of a training step of each preset: `python -m benchmarks.memory [--write]`.

Each preset has a process of its own, in which it takes steps of one batch.
"""

import argparse
import json
import os
import subprocess
import sys

from .__main__ import HERE, JAX, OURS, TF, machine
from .parts import publish_parts

BACKENDS = {TF: "TensorFlow", JAX: "JAX"}
#: Presets that are left out unless they are named: the first step of the one, 20 refinements by a
#: PixelCNN, and of the other, 99 inner steps of one, had not ended after 300 s of processor time.
SKIPPED = ("sa_vae_omniglot", "agg_vae_omniglot")
COLUMNS = (
    "preset",
    "batch",
    "weights, millions",
    "peak of later steps, MB",
    "peak of the first, MB",
    "of both before the model, MB",
)


def rows_of(backend, preset, limit):
    """The row of a preset, without its name."""
    try:
        found = subprocess.run(
            [OURS, str(HERE / "memory_worker.py"), preset],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return [["-", "-", f"stopped after {limit:.0f} s", "-", "-"]]
    if found.returncode:
        print(f"{preset}: {found.stderr[-2000:]}", file=sys.stderr)
        return [["-", "-", "failed", "-", "-"]]
    told = json.loads(found.stdout.splitlines()[-1])
    sizes = (f"{told[name]:,.0f}" for name in ("later", "first", "before"))
    return [[str(told["batch"]), f"{told['weights'] / 1e6:.2f}", *sizes]]


def main():
    """Runs the benchmark."""
    from vaezoo import zoo

    names = list(zoo.presets())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="parts of names of presets; others stay"
    )
    parser.add_argument("--presets", nargs="+", choices=names, metavar="PRESET", help="whole names")
    parser.add_argument("--backend", choices=BACKENDS, help="one backend")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each preset")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    if arguments.presets:
        chosen = arguments.presets
    else:
        parts = arguments.only or [""]
        chosen = [name for name in names if any(part in name for part in parts)]
        chosen = [name for name in chosen if name not in SKIPPED]
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        publish_parts(
            f"{BACKENDS[backend]}. {machine()}",
            COLUMNS,
            ((f"`{name}`", rows_of(backend, name, arguments.limit)) for name in chosen),
            [f"`{name}`" for name in names],
            f"memory {backend}" if arguments.write else None,
        )


if __name__ == "__main__":
    main()
