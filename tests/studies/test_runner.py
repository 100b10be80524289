"""A tiny row is trained, killed, goes on, is measured and recorded."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_study import STUDY, reproduce
from vaezoo.studies import STUDIES, data, figures, records, runner, synthetic

pytestmark = pytest.mark.one_backend
TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.large
def test_a_killed_row_goes_on_and_is_recorded(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import functools, pathlib; "
        "from helpers.tiny_study import reproduce; "
        f"reproduce(pathlib.Path({str(tmp_path)!r}), functools.partial(print, flush=True))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "epoch 2 of 4" in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert not list((tmp_path / "results").rglob("*.json"))

    said = []
    assert reproduce(tmp_path, said.append) == []
    assert said[0].startswith("du_vae/made a seed 0: goes on after ")
    path = records.path_of(tmp_path / "results", STUDY, "a", 0)
    record = json.loads(path.read_text())
    assert record["state"] == "measured"
    assert record["epochs"] == {"trained": 4, "of": 4, "ended": True}
    assert record["history"]["epoch"] == [1, 2, 3, 4]
    assert len(record["history"]["loss"]) == 4
    assert record["metrics"]["active_units"]["count"] == 50
    assert np.shape(record["figure"]["covariance"]) == (2, 2)
    assert record["data"]["train"]["count"] == 128
    assert record["settings"]["preset"] == "beta_vae_digits_mlp"
    assert str(tmp_path) not in path.read_text()
    # What is done is not done again.
    before = path.stat().st_mtime_ns
    assert reproduce(tmp_path, said.append) == []
    assert said[-1] == "du_vae/made a seed 0: done"
    assert path.stat().st_mtime_ns == before


@pytest.mark.large
def test_a_budget_leaves_what_does_not_fit(tmp_path):
    said = []
    assert [job.row.name for job in reproduce(tmp_path, said.append, budget=0.0)] == ["a"]
    assert said == []
    # It is prepared, and no epoch is begun too late.
    left = reproduce(tmp_path, said.append, budget=0.01)
    assert [job.said for job in left] == ["du_vae/made a seed 0"]
    assert "stopped after 0 of 4 epochs" in said[-1]
    record = records.read(records.path_of(tmp_path / "results", STUDY, "a", 0))
    assert (record["state"], record["epochs"]["trained"]) == ("training", 0)


def test_a_row_that_cannot_be_run_is_told_and_left(tmp_path):
    said = []
    directory = tmp_path / "runs" / "du_vae" / "tiny" / "seed-0"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{")
    left = reproduce(tmp_path, said.append)
    assert [job.row.name for job in left] == ["a"]
    assert "cannot be read: it is no JSON" in said[-1]


def test_text_of_a_study_becomes_the_object_that_it_names():
    from vaezoo.losses import LinearSchedule

    found = runner._parsed({"beta": "LinearSchedule(10, unit='epochs')", "kind": "mlp"})
    assert isinstance(found["beta"], LinearSchedule)
    assert found["kind"] == "mlp"


def test_data_are_found_by_name_by_file_and_by_a_stand_in(tmp_path):
    places = data.Places(folder=tmp_path, made=tmp_path / "made")
    assert data.locate("mnist", places) is None
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros((4, 28, 28), "uint8"))
    assert data.locate("mnist", places).arguments["name_or_path"].endswith("mnist.npz")
    given = data.Places({"mnist": "else.npz"}, tmp_path, tmp_path)
    assert data.locate("mnist", given).arguments == {"name_or_path": "else.npz"}
    for name in ("train", "vocab"):
        (tmp_path / "short_yelp").mkdir(exist_ok=True)
        (tmp_path / "short_yelp" / f"{name}.txt").write_text("x")
    found = data.locate("short_yelp", places).arguments
    assert found["vocabulary"].endswith("vocab.txt")
    assert data.find("yahoo", places) is None
    assert data.find("yahoo", places, small=True).stand_in_for == "yahoo"


def test_a_set_that_was_cut_short_is_another_set(tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    info = {"splits": [{"name": "train", "shardLengths": ["10000"]}]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    places = data.Places(folder=tmp_path, made=tmp_path / "made")
    assert data.locate("cifar10", places) is None
    assert data.find("cifar10", places, small=True).name == "cifar10_part"


def test_written_sentences_depend_on_their_code():
    component, words = synthetic.sample(1000)
    assert words.shape == (1000, synthetic.LENGTH)
    again = synthetic.sample(1000)[1]
    assert np.array_equal(words, again)
    assert words.min() >= 0
    assert words.max() < synthetic.WORDS
    # The first word is any; the second is written by the code.
    counts = [
        np.bincount(words[component == kind, 1], minlength=synthetic.WORDS) for kind in range(5)
    ]
    shares = [count / count.sum() for count in counts]
    apart = [0.5 * np.abs(shares[0] - share).sum() for share in shares[1:]]
    assert min(apart) > 0.5


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Folder of all small runs, which studies share."""
    return tmp_path_factory.mktemp("small")


@pytest.mark.slow
@pytest.mark.parametrize("key", STUDIES)
def test_every_entry_runs_to_its_end_in_small(key, everything, mnist_dir):
    study, places = STUDIES[key], data.Places(folder=mnist_dir, made=everything / "data")
    needed = {row.run.data for row in study.rows if row.run}
    missing = [name for name in needed if data.find(name, places, small=True) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here, nor what stands in")
    results = everything / "results"
    left = runner.reproduce(study, root=everything, results=results, small=True, places=places)
    assert left == []
    for row in study.rows:
        if row.run is None:
            continue
        (record,) = records.read_all(results, study, row.name)
        assert record["state"] == "measured"
        for column in study.columns:
            found = records.value_of(record, column.source)
            # What a model does not have is named.
            reasons = [name for name in record["figure"] if name.startswith("skipped ")]
            logs = column.source.startswith(("first:", "last:", "max:"))
            assert found is not None or reasons or logs, (row.name, column.name)
    if study.figure:
        path = figures.draw(study, results)
        assert path.stat().st_size > 1000
