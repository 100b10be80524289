"""Classifying training examples: `python -m benchmarks.softmax [TABLE ...] [--write]`.

Steps over N = 55,000 examples by a flat softmax and by a tree, and what N = 1,000,000 takes; and
the processor time of a step by estimator, head and N, by which `zoo.auxiliary_softmax` chooses.
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
#: Numbers of examples of the table of processor time: that above which a tree is chosen, OMNIGLOT's
#: and MNIST's.
SIZES = (10_000, 24_345, 55_000)
TABLES = ("speed", "time")
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


def processor_time(backend):
    """Yields the lines of the table of processor time."""
    yield "| estimator | N | flat, ms a step | tree, ms a step | tree over flat |"
    yield "| --- | --- | --- | --- | --- |"

    def of(kind, size):
        found = child(backend, None, kind, size, "time", worker="softmax_worker.py")
        return found if isinstance(found, str) else 1000 * min(found["steps"])

    def shown(found):
        return found if isinstance(found, str) else f"{found:.0f}"

    yield f"| none, the plain VAE | - | {shown(of('vae', 2))} | - | - |"
    for estimator, suffix in (("`entropy`", ""), ("`ce`", "_ce")):
        for size in SIZES:
            flat, tree = (of(f"vae_as_{head}{suffix}", size) for head in ("flat", "tree"))
            measured = not isinstance(flat, str) and not isinstance(tree, str)
            ratio = f"{tree / flat:.2f}" if measured else "-"
            yield f"| {estimator} | {size:,} | {shown(flat)} | {shown(tree)} | {ratio} |"


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"among {', '.join(TABLES)}")
    parser.add_argument("--backend", choices=BACKENDS, help="one backend")
    parser.add_argument("--rounds", type=int, default=5, help="bursts of 40 steps per contestant")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    for table in arguments.tables:
        if table not in TABLES:
            parser.error(f"TABLE must be among {', '.join(TABLES)}. Received: {table}")
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        for table in arguments.tables or TABLES:
            lines = processor_time(backend)
            if table == "speed":
                lines = itertools.chain(steps(backend, arguments.rounds), [""], memory(backend))
            marker = f"softmax {'time ' if table == 'time' else ''}{backend}"
            publish(f"{BACKENDS[backend]}. {machine()}", lines, marker if arguments.write else None)


if __name__ == "__main__":
    main()
