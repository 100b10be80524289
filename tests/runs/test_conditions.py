"""Runs of models that are conditioned on the labels of their data."""

import keras
import numpy as np
import pytest

from vaezoo import data
from vaezoo.runs import RunSpec
from vaezoo.runs.conditions import conditioned

LABELED = {"condition": "label"}


@pytest.mark.one_backend
def test_condition_gets_the_classes_of_the_data():
    spec = RunSpec("vae_digits_mlp", networks=LABELED).resolve()
    assert spec.networks["condition"] == {"label": 10}
    assert spec.resolve() == spec
    assert RunSpec.from_dict(spec.to_dict()) == spec
    # Labels that the settings leave out are read again.
    spec = RunSpec("vae_digits_mlp", networks=LABELED, data={"labels": False}).resolve()
    assert spec.data.labels is True


@pytest.mark.one_backend
def test_condition_must_be_among_the_labels(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=np.zeros((8, 8, 8, 1)), x_test=np.zeros((8, 8, 8, 1)))
    spec = RunSpec("vae_digits_mlp", networks=LABELED, data={"name_or_path": tmp_path / "x.npz"})
    with pytest.raises(ValueError, match=r"networks.condition must be a label of the data"):
        spec.resolve()
    several = {"condition": {"label": 10, "place": 3}}
    with pytest.raises(ValueError, match="must have one condition, the labels of the data"):
        RunSpec("vae_digits_mlp", networks=several).resolve()


@pytest.mark.parametrize("with_index", [False, True])
def test_labels_of_batches_become_conditions(with_index):
    batches = data.load("digits", batch_size=32, shuffle=True, limit=64, with_index=with_index)
    found = [
        keras.utils.unpack_x_y_sample_weight(batch) for batch in iter(conditioned(batches, "kind"))
    ]
    again = data.load("digits", batch_size=32, shuffle=True, limit=64, with_index=with_index)
    for (x, y, _), (expected, labels) in zip(found, iter(again), strict=True):
        np.testing.assert_array_equal(x["x"], expected)
        if with_index:
            np.testing.assert_array_equal(y["index"], labels["index"])
            labels = labels["y"]
        np.testing.assert_array_equal(x["kind"], labels)
    assert conditioned(batches, None) is batches
