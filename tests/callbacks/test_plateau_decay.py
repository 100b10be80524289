import json
import math

import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.callbacks.plateau_decay import PlateauDecay
from vaezoo.losses import ELBO, LinearSchedule

STEPS = 4
# JAX is slow without its compiler, TensorFlow is slow to start with one.
QUICK = {"jit_compile": keras.backend.backend() == "jax"}


class Script(keras.callbacks.Callback):
    """Logs given values, and notes the weights that each epoch ends with."""

    def __init__(self, values):
        super().__init__()
        self.values, self.weights = values, []

    def on_epoch_end(self, epoch, logs=None):
        logs["script"] = self.values[epoch]
        self.weights.append(flat(self.model))


class After(keras.callbacks.Callback):
    """Notes what the callbacks before it have left at the end of an epoch."""

    def __init__(self):
        super().__init__()
        self.weights, self.iterations, self.moments = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(flat(self.model))
        self.iterations.append(int(self.model.optimizer.iterations.numpy()))
        slots = [v for v in self.model.optimizer.variables if "momentum" in v.name]
        self.moments.append(max(np.abs(v.numpy()).max() for v in slots))


def flat(model):
    return np.concatenate([v.numpy().ravel() for v in model.trainable_variables])


def train(model, x, values, *callbacks, **options):
    script, after = Script(values), After()
    decay = PlateauDecay(monitor="script", **options)
    logs = model.fit(
        x, batch_size=10, epochs=len(values), verbose=0, shuffle=False,
        callbacks=[script, decay, after, *callbacks],
    ).history  # fmt: skip
    return decay, logs, script, after


@pytest.fixture(scope="module")
def model(make_vae):
    """Batch normalization, a schedule of the objective, and an optimizer with moments."""
    encoder = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(momentum=0.5),
        ]
    )
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(16), keras.layers.Reshape((4, 4, 1))]
    )
    model = zoo.VAE(encoder, decoder, latent_dim=2, objective=ELBO(LinearSchedule(1000)), seed=1)
    model.build((None, 4, 4, 1))
    model.compile(keras.optimizers.Adam(0.01))
    # What is compiled here, no test waits for.
    model.fit(np.zeros((10, 4, 4, 1)), batch_size=10, verbose=0)
    return model


@pytest.fixture
def ready(model):
    """The model with the learning rate and optimizer of a start."""
    model.optimizer.iterations.assign(0)
    model.optimizer.learning_rate.assign(0.01)
    for variable in model.optimizer.variables[2:]:
        variable.assign(np.zeros(variable.shape))
    return model


@pytest.mark.large
def test_plateaus_lower_the_rate_and_go_back(ready, images):
    values = [5.0, 3.0, 4.0, 3.0, 3.5, math.nan, 2.0, 2.5, 2.1]
    objective_steps = int(ready.objective._weight.step.numpy())
    decay, logs, script, after = train(
        ready, images[0], values, patience=2, start_epoch=4, max_decays=3
    )

    # Equal values are no improvement; epochs 2 and 3 are two of them, but before `start_epoch`.
    assert [(d["epoch"], d["learning_rate"]) for d in decay.decays] == [
        (4, pytest.approx(0.005)),
        (8, pytest.approx(0.0025)),
    ]
    assert [d["value"] for d in decay.decays] == [3.5, 2.1]
    np.testing.assert_allclose(logs["learning_rate"], [0.01] * 5 + [0.005] * 4, rtol=1e-6)
    assert (decay.best, decay.best_epoch) == (2.0, 6)

    np.testing.assert_array_equal(after.weights[4], script.weights[1])
    np.testing.assert_array_equal(after.weights[8], script.weights[6])
    np.testing.assert_array_equal(flat(ready), script.weights[6])
    for epoch in (0, 1, 2, 3, 5, 6, 7):
        np.testing.assert_array_equal(after.weights[epoch], script.weights[epoch])
    assert after.iterations == [*(STEPS * n for n in (1, 2, 3, 4)), 0, 4, 8, 12, 0]
    assert after.moments[4] == after.moments[8] == 0.0
    assert min(after.moments[3], after.moments[7]) > 0.0
    # The weight of the rate goes on, whatever the weights went back to.
    assert int(ready.objective._weight.step.numpy()) == objective_steps + 9 * STEPS


@pytest.mark.large
def test_statistics_go_back_with_the_weights(ready, images):
    norm = ready.encoder.layers[-1]
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(norm.moving_variance.numpy().copy())
    )
    decay, *_ = train(ready, images[0], [1.0, 2.0, 3.0], note, patience=2)
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[2], seen[0])
    assert len(decay.decays) == 1


@pytest.mark.large
def test_the_last_plateau_ends_training(ready, images):
    decay, logs, *_ = train(ready, images[0], [1.0, 2.0, 2.0, 2.0, 2.0], patience=1, max_decays=2)
    assert len(logs["loss"]) == 3
    assert [d["epoch"] for d in decay.decays] == [1, 2]


