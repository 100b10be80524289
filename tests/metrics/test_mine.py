import math

import keras
import numpy as np
import pytest

from vaezoo.losses import DiagonalGaussian
from vaezoo.metrics.mine import MutualInformationCritic, mine
from vaezoo.metrics.mutual_information import mutual_information
from vaezoo.testing import check_serialization

RHO = 0.8
INFORMATION = -0.5 * math.log(1.0 - RHO**2)


def correlated(size, seed=0):
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, size, 1))
    return x, RHO * x + math.sqrt(1.0 - RHO**2) * noise


@pytest.fixture(scope="module")
def estimate():
    # The scale of the samples must not matter.
    x, z = correlated(40_000)
    return mine(5.0 + 100.0 * x, 0.01 * z, epochs=8, batch_size=500)


@pytest.mark.large
def test_information_of_correlated_gaussians(estimate):
    assert estimate.value >= 0.45
    assert estimate.value <= INFORMATION + 4.0 * estimate.standard_error
    assert estimate.standard_error < 0.02
    assert estimate.count == 10_000
    assert (estimate.estimator, estimate.unit) == ("mine", "nats")


@pytest.mark.large
def test_the_bound_is_no_better_where_it_was_trained(estimate):
    # So many pairs cannot be learned by heart.
    error = 4.0 * math.sqrt(2.0) * estimate.standard_error
    assert abs(estimate.extra["training_bound"] - estimate.value) < error


@pytest.mark.large
def test_independent_samples_have_no_information():
    x, z = np.random.default_rng(1).standard_normal((2, 4000, 1))
    estimate = mine(x, z, epochs=2, hidden_units=(16,))
    assert -0.1 < estimate.value < 4.0 * estimate.standard_error


@pytest.mark.large
def test_seeds_fix_everything():
    x, z = correlated(400)
    options = {"epochs": 1, "hidden_units": (8,), "batch_size": 100}
    first = mine(x, z, seed=3, **options)
    keras.utils.set_random_seed(99)
    assert mine(x, z, seed=3, **options).value == pytest.approx(first.value, abs=1e-6)
    assert first.settings["seed"] == 3
    assert first.settings["hidden_units"] == [8]


class Channel:
    """A model that encodes x to N(0.8 x, 0.36)."""

    def encode(self, x, batch_size):
        return DiagonalGaussian(0.8 * x, np.full_like(x, math.log(0.36)))


@pytest.mark.large
def test_codes_of_a_model_agree_with_their_densities():
    x, _ = correlated(12_000, seed=5)
    expected = mutual_information(Channel(), x[:3000])
    estimate = mine(Channel(), x, epochs=8, hidden_units=(32, 32))
    assert expected.value == pytest.approx(INFORMATION, abs=4.0 * expected.standard_error)
    assert 0.4 < estimate.value < INFORMATION + 4.0 * estimate.standard_error


def test_gradient_has_the_moving_average_below_it():
    critic = MutualInformationCritic(1, 1, hidden_units=(4,), decay=0.5)
    together, apart = np.array([0.2, 0.4], "float32"), np.array([1.0, 3.0], "float32")
    scores = np.stack([together, apart], axis=1)
    # The average of e^T starts at 1 and moves half the way.
    mean = np.mean(np.exp(apart))
    average = 0.5 * 1.0 + 0.5 * mean
    loss = float(critic.compute_loss(y_pred=scores))
    assert loss == pytest.approx(mean / average - np.mean(together), rel=1e-5)
    assert float(critic.log_average.value) == pytest.approx(math.log(average), rel=1e-5)
    critic.compute_loss(y_pred=scores, training=False)
    assert float(critic.log_average.value) == pytest.approx(math.log(average), rel=1e-5)


def test_critic_is_rebuilt_from_its_config():
    critic = MutualInformationCritic(3, 2, hidden_units=(4,), seed=7)
    again = check_serialization(critic)
    inputs = np.random.default_rng(0).random((5, 5), "float32")
    outputs = keras.ops.convert_to_numpy(critic(inputs))
    assert outputs.shape == (5, 2)
    # The same seed makes the same weights.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(again(inputs)), outputs, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "`epochs` must be a positive integer"),
        (
            {"hidden_units": (8, 0)},
            ValueError,
            "`hidden_units` must be a sequence of pos",
        ),
        ({"batch_size": 1}, ValueError, "`batch_size` must be an integer of at least 2"),
        ({"seed": -1}, ValueError, "`seed` must be an integer in .0, 2.31."),
        (
            {"learning_rate": 0.0},
            ValueError,
            "`learning_rate` must be a .*positive.*=0.0",
        ),
        ({"decay": 1.0}, ValueError, r"`decay` must be a number in \[0, 1\). Received: decay=1.0"),
        (
            {"held_out": 1.0},
            ValueError,
            r"`held_out` must be a number in \(0, 1\).*: held_out=1.0",
        ),
        ({"held_out": 0.01}, ValueError, "`held_out` must leave at least 2 pairs.*0.01 of 8"),
        ({"data_or_z": np.zeros((7, 1))}, ValueError, "as many samples.*Received: 7 and 8"),
        ({"data_or_z": [1.0]}, TypeError, "`data_or_z` must be an array. Received: list"),
        ({"data_or_z": np.zeros((2, 1))}, ValueError, r"at least 4 samples.*shape=\(2, 1\)"),
        ({"model_or_x": np.full((8, 1), np.nan)}, ValueError, "`model_or_x` must be finite"),
    ],
)
def test_errors_say_what_came(arguments, error, message):
    samples = {"model_or_x": np.zeros((8, 1)), "data_or_z": np.zeros((8, 1))}
    with pytest.raises(error, match=message):
        mine(**{**samples, **arguments})
