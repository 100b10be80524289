import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import ENTROPY_FLOOR, GaussianHead, MeanBatchNorm, VarianceDropout

ALPHA = 1.0 / (2.0 * np.pi * np.e)
SHAPE = (64, 50)


def _log_var(seed=0):
    return np.random.default_rng(seed).normal(-1.0, 1.5, size=SHAPE).astype("float32")


def _variance(log_var):
    return np.exp(np.asarray(log_var, "float64"))


def _split(layer, log_var):
    """Variances after dropout and which of them were kept."""
    dropped = _variance(layer(log_var, training=True))
    return dropped, dropped > layer.floor * (1.0 + 1e-5)


def test_floor_is_the_variance_of_zero_entropy():
    assert ENTROPY_FLOOR == pytest.approx(0.0585498315, abs=5e-11)
    assert 0.5 * np.log(2.0 * np.pi * np.e * ENTROPY_FLOOR) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("keep_prob", [0.9, 0.7, 0.3])
def test_mean_over_masks_is_the_variance_itself(keep_prob):
    log_var = _log_var()
    s2 = _variance(log_var) + ALPHA
    dropped, kept = _split(VarianceDropout(keep_prob, seed=0), log_var)
    average = keep_prob * dropped[kept] + (1.0 - keep_prob) * ALPHA
    np.testing.assert_allclose(average, s2[kept], rtol=2e-6)


@pytest.mark.parametrize("keep_prob", [0.9, 0.7, 0.3])
def test_dropped_and_kept_values(keep_prob):
    log_var = _log_var()
    s2 = _variance(log_var) + ALPHA
    dropped, kept = _split(VarianceDropout(keep_prob, seed=0), log_var)
    np.testing.assert_allclose(dropped[~kept], 0.0585498315, rtol=1e-6)
    np.testing.assert_allclose(dropped[kept], (s2[kept] - ALPHA) / keep_prob + ALPHA, rtol=2e-6)
    error = np.sqrt(keep_prob * (1.0 - keep_prob) / kept.size)
    assert abs(kept.mean() - keep_prob) < 4.0 * error


def test_inference_adds_the_floor_and_drops_nothing():
    log_var = _log_var()
    layer = VarianceDropout(0.5, seed=0)
    expected = _variance(log_var) + ALPHA
    np.testing.assert_allclose(_variance(layer(log_var)), expected, rtol=2e-6)
    always = VarianceDropout(1.0)(log_var, training=True)
    np.testing.assert_allclose(_variance(always), expected, rtol=2e-6)


def _posteriors(seed=0, batch=8, dim=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, dim)), rng.normal(-1.0, 1.0, size=(batch, dim))


def test_mutual_posterior_divergence_under_dropout():
    p, draws = 0.8, 4000
    mean, raw = _posteriors()
    layer = VarianceDropout(p, seed=0)
    tiled = np.tile(raw.astype("float32"), (draws, 1))
    # Masks are independent between the two members of a pair, also of a pair i = i.
    s1, s2 = (_variance(layer(tiled, training=True)).reshape(draws, *mean.shape) for _ in range(2))
    ratio = s1[:, :, None] / s2[:, None]
    squared = (mean[:, None] - mean[None]) ** 2 / s2[:, None]
    values = 0.5 * (ratio + squared - np.log(ratio) - 1.0).sum(-1).mean((1, 2))

    s = np.exp(raw) + ALPHA
    h = (1.0 - p) / ALPHA + p**2 / (s - (1.0 - p) * ALPHA)
    distances = ((mean[:, None] - mean[None]) ** 2 * h[None]).mean((0, 1))
    exact = 0.5 * (distances + s.mean(0) * h.mean(0) - 1.0).sum()
    assert abs(values.mean() - exact) < 4.0 * values.std() / np.sqrt(draws)
    bound = (1.0 - p) / ALPHA * mean.var(0).sum()
    assert exact > bound
    assert values.mean() > bound


def _entropy(log_var):
    return 0.5 * np.log(2.0 * np.pi * np.e * _variance(log_var))


def test_conditional_entropy_is_not_negative_and_lower_under_dropout():
    layer = VarianceDropout(0.8, seed=0)
    raw = np.float32([[-200.0, -30.0, -12.0, -3.0, 0.0, 4.0]])
    without = _entropy(layer(raw))
    assert np.all(without >= -1e-6)
    assert np.all(without[0, 2:] > 0.0)
    with_dropout = _entropy(layer(np.tile(raw, (4000, 1)), training=True))
    assert np.all(with_dropout >= -1e-6)
    # Its mean over masks is strictly smaller wherever there is a variance to drop.
    assert np.all(with_dropout.mean(0)[3:] < without[0, 3:])
    kept = 0.5 * np.log(((np.exp(raw[0, 3:]) / 0.8) + ALPHA) / ALPHA)
    error = kept * np.sqrt(0.8 * 0.2 / 4000)
    np.testing.assert_array_less(abs(with_dropout.mean(0)[3:] - 0.8 * kept), 4.0 * error)


