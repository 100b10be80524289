import json

import keras
import numpy as np
import pytest

from vaezoo.data import load_arrays
from vaezoo.metrics.features import (
    FeatureNetwork,
    classifier_features,
    get_features,
    inception_features,
    load_features,
)
from vaezoo.metrics.frechet import frechet_distance

pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def digits():
    return load_arrays("digits", "train", limit=1000)


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """A classifier of the digits and where it was saved."""
    path = tmp_path_factory.mktemp("features") / "new" / "digits.keras"
    network = classifier_features(
        *digits, num_features=16, epochs=4, learning_rate=3e-3, batch_size=32, held_out=0.2,
        save_to=path,
    )  # fmt: skip
    return network, path


@pytest.mark.one_backend
def test_classifier_learns_and_reports_its_accuracy(digits, saved):
    images, _ = digits
    network, path = saved
    features = network(images, batch_size=100)
    assert features.shape == (1000, 16)
    assert features.min() == 0.0 < features.max()
    details = json.loads(path.with_suffix(".json").read_text())
    assert details == network.details
    assert details["held_out_accuracy"] > 0.8
    assert details["held_out_count"] == 200
    assert details["num_classes"] == 10


@pytest.mark.one_backend
def test_saved_classifier_is_the_same_network(digits, saved):
    network, path = saved
    loaded = load_features(path)
    np.testing.assert_allclose(loaded(digits[0][:50]), network(digits[0][:50]), rtol=1e-5)
    assert loaded.weights_hash == network.weights_hash
    assert loaded.details == network.details


@pytest.mark.one_backend
def test_features_tell_digits_from_noise_and_the_score_names_them(digits, saved):
    images, _ = digits
    network, _ = saved
    noise = np.random.default_rng(0).uniform(size=images.shape).astype("float32")
    near = frechet_distance(images[:300], images[300:], features=network)
    far = frechet_distance(noise, images[300:], features=network)
    assert far.value > 20 * near.value
    assert near.extra["held_out_accuracy"] == network.details["held_out_accuracy"]
    assert near.settings["features"] == "classifier"
    assert near.settings["weights"] == network.weights_hash


@pytest.mark.large
@pytest.mark.one_backend
def test_global_random_state_neither_matters_nor_changes(digits):
    images, labels = digits[0][:100], digits[1][:100]
    networks = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        networks.append(classifier_features(images, labels, num_features=4, epochs=1, seed=3))
        drawn = np.random.uniform()
        keras.utils.set_random_seed(seed)
        assert np.random.uniform() == drawn
    np.testing.assert_allclose(networks[0](images), networks[1](images), rtol=1e-4, atol=1e-6)


def test_labels_choose_a_classifier_by_default(digits, monkeypatch):
    called = {}

    def stand_in(data, labels, seed):
        called.update(data=data, labels=labels, seed=seed)
        return "network"

    monkeypatch.setattr("vaezoo.metrics.features.classifier_features", stand_in)
    assert get_features(None, *digits, seed=5) == "network"
    assert called == {"data": digits[0], "labels": digits[1], "seed": 5}
    assert get_features("classifier", *digits) == "network"


def test_keras_models_and_callables_are_features_under_their_names():
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Dense(3)(x), name="mine")
    data = np.random.default_rng(0).normal(size=(7, 2)).astype("float32")
    network = get_features(model, data)
    np.testing.assert_allclose(network(data, batch_size=4), model.predict(data, verbose=0))
    first = network.weights_hash
    model.set_weights([weight + 1 for weight in model.get_weights()])
    assert network.name == "mine"
    assert FeatureNetwork(model).weights_hash != first
    named = FeatureNetwork(lambda images: 2 * images, name="twice")
    np.testing.assert_array_equal(named(data, batch_size=3), 2 * data.astype("float64"))
    assert named.weights_hash is None
    np.testing.assert_array_equal(get_features("pixels", None)(data[:, None]), data)


