import itertools

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import compiled
from vaezoo.layers.logistic_mixture import DiscretizedLogisticMixture
from vaezoo.losses import tfd

# Raw log-scales from the clamp at -7 to components far wider than the range, means within and
# beyond it, on and between the levels.
MEANS = np.float32([-4.0, -1.0, -0.4, 0.0, 1.0 / 255.0, 0.3, 1.0, 9.0])
LOG_SCALES = np.float32([-30.0, -7.0, -5.0, -2.0, 0.0, 3.0, 40.0])
GRID = np.float32(list(itertools.product(MEANS, LOG_SCALES)))


def _levels(num_levels=256):
    return (np.arange(num_levels) / (num_levels - 1.0)).astype("float32")


def _single(means, log_scales):
    """Parameters of one component and one channel, a pixel each, `(n, 3)`."""
    return np.stack([np.zeros_like(means), means, log_scales], axis=-1)


def _probabilities(likelihood, images, params):
    """Probability of each of n images `(n, C)` under each of m pixels' parameters, `(n, m)`."""
    params = np.broadcast_to(params, (len(images), *params.shape))
    return np.exp(np.asarray(_run(likelihood.log_prob)(images, params), "float64"))


def _run(method):
    """Compiled at once: operation by operation JAX compiles each of them."""
    return compiled(method.__self__, method)


def _draws(likelihood, params, count, seed=0):
    """Draws from one pixel, `(count, C)`."""
    channels = likelihood.mean(params).shape[-1]
    uniform = np.random.default_rng(seed).random((count, likelihood.num_uniforms(channels)))
    params = np.broadcast_to(params, (count, params.shape[1]))
    return np.asarray(_run(likelihood.from_uniform)(params, uniform.astype("float32")))


def _params(channels, mixtures, seed=0):
    """Parameters of a pixel whose components lie apart, `(1, P)`."""
    rng = np.random.default_rng(seed)
    rows = (channels + 1) * (channels + 2) // 2
    parts = rng.normal(0.0, 1.0, size=(rows, mixtures))
    parts[1 : 1 + channels] = rng.uniform(-0.8, 0.8, size=(channels, mixtures))
    parts[1 + channels : 1 + 2 * channels] = rng.uniform(-3.0, -0.5, size=(channels, mixtures))
    return parts.reshape(1, -1).astype("float32")


def _by_hand(x, params, channels, mixtures):
    """Log-probability of one pixel by its definition, in float64."""
    parts = params.astype("float64").reshape(-1, mixtures)
    means, log_scales = parts[1 : 1 + channels], parts[1 + channels : 1 + 2 * channels]
    pairs = [(c, j) for c in range(channels) for j in range(c)]
    slopes = dict(zip(pairs, np.tanh(parts[1 + 2 * channels :]), strict=True))

    def below(t):
        return 1.0 / (1.0 + np.exp(-t))

    v, total = 2.0 * x.astype("float64") - 1.0, 0.0
    for k in range(mixtures):
        weight = np.exp(parts[0, k]) / np.exp(parts[0]).sum()
        for c in range(channels):
            mean = means[c, k] + sum(slopes[c, j][k] * v[j] for j in range(c))
            scale = np.exp(log_scales[c, k])
            high = 1.0 if x[c] == 1.0 else below((v[c] + 1.0 / 255.0 - mean) / scale)
            low = 0.0 if x[c] == 0.0 else below((v[c] - 1.0 / 255.0 - mean) / scale)
            weight *= high - low
        total += weight
    return np.log(total)


