import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches, in_batches
from vaezoo import metrics, zoo
from vaezoo.callbacks import AggressiveTraining

BACKEND = keras.backend.backend()


class Scripted(AggressiveTraining):
    """Takes its measurements from a list, one an epoch."""

    def __init__(self, script, **options):
        super().__init__(**options)
        self.script = iter(script)

    def _measure(self):
        return next(self.script)


@pytest.fixture(scope="module")
def model(make_vae):
    """Aggressive for one inner step, so that epochs are fast."""
    return make_vae(zoo.AggVAE, max_inner_steps=1)


@pytest.fixture
def ready(model):
    """The model at the beginning of its phase."""
    model.phase.aggressive.assign(1)
    model.phase.below.assign(0)
    for variable in (model.phase.previous, model.phase.best):
        variable.assign(np.finfo("float32").min)
    return model


def train(model, images, callback, epochs, **options):
    return model.fit(
        images[0], batch_size=40, epochs=epochs, verbose=0, callbacks=[callback], **options
    ).history


@pytest.mark.large
@pytest.mark.parametrize(
    ("script", "options", "aggressive"),
    [
        # Below the epoch before, once.
        ([0.5, 0.7, 0.7, 0.6], {"stop": "drop"}, [1, 1, 1, 1, 0]),
        ([-0.1, -0.2], {"stop": "drop"}, [1, 1, 0]),
        # Below the best so far, twice, which a new best between does not undo.
        (
            [0.5, 0.4, 0.45, 0.9],
            {"stop": "patience", "patience": 2},
            [1, 1, 1, 0, 0],
        ),
        ([0.5, 0.4, 0.6, 0.6, 0.55], {"stop": "patience", "patience": 2}, [1, 1, 1, 1, 1, 0]),
        # Images by themselves have patience; what is no number ends nothing.
        ([0.5, 0.4, float("nan"), 0.4], {"patience": 2}, [1, 1, 1, 1, 0]),
    ],
    ids=["drop", "negative", "patience", "never reset", "auto"],
)
def test_rules(ready, images, script, options, aggressive):
    callback = Scripted(script, validation_data=images[0], **options)
    log = train(ready, images, callback, len(aggressive))
    assert log["aggressive"] == aggressive
    ended = aggressive.index(0)
    measured = [entry["mutual_information"] for entry in callback.history]
    np.testing.assert_allclose(measured, script[:ended], rtol=1e-6)
    np.testing.assert_array_equal(log["mutual_information"], measured)
    assert [entry["aggressive"] for entry in callback.history] == [True] * (ended - 1) + [False]
    assert not ready.phase.active


def test_texts_stop_at_the_first_drop(ready, images, monkeypatch):
    monkeypatch.setattr(
        type(ready.likelihood), "num_predicted", lambda self, x: ops.ones(len(x)), raising=False
    )
    assert ready.window == 15
    callback = Scripted([0.5, 0.4], validation_data=images[0])
    callback.set_model(ready)
    callback.on_train_begin()
    callback.on_epoch_end(0, {})
    assert ready.phase.active
    callback.on_epoch_end(1, {})
    assert not ready.phase.active


@pytest.mark.large_on_jax
def test_it_measures_within_batches(ready, images):
    x = images[0]

    def measured(data, **options):
        callback = AggressiveTraining(data, **options)
        callback.set_model(ready)
        callback.on_train_begin()
        logs = {}
        callback.on_epoch_end(0, logs)
        return logs["mutual_information"]

    value = measured(x, batch_size=10)
    # Other draws of the same posteriors.
    expected = metrics.mutual_information(
        ready, x, estimator="batch", batch_size=10, num_samples=50
    )
    posterior = ready.encode(x, batch_size=40)
    error = metrics.mutual_information(posterior, estimator="batch", batch_size=10).standard_error
    assert value == pytest.approx(expected.value, abs=5 * error)
    assert abs(value - measured(x, batch_size=40)) > 1e-6
    same = [
        measured((x, images[1]), batch_size=10),
        measured(Batches(in_batches(10, x, np.zeros(40)))),
    ]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        same.append(measured(tf.data.Dataset.from_tensor_slices(x).batch(10)))
    assert same == pytest.approx([value] * len(same), rel=1e-5)
    # Of a single example nothing is known.
    parts = [measured(x[:24], batch_size=24), measured(Batches(in_batches(24, x[:25])))]
    assert parts[1] == pytest.approx(parts[0] * 24 / 25, rel=1e-5)
    assert measured(x, seed=1) != measured(x, seed=0)


@pytest.mark.large
def test_fit_brings_it_along(ready, images):
    x = images[0]
    log = ready.fit(x, batch_size=40, verbose=0, validation_data=x[:20]).history
    assert np.isfinite(log["mutual_information"]).all()
    split = ready.fit(x, batch_size=40, verbose=0, validation_split=0.5).history
    assert np.isfinite(split["mutual_information"]).all()
    own = AggressiveTraining(x[20:])
    train(ready, images, own, 1, validation_data=x[:20])
    assert own._data is own.validation_data
    ready.phase.end()
    later = ready.fit(x, batch_size=40, verbose=0, validation_data=x[:20]).history
    assert "mutual_information" not in later


def test_it_wants_an_aggressive_model_and_data(make_vae, ready, images):
    with pytest.raises(ValueError, match="needs a model with an aggressive phase.*Received: .*VAE"):
        train(make_vae(), images, AggressiveTraining(images[0]), 1)
    with pytest.raises(ValueError, match="reads `validation_data` .* Received: NoneType"):
        train(ready, images, AggressiveTraining(), 1)
    batches = (images[0] for _ in range(2))
    with pytest.raises(ValueError, match="reads `validation_data` .* Received: generator"):
        train(ready, images, AggressiveTraining(batches), 1)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "never"}, "`stop` must be one of 'auto', 'drop', 'patience'.*stop='never'"),
        ({"patience": 0}, "`patience` must be a positive integer.*patience=0"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer.*batch_size=0"),
        ({"seed": -1}, "`seed` must be an integer in .*seed=-1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AggressiveTraining(**options)
