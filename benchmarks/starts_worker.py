"""Runs `vaezoo train` on random images up to its first step: `python starts_worker.py FOLDER`."""

import importlib.abc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

#: As many images as OMNIGLOT has.
PRESET, ROWS, SHAPE = "du_vae_omniglot", 24_345, (28, 28, 1)
MODULE = "vaezoo.zoo.vae.training"


class Watching(importlib.abc.MetaPathFinder):
    """Changes the module of training as it is imported: the command has to start Keras itself."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            end_after_first_step(module.Training)

        spec.loader.exec_module = exec_module
        return spec


def end_after_first_step(training):
    """Lets the first step print what it took until then, and end the process."""
    fit, make = training.fit, training.make_train_function
    began = []

    def begin(self, *args, **kwargs):
        began.append(time.process_time())
        return fit(self, *args, **kwargs)

    def make_and_watch(self, force=False):
        made = make(self, force)
        run = self.train_function

        def first(*arguments):
            began.append(time.process_time())
            run(*arguments)
            sys.stdout.flush()
            print(f"\n{json.dumps([*began[-2:], time.process_time()])}", flush=True)
            os._exit(0)

        self.train_function = first
        return made

    training.fit, training.make_train_function = begin, make_and_watch


def main(folder):
    """Starts the command."""
    import numpy as np

    folder = Path(folder)
    folder.mkdir()
    images = np.random.default_rng(0).random((ROWS, *SHAPE), dtype="float32") < 0.3
    np.save(folder / "images.npy", images.astype("float32"))
    sys.meta_path.insert(0, Watching())
    sys.argv = ["vaezoo", "train", PRESET, "--data", str(folder / "images.npy")]
    sys.argv += ["--out", str(folder / "run")]
    from vaezoo.cli.app import main

    main()


if __name__ == "__main__":
    main(*sys.argv[1:])
