"""A training that goes on from its checkpoint ends with the bits of one that never stopped."""

import os
import signal
import time

import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.callbacks import Checkpoint
from vaezoo.core import signals
from vaezoo.core.checkpoints import position_of

XLA = keras.backend.backend() == "jax"


class Stop(keras.callbacks.Callback):
    """Stops a training as a batch begins."""

    def __init__(self, epoch, batch, number=None):
        super().__init__()
        self.place, self.number = (epoch, batch), number

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) != self.place:
            return
        if self.number is None:
            raise KeyboardInterrupt
        os.kill(os.getpid(), self.number)


def values(model):
    variables = (*model.variables, *model.optimizer.variables)
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assert_same_bits(one, other):
    (model, history), (expected, whole) = one, other
    assert history.epoch == whole.epoch
    assert history.history == whole.history
    for found, value in zip(values(model), values(expected), strict=True):
        np.testing.assert_array_equal(found, value)


def classifier():
    """A model of Keras alone, with noise and a metric of `compile`."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dropout(0.3), keras.layers.Dense(2, "softmax")]
    )
    optimizer = keras.optimizers.Adam(0.05)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=XLA)
    return model


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)).astype("float32"), RNG.integers(2, size=40)


def fit_classifier(callbacks, epochs=3, **kwargs):
    model = classifier()
    data = {"x": X, "y": Y, "batch_size": 8, "verbose": 0, **kwargs}
    return model, model.fit(epochs=epochs, callbacks=callbacks, **data)


def plateau():
    return keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1.0)


@pytest.mark.large
def test_any_keras_model_goes_on(tmp_path):
    def callbacks(*more):
        lowers = plateau()
        return [*more, lowers, Checkpoint(tmp_path, 2, remembering=[lowers])]

    whole = fit_classifier([plateau()])
    for place, saved in (((0, 3), (0, 2)), ((1, 0), (1, 0)), ((2, 4), (2, 2))):
        with pytest.raises(KeyboardInterrupt):
            fit_classifier(callbacks(Stop(*place)))
        assert position_of(tmp_path / "checkpoint.zip") == saved
    assert_same_bits(fit_classifier(callbacks()), whole)
    # Nothing is left to do, and more epochs are.
    assert_same_bits(fit_classifier(callbacks()), whole)
    assert_same_bits(fit_classifier(callbacks(), 4), fit_classifier([plateau()], 4))


def small_vae():
    keras.utils.set_random_seed(3)
    encoder, decoder = zoo.networks.make("mlp", (4,), 2, hidden_units=(4,))
    model = zoo.VAE(encoder, decoder, latent_dim=2)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=XLA)
    return model


class Shuffled(keras.utils.PyDataset):
    """Batches in an order that goes on from epoch to epoch."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(5)
        self.rows = np.arange(24)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return (np.eye(4, dtype="float32")[self.rows[i * 6 : (i + 1) * 6] % 4],)

    def on_epoch_end(self):
        self.rng.shuffle(self.rows)

    def get_state(self):
        return self.rng.bit_generator.state, [self.rows.copy()]

    def set_state(self, values, arrays):
        self.rng.bit_generator.state = values
        (rows,) = arrays
        self.rows[:] = rows


@pytest.mark.large
@pytest.mark.parametrize("kind", ["array", "PyDataset"])
def test_a_vae_goes_on_with_arrays_and_with_data_that_have_a_state(kind, tmp_path):
    def fit(*callbacks):
        x = Shuffled() if kind == "PyDataset" else np.eye(4, dtype="float32")[np.arange(24) % 4]
        model, size = small_vae(), {} if kind == "PyDataset" else {"batch_size": 6}
        stopping = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
        return model, model.fit(x, epochs=3, callbacks=[*callbacks, stopping], verbose=0, **size)

    whole = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(Checkpoint(tmp_path, 1), Stop(2, 3))
    assert position_of(tmp_path / "checkpoint.zip") == (2, 3)
    assert_same_bits(fit(Checkpoint(tmp_path)), whole)


def test_what_cannot_go_on_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit_classifier([Checkpoint(tmp_path, 3), Stop(0, 4)])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"checkpoint.zip' is of another model: it has"):
        model.fit(X, X, callbacks=[Checkpoint(tmp_path)], verbose=0)
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("sgd", "mse", run_eagerly=True)
    if not XLA:
        with pytest.raises(ValueError, match="The model must be built before"):
            unbuilt.fit(X, X, callbacks=[Checkpoint(tmp_path)], verbose=0)
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=2)
    with pytest.raises(ValueError, match="`steps_per_execution` must divide 3, .*Received: .*=2"):
        model.fit(X, Y, batch_size=8, callbacks=[Checkpoint(tmp_path)], verbose=0)
    with pytest.raises(ValueError, match="The data end before batch 3 of the epoch"):
        fit_classifier([Checkpoint(tmp_path)], x=X[:10], y=Y[:10])
    (tmp_path / "checkpoint.zip").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"checkpoint.zip' is broken"):
        fit_classifier([Checkpoint(tmp_path)])
    with pytest.raises(ValueError, match="must have one `Checkpoint` at most"):
        small_vae().fit(np.eye(4), callbacks=[Checkpoint(tmp_path), Checkpoint(tmp_path)])


@pytest.mark.one_backend
def test_a_training_tells_where_it_goes_on(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        fit_classifier([Checkpoint(tmp_path, 3), Stop(0, 4)])
    fit_classifier([Checkpoint(tmp_path)], epochs=1, verbose=2)
    assert "Going on after epoch 1 of 1, batch 3 of 5\n" in capsys.readouterr().out


@pytest.mark.one_backend
def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="`every` must be a positive number of steps, or a time"):
        Checkpoint(tmp_path, "soon")
    with pytest.raises(TypeError, match="`remembering` must hold callbacks, or data with"):
        Checkpoint(tmp_path, remembering=[3])


@pytest.fixture
def terminates():
    """SIGTERM raises a `KeyboardInterrupt`."""

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    yield handler
    signal.signal(signal.SIGTERM, before)


@pytest.mark.one_backend
def test_a_signal_waits_once(monkeypatch, terminates):
    held = signals.HeldSignals()

    def fit(work=signal.raise_signal, argument=signal.SIGTERM):
        work(argument)

    held.begin()
    try:
        with pytest.raises(KeyboardInterrupt):
            fit()
        held.holding = True
        fit()
        assert held.heard == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            held.deliver()
        fit()
        with pytest.raises(KeyboardInterrupt):
            fit()
        # No training goes on any more.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        # One that nobody has time for.
        monkeypatch.setattr(signals, "GRACE", 0.05)
        fit()
        with pytest.raises(KeyboardInterrupt):
            fit(time.sleep, 10)
        # Another training takes the place of one that did not end.
        other = signals.HeldSignals()
        other.begin()
        other.end()
        assert signal.getsignal(signal.SIGTERM) is terminates
    finally:
        held.end()


@pytest.mark.large
@pytest.mark.one_backend
def test_a_signal_saves_and_does_what_it_did(tmp_path, terminates):
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        small_vae().fit(
            np.eye(4), batch_size=1, callbacks=[checkpoint, Stop(0, 1, signal.SIGTERM)], verbose=0
        )
    assert position_of(checkpoint.file) == (0, 2)
    assert signal.getsignal(signal.SIGTERM) is terminates
