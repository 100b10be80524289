"""Weight-normalized layers start from 500 examples, standardized E[z|x], no dropout."""

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches, in_batches
from vaezoo import zoo
from vaezoo.layers import GaussianHead, WeightNormDense

SIZE = 5
# JAX is slow without its compiler, TensorFlow is slow to start with a graph.
JAX = keras.backend.backend() == "jax"
QUICK = {"jit_compile": JAX, "run_eagerly": not JAX}


def generator(x):
    for start in range(0, len(x), 8):
        yield x[start : start + 8]


def dataset(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x,)).batch(8)


SOURCES = {
    "array": lambda x: x,
    "PyDataset": lambda x: Batches(in_batches(8, x)),
    "generator": generator,
    "tf.data": dataset,
}


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    # Later examples differ, so that it matters which ones are seen.
    return (rng.normal(size=(40, SIZE)) + np.arange(40)[:, None] / 10).astype("float32")


def make():
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((SIZE,)),
            WeightNormDense(6, activation="elu", name="first"),
            keras.layers.Dropout(0.5, seed=1),
            WeightNormDense(4, name="features"),
        ]
    )
    decoder = keras.Sequential([keras.Input((2,)), WeightNormDense(SIZE, name="last")])
    model = zoo.VAE(encoder, decoder, head=GaussianHead(2, 3, seed=2), likelihood="gaussian")
    model.compile(keras.optimizers.SGD(0.0), **QUICK)
    return model


def statistics(values):
    values = ops.convert_to_numpy(values)
    return values.mean(axis=0), values.std(axis=0)


@pytest.mark.large
@pytest.mark.parametrize("source", SOURCES)
def test_as_many_examples_as_asked_for_are_seen_at_their_standardized_means(x, source):
    model = make()
    assert model.initial_examples == 500
    # Three batches of 8 make 24, the first number from which 20 are known; an array is cut.
    model.initial_examples = 20
    seen = x[: 20 if source == "array" else 24]
    rows = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: rows.append(batch))
    size = {"batch_size": 8, "shuffle": False} if source == "array" else {}
    model.fit(SOURCES[source](x), callbacks=[keep], verbose=0, **size)
    # Nothing of the data is used up, or used twice.
    assert len(rows) == 5
    codes = ops.convert_to_numpy(model.encode(seen).mean)
    codes = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    for values in (model.encoder(seen), model.decoder(codes)):
        mean, std = statistics(values)
        np.testing.assert_allclose(mean, 0.0, atol=1e-4)
        np.testing.assert_allclose(std, 1.0, rtol=1e-3)
    # A second `fit` finds nothing left to do.
    before = ops.convert_to_numpy(model.decoder.layers[-1].log_gain)
    model.fit(x + 1.0, batch_size=40, verbose=0)
    np.testing.assert_array_equal(model.decoder.layers[-1].log_gain, before)


@pytest.mark.large
def test_rows_held_out_are_not_seen(x):
    model = make()
    model.fit(x, batch_size=8, validation_split=0.5, verbose=0)
    np.testing.assert_allclose(statistics(model.encoder(x[:20]))[0], 0.0, atol=1e-4)


@pytest.mark.large
@pytest.mark.one_backend
def test_presets_set_the_number():
    decoder = {"latent_shape": (8, 8, 16), "units_per_level": 1, "filters": 2}
    networks = {"growth": (2, 2, 2), "steps": (1, 1, 1), "decoder": decoder}
    assert zoo.load("mae_cifar10", networks=networks).model.initial_examples == 256
    with pytest.raises(ValueError, match="`initial_examples` must be .*initial_examples=0"):
        zoo.load("mae_cifar10", networks=networks, training={"initial_examples": 0})
    assert zoo.load("mae_digits_pixelcnn").model.initial_examples == 500
