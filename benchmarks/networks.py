"""Training steps by kind of networks: `python -m benchmarks.networks [--write]`.

Processor time and time by the clock, on each backend and in plain PyTorch, in turns.
"""

import argparse
import statistics
import subprocess

from .__main__ import JAX, OURS, PEERS, TF, bursts, machine, yes
from .parts import publish_parts
from .protocol import NETWORKS, PEAK, PRODUCT_FLOP

PEER = "PyTorch"
#: Kind of networks: the most that a step may take against PyTorch's, if there is a goal.
KINDS = {
    "dense": None,
    "CNN of mu-VAE": 0.9,
    "ResNet": 0.8,
    "ResNet + PixelCNN": 1.1,
    "LSTM": 1.0,
}


def contestants(kind):
    """Those that take turns: interpreter, script with arguments, Keras backend."""
    return {
        "TensorFlow": (OURS, ["networks_worker.py", kind], TF),
        "JAX": (OURS, ["networks_worker.py", kind], JAX),
        PEER: (str(PEERS), ["torch_networks_worker.py", kind], TF),
        PEAK: (str(PEERS), ["torch_networks_worker.py", PEAK], TF),
    }


def milliseconds(found, field):
    """Of a step, the median of the bursts."""
    return 1e3 * statistics.median(getattr(burst, field) / burst.steps for burst in found)


def paired(found, peer, field):
    """How long a step takes against the peer's, the median over the rounds."""
    return statistics.median(
        getattr(ours, field) / ours.steps / (getattr(other, field) / other.steps)
        for ours, other in zip(found, peer, strict=True)
    )


def peak_of(found):
    """Floating-point operations a second of a large product, the best of its bursts."""
    return max(burst.steps / burst.cpu for burst in found) * PRODUCT_FLOP


def peak(rounds=5, cores=1):
    """The same, measured alone: what a floor is computed from."""
    contestant = (str(PEERS), ["torch_networks_worker.py", PEAK], TF)
    return peak_of(bursts({PEAK: contestant}, rounds, cores)[PEAK])


def flop(kind):
    """Floating-point operations of a step's products, or None where nothing counts them."""
    if kind not in NETWORKS:
        return None
    command = [str(PEERS), "benchmarks/torch_networks_worker.py", kind, "flop"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


COLUMNS = (
    "networks",
    "by",
    "CPU ms a step",
    "ms by the clock",
    "CPU over PyTorch, paired",
    "by the clock",
    "goal",
    "met",
    "peak, MB",
    "of it before the model",
)


def rows_of(kind, rounds, cores):
    """The rows of a kind of networks, without its name."""
    found = bursts(contestants(kind), rounds, cores)
    speed = peak_of(found.pop(PEAK))
    goal, peer = KINDS[kind], found[PEER]
    for name, times in found.items():
        ratio = paired(times, peer, "cpu")
        judged = ["-", "-"]
        if goal is not None and name != PEER:
            judged = [f"at most {goal}", yes(ratio <= goal)]
        yield [
            name,
            f"{milliseconds(times, 'cpu'):.1f}",
            f"{milliseconds(times, 'wall'):.1f}",
            f"{ratio:.2f}",
            f"{paired(times, peer, 'wall'):.2f}",
            *judged,
            f"{max(burst.peak for burst in times):,.0f}",
            f"{times[0].before:,.0f}",
        ]
    products = flop(kind)
    if products is not None:
        least = 1e3 * products / speed
        name = f"products alone, {speed / 1e9:.0f} GFLOP/s a core"
        ratio = f"{least / milliseconds(peer, 'cpu'):.2f}"
        yield [name, f"{least:.1f}", "-", ratio, *["-"] * 5]


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=KINDS, nargs="+", help="kinds of networks; rows of others stay"
    )
    parser.add_argument("--rounds", type=int, default=5, help="bursts of each contestant")
    parser.add_argument("--cores", type=int, default=1, help="cores that each may use")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    kinds = arguments.only or KINDS
    publish_parts(
        machine(),
        COLUMNS,
        ((kind, rows_of(kind, arguments.rounds, arguments.cores)) for kind in kinds),
        KINDS,
        "networks" if arguments.write else None,
    )


if __name__ == "__main__":
    main()
