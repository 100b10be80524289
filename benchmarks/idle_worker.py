"""Trains from one source on TensorFlow: `python idle_worker.py SOURCE`.

Prints a line of JSON for each `fit`: seconds of processor time, and seconds by the clock between
and after epochs in which no thread of the process ran or waited for a core.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from protocol import BATCH_SIZE, HIDDEN, LATENT_DIM, PIXELS  # noqa: E402

from vaezoo import data, zoo  # noqa: E402

STEPS, EPOCHS, FITS = 64, 3, 3


def waited():
    """Seconds that the threads there are have waited for a core."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            total += int(path.read_text().split()[1])
    return total / 1e9


class Gaps(keras.callbacks.Callback):
    """Adds up the idle time from an epoch's last batch to the next one's first, or the end."""

    def __init__(self):
        super().__init__()
        self.idle, self.since = 0.0, None

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0 and self.since is not None:
            self.close()

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.params["steps"] - 1:
            self.since = time.perf_counter(), time.process_time(), waited()

    def close(self):
        wall, ran, stood = self.since
        # The waiting of threads that have ended is lost.
        worked = time.process_time() - ran + max(waited() - stood, 0.0)
        self.idle += max(time.perf_counter() - wall - worked, 0.0)
        self.since = None


def make_source(name):
    """Something that `fit` takes, with its further arguments."""
    x = np.random.default_rng(0).random((BATCH_SIZE * STEPS, PIXELS)) < 0.3
    x = x.astype("float32")
    if name == "array":
        return x, {"batch_size": BATCH_SIZE}
    if name == "load":
        file = Path(os.environ["IDLE_FOLDER"]) / "images.npy"
        np.save(file, (x * 255).astype("uint8").reshape(-1, 28, 28, 1))
        return data.load(str(file), batch_size=BATCH_SIZE), {}
    batches = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x)).batch(BATCH_SIZE).prefetch(2)
    if name == "tf.data, options.autotune.enabled = False":
        options = tf.data.Options()
        options.autotune.enabled = False
        batches = batches.with_options(options)
    return batches, {}


def main(name):
    """Prints what was measured."""
    x, arguments = make_source(name)
    shape = (28, 28, 1) if name == "load" else (PIXELS,)
    encoder, decoder = zoo.networks.make(
        "mlp", shape, latent_dim=LATENT_DIM, hidden_units=(HIDDEN, HIDDEN)
    )
    model = zoo.VAE(encoder, decoder, latent_dim=LATENT_DIM)
    model.compile("adam")
    for number in range(1 + FITS):
        gaps = Gaps()
        start = time.process_time()
        model.fit(x, epochs=EPOCHS, verbose=0, callbacks=[gaps], **arguments)
        gaps.close()
        if number:
            print(json.dumps([time.process_time() - start, gaps.idle]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
