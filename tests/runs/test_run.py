import errno
import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from vaezoo import data, runs
from vaezoo.core import locks
from vaezoo.core.checkpoints import Saved, position_of, read_state, write_state
from vaezoo.runs import Run, RunSpec
from vaezoo.runs.directory import find_model, is_unbegun

XLA = keras.backend.backend() == "jax"
OLDER = Path(__file__).resolve().parents[1] / "older_files"
TINY = RunSpec(
    "vae_digits_mlp",
    model={"latent_dim": 2},
    networks={"hidden_units": (8,), "decoder": {"hidden_units": (8,)}},
    training={"epochs": 2, "learning_rate": 0.01},
    data={"limit": 64, "batch_size": 32, "labels": False},
    seed=3,
    xla=XLA,
    monitor=False,
)


def values(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]


def json_of(directory):
    return json.loads((directory / "config.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs, and what its callback saw; tests leave it as it is."""
    seen = []
    run = Run.create(tmp_path_factory.mktemp("runs") / "tiny", TINY, command="by hand")
    assert not run.directory.exists()
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    history = run.fit([note], verbose=0)
    return run, history, seen


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained[0].directory, tmp_path / "copy")


def test_a_run_keeps_what_was_asked_and_what_came_of_it(trained):
    run, history, seen = trained
    assert seen == [0, 1]
    assert run.history == history
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[-1]["val_bound"] < history[0]["val_bound"]
    config = json_of(run.directory)
    assert config["command"] == "by hand"
    assert RunSpec.from_dict(config) == TINY.resolve() == run.spec
    for name in ("model.keras", "checkpoints/last.keras", "checkpoints/best.keras"):
        assert (run.directory / name).is_file()


@pytest.mark.large
def test_an_opened_run_is_the_one_that_was_made(trained):
    run, history, _ = trained
    opened = Run.open(run.directory)
    assert opened.history == history
    assert opened.spec == run.spec
    for which in ("final", "best"):
        for one, other in zip(values(opened.model(which)), values(run.model(which)), strict=True):
            np.testing.assert_array_equal(one, other)
    x, y = opened.arrays("test", limit=6)
    np.testing.assert_array_equal(
        x, data.load_arrays("digits", "test", binarize="fixed", limit=6)[0]
    )
    assert y is None
    train, validation = opened.data(), opened.data("validation")
    assert len(train) * 32 == 64
    assert sum(len(np.asarray(x)) for x in validation) == 64
    assert sum(len(np.asarray(x)) for x in opened.data("test[:40]")) == 40


@pytest.mark.one_backend
def test_a_run_is_found_again(trained, monkeypatch, tmp_path):
    directory = trained[0].directory
    for name in (directory, str(directory), directory / "checkpoints" / "best.keras"):
        assert runs.find(name).directory == directory
    for name in ("tiny", "vae_digits_mlp", "tiny/model.keras"):
        assert runs.find(name, directory.parent).directory == directory
    with pytest.raises(FileNotFoundError, match="No run 'du_vae_digits_mlp'"):
        runs.find("du_vae_digits_mlp", directory.parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="No run 'tiny'"):
        runs.find("tiny")


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_goes_on_and_ends(copied):
    run = Run.open(copied)
    with pytest.raises(ValueError, match="has all of its 2 epochs"):
        run.fit(verbose=0)
    history = run.fit(epochs=3, verbose=0)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert int(run.model().optimizer.iterations) == 6
    (resumed,) = json_of(copied)["resumed"]
    assert resumed["epoch"] == 2
    assert json_of(copied)["command"] == "by hand"
    assert Run.open(copied).spec.training["epochs"] == 3


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"preset": "du_vae_digits_mlp"}, "its preset is vae_digits_mlp"),
        ({"model": {"latent_dim": 3}}, "its model.latent_dim is 2"),
        ({"training": {"epochs": 9, "learning_rate": 0.1}}, "its training.learning_rate is 0.01"),
        ({"data": {"limit": 65}}, "its data.limit is 64"),
        ({"seed": 4}, "its seed is 3"),
        ({"validation": "none"}, "its validation is auto"),
    ],
)
def test_another_run_is_not_gone_on_with(trained, changes, difference):
    with pytest.raises(ValueError, match=f"already holds another run: {difference}"):
        Run.open(trained[0].directory, **changes)


