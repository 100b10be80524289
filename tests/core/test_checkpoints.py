"""Files that hold the state of a training."""

import json
import math
import random
import zipfile

import keras
import numpy as np
import pytest

from vaezoo.core.checkpoints import (
    Saved,
    draw_from,
    draws_so_far,
    position_of,
    read_every,
    read_state,
    standing,
    write_state,
)
from vaezoo.core.states import named, set_state, state_of

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (math.inf, math.inf)),
        (7, (math.inf, 7)),
        (np.int64(7), (math.inf, 7)),
        ("120", (math.inf, 120)),
        ("30s", (30.0, math.inf)),
        ("10m", (600.0, math.inf)),
        (" 1.5 h", (5400.0, math.inf)),
    ],
)
def test_how_often_is_read(value, expected):
    assert read_every("every", value) == expected


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, True, "", "m", "0m", "-3s", "1.5", "10 days", "1e9s"]
)
def test_how_often_is_checked(value):
    with pytest.raises(ValueError, match=r"`every` must be .*Received: every="):
        read_every("every", value)


def test_a_training_stands_somewhere():
    assert standing(7, 0, 50) == "epoch 7 of 50"
    assert standing(6, 120, 50, 469) == "epoch 7 of 50, batch 120 of 469"
    assert standing(6, 120) == "epoch 7, batch 120"


def test_a_state_is_read_as_it_was_written(tmp_path):
    bfloat16 = np.asarray(keras.ops.convert_to_numpy(keras.ops.ones((2,), "bfloat16")))
    arrays = [np.arange(3, dtype="float32"), np.zeros((), "uint32"), bfloat16]
    saved = Saved(
        3,
        5,
        [{"epoch": 1, "loss": 0.1}],
        {"PlateauDecay": ({"best": math.inf}, [arrays[0]]), "RowOrder": ({"seed": 3}, [])},
        {"loss": 0.1 + 0.2},
        [draws_so_far(), None],
        arrays,
        arrays[:1],
    )
    write_state(tmp_path / "x.zip", saved)
    found = read_state(tmp_path / "x.zip")
    for name in ("epoch", "batch", "history", "logs"):
        assert getattr(found, name) == getattr(saved, name)
    assert found.callbacks["PlateauDecay"][0] == {"best": math.inf}
    for one, other in zip(found.variables, arrays, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert position_of(tmp_path / "x.zip") == (3, 5)
    assert (found.ended, found.position) == (False, (3, 5))


def test_a_file_without_a_state_and_a_broken_one_are_told_apart(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    assert read_state(tmp_path / "x.zip") is None
    assert position_of(tmp_path / "x.zip") is None
    (tmp_path / "y.zip").write_bytes(b"half of it")
    for name, content in (("z.zip", json.dumps({"epoch": 1})), ("w.zip", "[1")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("vaezoo_run.json", content)
    for name in ("y.zip", "z.zip", "w.zip"):
        with pytest.raises(ValueError):  # noqa: PT011  Whoever reads it names the file.
            read_state(tmp_path / name)


def test_draws_go_on_where_they_were():
    state = json.loads(json.dumps(draws_so_far()))
    first = random.random(), np.random.normal(size=3)
    draw_from(state)
    again = random.random(), np.random.normal(size=3)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])


def test_keras_callbacks_are_remembered_and_names_differ():
    stopping = keras.callbacks.EarlyStopping(patience=2)
    stopping.on_train_begin()
    stopping.wait, stopping.best, stopping.best_weights = 1, 0.5, [np.ones(2), np.zeros(3)]
    found = named([stopping, keras.callbacks.History(), keras.callbacks.EarlyStopping()])
    assert list(found) == ["EarlyStopping", "EarlyStopping-2"]
    other = keras.callbacks.EarlyStopping()
    other.on_train_begin()
    values, arrays = state_of(stopping)
    set_state(other, json.loads(json.dumps(values)), arrays)
    assert (other.wait, other.best, other.stopped_epoch) == (1, 0.5, 0)
    assert isinstance(other.wait, int)
    np.testing.assert_array_equal(other.best_weights[1], np.zeros(3))
