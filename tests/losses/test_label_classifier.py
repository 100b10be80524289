"""A classifier of labels beside a model learns them, and leaves the model as it is."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.layers import FlatSoftmax
from vaezoo.losses import LabelClassifier
from vaezoo.testing import make_terms

GENERATOR = np.random.default_rng(0)
LABELS = np.arange(60) % 3
#: Images whose label shows.
IMAGES = (GENERATOR.random((60, 12)) < 0.1 + 0.8 * np.eye(3).repeat(4, 1)[LABELS]).astype("float32")


def make_classifier(labels=LABELS, classes=3):
    hidden = keras.layers.Dense(16, "relu", kernel_initializer=keras.initializers.HeNormal(1))
    return LabelClassifier(labels, hidden, FlatSoftmax(classes), keras.optimizers.Adam(0.05))


def trained(probe=None, epochs=1):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((12,)), keras.layers.Dense(8, "relu")])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(12)])
    model = zoo.VAE(encoder, decoder, latent_dim=2, seed=0)
    if probe is not None:
        model.add_regularizer(probe)
    xla = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(0.02), jit_compile=xla)
    logs = model.fit(IMAGES, batch_size=20, epochs=epochs, shuffle=False, verbose=0).history
    return model, logs


@pytest.mark.large
def test_it_learns_labels_from_codes_and_leaves_the_model_as_it_is(tmp_path):
    plain, plain_logs = trained(epochs=30)
    probe = make_classifier()
    model, logs = trained(probe, epochs=30)
    for one, other in zip(plain.trainable_weights, model.trainable_weights, strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (one, other)), rtol=1e-4, atol=1e-6)
    assert set(logs) == {*plain_logs, "classifier_loss"}
    assert logs["classifier_loss"][0] > 0.9 * np.log(3)
    means = model.encode(IMAGES).mean
    accuracy = np.mean(probe.classify(means) == LABELS)
    assert accuracy > 0.8
    # Labels are a part of the model's file.
    model.save(tmp_path / "model.keras")
    (loaded,) = keras.models.load_model(tmp_path / "model.keras").objective.regularizers
    np.testing.assert_array_equal(loaded.classify(means), probe.classify(means))
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.label_of(np.arange(60))), LABELS)


def test_its_loss_is_the_cross_entropy_of_the_labels():
    probe = make_classifier(LABELS[:6])
    mean, z = np.zeros((4, 2), "float32"), GENERATOR.normal(size=(4, 3, 2)).astype("float32")
    index = np.array([5, 0, 1, 3], "int32")
    terms = make_terms(mean, mean, z=z)._replace(index=index)
    probe.prepare(2)
    h = probe.network(z.reshape(12, 2))
    probability = ops.convert_to_numpy(probe.softmax.probabilities(h)).reshape(4, 3, 3)
    expected = -np.log(probability[np.arange(4), :, LABELS[index]]).mean(axis=1)
    loss = probe(terms, training=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(loss.report["classifier_loss"]), expected, rtol=1e-5
    )
    assert not np.any(ops.convert_to_numpy(loss.per_example))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(4), "from 0 to 3, softmax.num_classes=3"),
        (np.array([-1, 0]), "from -1 to 0"),
        (np.array([0.0, 1.0]), "at least two integers"),
        (np.zeros((3, 1), int), r"shape \(3, 1\)"),
        ("digits", "Received: labels='digits'"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        make_classifier(labels)


def test_examples_without_their_index_are_refused():
    probe = make_classifier()
    probe.prepare(2)
    mean = np.zeros((4, 2), "float32")
    terms = make_terms(mean, mean, z=mean[:, None])._replace(index=None)
    with pytest.raises(ValueError, match="`LabelClassifier` needs the index"):
        probe(terms, training=True)