@pytest.mark.one_backend
def test_data_that_were_moved_are_those_of_the_run(copied, tmp_path):
    config = json_of(copied)
    gone, here = tmp_path / "gone" / "x.npz", tmp_path / "here" / "x.npz"
    here.parent.mkdir()
    config["settings"]["data"]["name_or_path"] = str(gone)
    (copied / "config.json").write_text(json.dumps(config))
    moved = {"name_or_path": str(here)}
    with pytest.raises(ValueError, match="its data.name_or_path is"):
        Run.open(copied, data=moved)
    np.savez(here, x=np.zeros((2, 8, 8)))
    assert Run.open(copied, data=moved).spec.data["name_or_path"] == str(here)
    np.savez(here.with_name("y.npz"), x=np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="its data.name_or_path is"):
        Run.open(copied, data={"name_or_path": str(here.with_name("y.npz"))})


@pytest.mark.one_backend
def test_changes_that_are_no_fields_are_refused(trained):
    with pytest.raises(ValueError, match="must be among preset, .*Received: sed=4.*'seed'"):
        Run.open(trained[0].directory, sed=4)


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_that_is_interrupted_goes_on_in_the_same_process(tmp_path):
    def stop(epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    run = Run.create(tmp_path / "run", TINY)
    with pytest.raises(KeyboardInterrupt):
        run.fit([keras.callbacks.LambdaCallback(on_epoch_begin=stop)], verbose=0)
    assert [record["epoch"] for record in run.history] == [1]
    assert [record["epoch"] for record in run.fit(verbose=0)] == [1, 2]


@pytest.mark.one_backend
def test_what_decides_nothing_may_change(trained):
    run = Run.open(
        trained[0].directory, training={"epochs": 7}, steps_per_execution=2, xla=not XLA,
        data={"limit": 64, "data_dir": "elsewhere"},
    )  # fmt: skip
    assert run.spec.training["epochs"] == 7
    assert (run.spec.steps_per_execution, run.spec.xla) == (2, not XLA)
    assert run.spec.data["data_dir"] == "elsewhere"


@pytest.mark.large
@pytest.mark.one_backend
def test_a_directory_that_is_taken_is_refused_until_it_is_overwritten(copied, tmp_path):
    with pytest.raises(FileExistsError, match="already holds another run"):
        Run.create(copied, TINY)
    run = Run.create(copied, TINY, overwrite=True)
    # Not before the training begins.
    assert len(Run.open(copied).history) == 2
    run.fit(epochs=1, verbose=0)
    assert len(Run.open(copied).history) == 1
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="holds no vaezoo run"):
        Run.create(tmp_path, TINY, overwrite=True)
    with pytest.raises(FileNotFoundError, match="holds no vaezoo run"):
        Run.open(tmp_path)
    with pytest.raises(TypeError, match="`spec` must be a RunSpec"):
        Run.create(tmp_path / "run", "vae_digits_mlp")


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_without_a_directory_gives_the_same_model(trained):
    run = Run.create(None, TINY)
    assert run.history == []
    with pytest.raises(FileNotFoundError, match="keeps no best model"):
        run.model("best")
    untrained = values(run.model())
    history = run.fit(verbose=0)
    assert run.history == history
    expected = trained[1]
    for record, other in zip(history, expected, strict=True):
        assert record["val_bound"] == pytest.approx(other["val_bound"], rel=1e-6)
    for one, other, before in zip(
        values(run.model()), values(trained[0].model()), untrained, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
        assert np.any(one != before)
    with pytest.raises(ValueError, match="is trained once"):
        run.fit()


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_trains_on_data_that_are_given():
    spec = RunSpec(
        constructor="BNVAE",
        model={"latent_dim": 2, "gamma": 0.5},
        networks={"kind": "mlp", "input_shape": (4, 4, 1), "hidden_units": (4,)},
        training={"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1},
        xla=XLA,
    )
    x = np.random.default_rng(0).uniform(size=(32, 4, 4, 1)).round().astype("float32")
    run = Run.create(None, spec)
    with pytest.raises(ValueError, match="`x` must be given for a spec without data"):
        run.fit()
    (record,) = run.fit(x=x, validation_data=(x,), batch_size=8, verbose=0)
    assert int(run.model().optimizer.iterations) == 4
    assert record["val_bound"] == pytest.approx(record["val_distortion"] + record["val_rate"])


@pytest.mark.one_backend
def test_the_dtype_policy_stays_what_it_was():
    spec = TINY.replace(precision="mixed_bfloat16")
    run = Run.create(None, spec)
    assert run.model().encoder.layers[-1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.large
@pytest.mark.one_backend
def test_a_start_that_fails_leaves_nothing(tmp_path):
    def fail(epoch, logs=None):
        raise RuntimeError("no batch")

    run = Run.create(tmp_path / "new" / "run", TINY)
    with pytest.raises(RuntimeError, match="no batch"):
        run.fit([keras.callbacks.LambdaCallback(on_epoch_begin=fail)], verbose=0)
    assert list(tmp_path.iterdir()) == []
    assert run.history == []
    assert len(run.fit(epochs=1, verbose=0)) == 1


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:.*The checkpoint does not have what")
def test_directories_of_earlier_versions_open_and_go_on(tmp_path, monkeypatch):
    sentences = tmp_path / "sentences"
    sentences.mkdir()
    for split, count in (("train", 12), ("valid", 6)):
        lines = ["0\tbad cold soup\n", "1\tgood tasty fine meal\n"] * (count // 2)
        (sentences / f"{split}.txt").write_text("".join(lines), "utf-8")
    for name, epochs in (("digits_run", 2), ("text_run", 1)):
        directory = shutil.copytree(OLDER / name, tmp_path / name)
        monkeypatch.chdir(tmp_path)
        run = Run.open(directory)
        assert len(run.history) == epochs
        assert run.model().latent_dim == 2
        before = run.history
        assert run.fit(epochs=epochs + 1, verbose=0)[:-1] == before
        assert [record["epoch"] for record in run.history] == list(range(1, epochs + 2))
        text = name == "text_run"
        assert (run.vocabulary is not None) is text
        assert run.spec.data.name_or_path == (str(sentences) if text else "digits")


class Stop(keras.callbacks.Callback):
    """Interrupts a training as a batch begins."""

    def __init__(self, epoch, batch=0):
        super().__init__()
        self.place = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            raise KeyboardInterrupt


def logs_of(run):
    return [{key: record[key] for key in record if key != "seconds"} for record in run.history]


def assert_same_bits(run, other):
    """Weights, seeds, optimizer and history."""
    assert logs_of(run) == logs_of(other)
    kept = [
        [keras.ops.convert_to_numpy(v) for v in (*model.variables, *model.optimizer.variables)]
        for model in (run.model(), other.model())
    ]
    assert len(kept[0]) == len(kept[1])
    for one, other in zip(*kept, strict=True):
        np.testing.assert_array_equal(one, other)


def on(backend, changes, name):
    """A kind of runs that CI resumes on one backend; the slow tests do so on both."""
    here = keras.backend.backend() == backend
    return pytest.param(changes, id=name, marks=() if here else pytest.mark.slow)


@pytest.mark.large
@pytest.mark.parametrize(
    "changes",
    [
        on(
            "tensorflow",
            {"steps_per_execution": 2, "data": {**TINY.data, "limit": 128}},
            "two steps at once",
        ),
        on(
            "jax",
            {"training": {**TINY.training, "use_ema": True, "plateau": {"patience": 1}}},
            "averaged, plateau",
        ),
        on(
            "tensorflow",
            {"preset": "vae_as_digits_mlp", "monitor": True},
            "with indices, monitored",
        ),
    ],
)
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(changes, tmp_path):
    spec = TINY.replace(**{"data": {**TINY.data, "limit": 96}, **changes})
    spec = spec.replace(training={**spec.training, "epochs": 3}, checkpoint_every=1)
    whole = Run.create(tmp_path / "whole", spec)
    whole.fit(verbose=0)
    run = Run.create(tmp_path / "stopped", spec)
    for epoch, batch in ((0, 2), (2, 0)):
        with pytest.raises(KeyboardInterrupt):
            run.fit([Stop(epoch, batch)], verbose=0)
        run = Run.open(tmp_path / "stopped")
        assert len(run.history) == epoch
        assert position_of(tmp_path / "stopped" / "checkpoints" / "last.keras") == (epoch, batch)
    run.fit(verbose=0)
    assert_same_bits(run, whole)
    # What is left of it is what a whole run leaves.
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if "events" not in path.name}
        for folder in (whole.directory, run.directory)
    ]
    assert names[0] == names[1]


# -- directories of runs that were killed --------------------------------------------------------


def test_a_line_that_a_kill_has_left_out_is_in_the_checkpoint(copied):
    history = copied / "history.jsonl"
    first, second = history.read_text().splitlines()
    history.write_text(f"{first}\n")
    run = Run.open(copied)
    assert [record["epoch"] for record in run.history] == [1, 2]
    (copied / "model.keras").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.prepare().trained_epochs == 2
    history.write_text("")
    with pytest.warns(UserWarning, match="is not that of the last checkpoint, after epoch 2"):
        Run.open(copied).prepare()


def test_the_later_model_is_the_one_that_is_found(copied):
    final, last = copied / "model.keras", copied / "checkpoints" / "last.keras"
    assert find_model(copied) == final
    # One epoch more was trained since, or a part of one.
    for position in ((3, 0), (2, 1)):
        saved = read_state(last)
        write_state(last, Saved(*position, saved.history))
        assert find_model(copied) == last
    # An earlier version did not note the epoch in the model.
    write_state(last, Saved(2))
    with zipfile.ZipFile(final, "w") as archive:
        archive.writestr("config.json", "{}")
    os.utime(last, (100, 100))
    assert find_model(copied) == final
    os.utime(final, (50, 50))
    assert find_model(copied) == last


@pytest.mark.one_backend
def test_a_run_that_was_stopped_before_it_had_begun_begins(tmp_path):
    left = tmp_path / "run"
    (left / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="holds no vaezoo run"):
        Run.create(left, TINY)
    for name in (".lock", "vocabulary.txt", ".partial-config.json"):
        (left / name).touch()
    assert is_unbegun(left)
    Run.create(left, TINY)
    with pytest.raises(FileNotFoundError, match="holds no vaezoo run"):
        Run.open(left)
    (left / "checkpoints" / "last.keras").touch()
    with pytest.raises(FileExistsError, match="holds no vaezoo run"):
        Run.create(left, TINY)


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_without_a_checkpoint_is_at_its_beginning(copied, trained):
    for name in ("history.jsonl", "model.keras", "versions.json"):
        (copied / name).unlink()
    shutil.rmtree(copied / "checkpoints")
    run = Run.open(copied)
    assert run.history == []
    run.fit(verbose=0)
    assert_same_bits(run, trained[0])


def test_a_run_is_trained_by_one_process_at_a_time(copied, monkeypatch):
    def held(file):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(locks, "_system_lock", held)
        before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
        with pytest.raises(OSError, match=r"copy' is written by another process.*: wait for it"):
            Run.open(copied).fit(epochs=3, verbose=0)
        # To read it is free.
        assert len(Run.open(copied).history) == 2
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
