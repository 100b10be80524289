"""Training steps that are more than one gradient step: `python -m benchmarks.steps [--write]`.

What they cost against a plain step, and what the compiled inner loop of aggressive training saves
against a loop on the host.
"""

import argparse
import statistics

from .__main__ import OURS, machine, measure, publish, yes
from .flows import BACKENDS

SIZES = {
    "64-256-256-16, batch 64": "small",
    "784-500-500-32, batch 50": "dense",
}
#: Contestant: kind of the worker. The first one is what the others are compared with.
KINDS = {
    "VAE": "plain",
    "AggVAE, 99 inner steps in the compiled step": "aggressive",
    "the same, by a loop on the host": "host",
}
#: Of the last two, how much faster the former is to be.
TARGET = 3


def table(backend, rounds):
    """Yields the lines of the table."""
    yield (
        "| networks | step | ms, fastest | ms, median | price in plain steps, paired by round, "
        "median |"
    )
    yield "| --- | --- | --- | --- | --- |"
    ratios = []
    for networks, size in SIZES.items():
        contestants = {
            name: (OURS, ["steps_worker.py", kind, size], backend) for name, kind in KINDS.items()
        }
        speeds = measure(contestants, rounds)
        plain, loop, host = speeds.values()
        for name, found in speeds.items():
            price = statistics.median(a / b for a, b in zip(plain, found, strict=True))
            yield (
                f"| {networks} | {name} | {1000 / max(found):.2f} "
                f"| {1000 / statistics.median(found):.2f} | {price:.1f} |"
            )
        paired = statistics.median(a / b for a, b in zip(loop, host, strict=True))
        ratios.append((networks, paired, max(loop) / max(host)))
    yield ""
    yield (
        "| compiled loop against host loop | paired by round, median | fastest bursts | target "
        "| met |"
    )
    yield "| --- | --- | --- | --- | --- |"
    for networks, paired, fastest in ratios:
        yield (
            f"| {networks} | {paired:.2f} | {fastest:.2f} | at least {TARGET} "
            f"| {yes(fastest >= TARGET)} |"
        )


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="one backend")
    parser.add_argument("--rounds", type=int, default=5, help="bursts per contestant")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        publish(
            f"{BACKENDS[backend]}. {machine()}",
            table(backend, arguments.rounds),
            f"aggressive {backend}" if arguments.write else None,
        )


if __name__ == "__main__":
    main()