# -- probabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize("small_bins", ["density", "exact"])
def test_all_256_levels_sum_to_one(small_bins):
    likelihood = DiscretizedLogisticMixture(1, small_bins=small_bins)
    total = _probabilities(likelihood, _levels()[:, None], _single(*GRID.T)).sum(0)
    tolerance = 1e-4 if small_bins == "density" else 1e-5
    np.testing.assert_allclose(total, 1.0, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("channels", [2, 3])
def test_all_pixels_of_several_channels_sum_to_one(channels):
    num_levels = 9
    likelihood = DiscretizedLogisticMixture(4, num_levels, small_bins="exact")
    pixels = np.float32(list(itertools.product(_levels(num_levels), repeat=channels)))
    total = _probabilities(likelihood, pixels, _params(channels, 4)).sum(0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_tfp_quantized_logistic_is_the_single_component():
    means, log_scales = np.float32(list(itertools.product(MEANS, LOG_SCALES[1:6]))).T
    scale = np.exp(log_scales)
    # In units of levels; TFP's bin y is (y - 1, y].
    logistic = tfd().Logistic(127.5 * (means + 1.0) - 0.5, 127.5 * scale)
    oracle = tfd().QuantizedDistribution(logistic, low=0.0, high=255.0)
    levels = np.arange(256, dtype="float32")[:, None]
    expected = np.exp(np.asarray(oracle.log_prob(levels)))
    actual = _probabilities(
        DiscretizedLogisticMixture(1, small_bins="exact"),
        _levels()[:, None],
        _single(means, log_scales),
    )
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-6)


@pytest.mark.large_on_jax
def test_tfp_mixture_is_the_case_of_one_channel():
    params = _params(1, 5)
    logits, means, log_scales = params.reshape(3, 5)
    logistic = tfd().Logistic(127.5 * (means + 1.0) - 0.5, 127.5 * np.exp(log_scales))
    components = tfd().QuantizedDistribution(logistic, low=0.0, high=255.0)
    oracle = tfd().MixtureSameFamily(tfd().Categorical(logits=logits), components)
    expected = np.asarray(oracle.log_prob(np.arange(256, dtype="float32")))
    likelihood = DiscretizedLogisticMixture(5)
    actual = np.log(_probabilities(likelihood, _levels()[:, None], params)[:, 0])
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_channels_share_the_component_and_follow_each_other():
    likelihood, params = DiscretizedLogisticMixture(4), _params(3, 4, seed=3)
    levels = np.array([[0, 130, 255], [255, 0, 17], [40, 60, 80], [128, 128, 128]])
    x = (levels / 255.0).astype("float32")
    actual = np.log(_probabilities(likelihood, x, params)[:, 0])
    expected = [_by_hand(row, params[0], 3, 4) for row in x]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_last_channel_sums_out():
    # What is left is the likelihood of the first two, under their own parameters.
    mixtures, levels = 3, _levels(9)
    rows = _params(3, mixtures, seed=4).reshape(10, mixtures)
    first_two = rows[[0, 1, 2, 4, 5, 7]].reshape(1, -1)
    likelihood = DiscretizedLogisticMixture(mixtures, 9, small_bins="exact")
    pixels = np.float32(list(itertools.product(levels, repeat=3)))
    joint = _probabilities(likelihood, pixels, rows.reshape(1, -1)).reshape(81, 9)
    expected = _probabilities(likelihood, pixels[::9, :2], first_two)[:, 0]
    np.testing.assert_allclose(joint.sum(1), expected, rtol=1e-4)


def test_small_bins_take_their_mass_from_the_density():
    params, x = _single(np.float32([0.0]), np.float32([-7.0])), np.float32([[0.6]])
    exact, density = (
        _run(DiscretizedLogisticMixture(1, small_bins=kind).log_prob)(x, params[None])[0, 0]
        for kind in ("exact", "density")
    )
    # The next levels to 0.2 are the 153rd of 255; there F(t) = exp(t) holds to the last digit.
    v, inverse = 2.0 * 153.0 / 255.0 - 1.0, np.exp(7.0)
    expected = -v * inverse + 7.0 + np.log(2.0 / 255.0)
    np.testing.assert_allclose(density, expected, rtol=1e-5)
    nearest = -(v - 1.0 / 255.0) * inverse + np.log1p(-np.exp(-2.0 / 255.0 * inverse))
    np.testing.assert_allclose(exact, nearest, rtol=1e-5)


def test_images_are_rounded_to_levels_and_pixels_summed():
    likelihood = DiscretizedLogisticMixture(2)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3, 4, 5, 2)) / 255.0
    params = rng.normal(size=(3, 2, 4, 5, 12)).astype("float32")
    log_prob = _run(likelihood.log_prob)
    value = np.asarray(log_prob(x.astype("float32"), params))
    assert value.shape == (3, 2)
    moved = (x + rng.uniform(-0.4, 0.4, x.shape) / 255.0).clip(0.0, 1.0).astype("float32")
    np.testing.assert_array_equal(log_prob(moved, params), value)
    by_pixel = log_prob(x.reshape(-1, 2).astype("float32"), params[:, 1].reshape(-1, 1, 12))
    total = np.asarray(by_pixel).reshape(3, -1).sum(1)
    np.testing.assert_allclose(value[:, 1], total, rtol=1e-5)


