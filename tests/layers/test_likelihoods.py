import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from vaezoo.layers import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Gaussian,
    Likelihood,
    get_likelihood,
)

# Where the normalizer of the continuous Bernoulli is delicate, and the ends of the range.
LOGITS = np.array(
    [0.0, 1e-8, -1e-4, 2e-3, -4e-3, 4.1e-3, 0.05, 0.5, -3.0, 20.0, -20.0, 200.0], "float32"
)


def _log_prob(likelihood, x, params):
    """Log p(x|z) of n values of x under each of m parameters, `(n, m)`."""
    params = np.broadcast_to(params, (len(x), *np.shape(params)))
    return np.asarray(likelihood.log_prob(x, params), "float64")


def _nodes():
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return 0.5 * (nodes + 1.0), 0.5 * weights


def _continuous_bernoulli(x, logits):
    """Density C exp(x l), in float64."""
    logits = np.asarray(logits, "float64")
    safe = np.where(np.abs(logits) < 1e-6, 1.0, logits)
    # l / (exp(l) - 1) = |l| exp(-max(l, 0)) / (1 - exp(-|l|))
    log_norm = np.log(np.abs(safe)) - np.maximum(safe, 0.0) - np.log(-np.expm1(-np.abs(safe)))
    return np.exp(x * logits + np.where(np.abs(logits) < 1e-6, -0.5 * logits, log_norm))


def _scale(decoder_output, min_scale=1e-3):
    return np.logaddexp(0.0, decoder_output) + min_scale


# -- normalization -----------------------------------------------------------------------------


