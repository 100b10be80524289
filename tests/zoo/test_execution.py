"""Training steps in one call of the compiled function, where nothing is said."""

import math

import keras
import numpy as np
import pytest

from vaezoo import callbacks, zoo
from vaezoo.zoo.vae import execution
from vaezoo.zoo.vae.data import read_data

TENSORFLOW = keras.backend.backend() == "tensorflow"
#: Batches of 4 of the data, and the epochs in which they are enough for a loop.
BATCHES, EPOCHS = 50, 5

only_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="JAX takes steps one by one")


class Seen(keras.callbacks.Callback):
    """Notes how many steps a call has."""

    def on_epoch_begin(self, epoch, logs=None):
        self.steps = self.model.steps_per_execution


class EachBatch(Seen):
    """Counts the batches that it is told of."""

    told = 0

    def on_train_batch_end(self, batch, logs=None):
        self.told += 1


@pytest.fixture(scope="module")
def data():
    # The last batch is smaller.
    return np.random.default_rng(0).integers(0, 2, (4 * BATCHES - 1, 6)).astype("float32")


@pytest.fixture
def make(dense_networks):
    def make(constructor=zoo.VAE, networks=None, **compile_args):
        keras.utils.set_random_seed(0)
        model = constructor(*(networks or dense_networks()), latent_dim=3, seed=1)
        model.compile("adam", **compile_args)
        return model

    return make


def fit(model, x, epochs=EPOCHS, batch_size=4, **kwargs):
    keras.utils.set_random_seed(1)
    return model.fit(x, batch_size=batch_size, epochs=epochs, verbose=0, **kwargs)


@pytest.fixture
def chosen(data, make):
    """Function that returns the number which `fit` would choose, without training."""

    def chosen(x=data, epochs=EPOCHS, batch_size=4, given=(), options=None, model=None):
        model = model or make(jit_compile=True)
        if not model.built:
            model.build((None, 6))
        read = read_data(model, x, batch_size=batch_size, training=True)
        return execution.steps_at_once(model, read, batch_size, epochs, list(given), options or {})

    return chosen


@pytest.mark.large
@only_tensorflow
@pytest.mark.parametrize("constructor", [zoo.VAE, zoo.DUVAE])
def test_steps_at_once_have_the_values_of_single_ones(data, make, constructor):
    trained = []
    for asked in (1, "auto"):
        seen, model = Seen(), make(constructor, steps_per_execution=asked)
        history = fit(model, data, callbacks=[seen], validation_data=data[:9]).history
        variables = [*model.variables, *model.optimizer.variables]
        trained.append((seen.steps, history, [keras.ops.convert_to_numpy(v) for v in variables]))
        assert model.steps_per_execution == 1
        # Keras' other loops take single steps still.
        assert np.isfinite(model.evaluate(data, batch_size=4, verbose=0)).all()
    (one, history, values), (several, *found) = trained
    assert (one, several) == (1, execution.MOST)
    assert found[0] == history
    for a, b in zip(values, found[1], strict=True):
        np.testing.assert_array_equal(a, b)


@only_tensorflow
def test_short_steps_of_long_fits_are_taken_at_once(chosen, data, make):
    import tensorflow as tf

    assert chosen() == execution.MOST
    assert chosen(tf.data.Dataset.from_tensor_slices(data).batch(4)) == execution.MOST
    # About a second of a core, and never a few.
    model = make(jit_compile=True)
    model.build((None, 6))
    rows = int(execution.FLOP / 6 / sum(math.prod(w.shape) for w in model.trainable_weights))
    x = np.zeros((1, 6), "float32")
    assert chosen(batch_size=rows // 8, epochs=1000, x=x) == 8
    assert chosen(batch_size=rows // 2, epochs=1000, x=x) == 1


@pytest.mark.parametrize(
    "told",
    [
        {"epochs": 1},
        {"options": {"initial_epoch": EPOCHS - 1}},
        {"options": {"steps_per_epoch": 300}},
        {"given": [EachBatch()]},
        {"given": [keras.callbacks.LambdaCallback(on_train_batch_begin=print)]},
        {"given": [keras.callbacks.TerminateOnNaN()]},
    ],
    ids=["short", "resumed", "steps_per_epoch", "own", "lambda", "TerminateOnNaN"],
)
def test_steps_are_single_where_that_matters(chosen, told):
    assert chosen(**told) == 1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_other_networks_and_compilers_take_single_steps(chosen, make, jit_compile):
    if not jit_compile:
        assert chosen(model=make(jit_compile=False)) == 1
        return
    encoder = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Reshape((6, 1)),
            keras.layers.Conv1D(2, 3),
            keras.layers.Flatten(),
        ]
    )
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    assert chosen(model=make(networks=(encoder, decoder), jit_compile=True)) == 1


@only_tensorflow
def test_savers_keep_their_batches(chosen, tmp_path, monkeypatch):
    assert chosen(given=[callbacks.Checkpoint(tmp_path / "a")]) == execution.MOST
    assert chosen(given=[callbacks.Checkpoint(tmp_path / "b", every=20)]) == 1
    assert chosen(given=[callbacks.Checkpoint(tmp_path / "c", every="10m")]) == 1
    saver = callbacks.Checkpoint(tmp_path / "d")
    for batch, steps in ((0, 32), (64, 32), (40, 8), (3, 1)):
        monkeypatch.setattr(saver, "batches_behind", lambda b=batch: b)
        assert chosen(given=[saver]) == steps


@only_tensorflow
@pytest.mark.large
def test_callbacks_and_settings_between_fits_count(data, make):
    model, seen, batches = make(jit_compile=True), Seen(), EachBatch()
    fit(model, data, callbacks=[seen])
    fit(model, data, callbacks=[batches])
    assert (seen.steps, batches.steps, batches.told) == (32, 1, BATCHES * EPOCHS)
    model.train_on_batch(data[:4])
    fit(model, data, callbacks=[seen])
    assert (seen.steps, int(model.optimizer.iterations)) == (32, 3 * BATCHES * EPOCHS + 1)
    model.compile("adam", steps_per_execution=7)
    fit(model, data, callbacks=[seen], validation_split=0.1)
    assert (seen.steps, model.steps_per_execution) == (7, 7)


@pytest.mark.parametrize("given", [1, 3, "auto"])
def test_a_saved_model_keeps_what_was_asked(make, given):
    model = make(steps_per_execution=given)
    config = model.get_compile_config()
    assert config.get("steps_per_execution", "auto") == given
    model.compile_from_config(config)
    assert model.get_compile_config() == config


@pytest.mark.parametrize("value", [0, "x", 1.5, None])
def test_the_number_is_checked(make, value):
    with pytest.raises(ValueError, match="`steps_per_execution` must be"):
        make(steps_per_execution=value)


@only_tensorflow
def test_batches_of_dicts_have_rows(data):
    import tensorflow as tf

    networks = zoo.networks.make("mlp", (6,), 3, hidden_units=[8], condition=2)
    model = zoo.VAE(*networks, latent_dim=3)
    batch = {"x": data, "condition": np.arange(len(data)) % 2}
    batches = tf.data.Dataset.from_tensor_slices(batch).batch(4)
    assert execution._rows(read_data(model, batches, training=True), None) == 4
    assert execution._rows(read_data(model, batch, batch_size=8, training=True), 8) == 8
