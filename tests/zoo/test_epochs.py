"""Schedules in epochs: what `fit` tells them, of data of any kind."""

import warnings

import keras
import numpy as np
import pytest

from helpers.sources import Batches, in_batches
from vaezoo import zoo
from vaezoo.callbacks import KLAnnealing, PlateauDecay
from vaezoo.losses import ELBO, InEpochs, LinearSchedule

ROWS, BATCH = 12, 4
#: Mean weight of each of three epochs of three steps, which rises over two of them.
RISING = [1 / 6, 4 / 6, 1.0]


def generator(x):
    while True:
        for i in range(0, len(x), BATCH):
            yield x[i : i + BATCH]


def dataset(x, known=True):
    tf = pytest.importorskip("tensorflow")
    batches = tf.data.Dataset.from_tensor_slices(x).batch(BATCH)
    return batches if known else batches.filter(lambda x: True)


@pytest.fixture
def make(dense_networks):
    """Function of an objective's weight and an optimizer: a compiled VAE of 6 values."""

    def make(beta=None, optimizer="sgd", **options):
        beta = LinearSchedule(2, unit="epochs") if beta is None else beta
        model = zoo.VAE(*dense_networks(), latent_dim=3, objective=ELBO(beta), seed=0)
        eager = keras.backend.backend() == "tensorflow"
        model.compile(optimizer, jit_compile=False, run_eagerly=eager, **options)
        return model

    return make


@pytest.fixture
def x(binary_data):
    return binary_data(ROWS)


