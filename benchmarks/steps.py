"""Training steps that are more than one gradient step: `python -m benchmarks.steps [--write]`.

What they cost against a plain step, and what the compiled inner loop of aggressive training saves
against a loop on the host.
"""

import argparse
import statistics

from .__main__ import OURS, bursts, machine, publish, yes
from .flows import BACKENDS
from .networks import peak
from .protocol import AGGRESSIVE

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
        "| networks | step | CPU ms, least | CPU ms, median | ms by the clock, least "
        "| price in plain steps, CPU, paired by round, median |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    ratios = []
    for networks, size in SIZES.items():
        contestants = {
            name: (OURS, ["steps_worker.py", kind, size], backend) for name, kind in KINDS.items()
        }
        found = bursts(contestants, rounds)
        plain, loop, host = found.values()
        for name, times in found.items():
            price = statistics.median(_ratios(times, plain, "cpu"))
            cpu = _milliseconds(times, "cpu")
            yield (
                f"| {networks} | {name} | {min(cpu):.2f} | {statistics.median(cpu):.2f} "
                f"| {min(_milliseconds(times, 'wall')):.2f} | {price:.1f} |"
            )
        # The speed of products changes from hour to hour.
        speed = peak()
        floor = 1e3 * AGGRESSIVE[size].flop / speed
        yield (
            f"| {networks} | products of AggVAE's step alone, {speed / 1e9:.0f} GFLOP/s a core "
            f"| {floor:.2f} | - | - | - |"
        )
        wall = min(_milliseconds(host, "wall")) / min(_milliseconds(loop, "wall"))
        most = statistics.median(_milliseconds(host, "cpu")) / floor
        ratios.append((networks, statistics.median(_ratios(host, loop, "cpu")), wall, most))
    yield ""
    yield (
        "| compiled loop against host loop | CPU, paired by round, median "
        "| by the clock, fastest bursts | goal | met, by CPU | host loop against products alone |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for networks, cpu, wall, most in ratios:
        yield (
            f"| {networks} | {cpu:.2f} | {wall:.2f} | at least {TARGET} | {yes(cpu >= TARGET)} "
            f"| {most:.2f} |"
        )


def _milliseconds(found, field):
    return [1e3 * getattr(burst, field) / burst.steps for burst in found]


def _ratios(above, below, field):
    pairs = zip(_milliseconds(above, field), _milliseconds(below, field), strict=True)
    return [a / b for a, b in pairs]


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
