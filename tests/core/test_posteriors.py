import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from vaezoo.losses import (
    DiagonalGaussian,
    HierarchicalGaussian,
    PointMass,
    distribution,
    float32,
    kl_divergence,
    kl_per_dimension,
    log_prob,
    reparameterize,
    tfd,
    variance,
)


def _diagonal(seed=0, batch=3, dim=4, dtype="float64"):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(batch, dim)).astype(dtype)
    return DiagonalGaussian(mean, rng.normal(size=(batch, dim)).astype(dtype))


def _hierarchical(seed=0, batch=3, dim=4, dtype="float64"):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(batch, dim)).astype(dtype)
    tril = np.tril(rng.normal(size=(batch, dim, dim)))
    diagonal = np.arange(dim)
    tril[:, diagonal, diagonal] = 0.3 + np.abs(tril[:, diagonal, diagonal])
    tril = tril.astype(dtype)
    return HierarchicalGaussian(mean, tril, np.zeros_like(mean), np.zeros_like(tril))


def _gaussian_kl(mean, covariance, scale=1.0):
    """KL(N(mean, covariance) || N(0, scale^2 I))."""
    dim = len(mean)
    log_det = np.linalg.slogdet(covariance / scale**2)[1]
    return 0.5 * (np.trace(covariance) / scale**2 + mean @ mean / scale**2 - dim - log_det)


def test_kl_of_one_gaussian(float64):
    mean, log_var = np.full((1, 1), 0.5), np.full((1, 1), np.log(0.25))
    diagonal = DiagonalGaussian(mean, log_var)
    full = HierarchicalGaussian(mean, np.full((1, 1, 1), 0.5), None, None)
    exact = 0.5 * (0.25 + 0.25 - np.log(0.25) - 1.0)
    assert exact == pytest.approx(0.443147, abs=5e-7)
    for value in (kl_divergence(diagonal), kl_per_dimension(diagonal), kl_divergence(full)):
        np.testing.assert_allclose(np.ravel(value), exact, rtol=1e-10)