def test_bernoulli_sums_to_one_over_all_images():
    x = np.array(list(itertools.product((0.0, 1.0), repeat=3)), "float32")
    params = np.float32([[0.0, 0.0, 0.0], [-30.0, 0.7, 3.0], [50.0, -2.0, 0.1]])
    total = np.exp(_log_prob(Bernoulli(), x, params)).sum(0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


@pytest.mark.large_on_jax
def test_categorical_sums_to_one_over_all_images():
    x = np.array(list(itertools.product(range(4), repeat=2)), "int32")
    params = np.random.default_rng(0).normal(0.0, 3.0, size=(3, 2, 4)).astype("float32")
    total = np.exp(_log_prob(Categorical(4), x, params)).sum(0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


@pytest.mark.large
def test_continuous_bernoulli_integrates_to_one():
    x, weights = _nodes()
    density = np.exp(_log_prob(ContinuousBernoulli(), x[:, None], LOGITS[:, None]))
    np.testing.assert_allclose(weights @ density, 1.0, rtol=1e-4)
    np.testing.assert_allclose(density, _continuous_bernoulli(x[:, None], LOGITS), rtol=1e-4)


@pytest.mark.parametrize("scale", [0.3, "learned", "decoder"])
def test_gaussian_integrates_to_one_and_has_the_normal_density(scale):
    x, step = np.linspace(-20.0, 20.0, 2001, retstep=True)
    likelihood = Gaussian(scale)
    params, scales = np.float32([[-1.0], [0.5]]), np.array([0.3, 0.3])
    if scale == "learned":
        likelihood.raw_scale.assign(-1.0)
        scales = np.full(2, _scale(-1.0))
    if scale == "decoder":
        raw = np.float32([[-1.0], [1.5]])
        params, scales = np.concatenate([params, raw], axis=1), _scale(raw[:, 0])
    density = np.exp(_log_prob(likelihood, x[:, None], params))
    # The trapezoidal rule is as good as exact for what vanishes at both ends.
    np.testing.assert_allclose(step * density.sum(0), 1.0, rtol=1e-5)
    standard = (x[:, None] - params[:, 0]) / scales
    expected = np.exp(-0.5 * standard**2) / (scales * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(density, expected, rtol=1e-4, atol=1e-30)


def test_learned_scale_starts_at_one():
    np.testing.assert_allclose(
        Gaussian("learned").log_prob(np.zeros((1, 3)), np.zeros((1, 1, 3), "float32")),
        [[-1.5 * np.log(2.0 * np.pi) - 3.0 * np.log(1.001)]],
        rtol=1e-5,
    )


# -- values ------------------------------------------------------------------------------------


def test_bernoulli_is_the_cross_entropy_for_gray_values_too():
    rng = np.random.default_rng(0)
    x, logits = rng.random((2, 5)), rng.normal(0.0, 4.0, size=(2, 3, 5)).astype("float32")
    expected = (x[:, None] * logits - np.logaddexp(0.0, logits)).sum(-1)
    np.testing.assert_allclose(Bernoulli().log_prob(x, logits), expected, rtol=1e-5)


def test_event_axes_are_summed_and_draws_kept():
    x = np.random.default_rng(0).random((2, 4, 4, 1)).astype("float32")
    params = np.zeros((2, 3, 4, 4, 1), "float32")
    np.testing.assert_allclose(
        Bernoulli().log_prob(x, params), np.full((2, 3), -16.0 * np.log(2.0)), rtol=1e-6
    )


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("make", [Bernoulli, ContinuousBernoulli])
def test_extreme_logits_stay_finite(make, logit, gradient):
    x, likelihood = np.float32([[0.3]]), make()

    def value(params):
        return ops.sum(likelihood.log_prob(x, params))

    params = np.full((1, 1, 1), logit, "float32")
    assert np.isfinite(np.asarray(value(params)))
    np.testing.assert_allclose(gradient(value, params), 0.3 - (logit > 0.0), atol=2e-3)


def test_continuous_bernoulli_gradient_near_the_removable_singularity(gradient):
    x, likelihood = np.full((len(LOGITS), 1), 0.3, "float32"), ContinuousBernoulli()

    def value(logits):
        return ops.sum(likelihood.log_prob(x, logits[:, None, None]))

    logits, step = LOGITS.astype("float64"), 1e-4
    log_density = np.log(_continuous_bernoulli(0.3, np.stack([logits + step, logits - step])))
    expected = (log_density[0] - log_density[1]) / (2.0 * step)
    np.testing.assert_allclose(gradient(value, LOGITS), expected, atol=2e-4)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        (Bernoulli(), [[0.0, 1.0]]),
        (ContinuousBernoulli(), [[0.2, 0.9]]),
        (Gaussian(), [[-0.5, 0.25]]),
        (Gaussian("learned"), [[-0.5, 0.25]]),
        (Gaussian("decoder"), [[-0.5, 0.25]]),
        (Categorical(3), [[0, 2]]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_densities_are_float32_whatever_goes_in(likelihood, x):
    shape = likelihood.params_shape((2,))
    params = np.random.default_rng(0).normal(size=(1, 1, *shape)).astype("float16")
    expected = likelihood.log_prob(np.array(x, "float32"), params.astype("float32"))
    for dtype in ("float16", "float64"):
        value = likelihood.log_prob(np.array(x, dtype), params)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        np.testing.assert_allclose(value, expected, rtol=2e-3)
    assert keras.backend.standardize_dtype(likelihood.mean(params).dtype) in ("float32", "int32")


# -- means and draws ---------------------------------------------------------------------------


@pytest.mark.large
def test_continuous_bernoulli_mean_against_quadrature():
    x, weights = _nodes()
    expected = weights @ (x[:, None] * _continuous_bernoulli(x[:, None], LOGITS))
    np.testing.assert_allclose(ContinuousBernoulli().mean(LOGITS), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("likelihood", "params"),
    [
        (Bernoulli(), [[-1.5], [0.3]]),
        (ContinuousBernoulli(), [[-4.0], [0.0], [1.0], [12.0]]),
        (Gaussian(0.5), [[-1.0], [2.0]]),
        (Gaussian("learned"), [[-1.0], [2.0]]),
        (Gaussian("decoder"), [[-1.0, 0.5], [2.0, -1.0]]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_draws_have_the_mean_and_spread_of_the_density(likelihood, params):
    count = 20_000
    params = np.tile(np.array(params, "float32")[:, None], (1, count, 1))
    draws = np.asarray(likelihood.sample(params, keras.random.SeedGenerator(0)), "float64")[..., 0]
    mean = np.asarray(likelihood.mean(params))[:, 0, 0]
    np.testing.assert_allclose(likelihood(params)[:, 0, 0], mean)
    sd = np.asarray(likelihood.distribution(ops.convert_to_tensor(params)).stddev())[:, 0, 0]
    np.testing.assert_array_less(abs(draws.mean(1) - mean), 4.0 * sd / np.sqrt(count))
    spread = (draws - mean[:, None]) ** 2
    error = spread.std(1) / np.sqrt(count)
    np.testing.assert_array_less(abs(spread.mean(1) - sd**2), 4.0 * error)
    assert likelihood.support[0] <= draws.min() <= draws.max() <= likelihood.support[1]


def test_bernoulli_draws_are_binary():
    draws = Bernoulli().sample(np.zeros((50, 4), "float32"), keras.random.SeedGenerator(0))
    assert set(np.unique(draws)) == {0.0, 1.0}


def test_categorical_draws_and_mode():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    count = 20_000
    params = np.tile(np.log(probabilities).astype("float32"), (count, 1, 1))
    draws = np.asarray(Categorical(3).sample(params, keras.random.SeedGenerator(0)))
    assert draws.shape == (count, 2)
    found = (draws[:, :, None] == np.arange(3)).mean(0)
    error = np.sqrt(probabilities * (1.0 - probabilities) / count)
    np.testing.assert_array_less(abs(found - probabilities), 4.0 * error)
    np.testing.assert_array_equal(Categorical(3).mean(params[0]), [2, 0])


def test_equal_seeds_give_equal_draws():
    params = np.zeros((3, 4), "float32")
    for likelihood in (Bernoulli(), ContinuousBernoulli(), Gaussian()):
        draws = [likelihood.sample(params, keras.random.SeedGenerator(seed)) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.array_equal(draws[0], draws[2])


def test_shapes_of_decoder_outputs():
    assert Bernoulli().params_shape((8, 8, 3)) == (8, 8, 3)
    assert Gaussian().params_shape((8, 8, 3)) == (8, 8, 3)
    assert Gaussian("decoder").params_shape((8, 8, 3)) == (8, 8, 6)
    assert Categorical(256).params_shape((8, 8, 3)) == (8, 8, 3, 256)


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (
            Bernoulli(),
            [0.0, 255.0],
            r"`x` must lie in \[0, 1\] under a Bernoulli likelihood \(divide 8-bit images by 255\)"
            r"\. Received: values from 0 to 255$",
        ),
        (
            ContinuousBernoulli(),
            [-0.5, 1.0],
            r"in \[0, 1\] under a ContinuousBernoulli likelihood\. Received: .* from -0.5 to 1$",
        ),
        (Bernoulli(), [0.0, np.nan], "`x` must hold finite numbers. Received: NaN or infinity"),
        (Gaussian(), [0.0, np.inf], "`x` must hold finite numbers. Received: NaN or infinity"),
        (Categorical(4), [0, 4], r"in \[0, 3\] under a Categorical.* Received: .* from 0 to 4$"),
        (Categorical(4), [0.0, 0.5], "`x` must hold whole numbers.* Received: 0.5 among"),
    ],
)
def test_support(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        likelihood.check(np.array(x))


def test_supported_values_pass():
    Bernoulli().check(np.array([0.0, 0.3, 1.0]))
    Gaussian().check(np.array([-1e6, 1e6]))
    Categorical(4).check(np.array([0, 3], "uint8"))
    Categorical(4).check(np.array([0.0, 3.0]))


@pytest.mark.parametrize("scale", [0.0, -1.0, "free", None])
def test_gaussian_scale_error(scale):
    message = (
        "`scale` must be a finite, positive number or 'optimal', 'learned' or 'decoder'. "
        "Received: "
        f"scale={scale!r}"
    )
    with pytest.raises(ValueError, match=message):
        Gaussian(scale)


def test_further_argument_errors():
    with pytest.raises(
        ValueError, match="`min_scale` must be a finite, positive number. Received: min_scale=0.0"
    ):
        Gaussian("learned", min_scale=0.0)
    for number in (1, 2.0):
        message = f"`num_classes` must be an integer of at least 2. .*num_classes={number}"
        with pytest.raises(ValueError, match=message):
            Categorical(number)


def test_get_likelihood():
    assert type(get_likelihood("bernoulli")) is Bernoulli
    assert type(get_likelihood("continuous_bernoulli")) is ContinuousBernoulli
    assert type(get_likelihood("gaussian")) is Gaussian
    given = Categorical(5)
    assert get_likelihood(given) is given
    with pytest.raises(ValueError, match="`likelihood` must be one of bernoulli, .*='poisson'"):
        get_likelihood("poisson")
    with pytest.raises(TypeError, match="must be a name or a vaezoo likelihood. Received: int"):
        get_likelihood(3)


def test_base_leaves_its_methods_open():
    base, params = Likelihood(), np.zeros((1, 2), "float32")
    for method in (base.mean, lambda p: base.sample(p, None)):
        with pytest.raises(NotImplementedError):
            method(params)


# -- the optimal scale ----------------------------------------------------------------------------


def _batch(rows=6, draws=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, rng.normal(size=(rows, draws, 4)).astype("float32")


def test_optimal_scale_maximizes_the_likelihood_of_the_batch():
    x, params = _batch()
    mean_square = np.mean((x[:, None] - params) ** 2)
    found = np.asarray(Gaussian("optimal").training_log_prob(x, params))
    expected = stats.norm.logpdf(x[:, None], params, np.sqrt(mean_square)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for factor in (0.99, 1.01):
        fixed = Gaussian(float(factor * np.sqrt(mean_square))).log_prob(x, params)
        assert np.mean(fixed) < found.mean()


def test_optimal_scale_has_the_gradient_of_the_log_mean_square(gradient):
    x, params = _batch(draws=1)
    likelihood = Gaussian("optimal")
    found = gradient(lambda p: -ops.sum(likelihood.training_log_prob(x, p)), params)
    residual = x[:, None] - params
    # Of -log p = n/2 log(mean square) + constant, as in the paper.
    np.testing.assert_allclose(found, -residual / np.mean(residual**2), rtol=1e-4)


def test_optimal_scale_is_a_running_one_outside_of_training():
    likelihood = Gaussian("optimal", momentum=0.9)
    x, params = _batch()
    start = likelihood.log_prob(x, params)
    np.testing.assert_allclose(start, Gaussian(1.0).log_prob(x, params), rtol=1e-6)
    squares = []
    for seed, factor in enumerate((1.0, 3.0, 0.2)):
        x, params = _batch(seed=seed)
        likelihood.training_log_prob(factor * x, factor * params)
        squares.append(factor**2 * np.mean((x[:, None] - params) ** 2))
    weights = 0.9 ** np.arange(3)[::-1]
    scale = float(np.sqrt(np.sum(weights * squares) / np.sum(weights)))
    np.testing.assert_allclose(
        likelihood.log_prob(x, params), Gaussian(scale).log_prob(x, params), rtol=1e-5
    )
    np.testing.assert_allclose(likelihood.distribution(0.0).stddev(), scale, rtol=1e-5)


def test_optimal_scale_has_a_least_value():
    x = np.zeros((2, 3), "float32")
    likelihood = Gaussian("optimal", min_scale=0.5)
    found = likelihood.training_log_prob(x, x[:, None])
    np.testing.assert_allclose(found, Gaussian(0.5).log_prob(x, x[:, None]), rtol=1e-6)


@pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan"), "slow"])
def test_momentum_error(momentum):
    with pytest.raises(ValueError, match="`momentum` must be .*Received: momentum="):
        Gaussian("optimal", momentum=momentum)