@pytest.mark.large
def test_wide_and_narrow_components_have_finite_gradients_at_every_level(gradient):
    x = np.tile(np.float32([0.0, 0.1, 0.5, 1.0])[:, None, None], (1, len(GRID), 1))
    for small_bins in ("density", "exact"):
        likelihood = DiscretizedLogisticMixture(1, small_bins=small_bins)

        def value(params, likelihood=likelihood):
            return ops.sum(likelihood.log_prob(x, params))

        params = np.tile(_single(*GRID.T)[None, None], (4, 1, 1, 1))
        assert np.isfinite(np.asarray(value(params)))
        slopes = gradient(value, params)
        assert np.isfinite(slopes).all()
        # Below the clamp the log-scale is out of play.
        np.testing.assert_array_equal(slopes[..., 2][..., GRID[:, 1] < -7.0], 0.0)
        assert (slopes[..., 1] != 0.0).any()


# -- means and draws -----------------------------------------------------------------------------


@pytest.mark.large_on_jax
def test_mean_of_one_channel_is_exact_to_half_a_bin():
    likelihood = DiscretizedLogisticMixture(1)
    params = _single(*GRID.T)
    exact = _levels() @ _probabilities(likelihood, _levels()[:, None], params)
    np.testing.assert_allclose(likelihood(params)[:, 0], exact, rtol=0.0, atol=0.51 / 255.0)
    wide = GRID[:, 1] >= -2.0
    np.testing.assert_allclose(likelihood.mean(params[wide])[:, 0], exact[wide], atol=2e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("channels", [1, 3])
def test_draws_follow_the_probabilities(channels):
    count, num_levels = 20_000, 4
    likelihood = DiscretizedLogisticMixture(3, num_levels, small_bins="exact")
    params = _params(channels, 3, seed=1)
    draws = _draws(likelihood, params, count)
    assert draws.shape == (count, channels)
    digits = draws * (num_levels - 1.0)
    np.testing.assert_allclose(digits, np.round(digits), atol=1e-5)
    numbers = np.round(digits).astype("int64") @ num_levels ** np.arange(channels)[::-1]
    frequency = np.bincount(numbers, minlength=num_levels**channels) / count
    pixels = np.float32(list(itertools.product(_levels(num_levels), repeat=channels)))
    expected = _probabilities(likelihood, pixels, params)[:, 0]
    error = np.sqrt(expected * (1.0 - expected) / count)
    np.testing.assert_array_less(abs(frequency - expected), 4.0 * error + 1e-5)


@pytest.mark.large_on_jax
def test_mean_of_several_channels_is_that_of_the_draws_inside_the_range():
    count, likelihood = 20_000, DiscretizedLogisticMixture(2)
    # Logits; means, log-scales of three channels; three coefficients.
    rows = [[0.3, -0.4], [-0.3, 0.2], [0.1, -0.1], [0.0, 0.2], *[[-3.0, -4.0]] * 3]
    params = np.float32([*rows, [0.5, -0.5], [0.2, 0.3], [-0.4, 1.0]]).reshape(1, -1)
    draws = _draws(likelihood, params, count, seed=1)
    error = draws.std(0) / np.sqrt(count)
    np.testing.assert_array_less(abs(likelihood.mean(params)[0] - draws.mean(0)), 4.0 * error)


@pytest.mark.large
def test_a_draw_takes_its_component_at_random():
    # The published code of MAE always takes the most probable one.
    likelihood = DiscretizedLogisticMixture(2)
    params = np.float32([[np.log(0.6), np.log(0.4), -0.5, 0.5, -7.0, -7.0]])
    count = 4_000
    draws = np.asarray(
        likelihood.sample(np.broadcast_to(params, (count, 6)), keras.random.SeedGenerator(0))
    )
    share = (draws > 0.5).mean()
    assert abs(share - 0.4) < 4.0 * np.sqrt(0.24 / count)
    np.testing.assert_allclose(likelihood.mode(params), [[64.0 / 255.0]], rtol=1e-6)


def test_mode_follows_the_conditional_means_of_the_likeliest_component():
    likelihood = DiscretizedLogisticMixture(2)
    rows = [[0.0, 1.0], [0.9, 0.2], [0.9, -0.6], [0.9, 3.0], *[[0.0, 0.0]] * 3]
    params = np.float32([*rows, [0.0, 0.5], [0.0, 0.1], [0.0, 2.0]]).reshape(1, -1)
    first = 2.0 * np.round(127.5 * 1.2) / 255.0 - 1.0
    second = 2.0 * np.round(127.5 * (0.4 + np.tanh(0.5) * first)) / 255.0 - 1.0
    expected = [[(first + 1.0) / 2.0, (second + 1.0) / 2.0, 1.0]]
    np.testing.assert_allclose(likelihood.mode(params), expected, rtol=1e-5)


@pytest.mark.large_on_jax
def test_a_channel_sees_the_channels_before_it_only():
    likelihood, params = DiscretizedLogisticMixture(3), _params(3, 3)
    uniform = np.tile(np.float32([[0.4, 0.3, 0.6, 0.8]]), (4, 1))
    for channel in range(3):
        uniform[1 + channel, 1 + channel] = 0.05
    draws = np.asarray(likelihood.from_uniform(np.tile(params, (4, 1)), uniform))
    changed = draws[1:] != draws[0]
    np.testing.assert_array_equal(changed, [[True, True, True], [False, True, True], [0, 0, 1]])


@pytest.mark.large_on_jax
def test_noise_at_its_ends_gives_images():
    likelihood = DiscretizedLogisticMixture(1)
    params = np.tile(_single(*GRID.T), (2, 1))
    uniform = np.repeat(np.float32([[0.0, 0.0], [1.0, 1.0]]), len(GRID), axis=0)
    draws = np.asarray(likelihood.from_uniform(params, uniform))[:, 0]
    np.testing.assert_array_equal(draws, np.repeat(np.float32([0.0, 1.0]), len(GRID)))


# -- shapes and errors ---------------------------------------------------------------------------


@pytest.mark.large_on_jax
@pytest.mark.parametrize(("channels", "values"), [(1, 30), (2, 60), (3, 100)])
def test_values_a_pixel(channels, values):
    likelihood = DiscretizedLogisticMixture(10)
    assert likelihood.params_shape((32, 32, channels)) == (32, 32, values)
    assert likelihood.mean(np.zeros((2, 4, values), "float32")).shape == (2, 4, channels)
    assert likelihood.num_uniforms(channels) == channels + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_mixtures": 0}, "`num_mixtures` must be a positive integer.*num_mixtures=0"),
        ({"num_levels": 1}, "`num_levels` must be an integer of at least 2.*num_levels=1"),
        ({"num_levels": True}, "num_levels=True"),
        (
            {"min_log_scale": -21.0},
            r"must be a number in \[-20, 20\]. Received: min_log_scale=-21.0",
        ),
        ({"small_bins": "none"}, "`small_bins` must be one of 'density', 'exact'.*'none'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiscretizedLogisticMixture(**arguments)


def test_parameters_of_no_number_of_channels():
    for size in (99, 10, 20, 50):
        with pytest.raises(ValueError, match=f"Received: {size}"):
            DiscretizedLogisticMixture(10).mean(np.zeros((1, size), "float32"))


def test_data_out_of_range():
    with pytest.raises(ValueError, match="divide 8-bit images by 255.*from 0 to 255"):
        DiscretizedLogisticMixture().check(np.array([0.0, 255.0]))
