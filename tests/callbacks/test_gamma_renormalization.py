import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.callbacks import GammaRenormalization
from vaezoo.losses import RootMeanSquare

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(64, 4)).astype("float32")
Y = np.tanh(X @ GENERATOR.normal(size=(4, 2))).astype("float32")


def make_model(steps_per_execution=1, second=False, **norm):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4,)), keras.layers.Dense(6)]
    layers.append(keras.layers.BatchNormalization(name="norm", **norm))
    if second:
        layers.append(keras.layers.BatchNormalization(name="other"))
    model = keras.Sequential([*layers, keras.layers.Dense(2)], name="plain")
    model.compile(
        keras.optimizers.Adam(0.05),
        "mse",
        jit_compile=True,
        steps_per_execution=steps_per_execution,
    )
    return model


def fit(model, *callbacks, epochs=1, batch_size=8):
    return model.fit(
        X,
        Y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


def gamma_of(model, name="norm"):
    return model.get_layer(name).gamma.numpy().astype("float64")


def rms(gamma):
    return np.sqrt(np.mean(gamma**2))


@pytest.mark.large
def test_every_update_ends_at_the_target_and_gains_go_apart():
    model = make_model()
    # One update an epoch: what the logs show holds after each.
    logs = fit(model, GammaRenormalization(0.5), epochs=6, batch_size=64)
    np.testing.assert_allclose(logs["gamma_rms"], 0.5, rtol=1e-6)
    gamma = gamma_of(model)
    assert np.std(gamma) > 0.01
    assert logs["gamma_min"][-1] == gamma.min()
    assert logs["gamma_max"][-1] == gamma.max()


@pytest.mark.large
def test_without_it_the_root_mean_square_moves():
    model = make_model()
    fit(model)
    assert abs(rms(gamma_of(model)) - 1.0) > 0.01


@pytest.mark.large
def test_several_steps_in_one_execution_are_renormalized_one_by_one():
    one, four = make_model(), make_model(steps_per_execution=4)
    for model in (one, four):
        logs = fit(model, GammaRenormalization(0.5))
        np.testing.assert_allclose(logs["gamma_rms"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(gamma_of(four), gamma_of(one), rtol=1e-4)


@pytest.mark.large
def test_it_reaches_a_step_that_was_compiled_before_and_may_be_changed():
    model = make_model()
    fit(model)
    for target in (0.5, 0.7):
        logs = fit(model, GammaRenormalization(target, layers=model.get_layer("norm")))
        np.testing.assert_allclose(logs["gamma_rms"], target, rtol=1e-6)
    # And it stays when the callback goes.
    fit(model)
    np.testing.assert_allclose(rms(gamma_of(model)), 0.7, rtol=1e-6)


@pytest.mark.large
def test_several_layers_are_logged_by_name():
    model = make_model(second=True)
    logs = fit(model, GammaRenormalization(0.3, layers=["norm", "other"]))
    for name in ("norm", "other"):
        np.testing.assert_allclose(logs[f"{name}_gamma_rms"], 0.3, rtol=1e-6)
        np.testing.assert_allclose(rms(gamma_of(model, name)), 0.3, rtol=1e-6)
    assert "gamma_rms" not in logs


@pytest.mark.large
def test_frozen_gains_are_scaled_once():
    model = make_model()
    model.get_layer("norm").trainable = False
    fit(model, GammaRenormalization(0.5))
    np.testing.assert_array_equal(gamma_of(model), np.full(6, 0.5))


@pytest.mark.large
def test_a_constraint_of_the_layer_gives_the_target():
    model = make_model(second=True, gamma_constraint=RootMeanSquare(0.4))
    step = model.make_train_function
    model.make_train_function = lambda force=False: pytest.fail("recompiled") if force else step()
    logs = fit(model, GammaRenormalization())
    np.testing.assert_allclose(logs["gamma_rms"], 0.4, rtol=1e-6)
    assert model.get_layer("other").gamma.constraint is None


@pytest.mark.large
def test_mean_batch_norm_knows_its_target(make_vae, images):
    model = make_vae(zoo.DUVAE, gamma=0.6, keep_prob=1.0)
    logs = model.fit(images[0], verbose=0, callbacks=[GammaRenormalization()]).history
    np.testing.assert_allclose(logs["gamma_rms"], 0.6, rtol=1e-6)
    assert logs["gamma_min"][0] < 0.6 < logs["gamma_max"][0]
    begin(model, 0.6)
    with pytest.raises(ValueError, match="was made with, 0.6. Received: gamma=0.5"):
        begin(model, 0.5)


class Spoiler(keras.callbacks.Callback):
    """Sets the gains behind the optimizer's back."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def on_epoch_end(self, epoch, logs=None):
        gamma = self.model.get_layer("norm").gamma
        gamma.assign(np.full(gamma.shape, self.value, "float32"))


@pytest.mark.large
@pytest.mark.parametrize("value", [0.50001, np.nan])
def test_gains_off_the_target_stop_the_training(value):
    # 0.50001 is off by 2e-5 of the target.
    with pytest.raises(RuntimeError, match="After epoch 0 `gamma` of layer 'norm' should have the"):
        fit(make_model(), Spoiler(value), GammaRenormalization(0.5), epochs=2)


@pytest.mark.large
def test_rounding_does_not():
    fit(make_model(), Spoiler(0.500001), GammaRenormalization(0.5), epochs=2, batch_size=64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"gamma": 0.0},
            ValueError,
            "`gamma` must be a .*positive number or None. Received: gamma=0.0",
        ),
        ({"gamma": float("nan")}, ValueError, "gamma=nan"),
        ({"gamma": 1.0, "layers": []}, ValueError, "`layers` must not be empty"),
        ({"gamma": 1.0, "layers": ["norm", 3]}, TypeError, "names of layers. Received: layers=3"),
    ],
)
def test_errors_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        GammaRenormalization(**arguments)


def begin(model, *arguments, **keywords):
    callback = GammaRenormalization(*arguments, **keywords)
    callback.set_model(model)
    callback.on_train_begin()


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ({}, {}, "`gamma` must be given, since layer 'norm' has no target. Received: gamma=None"),
        ({"second": True}, {"gamma": 0.5}, "layers=None, with norm, other in the model"),
        ({}, {"gamma": 0.5, "layers": "dense"}, "Layer 'dense.*' must have a variable `gamma`.*"),
        ({}, {"gamma": 0.5, "layers": "nrom"}, "with normalization: norm. Received: 'nrom'"),
        ({"scale": False}, {"gamma": 0.5}, "needs a normalization layer .* model 'plain' without"),
        (
            {"scale": False},
            {"gamma": 0.5, "layers": "norm"},
            "Received: a BatchNormalization without one",
        ),
        (
            {"gamma_initializer": "zeros"},
            {"gamma": 0.5},
            "finite numbers that are not all zero. Received: gamma_rms=0.0",
        ),
        ({"gamma_constraint": "non_neg"}, {"gamma": 0.5}, "no other constraint. Received: NonNeg"),
    ],
)
def test_errors_before_training(model, arguments, message):
    if arguments.get("layers") == "dense":
        # Keras numbers the layers of a process.
        model = make_model(**model)
        arguments = {**arguments, "layers": model.layers[0].name}
    else:
        model = make_model(**model)
    with pytest.raises(ValueError, match=message):
        begin(model, **arguments)


def test_error_for_a_layer_of_another_model():
    with pytest.raises(ValueError, match="`layers` must be layers of the model.*'elsewhere'"):
        begin(make_model(), 0.5, keras.layers.BatchNormalization(name="elsewhere"))


def test_error_for_a_layer_that_is_not_built():
    model = keras.Sequential([keras.layers.BatchNormalization(name="norm")])
    with pytest.raises(ValueError, match="Received: a BatchNormalization that is not built"):
        begin(model, 0.5, "norm")
