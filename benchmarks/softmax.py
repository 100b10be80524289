"""Classifying training examples: `python -m benchmarks.softmax [--write]`.

Steps over N = 55,000 examples by a flat softmax and by a tree, and what N = 1,000,000 takes.
"""

import argparse
import itertools
import statistics

from .__main__ import OURS, machine, measure, publish, yes
from .flows import BACKENDS, child

EXAMPLES, MANY = 55_000, 1_000_000

#: Contestant: kind of the worker. The first of each group is the one to compare with.
GROUPS = (
    {
        "classifier, flat": "flat",
        "classifier, tree, all rows by Adam": "tree",
        "classifier, tree, rows of the paths": "rows",
    },
    {
        "VAE-AS, flat, `entropy`": "vae_as_flat",
        "VAE-AS, tree, `entropy`": "vae_as_tree",
        "VAE-AS, tree, `ce`": "vae_as_tree_ce",
    },
)
#: The ratio that has a target.
TARGET = ("classifier, tree, rows of the paths", 10)


def steps(backend, rounds):
    """Yields the lines of the table of steps."""
    yield (
        "| step at N = 55,000 | ms, fastest | ms, median | against flat, paired by round, median "
        "| fastest bursts | target | met |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for group in GROUPS:
        contestants = {
            name: (OURS, ["softmax_worker.py", kind, str(EXAMPLES)], backend)
            for name, kind in group.items()
        }
        speeds = measure(contestants, rounds)
        flat = next(iter(speeds.values()))
        for name, found in speeds.items():
            paired = statistics.median(a / b for a, b in zip(found, flat, strict=True))
            fastest = max(found) / max(flat)
            bound, met = "-", "-"
            if name == TARGET[0]:
                bound, met = f"at least {TARGET[1]}", yes(fastest >= TARGET[1])
            yield (
                f"| {name} | {1000 / max(found):.1f} | {1000 / statistics.median(found):.1f} "
                f"| {paired:.1f} | {fastest:.1f} | {bound} | {met} |"
            )


def memory(backend):
    """Yields the lines of the table of memory."""
    yield (
        "| classifier | N | weights and state of the model, millions | peak of the process, MB "
        "| ms a step |"
    )
    yield "| --- | --- | --- | --- | --- |"
    for name, kind, size in (
        ("none to speak of", "flat", 2),
        ("flat", "flat", EXAMPLES),
        ("tree, rows of the paths", "rows", EXAMPLES),
        ("tree, rows of the paths", "rows", MANY),
    ):
        found = child(backend, None, kind, size, "memory", worker="softmax_worker.py")
        cells = f"{found} | - | -"
        if not isinstance(found, str):
            cells = (
                f"{found['weights'] / 1e6:.1f} | {found['peak']:,.0f} | {1000 * found['step']:.1f}"
            )
        yield f"| {name} | {size:,} | {cells} |"


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="one backend")
    parser.add_argument("--rounds", type=int, default=5, help="bursts of 40 steps per contestant")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        publish(
            f"{BACKENDS[backend]}. {machine()}",
            itertools.chain(steps(backend, arguments.rounds), [""], memory(backend)),
            f"softmax {backend}" if arguments.write else None,
        )


if __name__ == "__main__":
    main()