@pytest.mark.large
@pytest.mark.parametrize(
    ("source", "options"),
    [
        (lambda x: x, {"batch_size": BATCH}),
        (lambda x: np.concatenate([x, x]), {"batch_size": BATCH, "validation_split": 0.5}),
        # Eleven rows fill three batches, the last of them in part.
        (lambda x: x[:11], {"batch_size": BATCH}),
        (lambda x: Batches(in_batches(BATCH, x)), {}),
        (dataset, {}),
        (lambda x: dataset(x).repeat(), {"steps_per_epoch": 3}),
        (lambda x: dataset(x, known=False).repeat(), {"steps_per_epoch": 3}),
        (generator, {"steps_per_epoch": 3}),
    ],
    ids=["array", "split", "part", "PyDataset", "dataset", "endless", "unknown", "generator"],
)
def test_fit_knows_how_long_an_epoch_is(make, x, source, options):
    logs = make().fit(source(x), epochs=3, verbose=0, **options).history
    # The logged mean is one over examples, of which a batch in part has fewer.
    rows = [BATCH, BATCH, len(source(x)) % BATCH or BATCH] if "batch_size" in options else [1] * 3
    weights = np.array([[0, 1, 2], [3, 4, 5], [6, 6, 6]]) / 6
    expected = np.average(weights, axis=1, weights=rows)
    np.testing.assert_allclose(logs["beta"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "source",
    [generator, lambda x: dataset(x, known=False), lambda x: dataset(x).repeat()],
    ids=["generator", "unknown", "endless"],
)
def test_a_length_that_nobody_knows_is_an_error(make, x, source):
    with pytest.raises(ValueError, match="`steps_per_epoch` must be given.*counts in epochs"):
        make().fit(source(x), verbose=0)


@pytest.mark.large
def test_steps_of_ones_own_have_to_be_told(make, x):
    model = make()
    with pytest.raises(ValueError, match="`steps_per_epoch` must be set.*set_steps_per_epoch"):
        model.train_on_batch(x)
    model.set_steps_per_epoch(2)
    betas = [model.train_on_batch(x, return_dict=True)["beta"] for _ in range(5)]
    np.testing.assert_allclose(betas, [0, 0.25, 0.5, 0.75, 1], rtol=1e-6)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be a positive integer"):
        model.set_steps_per_epoch(0)


@pytest.mark.large
def test_a_saved_model_goes_on_with_batches_of_another_size(make, x, tmp_path):
    rate = InEpochs(keras.optimizers.schedules.PiecewiseConstantDecay([1.5], [0.5, 0.25]))
    model = make(optimizer=keras.optimizers.SGD(rate))
    with pytest.warns(UserWarning, match="`beta` reaches 1 after 2 epochs of 3 steps"):
        logs = model.fit(x, batch_size=BATCH, verbose=0).history
    np.testing.assert_allclose(logs["beta"], RISING[:1], rtol=1e-6)
    model.save(tmp_path / "one.keras")
    revived = keras.saving.load_model(tmp_path / "one.keras")
    config = model.objective.get_config()
    assert revived.objective.get_config() == config
    assert config["beta"]["config"]["clock"] == {"steps_per_epoch": 3, "shift": 0}
    for again in (model, revived):
        # Six steps from now on, of which epoch 1 begins with half the way behind it.
        logs = again.fit(x, batch_size=2, epochs=3, initial_epoch=1, verbose=0).history
        np.testing.assert_allclose(logs["beta"], [0.5 + 2.5 / 12, 1.0], rtol=1e-6)
        assert again.optimizer.learning_rate == 0.25


@pytest.mark.large
def test_learning_rates_fall_at_the_end_of_an_epoch(make, x):
    decay = keras.optimizers.schedules.ExponentialDecay
    seen = []

    class Note(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(float(self.model.optimizer.learning_rate))

    shared = InEpochs(decay(0.1, 1, 0.5, staircase=True))
    for batch_size, steps in ((BATCH, 3), (6, 2)):
        seen.clear()
        model = make(1.0, keras.optimizers.SGD(shared))
        model.fit(x, batch_size=batch_size, epochs=3, verbose=0, callbacks=[Note()])
        expected = np.repeat([0.1, 0.05, 0.025], steps)
        np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert shared.steps_per_epoch is None


@pytest.mark.large
@pytest.mark.one_backend
def test_the_step_is_compiled_once(make, x):
    made = []

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            made.append(id(self.model.train_function))

    model = make()
    for size in (BATCH, BATCH, 2):
        model.fit(x, batch_size=size, epochs=2, verbose=0, callbacks=[Count()])
    assert len(set(made[:4])) == 1
    assert made[4] == made[5] != made[0]


@pytest.mark.one_backend
def test_models_of_a_preset_count_for_themselves():
    words = {"networks": {"vocabulary_size": 9, "embedding_dim": 3, "units": 4}}
    models = [zoo.load("text_vae_text_tiny", model={"latent_dim": 2}, **words) for _ in range(2)]
    for run in models:
        run.model.compile(**run.compile_args)
    models[0].model.set_steps_per_epoch(5)
    schedules = [run.model.objective._weight.schedule for run in models]
    assert [schedule.steps_per_epoch for schedule in schedules] == [5, None]


@pytest.mark.large
def test_ramps_that_do_not_fit_are_warned_of(make, x):
    options = {"batch_size": BATCH, "verbose": 0, "validation_data": x}
    plateau = PlateauDecay(patience=1, start_epoch=1)
    with pytest.warns(UserWarning, match="`beta` reaches 1 after 4 epochs of 3 steps") as seen:
        make(LinearSchedule(12)).fit(x, epochs=3, callbacks=[plateau], **options)
    messages = [str(one.message) for one in seen]
    assert any("PlateauDecay may lower the learning rate after epoch 1" in t for t in messages)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        later = PlateauDecay(patience=1, start_epoch=3)
        make(LinearSchedule(4, unit="epochs")).fit(x, epochs=4, callbacks=[later], **options)


@pytest.mark.large
@pytest.mark.one_backend
def test_regularizers_wait_for_an_epoch(dense_networks, x):
    beta = LinearSchedule(2, unit="epochs")
    model = zoo.DUVAE(*dense_networks(), latent_dim=3, beta=beta, reg_start_weight=1.0)
    dropout = model.head.variance_dropout
    assert (dropout.start_step, dropout.unit) == (2.0, "epochs")
    model.compile("sgd", jit_compile=False, run_eagerly=True)
    low = np.full((2, 3), -20.0, "float32")
    model.fit(x, batch_size=BATCH, epochs=2, verbose=0)
    assert np.all(np.array(dropout(low)) > -3)
    assert dropout.in_steps(dropout.start_step) == 6
    fresh = zoo.DUVAE(*dense_networks(), latent_dim=3, beta=beta, reg_start_weight=1.0)
    fresh.build((None, 6))
    np.testing.assert_array_equal(fresh.head.variance_dropout(low), low)


@pytest.mark.one_backend
def test_a_callback_reads_schedules_of_either_unit_by_epoch(make):
    model = make(1.0)
    for unit in ("steps", "epochs"):
        callback = KLAnnealing(schedule=LinearSchedule(4, unit=unit))
        callback.set_model(model)
        for epoch in range(6):
            callback.on_epoch_begin(epoch)
            assert float(model.objective.beta.value) == pytest.approx(min(1.0, epoch / 4))
