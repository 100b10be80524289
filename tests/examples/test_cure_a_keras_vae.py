import re
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "cure_a_keras_vae.py"


@pytest.mark.large
@pytest.mark.one_backend
def test_the_example_prints_its_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--epochs", "2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = re.findall(
        r"│ (textbook|one line more) +│ +(\d+) of 32 │ +([\d.]+) │ +([\d.]+) │ +([\d.]+)% │",
        capsys.readouterr().out,
    )
    assert [row[0] for row in rows] == ["textbook", "one line more"]
    textbook, cured = ([float(value) for value in row[1:]] for row in rows)
    # The floor of the rate is D gamma^2 / 2 = 4 nats on the batches that were trained on.
    assert cured[0] == 32
    assert cured[1] > 3.5 > textbook[1]
    assert 0.0 < cured[2] < 64 * 0.7
