"""The scale of the data: bounded, warned of, and named when a loss is not finite."""

import math
import warnings

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from vaezoo import zoo
from vaezoo.layers import Bernoulli, Gaussian
from vaezoo.losses import ELBO
from vaezoo.zoo.vae.scale import NonFiniteGuard

# JAX is slow without its compiler, TensorFlow is slow to start with one.
QUICK = {"jit_compile": keras.backend.backend() == "jax"}

#: Columns of a survey: age, pressure, income.
_RNG = np.random.default_rng(0)
SURVEY = np.stack(
    [_RNG.normal(45, 15, 200), _RNG.normal(120, 20, 200), _RNG.lognormal(10.5, 0.8, 200)], 1
).astype("float32")


@pytest.fixture
def make(dense_networks):
    """Function of the number of columns: an uncompiled model with a Gaussian likelihood."""

    def build(columns, constructor=zoo.VAE, likelihood="gaussian", **kwargs):
        keras.utils.set_random_seed(0)
        networks = dense_networks(columns, units=64)
        return constructor(*networks, latent_dim=3, likelihood=likelihood, **kwargs)

    return build


@pytest.mark.large
@pytest.mark.one_backend
@pytest.mark.parametrize(
    "name", ["VAE", "DUVAE", "HEBAE", "IAFVAE", "MuVAE", "AggVAE", "BNVAE", "IWAE"]
)
def test_first_loss_of_unscaled_tables_is_finite(make, name):
    for table in (SURVEY, load_wine().data, load_breast_cancer().data, 1e6 * SURVEY[:, :2]):
        x = table[:64].astype("float32")
        model = make(x.shape[1], getattr(zoo, name))
        loss = float(model.compute_loss(x, None, model(x, training=True)))
        assert np.isfinite(loss), (name, x.shape)


@pytest.mark.large
def test_training_on_unscaled_columns_warns_by_name_and_goes_down(make):
    model = make(3)
    model.compile(keras.optimizers.Adam(1e-3), **QUICK)
    with pytest.warns(UserWarning, match="`x` is not scaled: column 2 has mean 4.*Standardize"):
        losses = model.fit(SURVEY, batch_size=50, epochs=3, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:`x` is not scaled")
@pytest.mark.parametrize("verbose", [0, 1])
def test_fit_stops_at_a_loss_that_is_not_finite(make, verbose):
    model = make(3)
    model.compile(keras.optimizers.SGD(1e10), **QUICK)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    with pytest.raises(FloatingPointError, match="The loss became .*column 2 has mean.*scale 1"):
        model.fit(SURVEY, batch_size=50, epochs=3, verbose=verbose, callbacks=[watch])
    assert not seen
    # The model can still be looked into.
    assert model.predict(SURVEY[:2], verbose=0).z.shape == (2, 1, 3)


def test_the_guard_leaves_the_variables_to_the_step_that_has_them(make, monkeypatch):
    model, put_back = make(3), []
    model.compile(keras.optimizers.SGD(0.1))
    monkeypatch.setattr(type(model), "jax_state_sync", lambda self: put_back.append(1), False)
    guard = NonFiniteGuard(None)
    guard.set_model(model)
    guard.on_epoch_begin(0)
    put_back.clear()
    with pytest.raises(FloatingPointError, match=r"by batch 3.*learning rate \(now 0.1\)"):
        guard.on_train_batch_end(2, {"loss": math.nan})
    assert not put_back


@pytest.mark.large
def test_a_loss_that_is_not_finite_on_scaled_data_blames_the_step(make):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = make(4)
    model.compile(keras.optimizers.SGD(1e14), **QUICK)
    with pytest.raises(FloatingPointError, match=r"learning rate \(now 1e\+14\)") as error:
        model.fit(x, batch_size=16, epochs=2, verbose=0)
    assert "Standardize" not in str(error.value)


@pytest.mark.one_backend
def test_a_list_of_callbacks_of_keras_own_is_guarded_once(make):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = make(4)
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    callbacks = keras.callbacks.CallbackList([keras.callbacks.History()], model=model)
    for _ in range(2):
        model.fit(x, batch_size=64, verbose=0, callbacks=callbacks)
    assert sum(isinstance(one, NonFiniteGuard) for one in callbacks.callbacks) == 1
    model.optimizer.learning_rate = 1e14
    with pytest.raises(FloatingPointError, match="The loss became"):
        model.fit(x, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("factor", "settings", "told"),
    [
        (0.3, {}, "likelihood's scale, 1, is above all there is"),
        (0.3, {"likelihood": Gaussian(0.1)}, None),
        (0.3, {"likelihood": Gaussian("optimal")}, None),
        (0.3, {"objective": ELBO(beta=0.0)}, None),
        # The largest variance is 4 here.
        (1.0, {}, None),
        (1.0, {"objective": ELBO(beta=8.0)}, "is above all there is"),
        (1.0, {"constructor": zoo.MuVAE, "likelihood": Gaussian(9.0)}, None),
        (30.0, {}, "`x` is not scaled: column 0 has mean"),
        (30.0, {"likelihood": Gaussian(30.0)}, None),
        (0.0, {}, None),
    ],
)
def test_warnings_before_the_first_step(make, factor, settings, told):
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    x = (factor * rows * [2.0, 1.0, 1.0, 1.0]).astype("float32")
    model = make(4, **settings)
    model.compile("sgd", run_eagerly=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, batch_size=50, verbose=0)
    found = [str(one.message) for one in caught if one.category is UserWarning]
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


@pytest.mark.one_backend
def test_other_likelihoods_are_left_alone(make):
    x = np.random.default_rng(0).integers(0, 2, (50, 4)).astype("float32")
    model = make(4, likelihood=Bernoulli())
    model.compile("sgd", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, batch_size=50, verbose=0)


@pytest.mark.large
@pytest.mark.parametrize("constructor", [zoo.VAE, zoo.IWAE])
def test_optimal_scale_trains_saves_and_serves_in_evaluation(make, constructor, tmp_path):
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    x = 0.1 * rows + 0.5
    model = make(4, constructor, Gaussian("optimal", momentum=0.5))
    model.compile(keras.optimizers.Adam(1e-2), **QUICK)
    model.fit(x, batch_size=32, epochs=20, verbose=0)
    scale = float(np.sqrt(model.likelihood.moving_mean_square.numpy()))
    residual = float(np.sqrt(np.mean((x - model.reconstruct(x)) ** 2)))
    # Far from 1, where it began, and that of the residuals up to the noise of the codes.
    assert residual == pytest.approx(scale, rel=0.3)
    assert scale < 0.2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.log_prob(x[:4], 8), model.log_prob(x[:4], 8), rtol=1e-5)
    assert model.likelihood.updates.numpy() == 40.0
