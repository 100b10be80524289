"""How workers are timed: all alive at once, one running at a time, round after round.

Ratios are taken within a round, seconds apart, so that a machine whose speed drifts shifts both
sides alike.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
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


class Networks(NamedTuple):
    """A kind of networks: the preset that has them, and its steps in a burst."""

    preset: str
    steps: int
    batch_size: int
    #: Number of trainable weights, ours and the peer's.
    weights: int


NETWORKS = {
    "dense": Networks("vae_mnist_500", 100, 128, 2_098_364),
    "CNN of mu-VAE": Networks("mu_vae_mnist_cnn", 40, 64, 227_413),
    "ResNet": Networks("resnet_vae_mnist", 16, 100, 1_201_487),
    "ResNet + PixelCNN": Networks("du_vae_omniglot", 2, 50, 1_646_912),
}


class Aggressive(NamedTuple):
    """Dense networks whose encoder takes many steps for each of the decoder."""

    pixels: int
    hidden: int
    latent_dim: int
    batch_size: int
    #: Outer steps of a burst.
    steps: int

    @property
    def flop(self):
        """Floating-point operations of the products of an outer step."""
        first, middle = self.pixels * self.hidden, self.hidden**2
        encoder = first + middle + 2 * self.hidden * self.latent_dim
        decoder = self.latent_dim * self.hidden + middle + first
        forward = encoder + decoder
        # Through the decoder only the gradients by its inputs are wanted, and none by the data.
        inner = forward + decoder + 2 * encoder - first
        outer = forward + 2 * decoder - self.latent_dim * self.hidden
        return 2 * self.batch_size * (INNER * inner + outer)


#: Steps of the encoder for each of the decoder, and the networks.
INNER = 99
AGGRESSIVE = {"small": Aggressive(64, 256, 16, 64, 20), "dense": Aggressive(784, 500, 32, 50, 4)}

#: Floating-point operations of the products of a likelihood, for a draw: the dense decoder's.
DRAW_FLOP = 2 * (LATENT_DIM * HIDDEN + HIDDEN**2 + HIDDEN * PIXELS)

#: A contestant that multiplies large matrices alone, and what a product takes.
PEAK, PRODUCT_SIZE = "peak", 2048
PRODUCT_FLOP = 2 * PRODUCT_SIZE**3


def images(networks):
    """Random binary images for a burst, float32 `(steps * batch_size, 784)`."""
    import numpy as np

    shape = (networks.steps * networks.batch_size, PIXELS)
    return (np.random.default_rng(0).random(shape) < 0.3).astype("float32")


def check_weights(found, networks):
    """Raises a `ValueError` unless both sides train the same number of weights."""
    if found != networks.weights:
        raise ValueError(f"{networks.preset} has {networks.weights} weights. Received: {found}")


def text_batches():
    """Random sentences of one length, int32 `(steps, batch_size, length)`."""
    import numpy as np

    shape = (TEXT.steps, TEXT.batch_size, TEXT.length)
    x = np.random.default_rng(0).integers(4, TEXT.vocabulary_size, shape, dtype="int32")
    x[..., 0], x[..., -1] = 1, 2
    return x


def in_steps(tokens):
    """The burst of text, which counts tokens, in steps."""

    def burst():
        return tokens() * TEXT.steps / TEXT.tokens

    return burst


class Burst(NamedTuple):
    """What a worker measured."""

    steps: float
    #: Seconds by the clock, and of processor time of all threads.
    wall: float
    cpu: float
    #: Most memory that the process held since it was warm, and before that, in MB.
    peak: float
    before: float

    @property
    def speed(self):
        """Steps a second by the clock."""
        return self.steps / self.wall


def serve(burst):
    """Runs `burst()`, which returns its number of steps, whenever the parent asks for it."""
    before = memory("VmRSS")
    burst()
    forget_peak()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        steps = burst()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps([steps, wall, cpu, memory("VmHWM"), before]), flush=True)


def memory(name):
    """An entry of the process's memory, in MB; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(name)), 0.0)


def forget_peak():
    """Lets the peak of the process's memory begin anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def confined(cores):
    """Function that lets a process have some cores alone, or all of them.

    Threads that wait for a core that other work holds would count as processor time.
    """

    def confine():
        if cores is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    return confine


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, command, environment, cores=None):
        # A pipe that nobody reads would stop a library that draws progress bars when it is full.
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            preexec_fn=confined(cores),
        )

    def wait(self):
        """Blocks until the warm-up is over."""
        # Libraries print to stdout while they start.
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError(f"A worker died:\n{self._last_errors()}")

    def burst(self):
        """Returns the `Burst` that the worker has measured."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            try:
                return Burst(*json.loads(line))
            except (TypeError, ValueError):
                continue
        raise RuntimeError(f"A worker died:\n{self._last_errors()}")

    def _last_errors(self):
        self.process.wait(timeout=60)
        self.errors.seek(0)
        return self.errors.read()[-3000:]

    def stop(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
