"""Text: `python -m benchmarks.text [--write]`, or `python -m benchmarks.text --sentences FILE`.

Tokens per second of training the LSTM VAE, against the same network in plain PyTorch; or how many
positions the batches of a file of sentences have for each token.
"""

import argparse
import statistics

from .__main__ import JAX, OURS, PEERS, TF, bursts, machine, publish

CONTESTANTS = {
    "vaezoo, TensorFlow": (OURS, ["text_worker.py"], TF),
    "vaezoo, JAX": (OURS, ["text_worker.py"], JAX),
    "plain PyTorch": (str(PEERS), ["torch_text_worker.py"], TF),
}


def table(rounds, cores):
    """Yields the lines of the table."""
    found = bursts(CONTESTANTS, rounds, cores)
    peer = found["plain PyTorch"]
    yield (
        "| contestant | tokens/s, median | min | max | speed over PyTorch, paired "
        "| tokens a CPU second, median | over PyTorch, paired |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, own in found.items():
        speeds = [burst.speed for burst in own]
        by_cpu = [burst.steps / burst.cpu for burst in own]
        pairs = list(zip(own, peer, strict=True))
        faster = statistics.median(a.speed / b.speed for a, b in pairs)
        cheaper = statistics.median(a.steps / a.cpu / (b.steps / b.cpu) for a, b in pairs)
        yield (
            f"| {name} | {statistics.median(speeds):,.0f} | {min(speeds):,.0f} "
            f"| {max(speeds):,.0f} | {faster:.2f} | {statistics.median(by_cpu):,.0f} "
            f"| {cheaper:.2f} |"
        )


def positions(path, batch_size=32):
    """Yields the lines of the table of positions a token."""
    import numpy as np

    from vaezoo import data

    info = data.describe_text(path, batch_size=batch_size)
    with open(path, encoding="utf-8") as file:
        lengths = np.array([2 + len(line.split("\t")[-1].split()) for line in file])
    order = np.random.default_rng(0).permutation(len(lengths))
    whole = lengths[order[: len(order) // batch_size * batch_size]].reshape(-1, batch_size)
    yield "| batches of 32 | positions a token |"
    yield "| --- | --- |"
    named = ", ".join(map(str, info.buckets))
    yield f"| of length {named} | {1 / (1 - info.padding_share):.3f} |"
    padded = whole.max(axis=1).sum() * batch_size / whole.sum()
    yield f"| at random, as long as their longest | {padded:.3f} |"


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of 60 steps per contestant")
    parser.add_argument("--cores", type=int, default=1, help="cores that each may use")
    parser.add_argument("--sentences", metavar="FILE", help="sentences, one a line")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    if arguments.sentences:
        publish(machine(), positions(arguments.sentences), None)
        return
    publish(
        machine(),
        table(arguments.rounds, arguments.cores),
        "text" if arguments.write else None,
    )


if __name__ == "__main__":
    main()
