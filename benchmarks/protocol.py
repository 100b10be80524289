"""How workers are timed: all alive at once, one running at a time, round after round.

Ratios are taken within a round, seconds apart, so that a machine whose speed drifts shifts both
sides alike.
"""

import json
import subprocess
import sys
import time
from typing import NamedTuple

#: 430 steps of 128 are an epoch of MNIST's 55,000 training images.
BATCH_SIZE, STEPS, LATENT_DIM, HIDDEN, PIXELS = 128, 430, 20, 800, 784
EXAMPLES = BATCH_SIZE * STEPS

_WEIGHTS = 2 * PIXELS * HIDDEN + 2 * HIDDEN**2 + 3 * LATENT_DIM * HIDDEN
#: Floating-point operations of a step's matrix products: forward, gradient by weights, and
#: gradient by inputs except those of the first layer.
STEP_FLOP = 2 * BATCH_SIZE * (3 * _WEIGHTS - PIXELS * HIDDEN)


class Text(NamedTuple):
    """Sizes of the LSTM VAE, those of DU-VAE's short Yelp, and of its batches."""

    vocabulary_size: int = 8411
    embedding_dim: int = 128
    units: int = 512
    latent_dim: int = 32
    batch_size: int = 32
    length: int = 12
    steps: int = 60

    @property
    def tokens(self):
        """Predicted tokens of a burst."""
        return self.steps * self.batch_size * (self.length - 1)


TEXT = Text()


def text_batches():
    """Random sentences of one length, int32 `(steps, batch_size, length)`."""
    import numpy as np

    shape = (TEXT.steps, TEXT.batch_size, TEXT.length)
    x = np.random.default_rng(0).integers(4, TEXT.vocabulary_size, shape, dtype="int32")
    x[..., 0], x[..., -1] = 1, 2
    return x


def serve(burst):
    """Runs `burst()`, which returns its number of steps, whenever the parent asks for it."""
    burst()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        steps = burst()
        print(json.dumps(steps / (time.perf_counter() - start)), flush=True)


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self):
        """Blocks until the warm-up is over."""
        # Libraries print to stdout while they start.
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError(f"A worker died:\n{self.process.stderr.read()[-3000:]}")

    def burst(self):
        """Steps per second of one burst."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            try:
                return float(line)
            except ValueError:
                continue
        raise RuntimeError(f"A worker died:\n{self.process.stderr.read()[-3000:]}")

    def stop(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
