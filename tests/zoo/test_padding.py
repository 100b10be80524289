"""Batches of evaluations that are filled up: values are those of the examples alone."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches, in_batches
from vaezoo import zoo
from vaezoo.losses import ELBO, Loss, MaximumMeanDiscrepancy, MutualPosteriorDivergence
from vaezoo.zoo.vae import padding
from vaezoo.zoo.vae.inputs import Batch, fill_up
from vaezoo.zoo.vae.padding import Sizes

JAX = keras.backend.backend() == "jax"
on_jax = pytest.mark.skipif(not JAX, reason="TensorFlow fills no batch of an evaluation up")
BATCH = 8
PARTS = {"Output", "Preset", "auxiliary_softmax", "load", "networks", "presets"}
CONSTRUCTORS = sorted(set(zoo.__all__) - PARTS)


@on_jax
@pytest.mark.parametrize(
    ("largest", "rows", "sizes"),
    [
        # An array in batches of 8: its last batch is of a size that there was.
        (8, (8, 8, 3), (8, 8, 8)),
        (None, (8, 8, 3), (8, 8, 8)),
        # What is compiled first is not filled up, so that no other call is slowed down by it.
        (8, (5,), (5,)),
        (math.inf, (5,), (5,)),
        # A larger batch than the first one.
        (None, (4, 6), (4, 6)),
    ],
)
def test_sizes_of_a_first_evaluation(largest, rows, sizes):
    compiled, of_evaluation = set(), Sizes(largest)
    assert tuple(of_evaluation.next(n, compiled) for n in rows) == sizes
    assert compiled == set(sizes)


@on_jax
@pytest.mark.parametrize(
    ("largest", "rows", "sizes"),
    [
        (math.inf, (6, 5, 4, 3, 2, 1, 7, 9, 17), (6, 6, 6, 6, 2, 2, 8, 16, 32)),
        # A full batch is worked through as it is.
        (100, (100, 40), (100, 64)),
        (None, (100, 70, 40), (100, 100, 64)),
        (100, (70,), (100,)),
    ],
)
def test_sizes_once_others_are_compiled(largest, rows, sizes):
    compiled = {6, 64} if largest in (100, None) else {6}
    found, of_evaluation = [], Sizes(largest)
    for n in rows:
        if largest == math.inf:
            of_evaluation = Sizes(largest)
        found.append(of_evaluation.next(n, compiled))
    assert tuple(found) == sizes


@pytest.mark.parametrize("y", [None, np.ones((2, 3)), {"weight": np.ones(2)}])
@pytest.mark.parametrize("weight", [None, np.array([0.5, 2.0])])
def test_a_step_is_told_which_rows_are_examples(y, weight):
    x = np.arange(6.0).reshape(2, 3)
    filled = fill_up(x, y, weight, 4)
    batch = Batch.unpack(*filled)
    np.testing.assert_array_equal(batch.x, x[[0, 1, 0, 0]])
    np.testing.assert_array_equal(batch.valid, [True, True, False, False])
    target = y if isinstance(y, np.ndarray) else x
    np.testing.assert_array_equal(batch.target, target[[0, 1, 0, 0]])
    if weight is None:
        assert batch.weight is None
    else:
        np.testing.assert_array_equal(batch.weight, [0.5, 2.0, 0.5, 0.5])


class CountsSizes(keras.layers.Layer):
    """The identity, which keeps the numbers of rows that it is compiled for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.sizes = set()

    def call(self, x):
        self.sizes.add(x.shape[0])
        return x


class Largest(ELBO):
    """Charges the largest rate of a batch, of all of its rows."""

    def bound(self, terms, training):
        return Loss(terms.distortion, ops.max(terms.kl), {})


