"""Trains one kind of networks with vaezoo: `python networks_worker.py KIND`."""

import math
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
from protocol import NETWORKS, check_weights, images, in_steps, serve  # noqa: E402


def make_burst(kind):
    """Some steps of `fit` from an array, as the preset says and nothing tuned."""
    if kind == "LSTM":
        import text_worker

        return in_steps(text_worker.make_burst())
    from vaezoo import zoo

    keras.utils.set_random_seed(0)
    networks = NETWORKS[kind]
    run = zoo.load(networks.preset)
    weights = run.model.trainable_variables
    check_weights(sum(math.prod(weight.shape) for weight in weights), networks)
    run.model.compile(**run.compile_args)
    x = images(networks).reshape(-1, *run.model.encoder.input_shape[1:])

    def burst():
        run.model.fit(x, batch_size=networks.batch_size, epochs=1, verbose=0)
        return networks.steps

    return burst


if __name__ == "__main__":
    serve(make_burst(sys.argv[1]))
