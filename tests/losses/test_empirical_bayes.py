import numpy as np
import pytest
from keras import ops
from scipy import special

from vaezoo.layers import CholeskyReparam
from vaezoo.losses import (
    EmpiricalBayesELBO,
    HierarchicalGaussian,
    LinearSchedule,
    batch_moments,
    gaussian_kl_to_standard,
    kl_divergence,
    shrink,
)

SQUARE = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")


def _general_kl(mean, covariance, prior_mean, prior_covariance):
    difference = prior_mean - mean
    inverse = np.linalg.inv(prior_covariance)
    log_det = np.linalg.slogdet(prior_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (
        np.trace(inverse @ covariance) + difference @ inverse @ difference - len(mean) + log_det
    )


def _sample(seed=0, batch=12, dim=3):
    """Correlated rows away from zero."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def _regularizer(mean):
    beta, sigma = batch_moments(mean)
    return gaussian_kl_to_standard(beta, ops.cholesky(sigma))


def _hyper_kl(make_terms, mean, log_scale, objective=None, training=True):
    reparam = CholeskyReparam(seed=0)
    posterior, _ = reparam(mean, log_scale, training=True)
    terms = make_terms(SQUARE, 0.0 * SQUARE)._replace(posterior=posterior)
    return (objective or EmpiricalBayesELBO())(terms, training=training)


def test_batch_moments_against_numpy(float64):
    mean = _sample()
    beta, sigma = batch_moments(mean)
    np.testing.assert_allclose(beta, mean.mean(0), rtol=float64)
    np.testing.assert_allclose(sigma, np.cov(mean, rowvar=False, bias=True), rtol=float64)


def test_shrink_pulls_toward_the_identity(float64):
    sigma = np.array([[4.0, 1.0], [1.0, 2.0]])
    np.testing.assert_allclose(shrink(sigma, 0.0), sigma)
    np.testing.assert_allclose(shrink(sigma, 0.25), [[3.25, 0.75], [0.75, 1.75]])
    np.testing.assert_allclose(shrink(sigma, 1.0), np.eye(2))


@pytest.mark.large
def test_no_charge_for_standard_moments(make_terms):
    loss = _hyper_kl(make_terms, SQUARE, 0.3 * SQUARE)
    np.testing.assert_allclose(loss.report["hyper_kl"], 0.0, atol=1e-5)


def test_charge_for_a_diagonal_covariance(float64, make_terms):
    mean, tril = np.array([0.0, 1.0]), np.diag([1.0, 2.0])
    exact = 0.5 * (5.0 + 1.0 - 2.0 - np.log(4.0))
    assert exact == pytest.approx(1.306853, abs=5e-7)
    np.testing.assert_allclose(gaussian_kl_to_standard(mean, tril), exact, rtol=1e-10)


@pytest.mark.large_on_jax
def test_charge_through_the_head(make_terms):
    rows = SQUARE * np.float32([1.0, 2.0]) + np.float32([0.0, 1.0])
    loss = _hyper_kl(make_terms, rows, 0.0 * rows)
    np.testing.assert_allclose(loss.report["hyper_kl"], 1.306853, atol=2e-5)


@pytest.mark.large_on_jax
def test_kls_of_the_hierarchy_against_the_general_formula(float64):
    rows, dim, scale = _sample(), 3, 0.7
    sigma = np.cov(rows, rowvar=False, bias=True)
    factor, mean = np.linalg.cholesky(sigma), rows[0]
    trace_part = np.trace(sigma) - dim - np.linalg.slogdet(sigma)[1]

    posterior = HierarchicalGaussian(mean[None], scale * factor[None], None, None)
    exact = _general_kl(mean, scale**2 * sigma, np.zeros(dim), scale**2 * np.eye(dim))
    np.testing.assert_allclose(0.5 * (trace_part + mean @ mean / scale**2), exact, rtol=1e-10)
    np.testing.assert_allclose(kl_divergence(posterior, scale), [exact], rtol=1e-10)

    diagonal = np.diag([0.2, 0.7, 1.9])
    exact = _general_kl(mean, diagonal @ sigma @ diagonal, mean, diagonal @ diagonal)
    np.testing.assert_allclose(0.5 * trace_part, exact, rtol=1e-10)
    np.testing.assert_allclose(gaussian_kl_to_standard(np.zeros(3), factor), exact, rtol=1e-10)


def test_gradient_of_the_regularizer(float64, gradient):
    rows = _sample()
    beta = rows.mean(0)
    inverse = np.linalg.inv(np.cov(rows, rowvar=False, bias=True))
    expected = ((rows - beta) @ (np.eye(3) - inverse).T + beta) / len(rows)
    np.testing.assert_allclose(gradient(_regularizer, rows), expected, rtol=10.0 * float64)


def test_gradient_through_head_and_objective(make_terms, gradient):
    rows = _sample().astype("float32")
    reparam, objective = CholeskyReparam(seed=0), EmpiricalBayesELBO()
    terms = make_terms(rows, 0.0 * rows)

    def charged(mean):
        posterior, _ = reparam(mean, 0.0 * mean, training=True)
        return objective(terms._replace(posterior=posterior), training=True).batch

    beta = rows.mean(0)
    sigma = np.cov(rows, rowvar=False, bias=True) + 1e-6 * np.eye(3)
    expected = ((rows - beta) @ (np.eye(3) - np.linalg.inv(sigma)) + beta) / len(rows)
    np.testing.assert_allclose(gradient(charged, rows), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("batch", "dim", "expected", "tolerance"), [(128, 10, 0.262, 0.013), (100, 64, 14.38, 0.13)]
)
def test_charge_for_standard_normal_codes(batch, dim, expected, tolerance):
    rng = np.random.default_rng(0)
    values = [
        float(ops.convert_to_numpy(_regularizer(rng.standard_normal((batch, dim), "float32"))))
        for _ in range(200)
    ]
    assert abs(np.mean(values) - expected) < tolerance
    log_det = special.digamma((batch - 1 - np.arange(dim)) / 2).sum() + dim * np.log(2 / batch)
    assert expected == pytest.approx(-0.5 * log_det, abs=6e-3)


def test_scales_do_not_enter_the_regularizer(make_terms, gradient):
    rows = _sample().astype("float32")
    reparam, objective = CholeskyReparam(seed=0), EmpiricalBayesELBO()
    terms = make_terms(rows, 0.0 * rows)

    def charged(log_scale):
        posterior, _ = reparam(rows, log_scale, training=True)
        return objective(terms._replace(posterior=posterior), training=True).batch

    np.testing.assert_array_equal(gradient(charged, 0.1 * rows), np.zeros_like(rows))


def test_loss_is_distortion_plus_the_weighted_regularizer(make_terms):
    rows = _sample().astype("float32")
    posterior, _ = CholeskyReparam(seed=0)(rows, 0.0 * rows, training=True)
    log_px = np.random.default_rng(1).normal(size=(12, 2)).astype("float32")
    terms = make_terms(rows, 0.0 * rows, log_px, np.repeat(rows[:, None], 2, axis=1))
    objective = EmpiricalBayesELBO(weight=3.0)
    loss = objective(terms._replace(posterior=posterior), training=True)
    beta, sigma = rows.mean(0), np.cov(rows, rowvar=False, bias=True)
    exact = _general_kl(beta, sigma, np.zeros(3), np.eye(3))
    np.testing.assert_allclose(loss.per_example, -log_px.mean(1), rtol=1e-6)
    np.testing.assert_allclose(loss.report["hyper_kl"], exact, rtol=1e-4)
    np.testing.assert_allclose(loss.batch, 3.0 * exact, rtol=1e-4)
    assert objective.report_names == ("hyper_kl",)


@pytest.mark.large_on_jax
def test_weight_may_be_set_or_scheduled(make_terms):
    objective = EmpiricalBayesELBO(weight=2.0)
    objective.weight.assign(0.5)
    loss = _hyper_kl(make_terms, 2.0 * SQUARE, SQUARE, objective)
    np.testing.assert_allclose(loss.batch, 0.5 * np.asarray(loss.report["hyper_kl"]), rtol=1e-6)
    scheduled = EmpiricalBayesELBO(LinearSchedule(2))
    batches = [
        _hyper_kl(make_terms, 2.0 * SQUARE, SQUARE, scheduled, training)
        for training in (True, True, False)
    ]
    weights = [float(ops.convert_to_numpy(b.batch / b.report["hyper_kl"])) for b in batches]
    np.testing.assert_allclose(weights, [0.0, 0.5, 1.0], rtol=1e-6)


def test_argument_errors(make_terms):
    with pytest.raises(
        ValueError, match="`weight` must be a finite, non-negative number or .* Received: weight=-2"
    ):
        EmpiricalBayesELBO(weight=-2)
    with pytest.raises(TypeError, match="posterior of a `CholeskyReparam`.*: DiagonalGaussian"):
        EmpiricalBayesELBO()(make_terms(SQUARE, SQUARE), training=True)
