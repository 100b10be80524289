"""The instruments against their peers: `python -m benchmarks.evaluate [--write]`.

Likelihood of 1,000 images with 500 draws each, by vaezoo and by pythae's `get_nll` from the same
weights; mutual information of many posteriors, against the exact double sum.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .__main__ import HERE, PEERS, machine, publish, yes
from .networks import peak
from .protocol import DRAW_FLOP, confined

NUM_SAMPLES, IMAGES = 500, 1000
#: How much less processor time a likelihood is to take than pythae's.
GOAL = 3.5


def child(script, *arguments, python=sys.executable, backend="tensorflow", cores=None):
    """The JSON object that a worker prints last, which may use some cores or all."""
    done = subprocess.run(
        [python, str(HERE / script), *map(str, arguments)],
        preexec_fn=confined(cores),
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{script} died:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def likelihood(folder, images):
    """Yields the lines of the likelihood's table."""
    weights = Path(folder) / "weights.npz"
    # One core each: threads that wait for one that is taken would count as processor time.
    found = {
        "vaezoo, TensorFlow": child(
            "evaluate_worker.py", "train", weights, images, NUM_SAMPLES, cores=1
        ),
        "vaezoo, JAX": child(
            "evaluate_worker.py", "load", weights, images, NUM_SAMPLES, backend="jax", cores=1
        ),
        "pythae `get_nll`, PyTorch": child(
            "pythae_nll.py", weights, NUM_SAMPLES, python=PEERS, cores=1
        ),
    }
    peer = found["pythae `get_nll`, PyTorch"]
    yield (
        f"Negative log-likelihood of {images:,} images ({found['vaezoo, TensorFlow']['data']}), "
        f"{NUM_SAMPLES} draws each, the dense VAE above after two epochs; the same weights in all, "
        "a core each:"
    )
    yield ""
    yield (
        "| by | CPU seconds | by the clock | NLL, nats | against pythae, CPU | by the clock "
        "| goal | met, by CPU |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, result in found.items():
        ratio, wall = (peer[field] / result[field] for field in ("cpu", "seconds"))
        judged = f"at least {GOAL} | {yes(ratio >= GOAL)}" if name.startswith("vaezoo") else "- | -"
        yield (
            f"| {name} | {result['cpu']:.1f} | {result['seconds']:.1f} | {result['value']:.3f} "
            f"| {ratio:.2f} | {wall:.2f} | {judged} |"
        )
    speed = peak()
    least = images * NUM_SAMPLES * DRAW_FLOP / speed
    yield (
        f"| products of the decoder alone, {speed / 1e9:.0f} GFLOP/s a core | {least:.1f} | - | - "
        f"| {peer['cpu'] / least:.2f} | - | - | - |"
    )


def information():
    """Yields the lines of the mutual information's table."""
    yield (
        "Mutual information of N random diagonal posteriors, D = 32 (the peak is that of a process "
        "that does nothing else, over its size before):"
    )
    yield ""
    yield "| N | seconds | nats | exact double sum | peak memory |"
    yield "| --- | --- | --- | --- | --- |"
    for size in (10_000, 60_000):
        result = child("evaluate_worker.py", "information", size)
        exact = "-" if result["exact"] is None else f"{result['exact']:.10f}"
        yield (
            f"| {size:,} | {result['seconds']:.1f} | {result['value']:.10f} | {exact} "
            f"| {result['megabytes']:.0f} MB |"
        )


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help="images of the likelihood")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    if not PEERS.exists():
        sys.exit(f"pythae needs {PEERS}, which `make bench` sets up.")
    with tempfile.TemporaryDirectory() as folder:
        publish(
            machine(),
            itertools.chain(likelihood(folder, arguments.images), [""], information()),
            "evaluate" if arguments.write else None,
        )


if __name__ == "__main__":
    main()
