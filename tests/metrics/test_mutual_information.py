import math

import keras
import numpy as np
import pytest
from scipy.special import logsumexp

from vaezoo import zoo
from vaezoo.layers import Prior
from vaezoo.losses import DiagonalGaussian, HierarchicalGaussian, PointMass
from vaezoo.metrics.gaussians import gaussians_of, generator
from vaezoo.metrics.mutual_information import marginal_divergence, mutual_information


def diagonal(size, dim, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return DiagonalGaussian(
        spread * rng.normal(size=(size, dim)), rng.uniform(-2.0, 0.5, size=(size, dim))
    )


def full(size, dim, seed=0):
    rng = np.random.default_rng(seed)
    tril = 0.3 * np.tril(rng.normal(size=(size, dim, dim)), -1)
    tril += np.eye(dim) * rng.uniform(0.3, 1.0, size=(size, dim, 1))
    return HierarchicalGaussian(rng.normal(size=(size, dim)), tril, None, None)


def dense_log_densities(posterior, z):
    """Log q(z_b|x_j), `(n, N)`, by differences in float64, pair by pair."""
    difference = z[:, None] - posterior.mean[None]
    if isinstance(posterior, DiagonalGaussian):
        squares = np.sum(difference**2 / np.exp(posterior.log_var), axis=2)
        log_det = np.sum(posterior.log_var, axis=1)
    else:
        solved = np.linalg.solve(posterior.scale_tril[None], difference[..., None])[..., 0]
        squares = np.sum(solved**2, axis=2)
        log_det = 2.0 * np.sum(np.log(np.diagonal(posterior.scale_tril, 0, 1, 2)), axis=1)
    return -0.5 * (squares + log_det + z.shape[1] * math.log(2.0 * math.pi))


def draws(posterior, seed, num_samples=1):
    eps = generator(seed, "draws").standard_normal(
        (len(posterior.mean), num_samples, posterior.mean.shape[1])
    )
    if isinstance(posterior, DiagonalGaussian):
        return posterior.mean[:, None] + np.exp(0.5 * posterior.log_var)[:, None] * eps
    return posterior.mean[:, None] + np.matmul(eps, np.swapaxes(posterior.scale_tril, 1, 2))


# -- what is known in advance --------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_identical_posteriors_carry_nothing(dtype, tolerance):
    ones = np.ones((500, 8), dtype)
    estimate = mutual_information(DiagonalGaussian(3.0 * ones, -2.0 * ones))
    assert abs(estimate.value) < tolerance
    assert np.max(np.abs(estimate.per_example)) < tolerance


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_far_apart_posteriors_carry_log_n_and_never_more(dtype, num_samples):
    mean = 100.0 * np.arange(300, dtype=dtype)[:, None] * np.ones((1, 4), dtype)
    far = DiagonalGaussian(mean, np.full_like(mean, -3.0))
    estimate = mutual_information(far, num_samples=num_samples, chunk=64)
    assert estimate.value == pytest.approx(math.log(300), abs=1e-12)
    assert estimate.extra["upper_limit"] == math.log(300)
    near = mutual_information(diagonal(300, 20, spread=3.0), num_samples=num_samples)
    for each in (estimate, near):
        assert np.max(each.per_example) <= math.log(300) + 1e-15


def test_two_posteriors_of_one_dimension_against_quadrature():
    posterior = DiagonalGaussian(np.array([[-1.0], [1.0]]), np.zeros((2, 1)))
    grid = np.linspace(-12.0, 12.0, 20_001)
    densities = np.exp(-0.5 * (grid - posterior.mean) ** 2) / math.sqrt(2.0 * math.pi)
    mixture = densities.mean(axis=0)
    expected = np.mean(np.trapezoid(densities * np.log(densities / mixture), grid, axis=1))
    for estimator in ("same_sample", "code"):
        estimate = mutual_information(posterior, num_samples=40_000, estimator=estimator)
        error = estimate.extra["draw_error"]
        assert abs(estimate.value - expected) < 4.0 * error
        assert error < 0.01
    prior = np.exp(-0.5 * grid**2) / math.sqrt(2.0 * math.pi)
    expected = np.trapezoid(mixture * np.log(mixture / prior), grid)
    estimate = marginal_divergence(posterior, num_samples=40_000)
    assert abs(estimate.value - expected) < 4.0 * estimate.extra["draw_error"]


def test_linear_gaussian_channel():
    # z = x + noise of variance v, x ~ N(0, 1 - v): I = -1/2 log v, and q(z) is the prior.
    rng, variance, size = np.random.default_rng(0), 0.3, 4000
    mean = rng.normal(scale=math.sqrt(1.0 - variance), size=(size, 2))
    posterior = DiagonalGaussian(mean, np.full((size, 2), math.log(variance)))
    information, divergence = mutual_information(posterior), marginal_divergence(posterior)
    assert abs(information.value + math.log(variance)) < 4.0 * information.standard_error
    assert abs(divergence.value) < 4.0 * divergence.standard_error


# -- how it is computed --------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", [diagonal(70, 6), full(70, 4)], ids=["diagonal", "full"])
def test_equals_all_pairs_in_float64(posterior):
    num_samples = 2
    z = draws(posterior, 5, num_samples)
    flat = z.reshape(-1, z.shape[2])
    dense = dense_log_densities(posterior, flat)
    log_qz = logsumexp(dense, axis=1) - math.log(70)
    own = dense[np.arange(140), np.repeat(np.arange(70), 2)]
    expected = (own - log_qz).reshape(70, 2).mean(axis=1)
    estimate = mutual_information(posterior, num_samples=num_samples, seed=5, chunk=16)
    np.testing.assert_allclose(estimate.per_example, expected, rtol=0, atol=1e-10)
    log_pz = -0.5 * np.sum(flat**2 + math.log(2.0 * math.pi), axis=1)
    divergence = marginal_divergence(posterior, num_samples=num_samples, seed=5)
    np.testing.assert_allclose(
        divergence.per_example, (log_qz - log_pz).reshape(70, 2).mean(axis=1), rtol=0, atol=1e-10
    )


def test_sharp_posteriors_far_from_zero_keep_their_digits():
    # Neighbors a standard deviation apart at 50: in float32 z^2 / s^2 = 2.5e9 has no digit left.
    scale = 1e-3
    mean = 50.0 + scale * np.arange(64)[:, None] * np.ones((1, 3))
    posterior = DiagonalGaussian(mean, np.full_like(mean, 2.0 * math.log(scale)))
    z = draws(posterior, 0)[:, 0]
    dense = dense_log_densities(posterior, z)
    expected = np.diagonal(dense) - logsumexp(dense, axis=1) + math.log(64)
    estimate = mutual_information(posterior)
    np.testing.assert_allclose(estimate.per_example, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_sharpest_posteriors_come_in_pairs(kind):
    # Terms of 1e20 would cancel: each example is there twice, among others far away.
    mean = np.repeat(10.0 * np.random.default_rng(0).random((30, 3)), 2, axis=0)
    scale = 1e-9
    if kind == "diagonal":
        posterior = DiagonalGaussian(mean, np.full_like(mean, 2.0 * math.log(scale)))
    else:
        tril = scale * np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.2, -0.3, 1.0]])
        posterior = HierarchicalGaussian(mean, np.repeat(tril[None], 60, axis=0), None, None)
    estimate = mutual_information(posterior)
    np.testing.assert_allclose(estimate.per_example, math.log(30), rtol=0, atol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("posterior", [diagonal(97, 5), full(50, 3)], ids=["diagonal", "full"])
def test_chunks_change_nothing(posterior):
    whole = mutual_information(posterior, chunk=1000, num_samples=2)
    for chunk in (1, 13, 96):
        parts = mutual_information(posterior, chunk=chunk, num_samples=2)
        np.testing.assert_allclose(parts.per_example, whole.per_example, rtol=0, atol=1e-12)


def test_no_matrix_of_all_pairs_is_made():
    import tracemalloc

    posterior = diagonal(4000, 2)
    tracemalloc.start()
    mutual_information(posterior, chunk=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All pairs in float64 are 128 MB.
    assert peak < 8e6


def test_both_ways_to_a_density_agree():
    for posterior in (diagonal(40, 4), full(40, 4)):
        gaussians = gaussians_of(posterior)
        z = draws(posterior, 1)[:, 0]
        center = gaussians.center
        expanded = gaussians.features(z, center) @ gaussians.coefficients(center).T
        np.testing.assert_allclose(gaussians.log_prob(z), expanded, rtol=0, atol=1e-10)
        np.testing.assert_allclose(expanded, dense_log_densities(posterior, z), atol=1e-10)


# -- the estimators ------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["same_sample", "code", "batch"])
@pytest.mark.parametrize("posterior", [diagonal(75, 6), full(75, 3)], ids=["diagonal", "full"])
def test_information_and_divergence_add_up_to_the_rate(posterior, estimator):
    options = {"estimator": estimator, "batch_size": 20, "seed": 3}
    information = mutual_information(posterior, **options)
    divergence = marginal_divergence(posterior, **options)
    assert information.extra["marginal_divergence"] == divergence.value
    assert divergence.extra["mutual_information"] == information.value
    rate = information.value + divergence.value
    assert rate == pytest.approx(information.extra["rate"], rel=1e-12)
    z = draws(posterior, 3)[:, 0]
    log_pz = -0.5 * np.sum(z**2 + math.log(2.0 * math.pi), axis=1)
    if estimator == "same_sample":
        own = np.diagonal(dense_log_densities(posterior, z))
        np.testing.assert_allclose(rate, np.mean(own - log_pz), rtol=1e-10)
        np.testing.assert_allclose(
            information.per_example + divergence.per_example, own - log_pz, rtol=0, atol=1e-9
        )


def test_code_form_has_the_entropy_in_closed_form():
    posterior = diagonal(60, 4)
    z = draws(posterior, 0)[:, 0]
    log_qz = logsumexp(dense_log_densities(posterior, z), axis=1) - math.log(60)
    negative_entropy = -0.5 * np.sum(1.0 + posterior.log_var + math.log(2.0 * math.pi), axis=1)
    estimate = mutual_information(posterior, estimator="code")
    np.testing.assert_allclose(estimate.per_example, negative_entropy - log_qz, atol=1e-10)
    same = mutual_information(posterior)
    # The draws and their q(z) are the same, so the divergence is, too.
    assert estimate.extra["marginal_divergence"] == pytest.approx(same.extra["marginal_divergence"])


@pytest.mark.large
def test_code_form_is_noisy_at_collapse():
    zeros = np.zeros((200, 32))
    values = [
        mutual_information(DiagonalGaussian(zeros, zeros), estimator="code", seed=seed).value
        for seed in range(60)
    ]
    assert min(values) < 0.0
    # sqrt(D / 2N) = 0.283, up to 4 standard errors of a standard deviation of 60.
    np.testing.assert_allclose(np.std(values, ddof=1), math.sqrt(32 / 400), rtol=4 / math.sqrt(120))


def test_batches_mix_their_own_posteriors_only():
    posterior = diagonal(50, 4)
    z = draws(posterior, 0)[:, 0]
    entropy = 0.5 * np.sum(1.0 + posterior.log_var + math.log(2.0 * math.pi), axis=1)
    expected = []
    for rows in (slice(0, 20), slice(20, 40), slice(40, 50)):
        part = DiagonalGaussian(*(value[rows] for value in posterior))
        log_qz = logsumexp(dense_log_densities(part, z[rows]), axis=1) - math.log(len(part.mean))
        expected.append(-entropy[rows] - log_qz)
    estimate = mutual_information(posterior, estimator="batch", batch_size=20)
    np.testing.assert_allclose(estimate.per_example, np.concatenate(expected), atol=1e-10)
    assert estimate.value == pytest.approx(np.mean(np.concatenate(expected)), abs=1e-10)
    assert estimate.extra["upper_limit"] == math.log(20)


def test_a_last_batch_of_one_tells_nothing():
    posterior = diagonal(21, 4)
    entropy = 0.5 * np.sum(1.0 + posterior.log_var + math.log(2.0 * math.pi), axis=1)
    z = draws(posterior, 0)[:, 0]
    estimate = mutual_information(posterior, estimator="batch", batch_size=20)
    own = np.diagonal(dense_log_densities(posterior, z))
    assert estimate.per_example[-1] == pytest.approx(-entropy[-1] - own[-1])


def test_fewer_components_cap_the_information_and_inflate_the_divergence():
    mean = 50.0 * np.arange(400)[:, None] * np.ones((1, 2))
    posterior = DiagonalGaussian(mean, np.zeros_like(mean))
    few = mutual_information(posterior, aggregate_size=100)
    assert few.value == pytest.approx(math.log(100), abs=1e-12)
    assert few.count == 100
    assert few.settings["aggregate_size"] == 100
    # On a set of equal terms the capped part is all in the divergence.
    rng = np.random.default_rng(0)
    sharp = DiagonalGaussian(
        rng.normal(scale=math.sqrt(1 - 1e-4), size=(2000, 4)), np.full((2000, 4), math.log(1e-4))
    )
    whole, part = mutual_information(sharp), mutual_information(sharp, aggregate_size=200)
    missing = whole.value - part.value
    assert missing == pytest.approx(math.log(10), abs=0.05)
    excess = part.extra["marginal_divergence"] - whole.extra["marginal_divergence"]
    change_of_rate = part.extra["rate"] - whole.extra["rate"]
    assert excess - missing == pytest.approx(change_of_rate, abs=1e-9)
    # The rate of the 200 chosen differs by their sampling error alone.
    assert abs(change_of_rate) < 4.0 * np.std(np.sum(sharp.mean**2, axis=1)) / 2.0 / math.sqrt(200)


# -- how sure it is ------------------------------------------------------------------------------


def test_standard_error_is_the_spread_over_seeds_where_examples_are_alike():
    # On a circle every example has the same distribution of its term: choice adds nothing.
    angle = 2.0 * np.pi * np.arange(64) / 64
    mean = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    posterior = DiagonalGaussian(mean, np.full_like(mean, -1.0))
    estimates = [mutual_information(posterior, seed=seed) for seed in range(300)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    error = math.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    # 4 standard errors of a standard deviation of 300.
    assert error == pytest.approx(spread, rel=4 / math.sqrt(600))


def test_draw_error_is_the_spread_over_seeds_and_below_the_standard_error():
    posterior = diagonal(60, 3)
    posterior.log_var[:30] -= 6.0
    estimates = [mutual_information(posterior, seed=seed, num_samples=4) for seed in range(300)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    error = math.sqrt(np.mean([estimate.extra["draw_error"] ** 2 for estimate in estimates]))
    assert error == pytest.approx(spread, rel=4 / math.sqrt(600))
    assert error < 0.5 * np.mean([estimate.standard_error for estimate in estimates])


def test_seeds_fix_the_draws_and_settings_tell_them():
    posterior = diagonal(40, 3)
    first, again = mutual_information(posterior, seed=4), mutual_information(posterior, seed=4)
    assert first == again
    assert first.value != mutual_information(posterior, seed=5).value
    assert first.settings == {
        "num_samples": 1,
        "aggregate_size": None,
        "seed": 4,
        "batch_size": 256,
        "chunk": 1024,
        "prior": "StandardNormal",
    }
    assert (first.estimator, first.unit, first.count) == ("same_sample", "nats", 40)


# -- models --------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class ShiftedNormal(Prior):
    def log_prob(self, z):
        return keras.ops.sum(-0.5 * (z - 1.0) ** 2 - 0.5 * math.log(2.0 * math.pi), axis=-1)


@pytest.mark.large_on_jax
def test_models_pairs_and_their_posteriors_agree():
    model = zoo.VAE(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh")]),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]),
        latent_dim=3,
        prior=ShiftedNormal(),
    )
    data = np.random.default_rng(0).random((50, 4), "float32")
    model.build(data.shape)
    posterior = model.encode(data)
    expected = mutual_information(posterior)
    ours = mutual_information(model, data, batch_size=16)
    assert ours.value == pytest.approx(expected.value, abs=1e-5)
    # The prior is the model's own, the rate follows it, and the information does not.
    assert ours.settings["prior"] == "ShiftedNormal"
    z = draws(DiagonalGaussian(*(np.asarray(part, "float64") for part in posterior)), 0)[:, 0]
    shift = np.mean(np.sum(0.5 * (z - 1.0) ** 2 - 0.5 * z**2, axis=1))
    divergence = marginal_divergence(model, data)
    assert divergence.value - marginal_divergence(posterior).value == pytest.approx(shift, abs=1e-5)
    assert ours.value + divergence.value == pytest.approx(ours.extra["rate"], rel=1e-5)
    pair = mutual_information(
        lambda x: tuple(model.encode(x)), data, decoder=lambda z: model.decoder(z)
    )
    assert pair.value == pytest.approx(expected.value, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"estimator": "full"},
            ValueError,
            "`estimator` must be one of 'same_sample', 'code', 'batch",
        ),
        ({"num_samples": 0}, ValueError, "`num_samples` must be .* Received: num_samples=0"),
        ({"chunk": 0}, ValueError, "`chunk` must be a positive integer"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a positive integer"),
        ({"seed": -1}, ValueError, "`seed` must be an integer in .0, 2.31."),
        ({"aggregate_size": 1}, ValueError, "`aggregate_size` must be an integer of at least 2"),
        ({"aggregate_size": 6}, ValueError, "number of examples, 5. Received: aggregate_size=6"),
        (
            {"aggregate_size": 3, "estimator": "batch"},
            ValueError,
            "`aggregate_size` must be None for the estimator 'batch'",
        ),
        ({"data": np.zeros((5, 2))}, ValueError, "`data` must come with a model that encodes it"),
        (
            {"model_or_posterior": PointMass(np.zeros((5, 2)))},
            ValueError,
            "`model_or_posterior` must have a density.* Received: PointMass",
        ),
        (
            {"model_or_posterior": np.zeros((5, 2))},
            TypeError,
            "`model_or_posterior` must be a DiagonalGaussian.* Received: ndarray",
        ),
        (
            {"model_or_posterior": DiagonalGaussian(np.zeros((1, 2)), np.zeros((1, 2)))},
            ValueError,
            r"at least 2 examples. Received: shape=\(1, 2\)",
        ),
        (
            {"model_or_posterior": DiagonalGaussian(np.zeros((5, 2)), np.zeros((5, 3)))},
            ValueError,
            r"`model_or_posterior.log_var` must have shape \(5, 2\). Received: shape=\(5, 3\)",
        ),
        (
            {"model_or_posterior": DiagonalGaussian(np.full((5, 2), np.nan), np.zeros((5, 2)))},
            ValueError,
            "`model_or_posterior` must be finite. Received: NaN or infinity",
        ),
        (
            {
                "model_or_posterior": HierarchicalGaussian(
                    np.zeros((5, 2)), np.zeros((5, 2, 2)), None, None
                )
            },
            ValueError,
            "`model_or_posterior.scale_tril` must not be singular",
        ),
    ],
)
@pytest.mark.parametrize("function", [mutual_information, marginal_divergence])
def test_errors_say_what_came(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"model_or_posterior": diagonal(5, 2), **arguments})
