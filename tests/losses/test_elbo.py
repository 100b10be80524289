import numpy as np
import pytest
from keras import ops
from scipy import special

from vaezoo.losses import (
    ELBO,
    FreeBits,
    ImportanceWeightedELBO,
    LinearSchedule,
    MaximumMeanDiscrepancy,
    PointMass,
    Terms,
    importance_weighted_log_prob,
)


def _batch(seed=0, batch=5, draws=3, dim=4):
    rng = np.random.default_rng(seed)
    mean, log_var = rng.normal(size=(2, batch, dim)).astype("float32")
    z = mean[:, None] + np.exp(0.5 * log_var)[:, None] * rng.normal(size=(batch, draws, dim))
    log_px = rng.normal(-50.0, 5.0, size=(batch, draws)).astype("float32")
    return mean, log_var, log_px, z.astype("float32")


def _kl_per_dimension(mean, log_var):
    return 0.5 * (mean**2 + np.exp(log_var) - log_var - 1.0)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_elbo_is_distortion_plus_weighted_rate(make_terms, beta):
    mean, log_var, log_px, z = _batch()
    objective = ELBO(beta)
    loss = objective(make_terms(mean, log_var, log_px, z), training=True)
    expected = -log_px.mean(1) + beta * _kl_per_dimension(mean, log_var).sum(1)
    np.testing.assert_allclose(loss.per_example, expected, rtol=1e-5)
    assert loss.batch == 0.0
    assert loss.report == {}
    assert objective.needs_density == (beta > 0.0)


def test_beta_is_a_variable_that_may_be_set(make_terms):
    objective, (mean, log_var, log_px, z) = ELBO(), _batch()
    terms = make_terms(mean, log_var, log_px, z)
    objective.beta.assign(0.25)
    expected = -log_px.mean(1) + 0.25 * _kl_per_dimension(mean, log_var).sum(1)
    for training in (True, False):
        loss = objective(terms, training=training)
        np.testing.assert_allclose(loss.per_example, expected, rtol=1e-5)
    assert objective.get_config()["beta"] == 1.0


def test_beta_schedule_advances_in_training_and_settles_in_evaluation(make_terms):
    objective, (mean, log_var, log_px, z) = ELBO(LinearSchedule(4, stop=2.0)), _batch()
    terms = make_terms(mean, log_var, log_px, z)
    kl = _kl_per_dimension(mean, log_var).sum(1)
    for weight in (0.0, 0.5):
        loss = objective(terms, training=True)
        np.testing.assert_allclose(loss.per_example, -log_px.mean(1) + weight * kl, rtol=1e-5)
        assert float(loss.report["beta"]) == weight
        settled = objective(terms, training=False)
        np.testing.assert_allclose(settled.per_example, -log_px.mean(1) + 2.0 * kl, rtol=1e-5)
    assert float(objective.beta.numpy()) == 0.5
    assert objective.report_names == ("beta",)
    assert objective.needs_density


def test_elbo_of_a_deterministic_posterior_is_its_distortion():
    log_px = np.float32([[-3.0, -5.0], [-1.0, -2.0]])
    terms = Terms(log_px, None, None, np.full(2, np.inf), None, PointMass(np.zeros((2, 3))), None)
    loss = ELBO(beta=0.0)(terms, training=True)
    np.testing.assert_allclose(loss.per_example, [4.0, 1.5])


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf"), "1"])
def test_beta_out_of_range(beta):
    with pytest.raises(
        ValueError, match=f"`beta` must be .*non-negative.* Received: beta={beta!r}"
    ):
        ELBO(beta)


def test_regularizers_are_added(make_terms):
    mean, log_var, log_px, z = _batch()
    terms = make_terms(mean, log_var, log_px, z)
    objective = ELBO(regularizers=[MaximumMeanDiscrepancy(weight=3.0, seed=1)])
    loss = objective(terms, training=True)
    plain = ELBO()(terms, training=True)
    np.testing.assert_allclose(loss.per_example, plain.per_example, rtol=1e-6)
    np.testing.assert_allclose(loss.batch, 3.0 * np.asarray(loss.report["mmd"]), rtol=1e-6)
    assert objective.report_names == ("mmd",)
    assert objective.min_batch_size == 2


