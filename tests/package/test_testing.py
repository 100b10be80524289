"""The checks for tests of one's own hold for what is right, and name what is wrong."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.core.random import SavesNoise, SeedGenerator
from vaezoo.losses import Loss, Regularizer
from vaezoo.testing import (
    check_serialization,
    run_layer_test,
    run_model_test,
    run_objective_test,
)

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class Scale(keras.layers.Layer):
    """Scales, in float32, and has one fault, if any."""

    def __init__(self, factor=2.0, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.fault = factor, fault

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],))
        self.built = True

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 5) if self.fault == "shape" else input_shape

    def compute_output_spec(self, x, training=False):
        return keras.KerasTensor(self.compute_output_shape(x.shape), "float32")

    def call(self, x, training=False):
        x = x if self.fault == "half" else ops.cast(x, "float32")
        gain = ops.stop_gradient(self.gain) if self.fault == "gradient" else self.gain
        if self.fault == "finite" and training:
            return ops.log(-ops.abs(x) * self.factor * gain)
        return x * self.factor * ops.cast(gain, x.dtype)

    def get_config(self):
        kept = {} if self.fault == "config" else {"factor": self.factor}
        return {**super().get_config(), **kept, "fault": self.fault}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (None, ""),
        ("config", "`get_config` holds the argument `factor`"),
        ("shape", "values have the shape of a symbolic call"),
        ("half", "a mixed policy gives float32"),
        ("gradient", "gain has a gradient"),
        ("finite", "are finite"),
    ],
)
def test_faults_of_layers_are_named(fault, message):
    def run():
        return run_layer_test(lambda: Scale(3.0, fault), X)

    if fault is None:
        assert run().built
        run_layer_test(lambda: Scale(3.0), X, output_shape=(None, 3))
        with pytest.raises(AssertionError, match="the output's shape is .*4"):
            run_layer_test(lambda: Scale(3.0), X, output_shape=(None, 4))
        return
    with pytest.raises(AssertionError, match=message):
        run()


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class Noise(keras.layers.Layer):
    """Adds noise, and forgets it when saved."""

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.noise = seed, SeedGenerator(seed)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.noise)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class SavedNoise(SavesNoise, Noise):
    """Adds noise, and goes on with it when loaded."""


def test_noise_goes_on_after_loading_where_it_is_saved():
    run_layer_test(SavedNoise, X, mixed_dtype=None)
    run_layer_test(Noise, X, mixed_dtype=None, saves_noise=False)


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class Counts(keras.initializers.Initializer):
    """An initializer that counts how often its configuration was read."""

    def __init__(self, count=0):
        self.count = count

    def get_config(self):
        self.count += 1
        return {"count": self.count}


class Unknown(keras.initializers.Constant):
    """A class that Keras does not know."""


def test_what_does_not_come_back_is_named():
    assert check_serialization(keras.initializers.Constant(2.0)).value == 2.0
    with pytest.raises(AssertionError, match="the configuration stays"):
        check_serialization(Counts())
    with pytest.raises(AssertionError, match="makes the object again"):
        check_serialization(Unknown(2.0))


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class Penalty(Regularizer):
    """The mean of squared draws, and has one fault, if any."""

    report_names = ("penalty",)

    def __init__(self, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    def call(self, terms, training=False):
        value = ops.mean(ops.square(terms.z))
        if self.fault == "gradient":
            value = ops.stop_gradient(value)
        if self.fault == "one row":
            value = value / ops.cast(ops.shape(terms.z)[0] - 1, "float32")
        name = "other" if self.fault == "report" else "penalty"
        batch = ops.ones((2,)) * value if self.fault == "shape" else value
        return Loss(ops.zeros_like(terms.kl), batch, {name: value})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (None, ""),
        ("gradient", "the loss has a gradient"),
        ("one row", "`batch` of 1 rows, training=True are finite"),
        ("report", r"the report holds \['penalty'\]"),
        ("shape", r"`batch` is float32 of shape \(\)"),
    ],
)
def test_faults_of_objectives_are_named(fault, message):
    if fault is None:
        assert run_objective_test(Penalty).built
        return
    with pytest.raises(AssertionError, match=message):
        run_objective_test(lambda: Penalty(fault))


@pytest.mark.large
def test_a_model_of_ones_own_passes():
    def make():
        encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh")])
        decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
        return zoo.VAE(encoder, decoder, latent_dim=2)

    x = np.random.default_rng(0).integers(0, 2, (33, 6)).astype("float32")
    contract = run_model_test(make, x)
    assert contract.traces <= 3
    contract.step_logs = {"further"}
    with pytest.raises(AssertionError, match="the logs hold .*'further'"):
        contract.check_logs()
    contract.later_traces = 1
    with pytest.raises(AssertionError, match="a second fit traces nothing"):
        contract.check_traces()
    contract.after = contract.before
    with pytest.raises(AssertionError, match="the first step moves"):
        contract.check_weights()
