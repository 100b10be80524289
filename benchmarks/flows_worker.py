"""Runs one part: `flows_worker.py sampling NETWORK PASSES` or `first_step PRESET`."""

import json
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

from vaezoo import layers, zoo  # noqa: E402
from vaezoo.core.compile import compiled  # noqa: E402
from vaezoo.layers.autoregressive_decoder import _pixel, write_pixel  # noqa: E402
from vaezoo.layers.named_likelihoods import get_likelihood  # noqa: E402

SHAPE, LATENT_DIM, IMAGES, REPEATS = (28, 28, 1), 32, 16, 5
POSITIONS = SHAPE[0] * SHAPE[1]

#: The decoders, with the arguments of `networks.make`.
NETWORKS = {
    "residual": zoo.presets()["mae_mnist"][1]["networks"],
    "gated": {"kind": "gated_pixelcnn", "input_shape": SHAPE},
}


def make(network):
    """An untrained decoder whose weight normalization, if any, has seen a batch."""
    options = dict(NETWORKS[network])
    kind, shape = options.pop("kind"), options.pop("input_shape")
    _, decoder = zoo.networks.make(kind, shape, LATENT_DIM, **options)
    rng = np.random.default_rng(1)
    x = (rng.random((IMAGES, *SHAPE)) < 0.5).astype("float32")
    with layers.initialize_from_data():
        decoder(rng.normal(size=(IMAGES, LATENT_DIM)).astype("float32"), x)
    return decoder


def sampling(network, passes):
    """Seconds of both ways from the same code and noise, and by how many pixels they differ."""
    keras.utils.set_random_seed(0)
    decoder, likelihood = make(network), get_likelihood("bernoulli")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(IMAGES, LATENT_DIM)).astype("float32")
    noise = rng.uniform(1e-6, 1 - 1e-6, (IMAGES, *SHAPE)).astype("float32")
    z, noise = ops.convert_to_tensor(z), ops.convert_to_tensor(noise)

    def cached(z, noise):
        return decoder.generate(z, likelihood.from_uniform, noise)

    def by_full_passes(z, noise, passes):
        # `generate_by_full_passes`, stopped after some of them: nobody waits for all to warm up.
        def step(number, images):
            row, column = number // SHAPE[1], number % SHAPE[1]
            params = _pixel(decoder(z, images, training=False), row, column)
            values = likelihood.from_uniform(params, _pixel(noise, row, column))
            return write_pixel(images, values, row, column)

        return ops.fori_loop(0, passes, step, ops.zeros((IMAGES, *SHAPE), "float32"))

    fast = compiled(decoder, cached, xla=True)
    slow = compiled(decoder, by_full_passes, xla=True)

    def timed(function, *arguments):
        start = time.perf_counter()
        images = ops.convert_to_numpy(function(*arguments))
        return time.perf_counter() - start, images

    def count(number):
        return ops.convert_to_tensor(number, "int32")

    timed(fast, z, noise)
    timed(slow, z, noise, count(1))
    before = [timed(fast, z, noise)[0] for _ in range(REPEATS)]
    seconds, slow_images = timed(slow, z, noise, count(passes))
    after = [timed(fast, z, noise) for _ in range(REPEATS)]
    fast_images = after[-1][1].reshape(IMAGES, -1)[:, :passes]
    return {
        "cached": statistics.median([*before, *(t for t, _ in after)]),
        "full": seconds * POSITIONS / passes,
        "compared": fast_images.size,
        "different": int(np.sum(fast_images != slow_images.reshape(IMAGES, -1)[:, :passes])),
        "ones": float(fast_images.mean()),
    }


def first_step(name):
    """Seconds of processor time of a preset's first training step, and of a later one."""
    keras.utils.set_random_seed(0)
    preset = zoo.load(name)
    preset.model.compile(**preset.compile_args)
    shape = preset.settings["networks"]["input_shape"]
    rng = np.random.default_rng(0)
    # Binary images are in the support of every likelihood.
    x = (rng.random((preset.data_args["batch_size"], *shape)) < 0.5).astype("float32")
    y = {"index": np.arange(len(x))} if preset.model.num_examples else None

    def step():
        # What other processes take of the machine must not count.
        start = time.process_time()
        logs = preset.model.fit(x, y, batch_size=len(x), verbose=0).history
        return time.process_time() - start, logs["loss"][0]

    (first, loss), *later = (step() for _ in range(4))
    return {
        "first": first,
        "later": min(seconds for seconds, _ in later),
        "finite": bool(np.isfinite(loss)),
    }


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    result = first_step(rest[0]) if part == "first_step" else sampling(rest[0], int(rest[1]))
    print(json.dumps(result))
