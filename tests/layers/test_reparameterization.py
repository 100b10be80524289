import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.layers import CholeskyReparam, DiagonalReparam
from vaezoo.losses import log_prob

DIM, JITTER = 3, 1e-6
SIGMA = np.array([[2.0, 0.9, -0.4], [0.9, 1.0, 0.1], [-0.4, 0.1, 0.5]])


def _rows(seed=0, batch=12):
    """Correlated rows away from zero."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(batch, DIM)) @ rng.normal(size=(DIM, DIM)) + rng.normal(size=DIM)
    return rows.astype("float32")


def _moments(rows):
    rows = rows.astype("float64")
    return rows.mean(0), np.cov(rows, rowvar=False, bias=True)


def _cholesky(sigma):
    return np.linalg.cholesky(sigma + JITTER * np.eye(DIM))


def _with_statistics(mean, sigma, **arguments):
    layer = CholeskyReparam(**arguments)
    layer.build((None, DIM))
    layer.moving_mean.assign(mean)
    layer.moving_covariance.assign(sigma)
    return layer


# -- diagonal ----------------------------------------------------------------------------------


def test_diagonal_draws():
    count, rows = 50_000, _rows(batch=2)
    posterior, z = DiagonalReparam(count, seed=0)(rows, 0.5 * rows)
    np.testing.assert_array_equal(posterior.mean, rows)
    np.testing.assert_array_equal(posterior.log_var, 0.5 * rows)
    z, sd = np.asarray(z, "float64"), np.exp(0.25 * rows)
    np.testing.assert_array_less(abs(z.mean(1) - rows), 4.0 * sd / np.sqrt(count))
    np.testing.assert_array_less(abs(z.var(1) - sd**2), 4.0 * sd**2 * np.sqrt(2.0 / count))
    correlations = np.corrcoef(z[0], rowvar=False)[~np.eye(DIM, dtype=bool)]
    np.testing.assert_array_less(abs(correlations), 4.0 / np.sqrt(count))


@pytest.mark.parametrize("make", [DiagonalReparam, CholeskyReparam])
def test_a_single_draw_may_go_without_its_axis(make):
    rows = _rows()
    single, many = make(seed=0)(rows, rows)[1], make(1, seed=0)(rows, rows)[1]
    assert tuple(single.shape) == (12, DIM)
    np.testing.assert_array_equal(single, many[:, 0])


@pytest.mark.parametrize("make", [DiagonalReparam, CholeskyReparam])
def test_noise_is_new_each_time_and_goes_on_after_loading(make):
    rows, layer, store = _rows(), make(2, seed=0), {}
    first = np.asarray(layer(rows, rows)[1])
    layer.save_own_variables(store)
    second = np.asarray(layer(rows, rows)[1])
    assert not np.any(first == second)
    loaded = make(2, seed=5)
    loaded.build(rows.shape, rows.shape)
    loaded.load_own_variables(store)
    np.testing.assert_array_equal(loaded(rows, rows)[1], second)


# -- Cholesky ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [[0.5, 1.0, 2.0], [0.7]], ids=["vector", "scalar"])
def test_covariance_of_the_draws(scale):
    count, factor, scale = 100_000, _cholesky(SIGMA), np.array(scale)
    layer = _with_statistics(np.zeros(DIM), SIGMA, num_samples=count, seed=0)
    log_scale = np.log(scale)[None].astype("float32")
    z = np.asarray(layer(np.zeros((1, DIM), "float32"), log_scale)[1][0], "float64")
    found, diagonal = np.cov(z, rowvar=False), np.diag(scale * np.ones(DIM))
    expected = diagonal @ SIGMA @ diagonal
    variances = np.diag(expected)
    error = np.sqrt((np.outer(variances, variances) + expected**2) / count)
    np.testing.assert_array_less(abs(found - expected), 4.0 * error)
    # What eps @ R instead of eps @ R^T would have.
    wrong_side = diagonal @ factor.T @ factor @ diagonal
    assert (abs(found - wrong_side) / error).max() > 20.0


def test_training_takes_the_moments_of_the_batch():
    rows, log_scale = _rows(), 0.2 * _rows(1)
    posterior, _ = CholeskyReparam(seed=0)(rows, log_scale, training=True)
    beta, sigma = _moments(rows)
    factor = _cholesky(sigma)
    np.testing.assert_array_equal(posterior.mean, rows)
    np.testing.assert_allclose(posterior.hyper_mean, np.tile(beta, (12, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        posterior.hyper_scale_tril, np.tile(factor, (12, 1, 1)), rtol=1e-4, atol=1e-5
    )
    expected = np.exp(log_scale)[:, :, None] * factor
    np.testing.assert_allclose(posterior.scale_tril, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.large_on_jax
def test_density_of_a_draw():
    """Log q = -|eps|^2 / 2 - D/2 log(2 pi) - sum_d ( log scale_d + log R_dd )."""
    rows, log_scale = _rows(), 0.2 * _rows(1)
    posterior, z = CholeskyReparam(2, seed=0)(rows, log_scale, training=True)
    factor = _cholesky(_moments(rows)[1])
    noise = (np.asarray(z, "float64") - rows[:, None]) / np.exp(log_scale)[:, None]
    eps = np.linalg.solve(factor, np.swapaxes(noise, 1, 2))
    log_det = (log_scale.sum(1) + np.log(np.diag(factor)).sum())[:, None]
    expected = -0.5 * (eps**2).sum(1) - 0.5 * DIM * np.log(2.0 * np.pi) - log_det
    np.testing.assert_allclose(log_prob(posterior, z), expected, rtol=1e-3, atol=1e-3)


def test_inference_starts_from_the_standard_normal():
    rows = _rows()
    posterior, _ = CholeskyReparam(seed=0)(rows, 0.0 * rows)
    np.testing.assert_array_equal(posterior.hyper_mean, np.zeros((12, DIM)))
    np.testing.assert_allclose(
        posterior.scale_tril, np.tile(np.eye(DIM), (12, 1, 1)), rtol=1e-5, atol=1e-6
    )


def test_running_statistics_are_bias_corrected_averages():
    layer, momentum, steps = CholeskyReparam(seed=0, momentum=0.8), 0.8, 4
    batches = [_rows(seed) for seed in range(steps)]
    for rows in batches:
        layer(rows, rows, training=True)
    moments = [_moments(rows) for rows in batches]
    weights = momentum ** np.arange(steps)[::-1]
    weights *= (1.0 - momentum) / (1.0 - momentum**steps)
    assert weights.sum() == pytest.approx(1.0)
    beta = sum(w * mean for w, (mean, _) in zip(weights, moments, strict=True))
    sigma = sum(w * covariance for w, (_, covariance) in zip(weights, moments, strict=True))
    np.testing.assert_allclose(layer.moving_mean.numpy(), beta, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_covariance.numpy(), sigma, rtol=1e-5, atol=1e-6)

    posterior, _ = layer(_rows(9), 0.0 * _rows(9))
    np.testing.assert_allclose(posterior.hyper_mean[0], beta, rtol=1e-5)
    np.testing.assert_allclose(posterior.scale_tril[0], _cholesky(sigma), rtol=1e-4, atol=1e-5)
    # Inference leaves them alone, and does not look at its own batch.
    np.testing.assert_allclose(layer.moving_mean.numpy(), beta, rtol=1e-5)
    alone, _ = layer(_rows(9)[:2], 0.0 * _rows(9)[:2])
    np.testing.assert_array_equal(alone.scale_tril, posterior.scale_tril[:2])


@pytest.mark.parametrize("training", [True, False])
def test_batch_statistics_on_demand(training):
    layer, rows = _with_statistics(np.ones(DIM), SIGMA, seed=0, statistics="batch"), _rows()
    posterior, _ = layer(rows, 0.0 * rows, training=training)
    expected = _cholesky(_moments(rows)[1])
    np.testing.assert_allclose(posterior.scale_tril[0], expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(layer.moving_mean.numpy(), np.ones(DIM)) != training


@pytest.mark.large_on_jax
@pytest.mark.parametrize("batch", [1, DIM])
def test_short_training_batch_falls_back_to_running_statistics(batch, gradient):
    layer = _with_statistics(np.ones(DIM), SIGMA, seed=0)
    rows = _rows(batch=batch)
    posterior, z = layer(rows, 0.0 * rows, training=True)
    np.testing.assert_allclose(posterior.hyper_mean, np.ones((batch, DIM)))
    np.testing.assert_allclose(posterior.scale_tril[0], _cholesky(SIGMA), rtol=1e-4, atol=1e-5)
    assert layer.updates.numpy() == 0.0
    np.testing.assert_allclose(layer.moving_covariance.numpy(), SIGMA, rtol=1e-6)
    slope = gradient(lambda value: ops.sum(layer(value, value, training=True)[1]), rows)
    assert np.all(np.isfinite(slope))
    assert np.all(np.isfinite(np.asarray(z)))


def test_short_batch_between_long_ones_does_not_count():
    layer, other = CholeskyReparam(seed=0), CholeskyReparam(seed=0)
    for rows in (_rows(0), _rows(1, batch=2), _rows(2)):
        layer(rows, rows, training=True)
    for rows in (_rows(0), _rows(2)):
        other(rows, rows, training=True)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), other.moving_mean.numpy())
    assert layer.updates.numpy() == 2.0


def test_shrinkage_pulls_both_factors_toward_the_identity():
    layer, rows = CholeskyReparam(seed=0, shrinkage=0.3), _rows()
    posterior, _ = layer(rows, 0.0 * rows, training=True)
    sigma = _moments(rows)[1]
    expected = _cholesky(0.7 * sigma + 0.3 * np.eye(DIM))
    for factor in (posterior.scale_tril[0], posterior.hyper_scale_tril[0]):
        np.testing.assert_allclose(factor, expected, rtol=1e-4, atol=1e-5)
    # What is stored is the batch's own covariance.
    np.testing.assert_allclose(layer.moving_covariance.numpy(), sigma, rtol=1e-4, atol=1e-5)


def test_diagonal_sampling_drops_correlations_from_the_noise_only():
    rows = _rows()
    posterior, _ = CholeskyReparam(seed=0, sampling="diagonal")(rows, 0.0 * rows, training=True)
    sigma = _moments(rows)[1]
    np.testing.assert_allclose(posterior.scale_tril[0], np.diag(np.sqrt(np.diag(sigma))), rtol=1e-4)
    np.testing.assert_allclose(
        posterior.hyper_scale_tril[0], _cholesky(sigma), rtol=1e-4, atol=1e-5
    )


def test_jitter_makes_a_singular_covariance_positive():
    rows = np.repeat(_rows()[:, :1], DIM, axis=1)
    posterior, z = CholeskyReparam(seed=0, jitter=1e-3)(rows, 0.0 * rows, training=True)
    for value in (*posterior, z):
        assert np.all(np.isfinite(np.asarray(value)))


def test_gradient_through_the_factor_may_be_cut(gradient):
    rows, log_scale = _rows(), 0.0 * _rows()
    upstream = np.random.default_rng(3).normal(size=rows.shape).astype("float32")

    def slope(stop_gradient):
        layer = CholeskyReparam(seed=0, stop_gradient=stop_gradient)

        def reconstruction(mean):
            return ops.sum(layer(mean, log_scale, training=True)[1] * upstream)

        return gradient(reconstruction, rows)

    cut, full = slope(True), slope(False)
    np.testing.assert_allclose(cut, upstream, rtol=1e-5)
    assert abs(full - cut).max() > 0.05
    # R is blind to a shift of the whole batch.
    np.testing.assert_allclose((full - cut).sum(0), 0.0, atol=1e-4)


def test_stopped_factor_still_regularizes(gradient):
    rows = _rows()
    layer = CholeskyReparam(seed=0, stop_gradient=True)
    layer.build(rows.shape)

    def spread(mean):
        return ops.sum(ops.square(layer.posterior(mean, 0.0 * mean, True).hyper_scale_tril[0]))

    expected = 2.0 * (rows - rows.mean(0)) / len(rows)
    np.testing.assert_allclose(gradient(spread, rows), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_nominal_batch_of_at_most_d_rows_is_refused(tiny_networks, batch_size):
    model = zoo.HEBAE(*tiny_networks(), latent_dim=4)
    model.compile()
    x = np.random.default_rng(0).random((20, 6)).astype("float32")
    message = rf"`batch_size` must be at least 5.*latent_dim=4.*batch_size={batch_size}"
    with pytest.raises(ValueError, match=message):
        model.fit(x, batch_size=batch_size, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 0


@pytest.mark.large
def test_short_last_batch_is_finite(tiny_networks):
    keras.utils.set_random_seed(0)
    model = zoo.HEBAE(*tiny_networks(), latent_dim=4, seed=0)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    x = np.random.default_rng(0).random((19, 6)).astype("float32")
    # Batches of eight, eight and three.
    logs = model.fit(x, batch_size=8, epochs=3, verbose=0).history
    assert model.head.reparam.updates.numpy() == 6.0
    for values in logs.values():
        assert np.all(np.isfinite(values))
    for weight in model.weights:
        assert np.all(np.isfinite(weight.numpy())), weight.path
    for part in model.encode(x):
        assert np.all(np.isfinite(np.asarray(part)))


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [DiagonalReparam, CholeskyReparam])
@pytest.mark.parametrize("num_samples", [0, -1, 1.5])
def test_num_samples_error(make, num_samples):
    message = f"`num_samples` must be a positive integer or None. .*num_samples={num_samples}"
    with pytest.raises(ValueError, match=message):
        make(num_samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"shrinkage": -0.1},
            r"`shrinkage` must be a number in \[0, 1\]. Received: shrinkage=-0.1",
        ),
        ({"shrinkage": 1.1}, r"`shrinkage` must be a number in \[0, 1\]. Received: shrinkage=1.1"),
        ({"jitter": 0.0}, "`jitter` must be a finite, positive number. Received: jitter=0.0"),
        ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\). Received: momentum=1.0"),
        ({"sampling": "full"}, "`sampling` must be one of 'cholesky', 'diagonal'. .*='full'"),
        ({"statistics": "all"}, "`statistics` must be one of 'running', 'batch'. .*='all'"),
    ],
)
def test_cholesky_argument_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        CholeskyReparam(**arguments)


@pytest.mark.large_on_jax
def test_rank_deficient_codes_of_large_spread_can_be_factorized():
    rng = np.random.default_rng(0)
    mean = 10.0 * (rng.normal(size=(64, 3)) @ rng.normal(size=(3, 10))).astype("float32")
    posterior, z = CholeskyReparam()(mean, np.zeros_like(mean), training=True)
    assert np.all(np.isfinite(ops.convert_to_numpy(z)))
    assert np.all(np.isfinite(ops.convert_to_numpy(posterior.hyper_scale_tril)))
