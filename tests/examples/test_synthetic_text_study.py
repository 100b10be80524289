import importlib
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "synthetic_text_study.py"
SMALL = "--limit 64 --epochs 1 --warm-up 0 --units 8 --num-samples 2".split()

pytestmark = pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "tensorflow", reason="a script; its parts are tested on both"
)


@pytest.fixture
def study(monkeypatch):
    """The script as a module; `collapse_study` lies beside it."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("synthetic_text_study")


@pytest.mark.large
def test_sentences_tell_their_component(study):
    splits = study.corpus(0.3, 0, 1200)
    assert {name: len(x) for name, (x, _) in splits.items()} == dict.fromkeys(study.SPLITS, 1200)
    x, component = splits["train"]
    assert x.shape == (1200, 12)
    assert np.all(x[:, 0] == 1)
    assert np.all(x[:, -1] == 2)
    assert x[:, 1:-1].min() >= 4
    assert x.max() < 1004
    words = np.stack([np.bincount(row, minlength=1004) for row in x]).astype("float64")
    words -= words.mean(axis=0)
    # A line through the bags of words of each component, least squares with a ridge.
    ridge = words.T @ words + 20 * np.eye(1004)
    weights = np.linalg.solve(ridge, words.T @ np.eye(5)[component])
    held_out, truth = splits["test"]
    counts = np.stack([np.bincount(row, minlength=1004) for row in held_out])
    share = np.mean(np.argmax(counts @ weights, axis=1) == truth)
    # A fifth would be chance.
    assert share > 0.8


def test_density_is_that_of_the_mixture_of_posteriors(study):
    mean, log_var = np.array([[1.0, -1.0], [0.0, 0.0]]), np.log([[0.01, 0.04], [0.25, 0.25]])
    found = study.density(mean, log_var, points=301)
    cell = (2 * study.EXTENT / 300) ** 2
    assert np.sum(found) * cell == pytest.approx(1.0, abs=1e-3)
    row, column = np.unravel_index(np.argmax(found), found.shape)
    # Rows are the second dimension, from below to above.
    assert (column, row) == (200, 100)
    assert found[150, 150] == pytest.approx(0.5 / (2 * np.pi * 0.25), rel=1e-3)


def test_own_centers(study):
    mean = np.array([[0.0, 0.0], [0.2, 0.0], [1.0, 1.0], [1.2, 1.0], [0.1, 0.1]])
    assert study.nearest_center(mean, np.array([0, 0, 1, 1, 1])) == pytest.approx(0.8)


@pytest.mark.large
def test_a_row_is_measured_once_and_drawn(study, monkeypatch, tmp_path, capsys):
    out, figure = tmp_path / "rows.json", tmp_path / "figure.png"

    def run(*arguments):
        argv = [str(SCRIPT), *arguments, *SMALL, "--markdown", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [*argv, "--figure", str(figure)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    assert "loss:" in run("bn_vae")
    row = json.loads(out.read_text("utf-8"))["rows"]["bn_vae"]
    assert len(row["mean"]) == len(row["log_var"]) == len(row["component"]) == 64
    # Eleven symbols of 1,004, hardly learned yet.
    assert row["measured"]["nll"][0] == pytest.approx(11 * np.log(1004), rel=0.1)
    assert figure.stat().st_size > 5000
    figure.unlink()
    printed = run("bn_vae")
    assert "loss:" not in printed
    assert f"| bn_vae | {row['measured']['nll'][0]:.2f} " in printed
    assert figure.exists()
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "bnvae"])
    with pytest.raises(SystemExit):
        study.main()
    assert "no such row: bnvae (choose from vae, " in capsys.readouterr().err