class TinyInception(keras.Model):
    """Averages over the grid, and remembers what it was given."""

    def call(self, images, training=False):
        return keras.ops.mean(images, axis=(1, 2))

    def predict_on_batch(self, images):
        self.images = images
        return np.mean(images, axis=(1, 2))


def test_inception_sees_large_symmetric_color_images(monkeypatch):
    made = []

    def build(**arguments):
        made.append((arguments, TinyInception()))
        return made[-1][1]

    monkeypatch.setattr(keras.applications, "InceptionV3", build)
    network = inception_features(weights="some.h5")
    assert made == []
    gray = np.linspace(0, 1, 3, dtype="float32")[:, None, None, None] * np.ones((3, 8, 8, 1))
    np.testing.assert_allclose(network(gray), [[-1] * 3, [0] * 3, [1] * 3], atol=1e-6)
    (arguments, tiny), *more = made
    assert more == []
    assert arguments["weights"] == "some.h5"
    assert arguments["pooling"] == "avg"
    assert arguments["include_top"] is False
    assert tiny.images.shape == (3, 299, 299, 3)
    assert len(network.weights_hash) == 16
    with pytest.raises(ValueError, match=r"\(N, H, W, 1 or 3\).*shape=\(3, 8, 8, 2\)"):
        network(np.zeros((3, 8, 8, 2), "float32"))


def test_missing_inception_weights_are_explained(monkeypatch):
    def fail(**arguments):
        raise OSError("URL fetch failure")

    monkeypatch.setattr(keras.applications, "InceptionV3", fail)
    data = np.random.default_rng(0).uniform(size=(20, 8, 8, 1)).astype("float32")
    with pytest.raises(RuntimeError, match="URL fetch failure.*`?weights.*'classifier'.*'pixels'"):
        frechet_distance(data, data, features="inception")


@pytest.mark.one_backend
def test_nothing_saved_is_overwritten(digits, saved):
    _, path = saved
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="`save_to` must be new"):
        classifier_features(*digits, save_to=path)
    assert path.read_bytes() == before


def test_another_model_is_no_classifier(tmp_path):
    path = tmp_path / "other.keras"
    x = keras.Input((2,))
    keras.Model(x, keras.layers.Dense(3)(x), name="other").save(path)
    with pytest.raises(ValueError, match="a classifier that .* saved. .*'other'"):
        load_features(path)
    with pytest.raises(FileNotFoundError, match="nothing.keras"):
        load_features(tmp_path / "nothing.keras")


IMAGES, LABELS = np.zeros((6, 4, 4, 1)), np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": IMAGES[:, 0, 0]}, r"images \(N, H, W, C\).*shape=\(6, 1\)"),
        ({"labels": LABELS[:5]}, r"shape \(6,\).*shape=\(5,\)"),
        ({"labels": LABELS * 1.0}, "dtype=float64"),
        ({"labels": 0 * LABELS}, "1 classes"),
        ({"labels": np.array([0, 0, 0, 0, 0, 1])}, "the smallest of 1"),
        ({"epochs": 0}, "epochs=0"),
        ({"num_features": 0}, "num_features=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"held_out": 1.0}, "held_out=1.0"),
        ({"save_to": "score.json"}, "must end in .keras"),
    ],
)
def test_classifier_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        classifier_features(**{"data": IMAGES, "labels": LABELS, **arguments})


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (lambda: FeatureNetwork(3), TypeError, "Received: int"),
        (lambda: FeatureNetwork(lambda x: x), ValueError, "`name` must be given"),
        (lambda: FeatureNetwork(lambda x: x, "n")(IMAGES), ValueError, r"shape=\(6, 4, 4, 1\)"),
        (
            lambda: FeatureNetwork(lambda x: x[:, 0, 0] + np.inf, "n")(IMAGES),
            ValueError,
            "`features` must be finite",
        ),
    ],
)
def test_network_errors(features, error, message):
    with pytest.raises(error, match=message):
        features()
