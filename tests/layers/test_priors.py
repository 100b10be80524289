import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from vaezoo.layers import IsotropicNormal, Prior, StandardNormal
from vaezoo.losses import (
    DiagonalGaussian,
    HierarchicalGaussian,
    PointMass,
    kl_divergence,
    kl_per_dimension,
)


def test_log_prob_against_scipy(float64):
    z = np.random.default_rng(0).normal(0.0, 3.0, size=(2, 3, 4))
    expected = stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(StandardNormal().log_prob(ops.convert_to_tensor(z)), expected)


@pytest.mark.parametrize("scale", [0.5, 2.0**0.5])
def test_isotropic_normal_against_scipy_and_its_draws(float64, scale):
    z = np.random.default_rng(0).normal(0.0, 3.0, size=(2, 3, 4))
    prior = IsotropicNormal(scale)
    expected = stats.norm.logpdf(z, scale=scale)
    np.testing.assert_allclose(prior.log_prob(ops.convert_to_tensor(z)), expected.sum(-1))
    np.testing.assert_allclose(
        prior.log_prob_per_dimension(ops.convert_to_tensor(z)), expected, rtol=1e-9
    )
    prior.build((None, 1, 4))
    draws = np.asarray(prior.sample(20_000, keras.random.SeedGenerator(0)), "float64")
    np.testing.assert_allclose(np.mean(draws**2), scale**2, rtol=5.0 * np.sqrt(2.0 / draws.size))


def test_isotropic_normal_rates_against_the_closed_form():
    prior, mean = IsotropicNormal(2.0), np.float32([[0.3, -1.0]])
    posterior = DiagonalGaussian(mean, 0.5 * mean)
    variance = np.exp(0.5 * mean)
    expected = 0.5 * ((mean**2 + variance) / 4.0 - np.log(variance / 4.0) - 1.0)
    np.testing.assert_allclose(prior.kl_per_dimension(posterior), expected, rtol=1e-5)
    np.testing.assert_allclose(prior.kl_divergence(posterior), expected.sum(1), rtol=1e-5)
    root = np.float32(np.sqrt(variance)[:, :, None] * np.eye(2))
    full = HierarchicalGaussian(mean, root, mean, None)
    np.testing.assert_allclose(prior.kl_divergence(full), expected.sum(1), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), "wide", True])
def test_isotropic_normal_error(scale):
    with pytest.raises(ValueError, match="`scale` must be a finite, positive number. Received: "):
        IsotropicNormal(scale)


@pytest.mark.parametrize("sampling_scale", [1.0, 3.0])
def test_draws_have_the_sampling_scale_and_the_density_does_not(sampling_scale):
    count, prior = 50_000, StandardNormal(sampling_scale)
    prior.build((None, 1, 2))
    z = np.asarray(prior.sample(count, keras.random.SeedGenerator(0)), "float64")
    assert z.shape == (count, 2)
    np.testing.assert_array_less(abs(z.mean(0)), 4.0 * sampling_scale / np.sqrt(count))
    error = sampling_scale**2 * np.sqrt(2.0 / count)
    np.testing.assert_array_less(abs(z.var(0) - sampling_scale**2), 4.0 * error)
    np.testing.assert_allclose(prior.log_prob(ops.zeros((1, 1, 2))), [[-np.log(2.0 * np.pi)]])


def test_calling_it_is_the_log_density():
    prior, z = StandardNormal(), np.ones((1, 2, 3), "float32")
    np.testing.assert_allclose(prior(z), prior.log_prob(z))
    assert prior.latent_dim == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_log_prob_is_float32(dtype):
    value = StandardNormal().log_prob(ops.full((1, 2, 3), 2.0, dtype))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(value, 3.0 * stats.norm.logpdf(2.0) * np.ones((1, 2)), rtol=1e-6)


def test_closed_forms_are_those_of_the_posterior():
    prior, mean = StandardNormal(), np.float32([[0.3, -1.0]])
    diagonal = DiagonalGaussian(mean, 0.5 * mean)
    full = HierarchicalGaussian(mean, np.float32([[[1.0, 0.0], [0.3, 0.5]]]), mean, None)
    point = PointMass(mean)
    for posterior in (diagonal, full, point):
        np.testing.assert_array_equal(prior.kl_divergence(posterior), kl_divergence(posterior))
    np.testing.assert_array_equal(prior.kl_per_dimension(diagonal), kl_per_dimension(diagonal))
    # With correlations the dimensions do not add up to the whole.
    assert prior.kl_per_dimension(full) is None
    assert prior.kl_divergence(object()) is None


def test_base_has_no_closed_form_and_leaves_its_methods_open():
    prior = Prior()
    assert prior.kl_divergence(None) is None
    assert prior.kl_per_dimension(None) is None
    with pytest.raises(NotImplementedError):
        prior.log_prob(np.zeros((1, 1, 1)))
    with pytest.raises(NotImplementedError):
        prior.sample(1, None)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_sampling_scale_error(scale):
    message = (
        f"`sampling_scale` must be a finite, positive number. Received: sampling_scale={scale}"
    )
    with pytest.raises(ValueError, match=message):
        StandardNormal(scale)
