"""What the doctor's exam makes of its trials."""

import json

import pytest

from vaezoo.metrics.diagnosis.causes import TITLES

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def cures():
    with pytest.MonkeyPatch.context() as patch:
        # The exam asks for one thread, which other tests are not to have.
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            patch.setenv(name, "1")
        from benchmarks.exam import cures
    return cures


def trial(change, difference, helped):
    names = {"remedy": str(change), "nll": 20.0, "error": 0.1}
    return {"change": change, "difference": difference, "helped": helped, **names}


def found(case, cause, *trials, verdict="full_collapse"):
    about = {"planted": "a mistake", "held_out": 10, "ill": 25.0}
    return {"case": case, "cause": cause, "verdict": verdict, "trials": list(trials), **about}


RAMP, FREE = {"ramp": 0.5}, {"free_bits": 0.1}
RESULTS = [
    found("one", "a", trial(RAMP, -4.0, True), trial(FREE, -1.0, True)),
    found("two", "b", trial(RAMP, -2.0, True), trial(FREE, 0.1, False)),
    found("three", "c", trial(RAMP, None, False), trial(FREE, -0.1, False), verdict="prior_hole"),
    found("four", TITLES["nothing_to_encode"], trial(RAMP, 0.5, False)),
]


def test_trials_show_how_often_and_how_much_a_remedy_helps(cures, tmp_path):
    records = cures.shown(RESULTS)
    by_change = {(r["verdict"], json.dumps(r["change"])): r for r in records}
    free = by_change["full_collapse", json.dumps(FREE)]
    assert (free["tried"], free["helped"], free["share"]) == (2, 1, 0.125)
    # Where there is nothing to encode no trial counts.
    ramp = by_change["full_collapse", json.dumps(RAMP)]
    assert (ramp["tried"], ramp["helped"], ramp["share"]) == (2, 2, 1.0)
    assert by_change["prior_hole", json.dumps(FREE)]["share"] == 0.0
    cures.write(records, tmp_path / "tried.json")
    assert json.loads((tmp_path / "tried.json").read_text()) == records


def test_each_ill_case_has_a_cure_or_none(cures):
    *_, one, two, three, four = cures.table(RESULTS)
    assert "20.00 | -4.00 +- 0.10 | cured by > 3 s.e. |" in one
    assert str(RAMP) in two
    assert three.endswith("-0.10 +- 0.10 | none helped |")
    assert four.endswith("none helped |")


def test_ten_cases_are_tried_and_none_held_out(cures):
    cases = cures.cases()
    assert len(cases) == 10
    assert all(case.ill and not case.held_out for case in cases)
    assert {case.data for case in cases} == {"binary", "gray", "text"}
