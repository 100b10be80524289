"""A loss that is not finite: what was so first, what is kept, and going back."""

import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from vaezoo import layers
from vaezoo.cli.app import app
from vaezoo.runs import Run, RunSpec
from vaezoo.runs.directory import read_nonfinite

pytestmark = pytest.mark.filterwarnings("ignore:`x` is not scaled")
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def spec(likelihood="gaussian", rate=0.01, **options):
    return RunSpec(
        constructor="VAE",
        model={"latent_dim": 2, "likelihood": likelihood},
        networks={"kind": "mlp", "input_shape": (4,), "hidden_units": (8,)},
        training={"epochs": 1, "optimizer": "sgd", "learning_rate": rate},
        xla=keras.backend.backend() == "jax",
        monitor=False,
        **options,
    )


def lost(directory, asked, x):
    """Trains a run that loses its loss; returns the report, the batch, and what is said."""
    run = Run.create(directory, asked)
    with pytest.raises(FloatingPointError) as error:
        run.fit(x=x, batch_size=8, verbose=0)
    report = read_nonfinite(directory)
    assert report["text"] in str(error.value)
    assert f"vaezoo diagnose {directory}" in str(error.value)
    with np.load(directory / "nonfinite" / "batch.npz") as kept:
        (batch,) = kept.values()
    return report, batch, str(error.value)


@pytest.mark.large
def test_the_row_of_the_batch_is_found(tmp_path):
    x = X.copy()
    x[21] = 3e14
    # A step that changes next to nothing, so that the row alone is to blame.
    report, batch, _ = lost(tmp_path, spec(layers.Gaussian(1e-5), 1e-12), x)
    (row,) = np.flatnonzero(np.all(batch == 3e14, axis=1))
    assert (report["terms"], report["rows"], report["row_count"]) == (["reconstruction"], [row], 8)
    assert report["layer"] is None
    # The model is the one before that batch: its loss on it is not finite, its weights are.
    model = keras.saving.load_model(tmp_path / "nonfinite" / "before.keras")
    assert int(model.optimizer.iterations) == report["batch"] - 1
    assert all(np.all(np.isfinite(v)) for v in model.get_weights())
    distortion = keras.ops.convert_to_numpy(model.log_terms(batch, seed=0).distortion)
    assert np.flatnonzero(~np.isfinite(distortion)).tolist() == [row]
    told = CliRunner().invoke(app, ["diagnose", str(tmp_path)])
    assert told.exit_code == 0
    assert " ".join(told.stdout.split()).startswith(report["text"])
    with pytest.raises(FileExistsError, match="already holds another run"):
        Run.create(tmp_path, spec())


@pytest.mark.large
def test_the_layer_is_found_that_a_large_learning_rate_ruined(tmp_path):
    report, _, _ = lost(tmp_path, spec(rate=1000.0), X)
    assert report["terms"][0] == "reconstruction"
    assert (report["layer_class"], report["batch"]) == ("Dense", 3)
    assert report["layer"].endswith("projection")
    assert "The first output that is not finite is that of" in report["text"]


@pytest.mark.large
def test_a_scale_that_overflows_is_not_mended_by_a_learning_rate(tmp_path):
    asked = spec(layers.Gaussian(1e-25), on_nan="rewind")
    report, _, said = lost(tmp_path, asked, X)
    assert (report["batch"], report["rows"]) == (1, list(range(8)))
    assert "no learning rate mends that" in said
    assert "went back" not in said


@pytest.mark.large
def test_a_run_goes_back_with_half_the_learning_rate(tmp_path):
    run = Run.create(tmp_path, spec(rate=4.0, on_nan="rewind", max_rewinds=9))
    (record,) = run.fit(x=X, batch_size=8, verbose=0)
    rewinds = record["rewinds"]
    assert 1 <= len(rewinds) <= 9
    rates = [rewind["learning_rate"] for rewind in rewinds]
    assert rates == [4.0 * 0.5**n for n in range(1, len(rates) + 1)]
    assert record["learning_rate"] == rates[-1]
    assert all("the loss is" in rewind["text"] for rewind in rewinds)
    assert json.loads((tmp_path / "history.jsonl").read_text())["rewinds"] == rewinds
    assert int(run.model().optimizer.iterations) == 4


@pytest.mark.large
@pytest.mark.one_backend
def test_a_run_goes_back_a_bounded_number_of_times(tmp_path):
    _, _, said = lost(tmp_path, spec(rate=1000.0, on_nan="rewind", max_rewinds=2), X)
    assert "It went back 2 times, to half the learning rate each." in said
    # How often is in the checkpoint: another process does not begin to count anew.
    with pytest.raises(FloatingPointError, match="It went back 2 times"):
        Run.open(tmp_path).fit(x=X, batch_size=8, verbose=0)


@pytest.mark.one_backend
def test_what_to_do_is_checked():
    with pytest.raises(ValueError, match="`on_nan` must be .*Received: on_nan='ignore'"):
        spec(on_nan="ignore")
    with pytest.raises(ValueError, match="`max_rewinds` must be a positive"):
        spec(max_rewinds=0)


@pytest.mark.one_backend
def test_a_report_that_cannot_be_read_is_said(tmp_path):
    assert read_nonfinite(tmp_path) is None
    (tmp_path / "nonfinite").mkdir()
    for text, message in (("{", "it is no JSON"), ("[]", "is no report")):
        (tmp_path / "nonfinite" / "report.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_nonfinite(tmp_path)
