"""Memory of training steps of a preset on one batch: `python memory_worker.py PRESET`."""

import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from protocol import TEXT, forget_peak, memory  # noqa: E402

from vaezoo import zoo  # noqa: E402

#: Steps after the first.
STEPS = 4


def batch_of(preset, size, steps):
    """Random examples that a preset takes; sentences have the length and words of `protocol`."""
    rng = np.random.default_rng(0)
    shape = preset.settings["networks"]["input_shape"]
    if None in shape:
        x = rng.integers(4, TEXT.vocabulary_size, (steps * size, TEXT.length), dtype="int32")
        x[:, 0], x[:, -1] = 1, 2
        return x
    # Binary images are in the support of every likelihood.
    return (rng.random((steps * size, *shape)) < 0.5).astype("float32")


def main(name):
    """Prints what was measured as one line of JSON."""
    keras.utils.set_random_seed(0)
    before = memory("VmRSS")
    of_text = None in zoo.presets()[name][1]["networks"]["input_shape"]
    preset = zoo.load(name, networks={"vocabulary_size": TEXT.vocabulary_size} if of_text else {})
    model, size = preset.model, preset.data_args["batch_size"]
    model.compile(**preset.compile_args)

    def fit(steps):
        x = batch_of(preset, size, steps)
        y = {"index": np.arange(len(x))} if model.num_examples else None
        model.fit(x, y, batch_size=size, verbose=0)

    forget_peak()
    fit(1)
    first = memory("VmHWM")
    forget_peak()
    fit(STEPS)
    print(
        json.dumps(
            {
                "batch": size,
                "weights": sum(math.prod(weight.shape) for weight in model.trainable_variables),
                "first": first,
                "later": memory("VmHWM"),
                "before": before,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
