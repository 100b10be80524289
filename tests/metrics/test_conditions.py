"""Metrics of models that are conditioned: data are dicts of x and its conditions."""

import keras
import numpy as np
import pytest

from vaezoo import metrics, zoo
from vaezoo.metrics.diagnosis.conditions import condition_notes
from vaezoo.zoo import networks

ROWS, EVENT = 48, (4, 4, 1)
LABELS = np.arange(ROWS) % 3
X = np.random.default_rng(0).integers(0, 2, (ROWS, *EVENT)).astype("float32")
DATA = {"x": X, "kind": np.array(["a", "b", "c"])[LABELS]}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    pair = networks.make("mlp", EVENT, 2, hidden_units=[8], condition={"kind": ["a", "b", "c"]})
    model = zoo.VAE(*pair, latent_dim=2)
    model.build((None, *EVENT))
    kernel = model.encoder.kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    return model


def test_likelihood_is_that_under_the_conditions(model):
    found = metrics.negative_log_likelihood(model, DATA, 20, seed=3, batch_size=16)
    expected = -model.log_prob(DATA, 20, seed=3, batch_size=16)
    np.testing.assert_allclose(found.per_example, expected, rtol=1e-5)
    other = metrics.negative_log_likelihood(
        model, {**DATA, "kind": ["a"] * ROWS}, 20, seed=3, batch_size=16
    )
    changed = np.abs(other.per_example - found.per_example) > 1e-3
    assert np.all(changed == (LABELS > 0))
    assert found.extra["bits_per_dim"] == pytest.approx(np.mean(expected) / 16 / np.log(2))


def test_codes_are_encoded_under_the_conditions(model):
    found = metrics.active_units(model, DATA)
    expected = metrics.active_units(model.encode(DATA).mean)
    assert found.value == expected.value
    np.testing.assert_allclose(
        metrics.mutual_information(model, DATA, seed=1).value,
        metrics.mutual_information(model.encode(DATA), seed=1).value,
        rtol=1e-5,
    )


@pytest.mark.large
def test_evaluates_and_diagnoses(model):
    found = metrics.evaluate(model, DATA, num_samples=8)
    assert np.isfinite(found["negative_log_likelihood"].value)
    assert found.provenance["data"]["shape"][0] == ROWS
    told = metrics.diagnose(model, DATA, trials=False)
    assert told.verdict
    assert any("the code tells the condition 'kind'" in note for note in told.notes)
    pictures = told.pictures["reconstructions"]
    np.testing.assert_array_equal(told.pictures["data"], X[: len(pictures)])


@pytest.mark.one_backend
def test_code_that_repeats_its_condition_is_told():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    codes = rng.normal(size=(300, 2))
    (told,) = condition_notes(codes, {"kind": labels, "place": rng.normal(size=(300, 2))})
    assert "the largest class has 33%: the code holds nothing of it" in told
    codes[:, 0] += 10.0 * labels
    (told,) = condition_notes(codes, {"kind": labels})
    assert "'kind' in 98% of cases" in told
    assert "the code repeats part of what the decoder is given" in told


@pytest.mark.one_backend
def test_bad_data_are_refused(model):
    rule = "`data` must be a dict of the data, 'x', and what conditions them, 'kind'"
    with pytest.raises(TypeError, match=f"{rule}. Received: ndarray"):
        metrics.negative_log_likelihood(model, X)
    with pytest.raises(ValueError, match="Received: the keys 'x', without 'kind'"):
        metrics.active_units(model, {"x": X})
    with pytest.raises(ValueError, match="`kind` must hold the classes 'a', 'b', 'c'. Received"):
        metrics.evaluate(model, {"x": X, "kind": ["d"] * ROWS}, num_samples=1)
    with pytest.raises(ValueError, match="`target` must be None of a conditional model"):
        metrics.negative_log_likelihood(model, DATA, target=X)
