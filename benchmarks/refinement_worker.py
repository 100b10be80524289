"""Times training steps: `refinement_worker.py NETWORK VAE` or `NETWORK SAVAE STEPS BACKWARD`."""

import json
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402

from vaezoo import zoo  # noqa: E402

BATCHES, REPEATS = 8, 5

#: Kind and options of `networks.make`, D, batch size, and arguments of the constructor.
NETWORKS = {
    "dense": ("mlp", {"input_shape": (784,), "hidden_units": (800, 800)}, 20, 128, {}),
    "gated": ("gated_pixelcnn", {"input_shape": (28, 28, 1)}, 32, 50, {}),
    "lstm": (
        "lstm",
        {"input_shape": (20,), "vocabulary_size": 2000, "embedding_dim": 64, "units": 128},
        32,
        32,
        {"likelihood": "tokens"},
    ),
}


def batches(network, rows):
    """Random data of the network's kind."""
    rng = np.random.default_rng(0)
    shape = (rows, *NETWORKS[network][1]["input_shape"])
    if network != "lstm":
        return (rng.random(shape) < 0.2).astype("float32")
    x = rng.integers(4, 2000, shape).astype("int32")
    x[:, 0], x[:, -1] = 1, 2
    return x


def steps(network, name, refine_steps=None, svi_backward=None):
    """Seconds of the first training step, and of a later one."""
    keras.utils.set_random_seed(0)
    kind, options, latent_dim, batch_size, settings = NETWORKS[network]
    options = dict(options)
    networks = zoo.networks.make(kind, options.pop("input_shape"), latent_dim, **options)
    if refine_steps is not None:
        settings = {**settings, "refine_steps": int(refine_steps), "svi_backward": svi_backward}
    model = getattr(zoo, name)(*networks, latent_dim=latent_dim, **settings)
    model.compile(keras.optimizers.Adam(1e-3))
    x = batches(network, BATCHES * batch_size)

    def seconds(rows):
        start = time.perf_counter()
        logs = model.fit(rows, batch_size=batch_size, verbose=0).history
        return time.perf_counter() - start, logs["loss"][0]

    first, loss = seconds(x[:batch_size])
    later = statistics.median(seconds(x)[0] / BATCHES for _ in range(REPEATS))
    return {"first": first, "later": later, "finite": bool(np.isfinite(loss))}


if __name__ == "__main__":
    print(json.dumps(steps(*sys.argv[1:])))
