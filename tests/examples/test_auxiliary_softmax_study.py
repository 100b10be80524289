import json
import math
import os
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "auxiliary_softmax_study.py"
SMALL = "--examples 128 --epochs 2 --held-out 20 --num-samples 2".split()

pytestmark = pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "tensorflow", reason="a script; its parts are tested on both"
)


@pytest.fixture
def run(monkeypatch, mnist_dir, tmp_path, capsys):
    """Function of the script's arguments: what it printed, and what it wrote."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(mnist_dir))
    # `collapse_study` lies beside it.
    monkeypatch.syspath_prepend(str(SCRIPT.parent))

    def call(*arguments):
        out = tmp_path / "rows.json"
        argv = [str(SCRIPT), *arguments, *SMALL, "--markdown", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out, json.loads(out.read_text("utf-8"))["rows"]

    return call


@pytest.mark.large
def test_weights_are_listed_beside_the_published_row(run):
    printed, rows = run("weights", "1_0.5")
    training = rows["1_0.5"]["train"]
    # Sampled and analytic rates differ by noise.
    expected = training["rate"] - math.log(128) + training["classifier_loss"]
    assert training["marginal_divergence"] == pytest.approx(expected, abs=1.0)
    ours, published = printed.splitlines()[-2:]
    assert f"| {training['classifier_loss']:.2f} |" in ours
    assert published == ("| published | 96.63 | 29.52 | 18 | 65.64 | 29.4 | 10.83 | 18.71 | 0.22 |")
    # It is in the file, so it is not trained again.
    again, _ = run("weights", "1_0.5")
    assert "Epoch" not in again
    assert again.startswith("5,000 of the training images of mnist are left out.")


def test_without_options_the_sizes_are_the_papers(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    study = runpy.run_path(str(SCRIPT), run_name="study")
    seen = []

    def measure(row, settings):
        seen.append((row, settings))
        return {}

    main = study["main"].__globals__
    main["run_rows"] = lambda timed, names, settings, out: [measure(n, settings) for n in names]
    main["show"] = lambda *_: None
    main["STUDIES"] = {name: (measure, lambda *_: None) for name in study["STUDIES"]}
    for name, epochs in (("weights", 300), ("estimates", 120), ("depth", 300)):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), name, "--data", "fashion_mnist"])
        main["main"]()
        wanted = {"epochs": epochs, "held_out": None, "examples": None, "data": "fashion_mnist"}
        assert {key: seen[-1][1][key] for key in wanted} == wanted
    assert [study["published_as"](name) for name in ("mnist", "chardata.mat", "digits")] == [
        "mnist",
        "omniglot",
        None,
    ]


@pytest.mark.slow
def test_estimates_are_drawn(run, tmp_path):
    figure = tmp_path / "figure.png"
    printed, rows = run("estimates", "all", "50", "--figure", str(figure))
    assert figure.stat().st_size > 10_000
    monte_carlo = rows["all"]["monte_carlo"]
    assert [set(epoch) for epoch in monte_carlo] == [{"100", "128"}] * 2
    for size, (information, _) in monte_carlo[-1].items():
        assert -1e-3 <= information <= math.log(int(size)) + 1e-3
    # The classifier of shared labels leaves the training as it is.
    rates = [row["history"]["rate"] for row in rows.values()]
    assert rates[0] == pytest.approx(rates[1], rel=1e-4)
    assert "| classifier, 50 labels | 3.91 |" in printed


def test_unknown_rows_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("depth", "9")
    assert "no such row: 9" in capsys.readouterr().err
