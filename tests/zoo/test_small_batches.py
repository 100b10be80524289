"""17 rows in batches of 16: the last row alone is no batch to take statistics of."""

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches, in_batches
from vaezoo import zoo
from vaezoo.losses import ELBO, MutualPosteriorDivergence

SIZE, DIM, BATCH, ROWS = 4, 2, 16, 17
# Without its compiler JAX compiles each operation by itself; TensorFlow is slow to start with one.
JAX = keras.backend.backend() == "jax"
REPORTS = {"WAE": ("mmd",), "InfoVAE": ("mmd",), "MAE": ("diversity", "smoothness")}
STATISTICS = {
    "BNVAE": ("moving_mean", "moving_variance"),
    "DUVAE": ("moving_mean", "moving_variance"),
    "HEBAE": ("moving_mean", "moving_covariance", "updates"),
}
OPTIONS = {"MAE": {"prior": "standard_normal"}}


def stream(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x,)).batch(BATCH)


SOURCES = {
    "array": lambda x: x,
    "PyDataset": lambda x: Batches(in_batches(BATCH, x)),
    "tf.data": stream,
}


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).integers(0, 2, (ROWS, SIZE)).astype("float32")


def make(name, learning_rate=0.0, jit_compile=JAX, **options):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((SIZE,)), keras.layers.Dense(3, "tanh")])
    decoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(SIZE)])
    options = {**OPTIONS.get(name, {}), **options}
    model = getattr(zoo, name)(encoder, decoder, latent_dim=DIM, seed=1, **options)
    model.build((None, SIZE))
    eager = not (JAX or jit_compile)
    model.compile(keras.optimizers.SGD(learning_rate), jit_compile=jit_compile, run_eagerly=eager)
    return model


def fit(model, x, source="array", **options):
    size = {"batch_size": BATCH} if source == "array" else {}
    options = {"shuffle": False, "verbose": 0, **size, **options}
    return model.fit(SOURCES[source](x), **options).history


@pytest.mark.large
@pytest.mark.parametrize("name", REPORTS)
def test_terms_of_a_batch_are_averaged_where_they_exist(x, name):
    source = dict(zip(REPORTS, SOURCES, strict=True))[name]
    runs = {}
    for rows in (BATCH, ROWS):
        model = make(name)
        logs = fit(model, x[:rows], source, validation_data=x[:rows], validation_batch_size=BATCH)
        # The noise of both parts goes on, so what is evaluated afterwards starts anew. Under XLA,
        # too, for one of them.
        model = make(name, jit_compile=JAX or name == "WAE")
        size = {"batch_size": BATCH} if source == "array" else {}
        data = SOURCES[source](x[:rows])
        runs[rows] = logs, model.evaluate(data, return_dict=True, verbose=0, **size)
    for report in REPORTS[name]:
        assert abs(runs[BATCH][1][report]) > 1e-3
        np.testing.assert_allclose(runs[ROWS][0][report], runs[BATCH][0][report], rtol=1e-5)
        np.testing.assert_allclose(runs[ROWS][1][report], runs[BATCH][1][report], rtol=1e-5)
    assert runs[ROWS][1]["distortion"] != runs[BATCH][1]["distortion"]


@pytest.mark.large
@pytest.mark.parametrize("name", STATISTICS)
def test_running_statistics_stand_in_for_those_of_one_row(x, name):
    source = dict(zip(STATISTICS, SOURCES, strict=True))[name]
    found = []
    for rows in (BATCH, ROWS):
        model = make(name)
        fit(model, x[:rows], source)
        part = model.head.mean_norm or model.head.reparam
        found.append([ops.convert_to_numpy(getattr(part, v)) for v in STATISTICS[name]])
    assert np.any(found[0][0])
    for of_batch, of_both in zip(*found, strict=True):
        np.testing.assert_allclose(of_both, of_batch, rtol=1e-5)


@pytest.mark.large
def test_the_last_row_trains_by_the_other_terms(x):
    def divergent(diversity):
        term = MutualPosteriorDivergence(diversity, 0.5 * diversity)
        return make("VAE", 0.1, objective=ELBO(regularizers=[term]))

    both, first, last = divergent(4.0), divergent(4.0), make("VAE", 0.1)
    logs = fit(both, x)
    of_first = fit(first, x[:BATCH])
    for variable, value in zip(last.trainable_variables, first.trainable_variables, strict=True):
        variable.assign(ops.convert_to_numpy(value))
    last.head.reparam.noise.state.assign(ops.convert_to_numpy(first.head.reparam.noise.state))
    of_last = last.train_on_batch(x[BATCH:], return_dict=True)
    mean = (BATCH * of_first["loss"][0] + float(of_last["loss"])) / ROWS
    np.testing.assert_allclose(logs["loss"][0], mean, rtol=1e-5)
    for variable, value in zip(both.trainable_variables, last.trainable_variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(variable), ops.convert_to_numpy(value), rtol=1e-4, atol=1e-6
        )


@pytest.mark.large_on_jax
def test_a_single_row_has_no_such_term(x):
    logs = make("WAE").evaluate(x[:1], return_dict=True, verbose=0)
    assert np.isnan(logs["mmd"])
    np.testing.assert_allclose(logs["loss"], logs["distortion"], rtol=1e-6)
