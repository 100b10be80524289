"""Training again under `use_ema=True`: on JAX a weight and its average must not share memory."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.callbacks import PlateauDecay

MOMENTUM = 0.75
JAX = keras.backend.backend() == "jax"


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).integers(0, 2, (12, 4)).astype("float32")


def make(optimizer, jit_compile=True):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh")])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    model = zoo.MAE(encoder, decoder, latent_dim=2, prior="standard_normal", seed=1)
    model.build((None, 4))
    model.compile(optimizer, jit_compile=jit_compile, run_eagerly=not (JAX or jit_compile))
    return model


def flat(variables):
    return np.concatenate([np.ravel(ops.convert_to_numpy(v.value)) for v in variables])


@pytest.mark.large
def test_each_fit_goes_on_with_the_average_and_ends_with_it(x, tmp_path):
    averaged = make(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=MOMENTUM))
    plain = make(keras.optimizers.SGD(0.5))
    average = None
    for fit in range(3):
        for model in (averaged, plain):
            model.fit(x, batch_size=12, shuffle=False, verbose=0)
            model.evaluate(x, batch_size=12, verbose=0)
        new = flat(plain.trainable_variables)
        average = new if average is None else MOMENTUM * average + (1.0 - MOMENTUM) * new
        np.testing.assert_allclose(flat(averaged.trainable_variables), average, rtol=1e-5)
        kept = averaged.optimizer._model_variables_moving_average
        np.testing.assert_array_equal(flat(kept), flat(averaged.trainable_variables))
        for variable, other in zip(
            plain.trainable_variables, averaged.trainable_variables, strict=True
        ):
            variable.assign(ops.convert_to_numpy(other.value))
        if fit == 1:
            averaged.save(tmp_path / "model.keras")
            averaged = keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.large
@pytest.mark.parametrize("how", ["validation", "epoch", "evaluate"])
def test_weights_that_change_places_with_their_averages_train_on(x, how):
    optimizer = keras.optimizers.Adam(
        0.05, beta_1=0.95, use_ema=True, ema_momentum=0.9, global_clipnorm=5.0
    )
    # Memory is handed on by JAX alone; the test above trains under XLA on TensorFlow, too.
    model = make(optimizer, jit_compile=JAX)
    for _ in range(2):
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=how == "epoch")
        callbacks = [] if how == "evaluate" else [swap]
        if how == "validation":
            callbacks.insert(0, PlateauDecay(patience=1, restore_best=False, step_factor=0.999))
        model.fit(x, validation_data=x, epochs=2, callbacks=callbacks, batch_size=12, verbose=0)
        if how == "evaluate":
            model.evaluate(x, batch_size=12, callbacks=[swap], verbose=0)
        model.train_on_batch(x)
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) > 1
    assert np.all(np.isfinite(flat(model.variables)))
