"""A process that has imported the backend, and forks one that trains for each line it reads.

A line is JSON: `[kind, directory, {"replace": n, "after": bool} or {"seconds": t} or null]`, where
the child kills itself as it writes its n-th file, before or after that takes its place, or after
some seconds. The answer is a line: the child's status, and the seconds and files of a whole run.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

KINDS = ("plain", "plateau", "indices", "aggressive", "text")


def spec_of(kind, root):
    """A tiny run of a kind."""
    import keras

    from vaezoo.runs import RunSpec

    common = {"seed": 3, "xla": keras.backend.backend() == "jax", "monitor": False}
    if kind == "text":
        sentences = Path(root) / "sentences"
        if not sentences.exists():
            sentences.mkdir()
            words = "a few short words of which sentences of many lengths are made here".split()
            for split, count in (("train", 36), ("valid", 8), ("test", 4)):
                lines = [" ".join(words[i % 5 : i % 5 + 1 + i % 8]) for i in range(count)]
                (sentences / f"{split}.txt").write_text("\n".join(lines) + "\n", "utf-8")
        data = {"name_or_path": str(sentences), "batch_size": 6}
        training = {"epochs": 2}
        return RunSpec("text_vae_text_tiny", training=training, data=data, **common)
    presets = {"indices": "vae_as_digits_mlp", "aggressive": "agg_vae_digits_mlp"}
    more = {"use_ema": True, "plateau": {"patience": 1, "step_factor": 0.999}}
    return RunSpec(
        presets.get(kind, "vae_digits_mlp"),
        model={"latent_dim": 2, **({"max_inner_steps": 8} if kind == "aggressive" else {})},
        networks={"hidden_units": (8,), "decoder": {"hidden_units": (8,)}},
        training={"epochs": 2, "learning_rate": 0.01, **(more if kind == "plateau" else {})},
        data={"limit": 96, "batch_size": 16, "labels": False},
        **common,
    )


def train(kind, directory, death):
    """Trains or goes on, and may die; returns seconds of the training and number of files."""
    from vaezoo.runs import Run
    from vaezoo.runs.directory import is_unbegun

    replace, count = os.replace, 0

    def counted(*paths):
        nonlocal count
        count += 1
        last = death is not None and death.get("replace") == count
        if last and not death["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted
    directory = Path(directory)
    warnings.simplefilter("ignore")
    if not directory.exists() or is_unbegun(directory):
        run = Run.create(directory, spec_of(kind, directory.parent))
    else:
        run = Run.open(directory)
    run.prepare()
    start = time.monotonic()
    if death is not None and "seconds" in death:
        dies = threading.Timer(death["seconds"], os.kill, (os.getpid(), signal.SIGKILL))
        dies.daemon = True
        dies.start()
    run.fit(verbose=0, checkpoint_every=2)
    return time.monotonic() - start, count


def main():
    """Forks for each line of the standard input."""
    import keras  # noqa: F401

    import vaezoo.runs.run  # noqa: F401

    for line in sys.stdin:
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                found = train(*json.loads(line))
                os.write(into, json.dumps(found).encode())
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(into)
        with os.fdopen(out) as answer:
            said = answer.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps([status, json.loads(said) if said else None]), flush=True)


if __name__ == "__main__":
    main()
