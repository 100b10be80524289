import numpy as np
import pytest
from keras import ops

from vaezoo.losses import HierarchicalGaussian, MutualPosteriorDivergence, pairwise_kl


def _posteriors(seed=0, batch=5, dim=3):
    return np.random.default_rng(seed).normal(size=(2, batch, dim))


def _brute_force(mean, log_var):
    size, dim = mean.shape
    pairs = np.zeros((size, size, dim))
    for i in range(size):
        for j in range(size):
            for k in range(dim):
                ratio = np.exp(log_var[i, k] - log_var[j, k])
                distance = (mean[i, k] - mean[j, k]) ** 2 / np.exp(log_var[j, k])
                pairs[i, j, k] = 0.5 * (ratio + distance - np.log(ratio) - 1.0)
    return pairs


def _off_diagonal(pairs):
    return pairs[~np.eye(len(pairs), dtype=bool)]


def _softplus(x):
    return np.logaddexp(0.0, x)


def test_pairwise_kl_against_brute_force(float64):
    mean, log_var = _posteriors()
    expected = _brute_force(mean, log_var)
    found = np.asarray(pairwise_kl(mean, log_var))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(np.diagonal(found), 0.0)


def test_diagonal_is_left_out_of_both_terms(float64):
    mean, log_var = _posteriors()
    pairs = _off_diagonal(_brute_force(mean, log_var))
    diversity, smoothness = MutualPosteriorDivergence().terms(mean, log_var)
    np.testing.assert_allclose(diversity, _softplus(-pairs).sum(-1).mean(), rtol=1e-10)
    np.testing.assert_allclose(smoothness, pairs.sum(-1).std(ddof=1), rtol=1e-8)
    diversity, _ = MutualPosteriorDivergence(reduction="softplus_of_mean").terms(mean, log_var)
    np.testing.assert_allclose(diversity, _softplus(-pairs.mean(0)).sum(), rtol=1e-10)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("reduction", ["mean_of_softplus", "softplus_of_mean"])
def test_diversity_at_collapse(reduction):
    mean = np.full((6, 32), 0.4, "float32")
    diversity, _ = MutualPosteriorDivergence(reduction=reduction).terms(mean, -mean)
    np.testing.assert_allclose(diversity, 32 * np.log(2.0), rtol=1e-6)
    assert 32 * np.log(2.0) == pytest.approx(22.1807, abs=5e-5)


@pytest.mark.large_on_jax
def test_official_reduction_never_exceeds_that_of_the_paper():
    paper = MutualPosteriorDivergence()
    code = MutualPosteriorDivergence(reduction="softplus_of_mean")
    for seed in range(20):
        mean, log_var = _posteriors(seed).astype("float32")
        smaller, larger = code.terms(mean, log_var)[0], paper.terms(mean, log_var)[0]
        assert np.asarray(smaller) < np.asarray(larger)


def test_smoothness_is_the_unbiased_standard_deviation(float64):
    for seed in range(3):
        mean, log_var = _posteriors(seed)
        totals = _off_diagonal(_brute_force(mean, log_var)).sum(-1)
        assert totals.shape == (20,)
        expected = np.sqrt(((totals - totals.mean()) ** 2).sum() / 19)
        _, smoothness = MutualPosteriorDivergence().terms(mean, log_var)
        np.testing.assert_allclose(smoothness, expected, rtol=1e-8)


def test_mirrored_pair_has_no_spread_and_a_finite_gradient(gradient):
    mean = np.array([[1.0, -0.5], [-1.0, 0.5]], "float32")
    log_var = np.full_like(mean, 0.3)
    regularizer = MutualPosteriorDivergence()
    _, smoothness = regularizer.terms(mean, log_var)
    np.testing.assert_allclose(smoothness, 0.0, atol=1.1e-6)
    found = gradient(lambda value: regularizer.terms(value, log_var)[1], mean)
    assert np.all(np.isfinite(found))


@pytest.mark.large_on_jax
@pytest.mark.parametrize("batch", [1, 4])
def test_collapse_and_single_rows_stay_finite(batch, gradient):
    mean = np.zeros((batch, 3), "float32")
    regularizer = MutualPosteriorDivergence()

    def both(value):
        return sum(regularizer.terms(value, 0.0 * value))

    np.testing.assert_allclose(both(mean), 3 * np.log(2.0) * (batch > 1), atol=2e-6)
    assert np.all(np.isfinite(gradient(both, mean)))


def test_weights_multiply_the_terms_in_the_loss_and_not_in_the_report(make_terms):
    mean, log_var = _posteriors().astype("float32")
    regularizer = MutualPosteriorDivergence(diversity=2.0, smoothness=0.5)
    loss = regularizer(make_terms(mean, log_var), training=True)
    diversity, smoothness = regularizer.terms(mean, log_var)
    np.testing.assert_allclose(loss.report["diversity"], diversity, rtol=1e-6)
    np.testing.assert_allclose(loss.report["smoothness"], smoothness, rtol=1e-6)
    np.testing.assert_allclose(loss.batch, 2.0 * diversity + 0.5 * smoothness, rtol=1e-6)
    np.testing.assert_array_equal(loss.per_example, np.zeros(5))


def test_argument_errors(make_terms):
    with pytest.raises(
        ValueError, match="`diversity` must be a finite, non-negative number.*diversity=-1"
    ):
        MutualPosteriorDivergence(diversity=-1)
    with pytest.raises(
        ValueError, match="`smoothness` must be a finite, non-negative number.*smoothness=nan"
    ):
        MutualPosteriorDivergence(smoothness=float("nan"))
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean_of_soft.*='mean'"):
        MutualPosteriorDivergence(reduction="mean")
    x = np.zeros((2, 2), "float32")
    terms = make_terms(x, x)._replace(posterior=HierarchicalGaussian(x, x, x, x))
    with pytest.raises(TypeError, match="needs a diagonal Gaussian.*: HierarchicalGaussian"):
        MutualPosteriorDivergence()(terms)


def test_gradient_pushes_posteriors_apart(gradient):
    mean = np.float32([[0.2], [-0.1], [0.05]])
    regularizer = MutualPosteriorDivergence()
    found = gradient(lambda value: regularizer.terms(value, ops.zeros_like(value))[0], mean)
    assert found[0, 0] < 0.0 < found[1, 0]