@pytest.mark.large_on_jax
def test_free_variance_settles_between_prior_and_floor(gradient):
    p, layer = 0.8, VarianceDropout(0.8, seed=0)

    def rate(raw):
        """KL of a dimension of mean 0, averaged over masks."""
        log_var = layer(raw + ops.zeros((256,)), training=True)
        kept = ops.cast(log_var > np.log(ALPHA) + 1e-3, "float32")
        kl = 0.5 * (ops.exp(log_var) - log_var - 1.0)
        share = p * kept / ops.sum(kept) + (1.0 - p) * (1.0 - kept) / ops.sum(1.0 - kept)
        return ops.sum(share * kl)

    raw = np.float32(-2.0)
    for _ in range(60):
        raw = raw - 2.0 * gradient(rate, raw)
    np.testing.assert_allclose(np.exp(raw) + ALPHA, 0.8117, atol=1e-3)
    np.testing.assert_allclose(rate(raw), 0.1896, atol=1e-3)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("mean_norm", [None, MeanBatchNorm(0.5)], ids=["plain", "normalized"])
def test_no_variance_is_below_the_floor(mean_norm):
    head = GaussianHead(8, mean_norm=mean_norm, variance_dropout=VarianceDropout(0.7, seed=0))
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 30.0):
        features = rng.normal(0.0, scale, size=(128, 5)).astype("float32")
        for training in (True, False):
            posterior, z = head(features, training=training)
            s2 = _variance(posterior.log_var)
            assert s2.min() >= ALPHA * (1.0 - 1e-6)
            for value in (s2, posterior.mean, z):
                assert np.all(np.isfinite(np.asarray(value)))


def test_masks_are_new_each_time_and_repeat_with_the_seed():
    log_var = _log_var()
    layer, twin = VarianceDropout(0.5, seed=3), VarianceDropout(0.5, seed=3)
    first, second = (_split(layer, log_var)[1] for _ in range(2))
    np.testing.assert_array_equal(_split(twin, log_var)[1], first)
    assert 0.4 < (first == second).mean() < 0.6


def test_draw_and_gradient_share_the_mask(gradient):
    log_var, layer = _log_var(), VarianceDropout(0.5, seed=3)

    def value(raw):
        return ops.sum(layer(raw, training=True))

    slope = gradient(value, log_var)
    # The mask of the layer's first draw, whichever backend kept count of it.
    _, kept = _split(VarianceDropout(0.5, seed=3), log_var)
    share = _variance(log_var) / 0.5
    np.testing.assert_allclose(slope, kept * share / (share + ALPHA), rtol=1e-4)


def test_extreme_log_variances_are_finite_in_value_and_gradient(gradient):
    raw = np.tile(np.float32([-1e4, -100.0, 80.0, 1e4]), (32, 1))
    for training in (True, False):
        layer = VarianceDropout(0.5, seed=0)
        log_var = np.asarray(layer(raw, training=training))
        assert np.all(np.isfinite(log_var))
        np.testing.assert_allclose(log_var[:, 0], np.log(ALPHA), rtol=1e-6)

        def value(given, layer=layer, training=training):
            return ops.sum(layer(given, training=training))

        slope = gradient(value, raw)
        np.testing.assert_array_equal(slope[:, 0], 0.0)
        assert set(np.unique(slope[:, 3])) <= {0.0, 1.0}


def test_start_step_holds_the_layer_back():
    log_var = _log_var()
    layer = VarianceDropout(0.5, seed=0, start_step=2)
    np.testing.assert_array_equal(layer(log_var), log_var)
    for _ in range(2):
        np.testing.assert_array_equal(layer(log_var, training=True), log_var)
    floored = _variance(log_var) + ALPHA
    np.testing.assert_allclose(_variance(layer(log_var)), floored, rtol=2e-6)
    _, kept = _split(layer, log_var)
    assert 0.4 < kept.mean() < 0.6


def test_without_floor_and_dropout_it_is_the_identity():
    log_var = _log_var()
    np.testing.assert_array_equal(VarianceDropout(1.0, floor=0.0)(log_var, training=True), log_var)


def test_another_floor():
    log_var = _log_var()
    dropped, kept = _split(VarianceDropout(0.5, floor=0.25, seed=0), log_var)
    np.testing.assert_allclose(dropped[~kept], 0.25, rtol=1e-6)
    np.testing.assert_allclose(dropped[kept], _variance(log_var)[kept] / 0.5 + 0.25, rtol=2e-6)


def test_masks_go_on_after_reloading(tmp_path):
    log_var, path = _log_var(), tmp_path / "dropout.keras"
    model = keras.Sequential([keras.Input(SHAPE[1:]), VarianceDropout(0.5, seed=0, start_step=1)])
    for _ in range(3):
        before = np.asarray(model(log_var, training=True))
    model.save(path)
    reloaded = keras.saving.load_model(path)
    after = np.asarray(model(log_var, training=True))
    np.testing.assert_array_equal(reloaded(log_var, training=True), after)
    assert not np.array_equal(before, after)


def test_half_precision_goes_in_and_float32_comes_out(float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    log_var = VarianceDropout(0.5, seed=0)(_log_var().astype("float16"), training=True)
    assert keras.backend.standardize_dtype(log_var.dtype) == "float32"
    assert _variance(log_var).min() >= ALPHA * (1.0 - 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_prob": 0.0}, r"`keep_prob` must be a number in \(0, 1\]. Received: keep_prob=0.0"),
        ({"keep_prob": 1.1}, r"`keep_prob` must be a number in \(0, 1\]. Received: keep_prob=1.1"),
        (
            {"keep_prob": 0.9, "floor": -0.1},
            "`floor` must be a finite, non-negative number. .* floor=-0.1",
        ),
        ({"keep_prob": 0.9, "floor": 0.0}, "`floor` must be positive when .*keep_prob=0.9"),
        ({"keep_prob": 0.9, "start_step": -1}, "`start_step` must be a non-negative integer.*=-1"),
    ],
)
def test_argument_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        VarianceDropout(**arguments)