# -- free bits ---------------------------------------------------------------------------------


def _rates(mean, log_var, floor, variant):
    """The training rate of the batch, mean over examples, and its gradient by `mean`."""
    kl = _kl_per_dimension(mean, log_var)
    size = len(mean)
    if variant == "dim_batch_max":
        active = kl.mean(0) > floor
        return np.maximum(kl.mean(0), floor).sum(), mean * active / size
    if variant == "dim_sample_mask":
        return (kl * (kl > floor)).sum(1).mean(), mean * (kl > floor) / size
    total = kl.sum(1)
    if variant == "total_sample_mask":
        return (total * (total > floor)).mean(), mean * (total > floor)[:, None] / size
    return max(total.mean(), floor), mean * (total.mean() > floor) / size


@pytest.mark.parametrize("variant", FreeBits.variants)
@pytest.mark.parametrize("floor", [0.4, 2.5, 50.0])
def test_free_bits_values_and_gradients(make_terms, gradient, variant, floor):
    mean, log_var, log_px, _ = _batch(batch=6, dim=3)
    log_px = log_px[:, :1]
    objective = FreeBits(floor, variant, beta=2.0)

    def charged(given):
        loss = objective(make_terms(given, log_var, log_px), training=True)
        return ops.mean(loss.per_example) + loss.batch

    rate, slope = _rates(mean, log_var, floor, variant)
    np.testing.assert_allclose(charged(mean), 2.0 * rate - log_px.mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient(charged, mean), 2.0 * slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("variant", FreeBits.variants)
def test_evaluations_charge_the_plain_rate(make_terms, variant):
    mean, log_var, log_px, z = _batch()
    terms = make_terms(mean, log_var, log_px, z)
    free = FreeBits(50.0, variant)(terms, training=False)
    plain = ELBO()(terms, training=False)
    np.testing.assert_array_equal(free.per_example, plain.per_example)
    assert free.batch == 0.0


@pytest.mark.large_on_jax
def test_all_dimensions_below_the_floor(make_terms, gradient):
    dim, floor = 7, 0.3
    mean, log_var = 0.1 * np.random.default_rng(0).normal(size=(2, 8, dim)).astype("float32")
    assert _kl_per_dimension(mean, log_var).mean(0).max() < floor
    objective = FreeBits(floor)

    def rate(given):
        loss = objective(make_terms(*ops.unstack(given)), training=True)
        return ops.mean(loss.per_example) + loss.batch

    np.testing.assert_allclose(rate(np.stack([mean, log_var])), dim * floor, rtol=1e-6)
    np.testing.assert_array_equal(gradient(rate, np.stack([mean, log_var])), 0.0)


def test_masked_rate_below_the_floor_is_zero(make_terms):
    mean, log_var = 0.1 * np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    loss = FreeBits(0.3, "dim_sample_mask")(make_terms(mean, log_var), training=True)
    np.testing.assert_array_equal(loss.per_example, np.zeros(8))
    assert loss.batch == 0.0


def test_total_floor_above_the_mean_kl(make_terms, gradient):
    mean = np.full((4, 6), 1.0, "float32")
    objective = FreeBits(7.84, "total_batch_max")
    np.testing.assert_allclose(make_terms(mean, np.zeros_like(mean)).kl, 3.0, rtol=1e-6)

    def rate(given):
        loss = objective(make_terms(given, np.zeros_like(mean)), training=True)
        return ops.mean(loss.per_example) + loss.batch

    np.testing.assert_allclose(rate(mean), 7.84, rtol=1e-6)
    np.testing.assert_array_equal(gradient(rate, mean), 0.0)


def test_free_bits_is_a_variable_that_may_be_set(make_terms):
    objective, (mean, log_var, *_) = FreeBits(0.1), _batch()
    objective.free_bits.assign(30.0)
    loss = objective(make_terms(mean, log_var), training=True)
    np.testing.assert_allclose(loss.batch, 4 * 30.0, rtol=1e-6)
    assert objective.get_config()["free_bits"] == 0.1


def test_free_bits_argument_errors():
    with pytest.raises(
        ValueError, match="`free_bits` must be a finite, non-negative number. .* free_bits=-0.1"
    ):
        FreeBits(-0.1)
    with pytest.raises(ValueError, match="`variant` must be one of 'dim_batch_max'.*variant='max'"):
        FreeBits(variant="max")
    with pytest.raises(ValueError, match="`beta` must be a finite, non-negative number"):
        FreeBits(beta=-1.0)


def test_free_bits_per_dimension_need_a_closed_form(make_terms):
    terms = make_terms(*_batch())._replace(kl_per_dimension=None)
    with pytest.raises(ValueError, match="`variant` must be a `total_` one.*'dim_sample_mask'"):
        FreeBits(0.1, "dim_sample_mask")(terms, training=True)
    total = FreeBits(0.1, "total_sample_mask")(terms, training=True)
    assert np.all(np.isfinite(np.asarray(total.per_example)))


# -- importance weighting ----------------------------------------------------------------------


def test_importance_weighted_bound_is_a_log_mean(make_terms):
    terms = make_terms(*_batch(draws=7))
    weights = np.asarray(terms.log_px + terms.log_pz - terms.log_qz, "float64")
    expected = special.logsumexp(weights, axis=1) - np.log(7.0)
    np.testing.assert_allclose(importance_weighted_log_prob(terms), expected, rtol=1e-5)
    loss = ImportanceWeightedELBO()(terms, training=True)
    np.testing.assert_allclose(loss.per_example, -expected, rtol=1e-5)


def test_one_sample_is_the_sampled_elbo(make_terms):
    terms = make_terms(*_batch(draws=1))
    sampled = terms.log_qz[:, 0] - terms.log_pz[:, 0] - terms.log_px[:, 0]
    loss = ImportanceWeightedELBO()(terms, training=True)
    np.testing.assert_allclose(loss.per_example, sampled, rtol=1e-6)


def test_bound_survives_log_weights_far_below_zero(make_terms):
    mean = np.zeros((1, 2), "float32")
    log_px = np.float32([[-3000.0, -3001.0, -9000.0]])
    terms = make_terms(mean, mean, log_px, np.zeros((1, 3, 2), "float32"))
    expected = -3000.0 + np.log(1.0 + np.exp(-1.0)) - np.log(3.0)
    np.testing.assert_allclose(importance_weighted_log_prob(terms), [expected], rtol=1e-6)


def _linear_gaussian(draws, widen, shift, batch, seed=0):
    """x = w z + noise, with z ~ N(0, 1): `Terms` arguments and the exact log p(x)."""
    rng = np.random.default_rng(seed)
    w, noise_var, x = 1.5, 0.5, 0.8
    var = 1.0 / (1.0 + w**2 / noise_var)
    mean = np.full((batch, 1), var * w * x / noise_var + shift)
    log_var = np.full((batch, 1), np.log(var * widen))
    z = mean[:, None] + np.exp(0.5 * log_var)[:, None] * rng.normal(size=(batch, draws, 1))
    log_px = -0.5 * ((x - w * z[:, :, 0]) ** 2 / noise_var + np.log(2.0 * np.pi * noise_var))
    marginal = w**2 + noise_var
    return (mean, log_var, log_px, z), -0.5 * (x**2 / marginal + np.log(2.0 * np.pi * marginal))


@pytest.mark.parametrize("draws", [1, 10])
def test_exact_posterior_gives_the_exact_likelihood(float64, make_terms, draws):
    arguments, exact = _linear_gaussian(draws, widen=1.0, shift=0.0, batch=4)
    bound = importance_weighted_log_prob(make_terms(*arguments))
    np.testing.assert_allclose(bound, exact, rtol=1e-10)


@pytest.mark.large_on_jax
def test_bound_tightens_with_the_number_of_samples(float64, make_terms):
    batch, previous = 4000, (-np.inf, 0.0)
    for draws in (1, 8, 64):
        arguments, exact = _linear_gaussian(draws, widen=2.0, shift=0.3, batch=batch)
        bound = np.asarray(importance_weighted_log_prob(make_terms(*arguments)))
        error = bound.std() / np.sqrt(batch)
        assert bound.mean() > previous[0] + 2.0 * np.hypot(error, previous[1])
        assert bound.mean() < exact + 2.0 * error
        previous = bound.mean(), error
