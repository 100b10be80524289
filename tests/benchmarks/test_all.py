"""All measurements in one run, which goes on where it was interrupted."""

import contextlib

import pytest

from benchmarks import all as benchmarks

pytestmark = pytest.mark.one_backend


NAMES = list(benchmarks.NAMES)


@pytest.fixture
def measure(tmp_path):
    """Function that runs them, up to one that fails; returns the commands that ended."""

    def measure(*arguments, fails=None):
        ended = []

        def run(name, given):
            if name == fails:
                raise SystemExit(3)
            ended.append(" ".join([name, *given]))
            return 120.0, 60.0

        expected = contextlib.nullcontext() if fails is None else pytest.raises(SystemExit)
        with expected:
            benchmarks.main(arguments, tmp_path / "folder" / "measured.json", run)
        return ended

    return measure


def test_an_interrupted_run_goes_on_and_a_whole_one_begins_anew(measure):
    assert measure(fails="softmax") == NAMES[: NAMES.index("softmax")]
    assert measure() == NAMES[NAMES.index("softmax") :]
    assert measure() == NAMES


def test_what_is_printed_is_not_what_is_written(measure):
    measure("--write", fails="text")
    assert measure(fails="evaluate") == ["__main__"]
    assert measure("--write") == [f"{name} --write" for name in NAMES]


def test_a_run_begins_anew_where_it_is_asked_to(measure):
    measure(fails="idle")
    assert measure("--again", fails="evaluate") == ["__main__"]
    assert measure("--only", "idle", "evaluate") == ["idle", "evaluate"]
    assert measure() == [name for name in NAMES if name not in ("__main__", "idle", "evaluate")]


def test_durations_are_told(measure, capsys):
    measure(fails="evaluate")
    assert "__main__: not timed yet" in capsys.readouterr().out
    measure("--only", "__main__")
    assert "__main__: 2 minutes the last time, 1 of processor time" in capsys.readouterr().out


def test_a_broken_file_counts_as_none(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text("{")
    assert benchmarks.read(path, False) == ([], {})
