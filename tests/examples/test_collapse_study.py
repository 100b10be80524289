import json
import math
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "collapse_study.py"
SMALL = "--epochs 1 --examples 64 --batch-size 32 --held-out 30 --num-samples 4 --latent-dim 4"
TINY = SMALL.split()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *TINY, *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.large
@pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "tensorflow", reason="a script; its parts are tested on both"
)
def test_a_row_is_measured_once_and_kept(tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.json"
    run(monkeypatch, "--out", str(out), "bn_vae")
    capsys.readouterr()
    saved = json.loads(out.read_text("utf-8"))
    assert saved["settings"]["examples"] == 64
    assert saved["settings"]["latent_dim"] == 4
    assert list(saved["rows"]) == ["bn_vae"]
    row = saved["rows"]["bn_vae"]
    measured = row["measured"]
    assert set(measured) == {"nll", "rate", "distortion", "mi", "au", "mpd", "mpd_std"}
    # In the batches of training the means have second moments of gamma^2 at least.
    assert row["last_epoch"]["rate"] > 0.99 * 4 * 0.5**2 / 2
    assert len(row["nll_per_example"]) == 30
    nll, error = measured["nll"]
    assert math.isclose(nll, sum(row["nll_per_example"]) / 30, abs_tol=1e-3)
    assert 0 < error < nll
    # Four importance samples bound the likelihood no worse than one.
    assert nll < measured["distortion"][0] + measured["rate"][0] + 4 * measured["rate"][1]
    assert 0 <= measured["mi"][0] <= math.log(30)

    # What is in the file is not trained again, and rows of other settings are not mixed.
    run(monkeypatch, "--out", str(out), "--markdown", "bn_vae")
    printed = capsys.readouterr().out
    assert f"| bn_vae | {nll:.2f} ± {error:.2f} | 0.00 ± 0.00 |" in printed
    assert "epoch" not in printed.lower()
    with pytest.raises(SystemExit, match="holds rows of other settings"):
        run(monkeypatch, "--out", str(out), "--seed", "1", "bn_vae")


def test_an_unknown_row_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "vea")
    assert "no such row: vea (choose from vae, " in capsys.readouterr().err


@pytest.mark.large_on_jax
def test_characters_are_told_apart_by_alphabet(monkeypatch):
    labels = {
        # Two characters in each of two alphabets, drawn 20 times by either hand.
        "alphabet": np.repeat([0, 0, 7, 7], 20),
        "alphabet_char_id": np.tile(np.repeat([1, 4], 20), 2),
    }
    shape = np.random.default_rng(0).uniform(size=(4, 14, 14, 1)) < 0.5

    def load_arrays(name_or_path, *, split, labels: str, binarize, image_size):
        assert (name_or_path, binarize, image_size) == ("omniglot", "fixed", 14)
        known = split == "train"
        chosen = np.arange(80) if known else np.arange(0, 80, 4)
        return np.repeat(shape, 20, axis=0)[chosen].astype("float32"), tables[labels][chosen]

    tables = labels
    namespace = runpy.run_path(str(SCRIPT))
    monkeypatch.setattr(namespace["data"], "load_arrays", load_arrays)
    monkeypatch.setitem(
        namespace["accuracies"].__globals__, "posterior_means", lambda model, x: x.reshape(-1, 196)
    )
    found = namespace["accuracies"](None, {"name_or_path": "omniglot", "image_size": 14})
    assert list(found) == ["5", "10", "15"]
    assert all(accuracy == 1.0 for accuracy, _ in found.values())
