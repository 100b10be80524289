import keras
import numpy as np
import pytest

from vaezoo import callbacks, layers, zoo
from vaezoo.losses import LinearSchedule, TargetRate

RNG = np.random.default_rng(0)
MEAN, LOG_VAR = RNG.normal(size=(2, 5, 4)).astype("float32")
LOG_PX = RNG.normal(-50.0, 5.0, size=(5, 3)).astype("float32")
Z = MEAN[:, None] + np.exp(0.5 * LOG_VAR)[:, None] * RNG.normal(size=(5, 3, 4)).astype("float32")
KL = 0.5 * np.sum(MEAN**2 + np.exp(LOG_VAR) - LOG_VAR - 1.0, axis=1)


@pytest.fixture
def terms(make_terms):
    return make_terms(MEAN, LOG_VAR, LOG_PX, Z)


def test_the_multiplier_follows_the_smoothed_error(terms):
    objective = TargetRate(2.0, speed=0.1, smoothing=0.5)
    beta, error = 1.0, 0.0
    for _ in range(3):
        loss = objective(terms, training=True)
        np.testing.assert_allclose(loss.per_example, -LOG_PX.mean(1) + beta * KL, rtol=1e-5)
        np.testing.assert_allclose(loss.report["beta"], beta, rtol=1e-5)
        error = 0.5 * error + 0.5 * (KL.mean() - 2.0) / 2.0
        beta *= np.exp(0.1 * error)
    np.testing.assert_allclose(objective.beta, beta, rtol=1e-5)


def test_evaluations_charge_the_rate_once_and_move_nothing(terms):
    objective = TargetRate(2.0, speed=0.5)
    objective(terms, training=True)
    before = float(objective.beta)
    assert before != 1.0
    loss = objective(terms, training=False)
    np.testing.assert_allclose(loss.per_example, -LOG_PX.mean(1) + KL, rtol=1e-5)
    assert float(objective.beta) == before


def test_limits_hold_the_multiplier(terms):
    for target, end in ((0.0, 1.5), (1e4, 0.7)):
        objective = TargetRate(target, speed=10.0, limits=(0.7, 1.5))
        for _ in range(5):
            objective(terms, training=True)
        np.testing.assert_allclose(objective.beta, end, rtol=1e-6)


def test_a_target_may_follow_a_schedule(terms):
    objective = TargetRate(LinearSchedule(4, 0.0, 2.0))
    found = [float(objective(terms, training=True).report["target_rate"]) for _ in range(3)]
    assert found == [0.0, 0.5, 1.0]
    assert float(objective(terms, training=False).report["target_rate"]) == 2.0
    with objective.paused():
        before = float(objective.beta)
        assert float(objective(terms, training=True).report["target_rate"]) == 1.5
    assert float(objective.beta) == before
    assert float(objective(terms, training=True).report["target_rate"]) == 1.5
    assert float(objective.beta) != before


def exact(beta, gain, scale, second_moment):
    """Rate of the best posteriors of x = gain z + scale noise under a weight of the rate."""
    precision = gain**2 / scale**2 / beta
    variance = 1.0 / (1.0 + precision)
    means = (precision * variance / gain) ** 2 * second_moment
    return float(np.sum(0.5 * (means + variance - np.log(variance) - 1.0)))


@pytest.mark.large
def test_it_ends_at_the_weight_of_the_closed_form(tmp_path):
    gain, scale = np.array([2.0, 1.0]), 0.7
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 2))
    # Moments that are exact, so that the rate is.
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T
    x = (x * np.sqrt(gain**2 + scale**2)).astype("float32")
    target = exact(3.0, gain, scale, gain**2 + scale**2)
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    decoder.trainable = False
    objective = TargetRate(target, speed=0.05)
    model = zoo.VAE(
        encoder, decoder, latent_dim=2, objective=objective, likelihood=layers.Gaussian(scale),
        seed=0,
    )  # fmt: skip
    model.build((None, 2))
    decoder.set_weights([np.diag(gain)])
    quick = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(0.02), jit_compile=quick, steps_per_execution=10)
    logs = model.fit(x, batch_size=128, epochs=150, verbose=0).history
    # The noise of draws moves both about their ends.
    assert np.mean(logs["rate"][-30:]) == pytest.approx(target, rel=0.02)
    assert np.mean(logs["beta"][-30:]) == pytest.approx(3.0, rel=0.05)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").objective
    assert float(again.beta) == float(model.objective.beta)


def test_no_callback_sets_what_the_objective_sets():
    networks = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]) for _ in range(2))
    model = zoo.VAE(*networks, latent_dim=2, objective=TargetRate(2.0))
    model.compile("sgd", run_eagerly=keras.backend.backend() == "tensorflow")
    with pytest.raises(ValueError, match="`KLAnnealing` cannot set a `beta`"):
        model.fit(np.zeros((4, 2)), callbacks=[callbacks.KLAnnealing(epochs=2)], verbose=0)