@pytest.mark.large
def test_monte_carlo_kl_agrees_with_the_closed_form():
    draws = 1_000_000
    posterior = _diagonal(batch=1, dim=2, dtype="float32")
    eps = np.random.default_rng(1).standard_normal((1, draws, 2)).astype("float32")
    z = reparameterize(posterior, eps)
    log_prior = -0.5 * ops.sum(ops.square(z) + np.log(2.0 * np.pi), axis=-1)
    ratio = np.asarray(log_prob(posterior, z) - log_prior, "float64")[0]
    error = abs(ratio.mean() - np.asarray(kl_divergence(posterior))[0])
    assert error < 4.0 * ratio.std() / np.sqrt(draws)


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_diagonal_kl_is_the_textbook_formula_and_its_dimensions_add_up(float64, scale):
    posterior = _diagonal()
    mean, var = posterior.mean / scale, np.exp(posterior.log_var) / scale**2
    per_dimension = 0.5 * (mean**2 + var - np.log(var) - 1.0)
    np.testing.assert_allclose(kl_per_dimension(posterior, scale), per_dimension, rtol=1e-10)
    np.testing.assert_allclose(kl_divergence(posterior, scale), per_dimension.sum(1), rtol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_full_covariance_kl_against_the_general_formula(float64, scale):
    posterior = _hierarchical()
    expected = [
        _gaussian_kl(mean, tril @ tril.T, scale)
        for mean, tril in zip(posterior.mean, posterior.scale_tril, strict=True)
    ]
    np.testing.assert_allclose(kl_divergence(posterior, scale), expected, rtol=1e-10)


def test_marginal_kls_leave_out_the_correlations(float64):
    posterior = _hierarchical()
    covariance = posterior.scale_tril @ np.swapaxes(posterior.scale_tril, 1, 2)
    var = np.diagonal(covariance, axis1=1, axis2=2)
    expected = 0.5 * (posterior.mean**2 + var - np.log(var) - 1.0)
    np.testing.assert_allclose(kl_per_dimension(posterior), expected, rtol=1e-10)
    # What is left out is minus half the log-determinant of the correlation matrix.
    standard = np.sqrt(var[:, :, None] * var[:, None])
    missing = -0.5 * np.linalg.slogdet(covariance / standard)[1]
    np.testing.assert_allclose(
        np.asarray(kl_divergence(posterior)) - expected.sum(1), missing, rtol=1e-9
    )


@pytest.mark.parametrize("make", [_diagonal, _hierarchical])
def test_log_prob_against_scipy(float64, make):
    posterior = make()
    z = np.random.default_rng(2).normal(size=(3, 5, 4))
    if make is _diagonal:
        covariances = [np.diag(np.exp(log_var)) for log_var in posterior.log_var]
    else:
        covariances = [tril @ tril.T for tril in posterior.scale_tril]
    expected = [
        stats.multivariate_normal(mean, covariance).logpdf(draws)
        for mean, covariance, draws in zip(posterior.mean, covariances, z, strict=True)
    ]
    np.testing.assert_allclose(log_prob(posterior, z), expected, rtol=1e-9)


@pytest.mark.large_on_jax
def test_log_prob_takes_draws_of_another_precision():
    posterior = _diagonal(dtype="float32")
    z = np.zeros((3, 2, 4))
    expected = log_prob(posterior, z.astype("float32"))
    np.testing.assert_array_equal(log_prob(posterior, z), expected)


def test_variance_is_the_diagonal_of_the_covariance(float64):
    posterior = _hierarchical()
    expected = np.einsum("bij,bij->bi", posterior.scale_tril, posterior.scale_tril)
    np.testing.assert_allclose(variance(posterior), expected, rtol=1e-12)
    np.testing.assert_allclose(variance(_diagonal()), np.exp(_diagonal().log_var), rtol=1e-12)
    np.testing.assert_array_equal(variance(PointMass(posterior.mean)), np.zeros((3, 4)))


def test_reparameterize_is_affine_in_the_noise(float64):
    eps = np.random.default_rng(3).normal(size=(3, 5, 4))
    diagonal, full = _diagonal(), _hierarchical()
    expected = diagonal.mean[:, None] + np.exp(0.5 * diagonal.log_var)[:, None] * eps
    np.testing.assert_allclose(reparameterize(diagonal, eps), expected, rtol=1e-12)
    expected = full.mean[:, None] + np.einsum("bij,bkj->bki", full.scale_tril, eps)
    np.testing.assert_allclose(reparameterize(full, eps), expected, rtol=1e-12)
    expected = np.repeat(full.mean[:, None], 5, axis=1)
    np.testing.assert_array_equal(reparameterize(PointMass(full.mean), eps), expected)


def test_reparameterized_gradient(float64, gradient):
    eps = np.random.default_rng(3).normal(size=(3, 5, 4))
    posterior = _diagonal()

    def of_mean(mean):
        return ops.sum(ops.square(reparameterize(DiagonalGaussian(mean, posterior.log_var), eps)))

    def of_log_var(log_var):
        return ops.sum(ops.square(reparameterize(DiagonalGaussian(posterior.mean, log_var), eps)))

    sd = np.exp(0.5 * posterior.log_var)[:, None]
    z = posterior.mean[:, None] + sd * eps
    np.testing.assert_allclose(gradient(of_mean, posterior.mean), 2.0 * z.sum(1), rtol=1e-10)
    expected = (z * sd * eps).sum(1)
    np.testing.assert_allclose(gradient(of_log_var, posterior.log_var), expected, rtol=1e-10)


def test_point_mass_has_an_infinite_rate():
    point = PointMass(np.zeros((2, 3), "float32"))
    np.testing.assert_array_equal(kl_divergence(point), [np.inf, np.inf])
    np.testing.assert_array_equal(kl_per_dimension(point), np.full((2, 3), np.inf))


def test_point_mass_has_no_density():
    point = PointMass(np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match="no density.*Received: posterior of type PointMass"):
        distribution(point)
    with pytest.raises(ValueError, match="Use a head that samples"):
        log_prob(point, np.zeros((2, 1, 3), "float32"))


def test_distribution_refuses_what_is_no_posterior():
    with pytest.raises(TypeError, match="`posterior` must be .* Received: tuple"):
        distribution((np.zeros((2, 3)), np.zeros((2, 3))))


@pytest.mark.parametrize("make", [_diagonal, _hierarchical])
def test_half_precision_goes_in_and_float32_comes_out(make):
    exact, half = make(dtype="float16"), make(dtype="float16")
    exact = type(exact)(*(part.astype("float32") for part in exact))
    z = np.ones((3, 2, 4), "float16")
    for function in (kl_divergence, kl_per_dimension, variance, lambda q: log_prob(q, z)):
        value = function(half)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        np.testing.assert_array_equal(value, function(exact))


def test_float32_keeps_float64_and_casts_the_rest(float64):
    for given, expected in (
        ("float16", "float32"),
        ("int32", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ):
        value = float32(ops.ones((2,), dtype=given))
        assert keras.backend.standardize_dtype(value.dtype) == expected
    assert keras.backend.standardize_dtype(float32(ops.ones((2,), "bfloat16")).dtype) == "float32"


def test_tfd_is_that_of_the_backend(monkeypatch):
    module = tfd().Normal.__module__
    assert ("substrates.jax" in module) == (keras.backend.backend() == "jax")
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(RuntimeError, match="'tensorflow' and 'jax'.*KERAS_BACKEND='torch'"):
        tfd()
