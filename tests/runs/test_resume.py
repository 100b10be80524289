"""A run that is interrupted after any epoch goes on with what steered it."""

import json
import shutil

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from vaezoo import zoo
from vaezoo.cli.app import app
from vaezoo.runs import directory as runs
from vaezoo.runs.recorder import RunRecorder

XLA = keras.backend.backend() == "jax"
PRESET = "vae_digits_mlp"
# Learns next to nothing, so that the order of examples, another in a resumed run, does not matter.
PLATEAU = ["--set", "networks.hidden_units=[8]", "--set", "networks.decoder.hidden_units=[8]"]
PLATEAU += ["--set", "latent_dim=2", "--limit", "64", "--xla" if XLA else "--no-xla"]
PLATEAU += ["--no-monitor", "--set", "training.learning_rate=1e-12", "--epochs", "9", "--set"]
PLATEAU += ['training.plateau={"patience": 1, "max_decays": 3, "min_relative_rate": 0.01}']
PLATEAU += ["--set", "data.binarize=fixed"]


def cli(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def history_of(directory):
    return list(map(json.loads, (directory / "history.jsonl").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that its third plateau ends, and copies of it as it was after each epoch."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    end = RunRecorder.on_epoch_end

    def copy(self, epoch, logs=None):
        end(self, epoch, logs)
        shutil.copytree(directory, directory.with_name(f"after-{epoch + 1}"))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunRecorder, "on_epoch_end", copy)
        cli("train", PRESET, "--out", directory, *PLATEAU)
    return directory


def test_history_has_the_learning_rate_and_both_values(whole):
    history = history_of(whole)
    rates = [record["learning_rate"] for record in history]
    assert rates[0] == pytest.approx(1e-12)
    assert min(rates) == pytest.approx(0.25e-12)
    for record in history:
        assert record["val_bound"] == pytest.approx(record["val_distortion"] + record["val_rate"])
        assert "val_loss" in record


# Within an epoch runs of both backends are stopped in `test_run.py` and killed in `test_kills.py`.
@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_interrupted_after_any_epoch_ends_as_one_that_was_not(whole, tmp_path):
    expected = history_of(whole)
    assert 4 <= len(expected) < 9
    for epoch in range(1, len(expected) + 1):
        run = shutil.copytree(whole.with_name(f"after-{epoch}"), tmp_path / str(epoch))
        cli("train", PRESET, "--out", run, "--resume")
        found = history_of(run)
        assert [r["epoch"] for r in found] == [r["epoch"] for r in expected]
        for name in ("learning_rate", "val_bound"):
            np.testing.assert_allclose(
                [r[name] for r in found], [r[name] for r in expected], rtol=1e-6
            )
        values = [
            keras.saving.load_model(folder / "model.keras").weights for folder in (run, whole)
        ]
        for one, other in zip(*values, strict=True):
            if keras.backend.is_float_dtype(one.dtype):
                np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)
    # It has ended, and does not begin anew.
    result = cli("train", PRESET, "--out", run, "--resume", "--epochs", "20", code=2)
    assert "has ended after" in result.stderr


def test_the_last_checkpoint_is_what_the_decay_left(whole):
    history = history_of(whole)
    decays = [
        e
        for e in range(1, len(history))
        if history[e]["learning_rate"] < history[e - 1]["learning_rate"]
    ]
    folder = whole.with_name(f"after-{decays[0]}")
    kept = keras.saving.load_model(folder / "checkpoints" / "last.keras")
    rate = float(keras.ops.convert_to_numpy(kept.optimizer.learning_rate))
    assert rate == pytest.approx(history[decays[0]]["learning_rate"])
    assert runs.epoch_of(folder / "checkpoints" / "last.keras") == decays[0]


@pytest.mark.large
@pytest.mark.both_backends
def test_best_holds_the_averages_and_is_chosen_by_the_bound(tmp_path):
    x = np.random.default_rng(0).uniform(size=(32, 8, 8, 1)).round().astype("float32")
    settings = {"hidden_units": (8,), "decoder": {"hidden_units": (8,)}}
    training = {"epochs": 3, "use_ema": True, "ema_momentum": 0.5}
    run = zoo.load(PRESET, networks=settings, training=training, model={"latent_dim": 2})
    run.model.compile(**{**run.compile_args, "jit_compile": XLA})
    recorder = RunRecorder(tmp_path / "run", {"preset": PRESET})
    averages = {}

    class Script(keras.callbacks.Callback):
        """The bound is best in the second epoch, the loss with regularizers in the third."""

        def on_epoch_end(self, epoch, logs=None):
            logs["val_distortion"], logs["val_rate"] = [5.0, 1.0, 2.0][epoch], 1.0
            logs["val_loss"] = [9.0, 8.0, 7.0][epoch]
            optimizer = self.model.optimizer
            averages[epoch] = [
                np.array(keras.ops.convert_to_numpy(v))
                for v in optimizer._model_variables_moving_average
            ]
            self.raw = [
                np.array(keras.ops.convert_to_numpy(v)) for v in self.model.trainable_variables
            ]

    script = Script()
    around = recorder.around(run.fit_args.get("callbacks", ()))
    run.model.fit(x, batch_size=8, epochs=3, verbose=0, callbacks=[script, *around])
    best = keras.saving.load_model(tmp_path / "run" / "checkpoints" / "best.keras")
    for variable, average in zip(best.trainable_variables, averages[1], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), average)
    last = keras.saving.load_model(tmp_path / "run" / "checkpoints" / "last.keras")
    for variable, raw in zip(last.trainable_variables, script.raw, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), raw)
    assert any(np.any(raw != average) for raw, average in zip(script.raw, averages[2], strict=True))
    assert [record["val_bound"] for record in history_of(tmp_path / "run")] == [6.0, 2.0, 3.0]


def test_a_best_model_that_waits_is_taken_up(whole, tmp_path):
    run = shutil.copytree(whole.with_name("after-1"), tmp_path / "run")
    best, waiting = run / "checkpoints" / "best.keras", run / "checkpoints" / ".waiting-best.keras"
    content = best.read_bytes()
    best.rename(waiting)
    cli("train", PRESET, "--out", run, "--resume", "--epochs", "1")
    assert best.read_bytes() == content
    assert not waiting.exists()
