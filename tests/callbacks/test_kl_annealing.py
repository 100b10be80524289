import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.callbacks import KLAnnealing
from vaezoo.losses import ELBO, CyclicalSchedule, LinearSchedule


class BetaReader(keras.callbacks.Callback):
    """Notes the variable around validation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_begin(self, logs=None):
        self.seen.append(self.beta())

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.beta())

    def beta(self):
        return float(self.model.objective.beta.numpy())


@pytest.mark.large
def test_the_weight_enters_the_compiled_step(make_vae, images):
    x, _ = images
    model, reader = make_vae(zoo.BetaVAE, beta=7.0), BetaReader()
    arguments = {"batch_size": 10, "verbose": 0, "validation_data": (x[:20],)}
    annealing = KLAnnealing(epochs=4, start=0.5, stop=2.5)
    logs = model.fit(x, epochs=2, callbacks=[annealing, reader], **arguments).history
    more = model.fit(
        x, epochs=6, initial_epoch=2, callbacks=[annealing, reader], **arguments
    ).history
    logs = {name: np.array(values + more[name]) for name, values in logs.items()}

    np.testing.assert_allclose(logs["beta"], [0.5, 1.0, 1.5, 2.0, 2.5, 2.5], rtol=1e-6)
    assert logs["rate"].min() > 1e-2
    np.testing.assert_allclose(
        logs["loss"], logs["distortion"] + logs["beta"] * logs["rate"], rtol=1e-5
    )
    np.testing.assert_allclose(
        logs["val_loss"], logs["val_distortion"] + 2.5 * logs["val_rate"], rtol=1e-5
    )
    # In validation, and back after it, epoch by epoch.
    expected = [2.5, 0.5, 2.5, 1.0, 2.5, 1.5, 2.5, 2.0, 2.5, 2.5, 2.5, 2.5]
    np.testing.assert_allclose(reader.seen, expected, rtol=1e-6)


@pytest.mark.large
def test_training_ends_with_the_final_weight_and_evaluation_restores(make_vae, images):
    model = make_vae()
    annealing = KLAnnealing(epochs=10, stop=3.0)
    model.fit(images[0], epochs=1, verbose=0, callbacks=[annealing])
    assert float(model.objective.beta.numpy()) == 3.0
    model.objective.beta.assign(0.25)
    logs = model.evaluate(images[0], verbose=0, return_dict=True, callbacks=[annealing])
    assert logs["loss"] == pytest.approx(logs["distortion"] + 3.0 * logs["rate"], rel=1e-5)
    assert float(model.objective.beta.numpy()) == 0.25


@pytest.mark.parametrize(
    ("schedule", "expected", "final"),
    [
        (CyclicalSchedule(4, cycles=2, rise=0.5), [0, 1, 0, 1, 1], 1.0),
        (LinearSchedule(2, start=1.0, stop=0.5), [1, 0.75, 0.5, 0.5, 0.5], 0.5),
        (
            keras.optimizers.schedules.PolynomialDecay(1.0, 4, end_learning_rate=0.0),
            [1, 0.75, 0.5, 0.25, 0],
            0.0,
        ),
    ],
)
def test_schedules_count_epochs(make_vae, schedule, expected, final):
    annealing = KLAnnealing(schedule=schedule)
    annealing.set_model(make_vae())
    seen = []
    for epoch in range(5):
        annealing.on_epoch_begin(epoch)
        logs = {}
        annealing.on_epoch_end(epoch, logs)
        seen.append(logs["beta"])
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert annealing.final == final


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Either `epochs` or `schedule` must be given. Received: epochs=None"),
        ({"epochs": 3, "schedule": LinearSchedule(3)}, ValueError, "Received: epochs=3"),
        (
            {"epochs": 0},
            ValueError,
            "`epochs` must be a positive integer or None. Received: epochs=0",
        ),
        ({"epochs": 2.5}, ValueError, "epochs=2.5"),
        ({"epochs": 2, "start": -1.0}, ValueError, "`start` must be a .*non-negative.*start=-1.0"),
        (
            {"epochs": 2, "stop": float("inf")},
            ValueError,
            "`stop` must be a .*non-negative.*stop=inf",
        ),
        ({"schedule": 0.5}, TypeError, "`schedule` must be a vaezoo or Keras schedule.*float"),
        (
            {"schedule": keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, -0.5])},
            ValueError,
            "`schedule` must be non-negative. Received: -0.5 in the end",
        ),
    ],
)
def test_errors_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        KLAnnealing(**arguments)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (ELBO(LinearSchedule(5)), "cannot set a `beta` that follows a schedule"),
        (None, "needs a model whose `objective.beta` is a variable.*ImportanceWeightedELBO"),
    ],
)
def test_errors_before_training(make_vae, images, objective, message):
    model = make_vae(objective=objective) if objective else make_vae(zoo.IWAE)
    with pytest.raises(ValueError, match=message):
        model.fit(images[0], verbose=0, callbacks=[KLAnnealing(epochs=5)])


def test_error_for_a_plain_keras_model():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="Received: model 'sequential.*' with objective NoneType"):
        model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=[KLAnnealing(2)])


def test_error_for_a_weight_below_zero_on_the_way(make_vae):
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [1.0, -0.5, 1.0])
    annealing = KLAnnealing(schedule=decay)
    annealing.set_model(make_vae())
    with pytest.raises(ValueError, match="Received: -0.5 in epoch 3"):
        annealing.on_epoch_begin(3)