class Sums(zoo.VAE):
    """Adds a sum over all rows of a batch to the loss."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + ops.sum(ops.square(y_pred.z))


def make(monkeypatch, model=zoo.VAE, filled=True, activity=None, **options):
    keras.utils.set_random_seed(0)
    if not filled:
        monkeypatch.setattr(padding, "can_fill_up", lambda model: False)
    counter = CountsSizes()
    dense = keras.layers.Dense(4, "relu", activity_regularizer=activity, kernel_regularizer="l2")
    encoder = keras.Sequential([keras.Input((6,)), counter, dense])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
    model = model(encoder, decoder, latent_dim=2, seed=1, **options)
    model.compile()
    model.build((None, 6))
    counter.sizes.clear()
    return model, counter


def logs_of(model, x, y=None, weight=None, rows=(21, 3, 1)):
    found = []
    for n in rows:
        parts = (None if part is None else part[:n] for part in (y, weight))
        y, weight = parts
        options = {"batch_size": BATCH, "verbose": 0, "return_dict": True}
        found.append(model.evaluate(x[:n], y, sample_weight=weight, **options))
    found.append(model.test_on_batch(x[:5], return_dict=True))
    return found


def assert_same(found, expected):
    for logs, others in zip(found, expected, strict=True):
        assert set(logs) == set(others)
        for name, value in logs.items():
            np.testing.assert_allclose(value, others[name], rtol=1e-6, atol=1e-6, err_msg=name)


@on_jax
@pytest.mark.large
@pytest.mark.parametrize("given", ["x", "weights", "target"])
def test_values_are_those_of_the_examples(given, binary_data, monkeypatch):
    x, terms = binary_data(21), [MaximumMeanDiscrepancy(seed=2), MutualPosteriorDivergence()]
    weight = np.linspace(0.0, 2.0, 21).astype("float32") if given == "weights" else None
    y = x[::-1] if given == "target" else None
    found = {}
    for filled in (True, False):
        options = {"objective": ELBO(regularizers=terms), "filled": filled}
        model, counter = make(monkeypatch, **options)
        # Equal noise for the prior's draws.
        model.objective.regularizers[0].noise.state.assign([0, 2])
        found[filled] = logs_of(model, x, y, weight)
        assert counter.sizes == ({8, 4, 1} if filled else {8, 5, 3, 1})
    assert_same(found[True], found[False])
    # A single row has no pairs.
    assert np.isnan(found[True][2]["mmd"])


@on_jax
@pytest.mark.large
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_every_model_of_the_zoo_logs_the_same(name, request, small_parts, monkeypatch):
    text, counter = name == "TextVAE", CountsSizes()
    networks = request.getfixturevalue("text_networks" if text else "dense_networks")
    x = request.getfixturevalue("sentences" if text else "binary_data")(13)
    model = getattr(zoo, name)(*networks(first=[counter]), latent_dim=3, **small_parts(name))
    model.compile()
    model.build((None, 6))
    start, found = [ops.convert_to_numpy(v) for v in model.variables], []
    for filled in (True, False):
        monkeypatch.setattr(padding, "can_fill_up", lambda _, filled=filled: filled)
        model.make_test_function(force=True)
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)
        counter.sizes.clear()
        found.append(model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True))
        assert counter.sizes == ({8} if filled else {8, 5})
    assert_same(found[:1], found[1:])


@on_jax
@pytest.mark.large
@pytest.mark.parametrize(
    "parts",
    [{"objective": Largest()}, {"model": Sums}, {"activity": "l2"}],
    ids=["objective", "model", "losses of layers"],
)
def test_parts_that_count_all_rows_are_given_no_others(parts, binary_data, monkeypatch):
    x, found = binary_data(21), {}
    for filled in (True, False):
        model, counter = make(monkeypatch, filled=filled, **parts)
        found[filled] = logs_of(model, x, rows=(21, 3))
        assert counter.sizes == {8, 5, 3}
    assert_same(found[True], found[False])


def tf_data(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x,)).batch(BATCH)


def generator(x):
    yield from in_batches(BATCH, x)


@on_jax
@pytest.mark.large
def test_all_sources_are_filled_up(binary_data, monkeypatch):
    x, found = binary_data(21), []
    model, counter = make(monkeypatch)
    noise = model.head.reparam.noise.state
    start = ops.convert_to_numpy(noise)
    sources = (lambda x: x, lambda x: Batches(in_batches(BATCH, x)), tf_data, generator)
    for source in sources:
        for rows in (21, 19, 18):
            options = {"batch_size": BATCH} if source is sources[0] else {}
            noise.assign(start)
            found.append(model.evaluate(source(x[:rows]), verbose=0, return_dict=True, **options))
    assert_same(found[3:], 3 * found[:3])
    assert counter.sizes == {8}


@on_jax
@pytest.mark.large
def test_validation_compiles_for_few_sizes(binary_data, monkeypatch):
    model, counter = make(monkeypatch)
    for rows in (16, 15, 14, 13):
        x = binary_data(rows)
        history = model.fit(x[:8], validation_data=x, batch_size=BATCH, verbose=0).history
        assert np.all(np.isfinite(history["val_loss"]))
    assert counter.sizes == {8}