@pytest.mark.large
def test_the_compiled_step_takes_the_new_rate_and_keeps_its_place(ready, images):
    decay, _, script, after = train(
        ready, images[0], [1.0, 2.0, 3.0, 4.0],
        patience=2, factor=1e-7, restore_best=False, reset_optimizer=False,
    )  # fmt: skip
    assert np.abs(script.weights[2] - script.weights[1]).max() > 1e-3
    np.testing.assert_array_equal(after.weights[2], script.weights[2])
    np.testing.assert_allclose(script.weights[3], script.weights[2], atol=1e-7)
    assert after.moments[2] > 0.0
    assert after.iterations[3] == after.iterations[0] + 3 * STEPS
    np.testing.assert_array_equal(flat(ready), script.weights[0])


@pytest.mark.large
def test_a_factor_for_each_step_until_the_rate_is_too_low(ready, images):
    decay, logs, *_ = train(
        ready, images[0], [3.0, 2.0, 1.0, 1.0, 0.5, 0.0], step_factor=0.95, patience=1,
        min_relative_rate=0.3, max_decays=None,
    )  # fmt: skip
    rates = 0.01 * np.array([1.0, *(0.95 ** (STEPS * n) for n in (1, 2, 3))])
    # Half of 0.95^16 is 0.22, below 0.3: the plateau of epoch 3 ends it.
    np.testing.assert_allclose(logs["learning_rate"], rates, rtol=1e-5)
    assert decay.decays[0]["learning_rate"] == pytest.approx(0.005 * 0.95**16, rel=1e-5)


def test_epochs_of_the_warm_up_count_for_nothing(ready, images):
    decay, _, script, after = train(
        ready, images[0], [1.0, 2.0, 5.0, 4.0, 6.0, 6.0], warm_up=2, patience=2
    )
    assert (decay.best, decay.best_epoch) == (4.0, 3)
    assert [d["epoch"] for d in decay.decays] == [5]
    np.testing.assert_array_equal(after.weights[5], script.weights[3])


def test_a_training_within_the_warm_up_keeps_its_last_weights(ready, images):
    decay, _, script, _ = train(ready, images[0], [1.0, 2.0], warm_up=2, patience=1)
    assert (decay.best, decay.best_epoch, decay.decays) == (math.inf, None, [])
    np.testing.assert_array_equal(flat(ready), script.weights[1])


@pytest.mark.parametrize(("compare_with", "epochs"), [("best", [2, 4, 6]), ("decay", [2, 7])])
def test_what_an_epoch_is_compared_with(ready, images, compare_with, epochs):
    # Epochs 3 and 5 are better than any since epoch 2, whose decay they follow; not than epoch 0.
    values = [1.0, 2.0, 3.0, 2.5, 2.6, 2.4, 2.7, 2.7]
    decay, _, script, after = train(ready, images[0], values, compare_with=compare_with, patience=2)
    assert [d["epoch"] for d in decay.decays] == epochs
    # Either goes back to the best of all.
    assert decay.best_epoch == 0
    np.testing.assert_array_equal(after.weights[2], script.weights[0])


def test_a_plateau_after_which_every_epoch_decays(ready, images):
    decay, logs, script, after = train(
        ready, images[0], [4.0, 5.0, 3.0, 3.0, 2.0, 1.0, 0.5, 0.4],
        patience=1, start_epoch=2, repeat=True, max_decays=None, min_relative_rate=0.1,
        restore_best=False, reset_optimizer=False,
    )  # fmt: skip
    # Epoch 1 is too early; from epoch 3 on the values improve in vain, until 1/16 < 0.1.
    assert [d["epoch"] for d in decay.decays] == [3, 4, 5, 6]
    rates = 0.01 * np.array([1, 1, 1, 1, 1 / 2, 1 / 4, 1 / 8])
    np.testing.assert_allclose(logs["learning_rate"], rates, rtol=1e-6)
    np.testing.assert_array_equal(after.weights[3], script.weights[3])


@pytest.mark.large
@pytest.mark.one_backend
def test_averages_of_weights_are_what_is_kept(make_vae, images):
    x, _ = images
    model = make_vae()
    model.compile(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9), **QUICK)
    script = Script([3.0, 1.0, 2.0, 3.0, 4.0])
    decay, after = PlateauDecay(monitor="script", patience=2), After()
    swap = keras.callbacks.SwapEMAWeights()
    logs = model.fit(
        x, batch_size=10, epochs=5, verbose=0, validation_data=(x,),
        callbacks=[script, decay, after, swap],
    ).history  # fmt: skip
    assert [d["epoch"] for d in decay.decays] == [3]
    # The averages of epoch 1, whose closed-form rate validation saw.
    rate = model.evaluate(x, verbose=0, return_dict=True)["rate"]
    assert rate == pytest.approx(logs["val_rate"][1], rel=1e-4)
    assert abs(rate - logs["val_rate"][4]) > 1e-3 * rate
    # Training went on from the raw weights, and the averages from where they were.
    np.testing.assert_array_equal(after.weights[3], script.weights[1])
    assert np.abs(flat(model) - script.weights[1]).max() > 1e-3
    assert after.iterations[3:] == [1, 1 + STEPS]
    assert after.moments[3] == 0.0


