import inspect
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "text_study.py"
SMALL = (
    "--limit 128 --held-out 40 --epochs 1 --warm-up 1 --units 8 --latent-dim 2 --num-samples 2 "
    "--vocabulary-size 24 --probe-runs 2"
).split()

pytestmark = pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "tensorflow", reason="a script; its parts are tested on both"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sentences of three words, good and bad ones of other words."""
    path, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for split, size in (("train", 128), ("valid", 40), ("test", 40)):
        label = rng.integers(2, size=size)
        words = rng.integers(10, size=(size, 3)) + 10 * label[:, None]
        lines = [
            f"{label}\t{' '.join(f'w{word}' for word in row)}\n"
            for label, row in zip(label, words, strict=True)
        ]
        (path / f"{split}.txt").write_text("".join(lines), "utf-8")
    return path


@pytest.fixture
def run(folder, monkeypatch, tmp_path, capsys):
    """Function of further arguments: what the script printed, and the rows that it wrote."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    out = tmp_path / "rows.json"

    def call(*arguments):
        argv = [str(SCRIPT), str(folder), *SMALL, "--markdown", "--out", str(out), *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out, json.loads(out.read_text("utf-8"))["rows"]

    return call


@pytest.mark.large
def test_a_row_is_measured_once_and_writes(run):
    printed, rows = run("--models", "du_vae")
    assert "loss:" in printed
    row = rows["du_vae"]
    measured = row["measured"]
    # Three words and the end, of 24 symbols.
    assert measured["nll"][0] == pytest.approx(4 * np.log(24), rel=0.15)
    assert measured["perplexity"][0] == pytest.approx(np.exp(measured["nll"][0] / 4), rel=1e-4)
    assert list(row["accuracy"]) == ["100"]
    assert 0.2 < row["accuracy"]["100"][0] <= 1.0
    text = row["text"]
    assert [len(text[kind]) for kind in ("drawn", "original", "reconstructed")] == [6, 4, 4]
    assert all(word[0] == "w" for sentence in text["original"] for word in sentence.split())
    # The way begins and ends with two reconstructions.
    assert [text["interpolated"][end] for end in (0, -1)] == text["reconstructed"][:2]

    again, _ = run("--models", "du_vae")
    assert "loss:" not in again
    accuracy = 100 * row["accuracy"]["100"][0]
    assert f"| du_vae | {measured['nll'][0]:.2f} " in again
    assert f"| {accuracy:.2f} " in again
    assert text["drawn"][0] in again


def test_an_unknown_row_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("--models", "du_vea")
    assert "no such row: du_vea (choose from vae, " in capsys.readouterr().err


def test_rows_name_presets(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    study = runpy.run_path(str(SCRIPT))
    from vaezoo import zoo

    known = zoo.presets()
    for preset, arguments in study["ROWS"].values():
        constructor, settings = known[f"{preset}_text_tiny"]
        assert set(arguments) <= set(inspect.signature(constructor).parameters)
        assert settings["networks"]["kind"] == "lstm"
    assert set(study["DEFAULT"]) < set(study["ROWS"])
