"""Takes training steps of a preset on TensorFlow: `python xla_worker.py PRESET XLA STEPS`.

XLA is `yes` or `no`. Prints the seconds of processor time of the first step and of each later one.
"""

import json
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from vaezoo import zoo

#: Words of a sentence, and of the vocabulary.
LENGTH, WORDS = 12, 8411


def batch_of(model, size):
    """Random examples of the kind that a model takes."""
    rng = np.random.default_rng(0)
    if type(model.likelihood).__name__ == "Tokens":
        words = model.likelihood.vocabulary_size
        x = rng.integers(4, words, (size, LENGTH), dtype="int32")
        x[:, 0], x[:, -1] = 1, 2
        return x
    x = rng.random((size, *model.encoder.input_shape[1:]), dtype="float32")
    return (x < 0.3).astype("float32")


def main(preset, xla, steps):
    """Prints what was measured as one line of JSON."""
    keras.utils.set_random_seed(0)
    networks = {"vocabulary_size": WORDS} if ("yelp" in preset or "text" in preset) else {}
    run = zoo.load(preset, networks=networks)
    run.model.compile(**{**run.compile_args, "jit_compile": xla == "yes"})
    run.model.set_steps_per_epoch(100)
    size = run.data_args["batch_size"]
    x, seconds = batch_of(run.model, size), []
    for _ in range(1 + int(steps)):
        start = time.process_time()
        float(run.model.train_on_batch(x)[0])
        seconds.append(time.process_time() - start)
    print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
