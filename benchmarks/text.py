"""Text: `python -m benchmarks.text [--write]`.

Tokens per second of training the LSTM VAE, against the same network in plain PyTorch.
"""

import argparse
import statistics

from .__main__ import JAX, OURS, PEERS, TF, machine, measure, publish

CONTESTANTS = {
    "vaezoo, TensorFlow": (OURS, ["text_worker.py"], TF),
    "vaezoo, JAX": (OURS, ["text_worker.py"], JAX),
    "plain PyTorch": (str(PEERS), ["torch_text_worker.py"], TF),
}


def table(rounds):
    """Yields the lines of the table."""
    speeds = measure(CONTESTANTS, rounds)
    peer = speeds["plain PyTorch"]
    yield "| contestant | tokens/s, median | min | max | over PyTorch, paired | fastest bursts |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, found in speeds.items():
        paired = statistics.median(a / b for a, b in zip(found, peer, strict=True))
        yield (
            f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} | {max(found):,.0f} "
            f"| {paired:.2f} | {max(found) / max(peer):.2f} |"
        )


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of 60 steps per contestant")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    publish(machine(), table(arguments.rounds), "text" if arguments.write else None)


if __name__ == "__main__":
    main()
