"""Words, tables and sentences of records that are made up here."""

import json
import math

import pytest

from vaezoo import studies
from vaezoo.studies import records, report, verdicts
from vaezoo.studies.study import Claim, Column, Protocol, Row, Study, Training

pytestmark = pytest.mark.one_backend
RUN = Training(name="run", preset="vae_digits_mlp", data="digits")
STUDY = Study(
    paper="du_vae",
    name="made",
    title="Made up",
    columns=(
        Column("nll", "NLL", "nats", "negative_log_likelihood", "lower"),
        Column("kl", "KL", "nats", "rate"),
        Column("accuracy", "accuracy", "%", "probe", "higher", 100.0),
        Column("elbo", "ELBO", "", "last:-loss"),
    ),
    rows=(
        Row(name="a", title="A", run=RUN, published={"nll": 90.0, "kl": 5.0}, reason="too short"),
        Row(name="b", title="B", run=RUN, published={"accuracy": 80.0}),
        Row(name="c", title="C", run=RUN),
        Row(name="d", title="D", run=RUN, published={"nll": 1.0}, not_run="no data"),
        Row(name="e", title="E", run=None, published={"nll": 95.0}),
    ),
    protocol=Protocol(said="by hand"),
    claims=(Claim("A reads better than C", "elbo", "a", "c"), Claim("few", "kl", 9.0, "a")),
)


def record(row="a", seed=0, state=records.MEASURED, **metrics):
    return {
        "format": records.FORMAT,
        "study": STUDY.key,
        "run": "du_vae/run",
        "row": row,
        "seed": seed,
        "state": state,
        "epochs": {"trained": 3, "of": 5, "ended": False},
        "seconds": {"training": 3600.0, "measuring": 1800.0},
        "metrics": {k: {"value": v, "standard_error": 0.1} for k, v in metrics.items()},
        "data": {"name": "digits", "stand_in_for": None},
        "history": {"epoch": [1, 2], "loss": [9.0, 7.0]},
    }


def judged(row, *held):
    return verdicts.verdict(STUDY, STUDY.row(row), held)


@pytest.mark.parametrize(
    ("nll", "word"),
    [(90.0, "reproduced"), (90.3, "reproduced"), (90.31, "missed"), (89.7, "reproduced"),
     (89.6, "better"), (95.0, "missed")],
)  # fmt: skip
def test_a_row_is_judged_by_what_its_paper_calls_better(nll, word):
    found = judged("a", record(negative_log_likelihood=nll, rate=5.2))
    assert found.word == word
    assert found.hours == 1.5
    assert found.seeds == (0,)


def test_what_describes_a_model_is_named_where_it_is_off_and_does_not_decide():
    found = judged("a", record(negative_log_likelihood=90.1, rate=7.0))
    assert (found.word, found.said) == ("reproduced", "KL +2")


def test_a_miss_has_its_size_and_its_known_reason():
    found = judged("a", record(negative_log_likelihood=92.0, rate=5.0))
    assert (found.word, found.said) == ("missed", "NLL +2: too short")


def test_percentages_are_within_one_point():
    words = [judged("b", record(probe=value)).word for value in (0.79, 0.81, 0.82, 0.788)]
    assert words == ["reproduced", "reproduced", "better", "missed"]


def test_seeds_are_averaged_and_their_spread_is_the_error():
    held = [record(seed=s, negative_log_likelihood=v, rate=5.0) for s, v in ((0, 90.0), (1, 91.0))]
    cell = judged("a", *held).cells["nll"]
    assert cell.value == pytest.approx(90.5)
    assert cell.error == pytest.approx(0.5)
    assert cell.difference == pytest.approx(0.5)


def test_what_is_not_measured_does_not_count():
    found = judged("a", record(state=records.TRAINING))
    assert (found.word, found.said) == ("not run", "trained 3 of 5 epochs")
    assert judged("a").said == "not yet"
    assert judged("d").said == "no data"
    assert judged("c", record("c")).word == "run"


def test_numbers_of_other_data_are_shown_and_do_not_count():
    held = record(negative_log_likelihood=90.0, rate=5.0)
    held["data"]["stand_in_for"] = "mnist"
    found = judged("a", held)
    assert (found.word, found.said) == ("not run", "run on digits in place of the data")
    assert found.cells["nll"].value == 90.0


def test_orders_are_compared_once_both_sides_are_measured():
    first, second = STUDY.claims
    found = {name: judged(name) for name in "abcde"}
    assert verdicts.holds(STUDY, first, found) is None
    other = record("c")
    other["history"]["loss"] = [8.0]
    found |= {"a": judged("a", record(rate=5.0)), "c": judged("c", other)}
    assert verdicts.holds(STUDY, first, found) is True
    assert verdicts.holds(STUDY, second, found) is True


def test_logs_of_epochs_are_read_by_place_and_sign():
    held = record()
    assert records.value_of(held, "last:loss")[0] == 7.0
    assert records.value_of(held, "max:-loss")[0] == -7.0
    assert records.value_of(held, "first:loss")[0] == 9.0
    assert records.value_of(held, "last:nothing") is None
    assert records.value_of(held, "nothing") is None


def test_records_keep_six_digits_and_no_paths(tmp_path):
    path = records.path_of(tmp_path, STUDY, "a", 0)
    records.write(path, {**record(), "number": 1.23456789, "none": math.inf})
    found = records.read(path)
    assert (found["number"], found["none"]) == (1.23457, None)
    assert [p.name for p in path.parent.iterdir()] == ["seed-0.json"]
    held = {"data": {"name_or_path": "/home/me/x.npz", "data_dir": "/data", "limit": 3}}
    assert records.without_paths(held) == {"data": {"name_or_path": "x.npz", "limit": 3}}


def test_a_file_that_is_no_record_is_refused(tmp_path):
    path = records.path_of(tmp_path, STUDY, "a", 0)
    path.parent.mkdir(parents=True)
    for text in ("{", json.dumps({"format": 0})):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no record"):
            records.read(path)


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", {STUDY.key: STUDY})
    monkeypatch.setattr(studies, "PAPERS", {"du_vae": "DU-VAE"})


def test_the_report_has_every_row_its_numbers_and_its_word(made, tmp_path):
    held = record(negative_log_likelihood=92.0, rate=5.0)
    records.write(records.path_of(tmp_path, STUDY, "a", 0), held)
    text = report.results_text(tmp_path)
    assert "| A | published | 90 | 5 |" in text
    assert "| 92.00 ± 0.10 | 5.00 ± 0.10 |" in text
    assert "| difference | +2 | +0 |" in text
    assert "**missed** (NLL +2: too short)" in text
    assert "**not run** (no data)" in text
    assert "quoted by the paper" in text
    assert "- A reads better than C: **open**." in text
    assert "| [du_vae/made](#du_vaemade) | Made up | 3 | 0 | 0 | 1 | 2 | 1 of 2 (1 open) |" in text


def test_the_readme_gets_its_sentence_between_the_markers(made, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nformer words\n{report.END}\nafter\n")
    report.write(tmp_path / "results", tmp_path)
    text = readme.read_text()
    assert "former words" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert (
        "Of 3 published rows of five papers: 0 reproduced, 0 better, 0 missed, 3 not run." in text
    )
    written = (tmp_path / "RESULTS.md").read_text()
    assert written == report.results_text(tmp_path / "results")
