"""XLA on TensorFlow's CPU: `python -m benchmarks.xla [--write]`.

Processor time of training steps with and without XLA, one preset for each kind of network: what
`jit_compile="auto"` decides by.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

from .__main__ import OURS, machine, publish

#: A preset of each kind of networks, and its steps after the first.
KINDS = {
    "dense": ("vae_mnist_mlp", 100),
    "dense, small": ("vae_digits_mlp", 300),
    "dense, importance-weighted": ("iwae_mnist_mlp", 6),
    "CNN of mu-VAE": ("mu_vae_mnist_cnn", 6),
    "ResNet": ("resnet_vae_mnist", 6),
    "ResNet + PixelCNN": ("vae_omniglot", 4),
    "small PixelCNN": ("vae_digits_pixelcnn", 40),
    "LSTM": ("text_vae_yelp_sentences", 20),
    "small LSTM": ("text_vae_text_tiny", 60),
}


def seconds_of(preset, xla, steps):
    """Processor time of the first step, and the median of the later ones."""
    worker = Path(__file__).parent / "xla_worker.py"
    command = [OURS, str(worker), preset, xla, str(steps)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(f"A worker died:\n{found.stderr[-3000:]}")
    first, *rest = json.loads(found.stdout.splitlines()[-1])
    return first, statistics.median(rest)


def table(kinds, rounds):
    """Yields the lines of the table."""
    yield (
        "| networks | preset | first step, s | without XLA | later steps, ms | without XLA "
        "| without XLA / with, paired, median |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for kind in kinds:
        preset, steps = KINDS[kind]
        pairs = [[seconds_of(preset, xla, steps) for xla in ("yes", "no")] for _ in range(rounds)]
        ratio = statistics.median(plain / xla for (_, xla), (_, plain) in pairs)
        medians = [
            statistics.median(pair[side][which] for pair in pairs)
            for which in (0, 1)
            for side in (0, 1)
        ]
        first = " | ".join(f"{seconds:.1f}" for seconds in medians[:2])
        later = " | ".join(f"{1000 * seconds:.1f}" for seconds in medians[2:])
        yield f"| {kind} | `{preset}` | {first} | {later} | {ratio:.2f} |"


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, nargs="+", help="kinds of networks")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of runs of each kind")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    publish(
        machine(),
        table(arguments.only or KINDS, arguments.rounds),
        "xla" if arguments.write else None,
    )


if __name__ == "__main__":
    main()
