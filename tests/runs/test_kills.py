"""Runs that are killed anywhere end with the bits of runs that were not."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from helpers import zygote

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
#: Instants at which runs of each kind are killed.
INSTANTS = int(os.environ.get("VAEZOO_KILLS", "10"))


class Trainer:
    """Trains runs in processes of their own."""

    def __init__(self, root):
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, Path(zygote.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.whole = {}

    def train(self, kind, directory, death=None):
        """Trains; returns whether the process was killed, and what it has said."""
        self.process.stdin.write(json.dumps([kind, str(directory), death]) + "\n")
        self.process.stdin.flush()
        status, said = json.loads(self.process.stdout.readline())
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0
        return killed, said

    def whole_of(self, kind):
        """A run that was not killed: its directory, its seconds, and how many files it wrote."""
        if kind not in self.whole:
            directory = self.root / f"{kind}-whole"
            _, (seconds, files) = self.train(kind, directory)
            self.whole[kind] = directory, seconds, files
        return self.whole[kind]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    trainer = Trainer(tmp_path_factory.mktemp("killed"))
    yield trainer
    with contextlib.suppress(OSError):
        trainer.process.stdin.close()
    trainer.process.wait(60)


def content_of(file):
    """All numbers in a checkpoint or model, by name."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                found[name] = np.load(io.BytesIO(archive.read(name)))
            elif name.endswith(".h5"):
                with h5py.File(io.BytesIO(archive.read(name))) as weights:

                    def keep(path, item, name=name):
                        if isinstance(item, h5py.Dataset):
                            found[f"{name}:{path}"] = item[()]

                    weights.visititems(keep)
    return found


def history_of(directory):
    records = map(json.loads, (directory / "history.jsonl").read_text("utf-8").splitlines())
    return [{key: r[key] for key in r if key != "seconds"} for r in records]


def assert_same_bits(directory, whole):
    assert history_of(directory) == history_of(whole)
    for name in ("model.keras", "checkpoints/last.keras", "checkpoints/best.keras"):
        one, other = (content_of(folder / name) for folder in (directory, whole))
        assert one.keys() == other.keys()
        assert any("optimizer" in key for key in one)
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key], err_msg=f"{name}: {key}")


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_that_is_killed_within_an_epoch_ends_as_a_whole_one(trainer):
    # All kinds are killed on both backends, and more often, by the slow tests.
    kind = "plateau"
    whole, _, files = trainer.whole_of(kind)
    killed, _ = trainer.train(kind, trainer.root / f"{kind}-k", {"replace": 7, "after": True})
    assert killed
    assert files > 7
    assert not (trainer.root / f"{kind}-k" / "model.keras").exists()
    trainer.train(kind, trainer.root / f"{kind}-k")
    assert_same_bits(trainer.root / f"{kind}-k", whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", zygote.KINDS)
def test_runs_that_are_killed_as_they_write_a_file_end_as_whole_ones(kind, trainer):
    whole, _, files = trainer.whole_of(kind)
    # Every file of one kind, before and after it takes its place; of the others every fourth.
    places = range(1, files + 1) if kind == "plateau" else range(2, files + 1, 4)
    for place in places:
        directory = trainer.root / f"{kind}-{place}"
        assert trainer.train(kind, directory, {"replace": place, "after": False})[0]
        trainer.train(kind, directory, {"replace": 5, "after": True})
        if not (directory / "model.keras").exists():
            trainer.train(kind, directory)
        assert_same_bits(directory, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", zygote.KINDS)
def test_runs_that_are_killed_at_any_instant_end_as_whole_ones(kind, trainer):
    whole, seconds, _ = trainer.whole_of(kind)
    generator = random.Random(kind)
    for number in range(INSTANTS):
        directory = trainer.root / f"{kind}-at-{number}"
        death = {"seconds": generator.uniform(0, seconds)}
        killed, _ = trainer.train(kind, directory, death)
        print(f"{kind}: {'killed' if killed else 'ended'} after {death['seconds']:.2f} s")
        if killed:
            trainer.train(kind, directory)
        assert_same_bits(directory, whole)