@pytest.mark.large
def test_the_negative_elbo_of_validation_is_the_default(make_vae, images):
    x, _ = images
    model, decay = make_vae(zoo.BetaVAE, beta=5.0), PlateauDecay()
    logs = model.fit(
        x, batch_size=20, epochs=2, verbose=0, validation_data=(x,), callbacks=[decay]
    ).history
    elbo = np.add(logs["val_distortion"], logs["val_rate"])
    assert decay.best == pytest.approx(elbo.min())
    assert decay.best < min(logs["val_loss"]) - 1e-3
    with pytest.raises(ValueError, match="`monitor` must name .*: distortion, loss, rate; .*val_d"):
        model.fit(x, batch_size=20, verbose=0, callbacks=[PlateauDecay()])


def test_a_schedule_for_a_learning_rate_is_refused(make_vae, images):
    model = make_vae()
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)))
    with pytest.raises(ValueError, match="whose `learning_rate` is a number.*'adam.*' with a sch"):
        model.fit(images[0], verbose=0, callbacks=[PlateauDecay()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, r"`factor` must be a number in \(0, 1\). Received: factor=1.0"),
        ({"factor": 0.0}, "factor=0.0"),
        ({"patience": 0}, "`patience` must be a positive integer. Received: patience=0"),
        ({"patience": 2.5}, "patience=2.5"),
        ({"start_epoch": -1}, "`start_epoch` must be a non-negative integer.*start_epoch=-1"),
        ({"warm_up": -1}, "`warm_up` must be a non-negative integer. Received: warm_up=-1"),
        ({"compare_with": "last"}, "`compare_with` must be .*compare_with='last'"),
        ({"max_decays": 0}, "`max_decays` must be a positive integer or None.*max_decays=0"),
        ({"max_decays": True}, "max_decays=True"),
        (
            {"min_relative_rate": 1.0},
            r"`min_relative_rate` must be a number in \[0, 1\). Received: min_relative_rate=1.0",
        ),
        ({"min_relative_rate": -0.1}, "min_relative_rate=-0.1"),
        (
            {"step_factor": 1.1},
            r"`step_factor` must be a number in \(0, 1\].*step_factor=1.1",
        ),
        ({"step_factor": 0.0}, "step_factor=0.0"),
        ({"monitor": "val_loss+"}, r"`monitor` must be a name .*Received: monitor='val_loss\+'"),
        ({"monitor": 3}, "monitor=3"),
    ],
)
def test_errors_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        PlateauDecay(**arguments)


# -- an interrupted training ---------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize("stop", range(1, 6))
def test_a_training_that_is_interrupted_ends_as_one_that_is_not(ready, stop):
    x = np.random.default_rng(0).uniform(size=(40, 4, 4, 1)).astype("float32")
    values = [5.0, 4.0, 4.5, 4.2, 3.9, 4.1, 4.0, 4.3]
    options = {"patience": 2, "max_decays": 2, "min_relative_rate": 0.01}
    start = [np.array(v.numpy()) for v in (*ready.variables, *ready.optimizer.variables)]

    def variables():
        return (*ready.variables, *ready.optimizer.variables)

    def run(first, last, state=None):
        script, decay = Script(values), PlateauDecay(monitor="script", **options)
        restore = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: state and decay.set_state(*state[0])
        )
        kept = {}

        def keep(epoch, logs):
            kept["state"] = decay.get_state()
            kept["variables"] = [np.array(v.numpy()) for v in variables()]

        logs = ready.fit(
            x, batch_size=10, initial_epoch=first, epochs=last, verbose=0, shuffle=False,
            callbacks=[script, decay, restore, keras.callbacks.LambdaCallback(on_epoch_end=keep)],
        ).history  # fmt: skip
        return decay, logs, kept

    whole, logs, _ = run(0, len(values))
    whole_ended = [v.numpy() for v in ready.variables]
    for variable, value in zip(variables(), start, strict=True):
        variable.assign(value)
    _, before, kept = run(0, stop)
    for variable, value in zip(variables(), kept["variables"], strict=True):
        variable.assign(value)
    state, arrays = kept["state"]
    second, after, _ = run(stop, len(values), [(json.loads(json.dumps(state)), arrays)])
    assert len(logs["script"]) == 7
    np.testing.assert_array_equal(before["script"] + after["script"], logs["script"])
    np.testing.assert_array_equal(
        before["learning_rate"] + after["learning_rate"], logs["learning_rate"]
    )
    assert second.decays == whole.decays
    assert (second.best, second.best_epoch) == (whole.best, whole.best_epoch)
    for variable, expected in zip(ready.variables, whole_ended, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_what_is_no_state_is_refused(ready):
    decay = PlateauDecay()
    decay.set_model(ready)
    decay.on_train_begin()
    state, _ = decay.get_state()
    assert state["best"] is None
    assert not state["ended"]
    with pytest.raises(ValueError, match="`values` must be what `get_state` returned"):
        decay.set_state({"best": None}, [])
    with pytest.raises(ValueError, match="`arrays` must have the shapes of the model's state"):
        decay.set_state(state, [np.zeros(3)])
