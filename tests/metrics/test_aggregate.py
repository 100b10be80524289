import json
import math

import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.losses import DiagonalGaussian, HierarchicalGaussian, PointMass
from vaezoo.metrics.aggregate import aggregate_moments


def test_a_worked_case():
    posterior = DiagonalGaussian(np.array([[1.0, 0.0], [-1.0, 2.0]]), np.log([[0.5, 1.0]] * 2))
    moments = aggregate_moments(posterior)
    assert moments.mean.tolist() == [0.0, 1.0]
    np.testing.assert_allclose(moments.covariance_of_means, [[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(moments.covariance, [[1.5, -1.0], [-1.0, 2.0]])
    assert moments.count == 2
    np.testing.assert_allclose(np.prod(moments.eigenvalues), 2.0)
    np.testing.assert_allclose(np.sum(moments.eigenvalues), 3.5)
    assert moments.mean_absolute_correlation == pytest.approx(1.0 / math.sqrt(3.0))
    assert moments.divergence == pytest.approx(0.5 * (3.5 + 1.0 - 2.0 - math.log(2.0)))


def test_collapse_is_seen_in_the_means_and_not_in_the_total():
    rng = np.random.default_rng(0)
    # Rounding errors of collapsed means, which happen to be alike.
    mean = np.repeat(1e-6 * rng.normal(size=(50, 1)), 3, axis=1)
    moments = aggregate_moments(DiagonalGaussian(mean, np.zeros((50, 3))))
    np.testing.assert_allclose(moments.eigenvalues, 1.0, rtol=1e-6)
    assert moments.mean_absolute_correlation < 1e-6
    np.testing.assert_allclose(moments.eigenvalues_of_means, 0.0, atol=1e-11)
    assert math.isnan(moments.mean_absolute_correlation_of_means)
    assert moments.to_dict()["mean_absolute_correlation_of_means"] is None


def test_moments_of_means_of_a_model_that_uses_two_of_three_dimensions():
    mean = np.array([[1.0, 1.0, 1e-3], [-1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [-3.0, -5.0, 0.0]])
    moments = aggregate_moments(DiagonalGaussian(mean, np.full((4, 3), -20.0)))
    expected = np.cov(mean[:, :2].T, bias=True)
    eigenvalues = [0.0, *np.linalg.eigvalsh(expected)]
    np.testing.assert_allclose(moments.eigenvalues_of_means, eigenvalues, atol=1e-6)
    correlation = expected[0, 1] / math.sqrt(expected[0, 0] * expected[1, 1])
    assert moments.mean_absolute_correlation_of_means == pytest.approx(abs(correlation))


def test_row_h2_of_a_given_covariance():
    # Covariance diag(1, 4) around (0, 1): 1.306853.
    mean = np.array([[0.0, 1.0]] * 2)
    moments = aggregate_moments(DiagonalGaussian(mean, np.log([[1.0, 4.0]] * 2)))
    assert moments.divergence == pytest.approx(1.306853, abs=1e-6)
    assert moments.mean_absolute_correlation == 0.0


def test_moments_are_those_of_draws():
    rng, size = np.random.default_rng(0), 50
    tril = np.tril(rng.normal(size=(size, 3, 3)))
    mean = rng.normal(size=(size, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0, 0, 1.0]])
    moments = aggregate_moments(HierarchicalGaussian(mean, tril, None, None))
    draws = 4000
    eps = rng.standard_normal((size, draws, 3))
    z = (mean[:, None] + eps @ np.swapaxes(tril, 1, 2)).reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, z.mean(axis=0), atol=4 * 2.0 / math.sqrt(len(z)))
    products = (z - z.mean(axis=0))[:, :, None] * (z - z.mean(axis=0))[:, None]
    error = products.std(axis=0) / math.sqrt(len(z))
    assert np.all(abs(moments.covariance - products.mean(axis=0)) < 4.0 * error)


def test_the_prior_itself_is_at_no_distance():
    moments = aggregate_moments(DiagonalGaussian(np.zeros((5, 3)), np.zeros((5, 3))))
    assert moments.divergence == 0.0
    assert moments.eigenvalues.tolist() == [1.0, 1.0, 1.0]


def test_deterministic_codes_have_moments():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(200, 2)) * [1.0, 3.0]
    moments = aggregate_moments(PointMass(mean.astype("float32")))
    np.testing.assert_allclose(moments.covariance, np.cov(mean.T, bias=True), rtol=1e-5)
    np.testing.assert_array_equal(moments.covariance, moments.covariance_of_means)


def test_a_dead_dimension_is_uncorrelated_and_infinitely_far():
    mean = np.array([[1.0, 0.0], [-1.0, 0.0]])
    moments = aggregate_moments(PointMass(mean))
    assert moments.mean_absolute_correlation == 0.0
    assert moments.divergence == math.inf
    assert moments.to_dict()["divergence"] is None


def test_one_dimension_has_no_correlation():
    moments = aggregate_moments(DiagonalGaussian(np.array([[1.0], [-1.0]]), np.zeros((2, 1))))
    assert moments.mean_absolute_correlation == 0.0
    assert moments.covariance.tolist() == [[2.0]]


def test_it_can_be_written_down():
    moments = aggregate_moments(DiagonalGaussian(np.zeros((5, 2)), np.zeros((5, 2))))
    written = json.loads(json.dumps(moments.to_dict(), allow_nan=False))
    assert written["covariance"] == [[1.0, 0.0], [0.0, 1.0]]
    assert written["count"] == 5
    assert written["divergence"] == 0.0


@pytest.mark.large_on_jax
def test_model_and_data():
    model = zoo.VAE(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh")]),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]),
        latent_dim=3,
    )
    data = np.random.default_rng(0).random((20, 4), "float32")
    model.build(data.shape)
    expected = aggregate_moments(model.encode(data)).covariance
    ours = aggregate_moments(model, data, batch_size=8)
    np.testing.assert_allclose(ours.covariance, expected, atol=1e-5)
    pair = aggregate_moments(lambda x: tuple(model.encode(x)), data, decoder=model.decoder)
    np.testing.assert_allclose(pair.covariance, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("posterior", "error", "message"),
    [
        (np.zeros((5, 2)), TypeError, "`model_or_posterior` must be a posterior value.*ndarray"),
        (PointMass(np.zeros((1, 2))), ValueError, r"at least 2 examples. Received: shape=\(1, 2\)"),
        (PointMass(np.full((3, 2), np.inf)), ValueError, "must be finite. Received: NaN or inf"),
    ],
)
def test_errors_say_what_came(posterior, error, message):
    with pytest.raises(error, match=message):
        aggregate_moments(posterior)
