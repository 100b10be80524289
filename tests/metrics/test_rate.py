import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.losses import DiagonalGaussian, HierarchicalGaussian, PointMass, kl_divergence
from vaezoo.metrics import rate_per_dimension


def test_closed_form_per_dimension():
    mean = np.array([[0.5, 0.0], [0.5, 1.0]], "float32")
    variance = np.array([[0.25, 1.0], [0.25, 1.0]], "float32")
    rates = rate_per_dimension(DiagonalGaussian(mean, np.log(variance)))
    assert rates.value == pytest.approx(0.693147, rel=1e-5)
    assert rates.per_example.shape == (2, 2)
    # Of the second dimension: 0 and 1/2, a spread of 1/sqrt(8) over sqrt(2).
    np.testing.assert_allclose(rates.extra["standard_errors"], [0.0, 0.25], atol=1e-6)
    # KL(N(0.5, 0.25) || N(0, 1)) = 0.443147; a unit shift costs 1/2, here for one example of two.
    np.testing.assert_allclose(rates.extra["per_dimension"], [0.443147, 0.25], rtol=1e-5)


def test_full_covariances_count_by_their_marginals():
    posterior = HierarchicalGaussian(
        np.zeros((2, 2), "float32"),
        np.array([[[1.0, 0.0], [0.6, 0.8]]] * 2, "float32"),
        np.zeros((2, 2), "float32"),
        np.array([np.eye(2)] * 2, "float32"),
    )
    # Both marginals are standard normal; what remains is the correlation.
    rates = rate_per_dimension(posterior).extra["per_dimension"]
    np.testing.assert_allclose(rates, [0.0, 0.0], atol=1e-6)


def test_deterministic_codes_cost_without_end():
    rates = rate_per_dimension(PointMass(np.zeros((3, 2), "float32")))
    assert rates.value == np.inf
    assert rates.extra["per_dimension"] == [np.inf, np.inf]


@pytest.mark.large_on_jax
def test_dimensions_of_a_model_add_up_to_its_rate():
    model = zoo.VAE(
        keras.Sequential([keras.layers.Dense(5, "relu")]),
        keras.Sequential([keras.layers.Dense(4)]),
        latent_dim=3,
    )
    data = np.random.default_rng(0).random((20, 4), "float32")
    model.build(data.shape)
    rates = rate_per_dimension(model, data, batch_size=8)
    expected = np.mean(keras.ops.convert_to_numpy(kl_divergence(model.encode(data))))
    assert len(rates.extra["per_dimension"]) == 3
    assert rates.value == pytest.approx(expected, rel=1e-5)


def test_foreign_encoders_are_taken():
    data = np.random.default_rng(0).random((20, 2), "float32")

    def encoder(x):
        return x, 0.0 * x

    rates = rate_per_dimension(
        encoder, data, batch_size=8, decoder=lambda z: z, likelihood="gaussian"
    )
    expected = np.mean(data**2, axis=0) / 2.0
    np.testing.assert_allclose(rates.extra["per_dimension"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((3, 2)),), TypeError, "`posterior` must be a posterior value.*ndarray"),
        (
            (PointMass(np.zeros((3, 2))), np.zeros(3)),
            ValueError,
            "`data` must come with a model that encodes it. Received: PointMass and data=ndarray",
        ),
    ],
)
def test_errors_say_what_came(arguments, error, message):
    with pytest.raises(error, match=message):
        rate_per_dimension(*arguments)
