"""The code of `python -m benchmarks --gpu`, in small on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[2]
KINDS = "dense", "sampling"


def table():
    """What the page has on GPUs."""
    page = (ROOT / "benchmarks" / "README.md").read_text()
    return page.partition("<!-- gpu -->")[2].partition("<!-- end -->")[0]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--gpu", *map(str, arguments)],
        cwd=ROOT,
        # Wide enough for tables without breaks.
        env={**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=580,
    )


@pytest.mark.slow
def test_a_dry_run_measures_each_kind_and_goes_on_where_it_was(tmp_path):
    rows, before = tmp_path / "rows.json", table()
    first = run("--dry-run", "--rounds", 2, "--rows", rows, "--only", "dense")
    assert first.returncode == 0, first.stderr
    measured = json.loads(rows.read_text())["slices"]
    assert set(measured) == {"roofline", "dense"}
    again = run("--dry-run", "--rounds", 2, "--rows", rows, "--only", *KINDS)
    assert again.returncode == 0, again.stderr
    slices = json.loads(rows.read_text())["slices"]
    assert set(slices) == {"roofline", *KINDS}
    assert slices["dense"] == measured["dense"]
    for kind in KINDS:
        times = slices[kind]["ms"]["vaezoo, JAX"]
        assert [time > 0 for time in times] == [True] * 2
        assert kind in again.stdout
    assert "the numbers mean nothing" in again.stdout
    assert table() == before


@pytest.mark.slow
def test_without_a_gpu_nothing_is_measured(tmp_path):
    rows = tmp_path / "rows.json"
    found = run("--rows", rows)
    assert found.returncode == 0, found.stderr
    assert "There is no GPU" in found.stdout
    assert not rows.exists()
    assert run("--dry-run", "--write").returncode == 2
