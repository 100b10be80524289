import warnings

import numpy as np
import pytest
from keras import ops

from vaezoo.layers import Gaussian
from vaezoo.losses import (
    HierarchicalGaussian,
    MaximumMeanDiscrepancy,
    MuELBO,
    mean_matching,
    variance_matching,
)

MEAN_MODES = ("global", "per_dimension", "per_sample")
VARIANCES = {
    "full": lambda lv: np.exp(lv) - lv - 1.0,
    "abs_lv": np.abs,
    "exp_only": lambda lv: np.exp(lv) - 1.0,
    "raw_lv": lambda lv: lv,
}


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).normal(size=(2, 5, 3))


@pytest.mark.parametrize(
    ("mode", "expected"), [("global", 0), ("per_dimension", 6), ("per_sample", 0)]
)
def test_mean_term_of_each_mode(mode, expected):
    mean = np.array([[1.0, -1.0], [2.0, -2.0]], "float32")
    assert float(ops.convert_to_numpy(2 * mean_matching(mean, mode))) == expected


def test_mean_matching_against_numpy(float64, batch):
    mean = batch[0]
    for mode, expected in zip(
        MEAN_MODES,
        (abs(mean.sum()), abs(mean.sum(0)).sum(), abs(mean.sum(1)).sum()),
        strict=True,
    ):
        np.testing.assert_allclose(mean_matching(mean, mode), expected / 5.0, rtol=1e-12)


def test_mean_matching_gradients_are_signs(batch, gradient):
    mean = batch[0].astype("float32")
    signs = (
        np.full_like(mean, np.sign(mean.sum())),
        np.tile(np.sign(mean.sum(0)), (5, 1)),
        np.tile(np.sign(mean.sum(1))[:, None], (1, 3)),
    )
    for mode, expected in zip(MEAN_MODES, signs, strict=True):
        found = gradient(lambda value, mode=mode: mean_matching(value, mode), mean)
        np.testing.assert_allclose(found, expected / 5.0, rtol=1e-6)


@pytest.mark.parametrize("mode", VARIANCES)
def test_variance_matching_against_numpy(float64, batch, mode):
    expected = VARIANCES[mode](batch[1]).sum(1)
    np.testing.assert_allclose(variance_matching(batch[1], mode), expected, rtol=1e-10)


def test_full_variance_term_of_three_variances():
    log_var = np.array([[0.0], [1.0], [-1.0]], "float32")
    np.testing.assert_allclose(variance_matching(log_var), [0.0, 0.718282, 0.367879], atol=1e-6)


def test_full_variance_term_keeps_its_digits_near_one():
    np.testing.assert_allclose(variance_matching(np.float32([[1e-3]])), [5.0016671e-7], rtol=2e-3)


@pytest.mark.large
def test_raw_log_variances_fall_without_end(gradient):
    size, rate = 4, 0.01
    start = np.random.default_rng(0).normal(size=(size, 3)).astype("float32")

    def charged(log_var):
        return ops.mean(variance_matching(log_var, "raw_lv"))

    np.testing.assert_allclose(gradient(charged, start), np.full((size, 3), 1.0 / size))
    log_var = start.astype("float64")
    for _ in range(1000):
        log_var -= rate * gradient(charged, log_var.astype("float32"))
    np.testing.assert_allclose(log_var, start - 1000 * rate / size, rtol=1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("mean_mode", MEAN_MODES)
def test_objective_adds_both_terms(make_terms, batch, mean_mode, half):
    mean, log_var = batch.astype("float32")
    log_px = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")
    terms = make_terms(mean, log_var, log_px, np.repeat(mean[:, None], 2, axis=1))
    objective = MuELBO(mean_mode, half=half)
    loss = objective(terms, training=True)
    factor = 0.5 if half else 1.0
    variance_term = factor * VARIANCES["full"](log_var).sum(1)
    np.testing.assert_allclose(loss.per_example, variance_term - log_px.mean(1), rtol=1e-5)
    np.testing.assert_allclose(
        loss.batch, factor * np.asarray(mean_matching(mean, mean_mode)), rtol=1e-6
    )
    np.testing.assert_allclose(loss.report["variance_term"], variance_term, rtol=1e-5)
    np.testing.assert_allclose(loss.report["mean_term"], loss.batch)
    assert objective.report_names == ("mean_term", "variance_term")


def test_half_full_term_and_squared_means_make_up_the_kl(make_terms, batch):
    mean, log_var = batch.astype("float32")
    terms = make_terms(mean, log_var)
    loss = MuELBO(half=True)(terms, training=True)
    np.testing.assert_allclose(loss.per_example + 0.5 * (mean**2).sum(1), terms.kl, rtol=1e-5)


def test_gaussian_of_variance_one_half_is_the_sum_of_squares():
    x, params = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    log_px = Gaussian(scale=0.5**0.5).log_prob(x, params[:, None])
    expected = ((x - params) ** 2).sum(1, keepdims=True) + 3.0 * np.log(np.pi)
    np.testing.assert_allclose(-np.asarray(log_px), expected, rtol=1e-5)


def test_further_regularizers_are_reported_after_its_own():
    objective = MuELBO(regularizers=[MaximumMeanDiscrepancy()])
    assert objective.report_names == ("mean_term", "variance_term", "mmd")


def test_unbounded_mode_warns():
    with pytest.warns(UserWarning, match="variance_mode='raw_lv' has no lower bound"):
        MuELBO(variance_mode="raw_lv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MuELBO(variance_mode="exp_only")


def test_argument_errors(make_terms):
    with pytest.raises(ValueError, match="`mean_mode` must be one of 'global',.*mean_mode='all'"):
        MuELBO("all")
    with pytest.raises(ValueError, match="`variance_mode` must be one of 'full',.*='lv'"):
        MuELBO(variance_mode="lv")
    x = np.zeros((2, 2), "float32")
    with pytest.raises(ValueError, match="`mode` must be one of 'global',.*mode='all'"):
        mean_matching(x, "all")
    with pytest.raises(ValueError, match="`mode` must be one of 'full',.*mode='lv'"):
        variance_matching(x, "lv")
    terms = make_terms(x, x)._replace(posterior=HierarchicalGaussian(x, x, x, x))
    with pytest.raises(TypeError, match="`MuELBO` needs a diagonal.* HierarchicalGaussian"):
        MuELBO()(terms)
