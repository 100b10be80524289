"""Runs one instrument: `evaluate_worker.py train|load WEIGHTS IMAGES DRAWS`, `information N`."""

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
from protocol import BATCH_SIZE, HIDDEN, LATENT_DIM, PIXELS  # noqa: E402

from vaezoo import data, metrics, zoo  # noqa: E402
from vaezoo.losses import DiagonalGaussian  # noqa: E402


def images(limit):
    """Binarized MNIST where it is prepared, random binary images otherwise."""
    try:
        x, _ = data.load_arrays("mnist", split="test", binarize="fixed", limit=limit)
        return x.reshape(len(x), -1), "MNIST's test set, binarized"
    except (ImportError, OSError, ValueError):
        rng = np.random.default_rng(0)
        return (rng.random((limit, PIXELS)) < 0.13).astype("float32"), "random"


def network():
    """The dense VAE of the speed benchmark."""
    encoder, decoder = zoo.networks.make(
        "mlp", (PIXELS,), LATENT_DIM, hidden_units=(HIDDEN, HIDDEN)
    )
    model = zoo.VAE(encoder, decoder, latent_dim=LATENT_DIM)
    model.build((None, PIXELS))
    return model


def likelihood(mode, path, limit, num_samples):
    """Processor time, seconds and value of the likelihood, by a model that is trained or loaded."""
    keras.utils.set_random_seed(0)
    model = network()
    if mode == "train":
        x, source = images(10 * limit)
        model.compile("adam")
        model.fit(x, batch_size=BATCH_SIZE, epochs=2, verbose=0)
        x = x[:limit]
        weights = [keras.ops.convert_to_numpy(value) for value in model.trainable_variables]
        np.savez(path, *weights, x=x)
    else:
        stored = np.load(path)
        x, source = stored["x"], ""
        for number, variable in enumerate(model.trainable_variables):
            variable.assign(stored[f"arr_{number}"])

    def measure(x):
        wall, cpu = time.perf_counter(), time.process_time()
        estimate = metrics.negative_log_likelihood(model, x, num_samples)
        return time.process_time() - cpu, time.perf_counter() - wall, estimate.value

    # The first one compiles.
    measure(x[:64])
    found = [measure(x) for _ in range(2)]
    cpu, seconds, value = (min(numbers) for numbers in zip(*found, strict=True))
    return {"cpu": cpu, "seconds": seconds, "value": value, "data": source}


def information(size):
    """Seconds, value and memory of the mutual information of `size` posteriors."""
    rng = np.random.default_rng(0)
    posterior = DiagonalGaussian(
        rng.normal(size=(size, 32)).astype("float32"),
        rng.normal(-1.0, 0.5, size=(size, 32)).astype("float32"),
    )
    metrics.mutual_information(DiagonalGaussian(*(part[:100] for part in posterior)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    estimate = metrics.mutual_information(posterior)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    exact = None
    if size <= 10_000:
        exact = exact_information(posterior, estimate)
    return {
        "seconds": seconds,
        "value": estimate.value,
        "megabytes": peak / 1024,
        "exact": exact,
    }


def exact_information(posterior, estimate):
    """The double sum at the same draws, a draw at a time from the definition, in float64."""
    from vaezoo.metrics.gaussians import gaussians_of, generator

    mean, log_var = (np.asarray(part, "float64") for part in posterior)
    noise = generator(estimate.settings["seed"], "draws")
    z = gaussians_of(posterior).sample(1, noise)[:, 0]
    normalizer = -0.5 * (log_var + np.log(2 * np.pi))
    total = 0.0
    for index, point in enumerate(z):
        log_q = np.sum(normalizer - 0.5 * (point - mean) ** 2 / np.exp(log_var), axis=1)
        highest = log_q.max()
        total += log_q[index] - highest - np.log(np.mean(np.exp(log_q - highest)))
    return total / len(z)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "information":
        print(json.dumps(information(int(rest[0]))))
    else:
        print(json.dumps(likelihood(command, rest[0], int(rest[1]), int(rest[2]))))
