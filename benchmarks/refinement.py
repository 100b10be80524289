"""The price of refined posteriors: `python -m benchmarks.refinement [--write]`.

A step of SA-VAE against a plain one, by its number of refinement steps and its way back.
"""

import argparse
import sys

from rich.progress import track

from .__main__ import machine, publish
from .flows import BACKENDS, child

#: Refinement steps and products with second derivatives.
CASES = ((5, "exact"), (20, "exact"), (20, "finite_differences"))
NETWORKS = ("dense", "gated", "lstm")


def steps(backend, arguments):
    """Yields the lines of the table."""
    yield "| networks | model | first step, seconds | later steps, ms | price over VAE |"
    yield "| --- | --- | --- | --- | --- |"
    contestants = [("VAE",), *(("SAVAE", *case) for case in CASES)]
    for network in arguments.networks or NETWORKS:
        plain = None
        for case in track(contestants, network):
            found = child(backend, arguments.limit, network, *case, worker="refinement_worker.py")
            name = "VAE" if case == ("VAE",) else f"SAVAE, {case[1]} steps, {case[2]}"
            if isinstance(found, str):
                if plain is None:
                    sys.exit(f"{network}: {found}")
                yield f"| {network} | {name} | {found} | - | - |"
                continue
            plain = plain or found["later"]
            yield (
                f"| {network} | {name} | {found['first']:.1f} | {1000 * found['later']:.1f} "
                f"| {found['later'] / plain:.1f} |"
            )


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="one backend")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="some of the networks")
    parser.add_argument("--limit", type=float, default=900, help="seconds for each contestant")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.networks:
        parser.error("`--write` takes whole tables: leave `--networks` out.")
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        publish(
            f"{BACKENDS[backend]}. {machine()}",
            steps(backend, arguments),
            f"refinement {backend}" if arguments.write else None,
        )


if __name__ == "__main__":
    main()
