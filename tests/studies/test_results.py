"""RESULTS.md and README.md say what the records say."""

from pathlib import Path

import pytest

from vaezoo.studies import STUDIES, records, report

pytestmark = pytest.mark.one_backend
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def test_results_are_those_of_the_records():
    kept = (ROOT / "RESULTS.md").read_text("utf-8")
    assert kept == report.results_text(RESULTS), "write it: vaezoo reproduce --write"


def test_the_readme_says_how_many_rows_are_reproduced():
    kept = (ROOT / "README.md").read_text("utf-8")
    assert f"{report.BEGIN}\n{report.sentence(RESULTS)}\n{report.END}" in kept


def test_records_belong_to_rows_and_name_no_machine():
    known = {
        records.path_of(RESULTS, study, row.name, 0).parent
        for study in STUDIES.values()
        for row in study.rows
    }
    for path in RESULTS.rglob("*.json"):
        assert path.parent in known
        record = records.read(path)
        assert path == records.path_of(
            RESULTS, STUDIES[record["study"]], record["row"], record["seed"]
        )
        assert record["scale"] == "published"
        text = path.read_text("utf-8")
        assert not any(f'"{root}' in text for root in ("/work", "/home", "/root", "/tmp", "/Users"))
