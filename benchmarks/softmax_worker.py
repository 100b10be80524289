"""Trains over N examples: `softmax_worker.py KIND N [memory | time]`.

KIND is `flat`, `tree` or `rows`, the classifier alone; `vae`, or `vae_as` with `_flat`, `_tree`,
`_flat_ce` or `_tree_ce`, a whole model. With `memory` the peak is printed instead of waiting for
bursts, with `time` the processor time of a step.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402
from protocol import PIXELS, serve  # noqa: E402

from vaezoo import layers, zoo  # noqa: E402

BATCH, WIDTH, LATENT_DIM, STEPS = 128, 500, 40, 40

#: Arguments of `VAEAS` by kind.
MODELS = {
    "vae_as_flat": {"softmax": "flat", "estimator": "entropy"},
    "vae_as_tree": {"softmax": "tree", "estimator": "entropy"},
    "vae_as_flat_ce": {"softmax": "flat", "estimator": "ce"},
    "vae_as_tree_ce": {"softmax": "tree", "estimator": "ce"},
}


class Classifier(keras.Model):
    """Two hidden layers and a softmax over examples, as any Keras user would put them together."""

    def __init__(self, softmax):
        super().__init__()
        self.hidden = keras.Sequential([keras.layers.Dense(WIDTH, "relu") for _ in range(2)])
        self.softmax = softmax
        softmax.build((None, WIDTH))

    def call(self, z):
        return self.hidden(z)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = -ops.mean(self.softmax.log_prob(y_pred, y))
        if getattr(self.softmax, "row_learning_rate", None):
            self.softmax.update(ops.stop_gradient(y_pred), y)
        return loss


def classifier(kind, num_examples):
    """The classifier alone, with codes and their indices."""
    if kind == "flat":
        softmax = layers.FlatSoftmax(num_examples)
    else:
        softmax = layers.HierarchicalSoftmax(
            num_examples, row_learning_rate=0.01 if kind == "rows" else None
        )
    model = Classifier(softmax)
    model.compile("adam", jit_compile=True)
    rng = np.random.default_rng(0)
    index = rng.integers(0, num_examples, BATCH * STEPS).astype("int32")
    return model, rng.normal(size=(len(index), LATENT_DIM)).astype("float32"), index


def vae_as(kind, num_examples):
    """A whole model with the paper's networks, images and, but for the plain VAE, their indices."""
    encoder, decoder = zoo.networks.make(
        "mlp",
        (PIXELS,),
        LATENT_DIM,
        hidden_units=(WIDTH,) * 2,
        decoder={"hidden_units": (WIDTH,) * 5},
    )
    if kind == "vae":
        model = zoo.VAE(encoder, decoder, latent_dim=LATENT_DIM)
    else:
        model = zoo.VAEAS(encoder, decoder, num_examples=num_examples, **MODELS[kind])
    model.compile("adam")
    rng = np.random.default_rng(0)
    x = (rng.random((BATCH * STEPS, PIXELS)) < 0.13).astype("float32")
    if kind == "vae":
        return model, x, None
    index = rng.choice(num_examples, len(x), replace=False).astype("int32")
    return model, x, {"index": index}


def main():
    """Serves bursts, or measures the memory of one."""
    kind, num_examples, *rest = sys.argv[1:]
    make = vae_as if kind.startswith("vae") else classifier
    model, x, y = make(kind, int(num_examples))

    steps = 10 if rest == ["time"] else STEPS

    def burst():
        model.fit(x, y, batch_size=BATCH, steps_per_epoch=steps, verbose=0)
        return steps

    if not rest:
        serve(burst)
        return
    burst()
    if rest == ["time"]:
        # A machine that others use, too, takes longer, but hardly more of it.
        bursts = []
        for _ in range(2):
            start = time.process_time()
            burst()
            bursts.append((time.process_time() - start) / steps)
        print(json.dumps({"steps": bursts}))
        return
    start = time.perf_counter()
    burst()
    seconds = (time.perf_counter() - start) / STEPS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    weights = sum(ops.size(v) for v in model.variables)
    print(json.dumps({"step": seconds, "peak": peak, "weights": int(weights)}))


if __name__ == "__main__":
    main()
