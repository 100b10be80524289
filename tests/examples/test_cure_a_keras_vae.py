import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "cure_a_keras_vae.py"


def test_the_example_prints_its_table():
    process = subprocess.run(
        [sys.executable, SCRIPT, "--epochs", "2"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    rows = re.findall(
        r"│ (textbook|one line more) +│ +(\d+) of 32 │ +([\d.]+) │ +([\d.]+) │ +([\d.]+)% │",
        process.stdout,
    )
    assert [row[0] for row in rows] == ["textbook", "one line more"]
    textbook, cured = ([float(value) for value in row[1:]] for row in rows)
    # The floor of the rate is D gamma^2 / 2 = 4 nats on the batches that were trained on.
    assert cured[0] == 32
    assert cured[1] > 3.5 > textbook[1]
    assert 0.0 < cured[2] < 64 * 0.7
