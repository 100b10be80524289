import math

import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.losses import DiagonalGaussian, HierarchicalGaussian, PointMass, pairwise_kl
from vaezoo.metrics.posterior_divergence import conditional_entropy, mutual_posterior_divergence


def diagonal(size, dim, seed=0):
    rng = np.random.default_rng(seed)
    return DiagonalGaussian(rng.normal(size=(size, dim)), rng.uniform(-2.0, 1.0, size=(size, dim)))


def full(size, dim, seed=0):
    rng = np.random.default_rng(seed)
    tril = 0.3 * np.tril(rng.normal(size=(size, dim, dim)), -1)
    tril += np.eye(dim) * rng.uniform(0.3, 1.0, size=(size, dim, 1))
    return HierarchicalGaussian(rng.normal(size=(size, dim)), tril, None, None)


def all_pairs(posterior):
    """KL(q_i || q_j), `(N, N)`, pair by pair from the general formula."""
    mean = posterior.mean
    if isinstance(posterior, DiagonalGaussian):
        covariance = np.einsum("nd,de->nde", np.exp(posterior.log_var), np.eye(mean.shape[1]))
    else:
        covariance = posterior.scale_tril @ np.swapaxes(posterior.scale_tril, 1, 2)
    size, dim = mean.shape
    kl = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            inverse, shift = np.linalg.inv(covariance[j]), mean[i] - mean[j]
            ratio = np.linalg.slogdet(covariance[j])[1] - np.linalg.slogdet(covariance[i])[1]
            trace = np.trace(inverse @ covariance[i])
            kl[i, j] = 0.5 * (trace + shift @ inverse @ shift - dim + ratio)
    return kl


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


# -- divergence ----------------------------------------------------------------------------------


def test_divergence_of_two_points():
    posterior = DiagonalGaussian(np.array([[-1.0], [1.0]]), np.zeros((2, 1)))
    everyone = mutual_posterior_divergence(posterior, pairs="all")
    distinct = mutual_posterior_divergence(posterior)
    assert everyone.value == pytest.approx(1.0, abs=1e-12)
    assert distinct.value == pytest.approx(2.0, abs=1e-12)
    assert (everyone.estimator, distinct.estimator) == ("all_pairs", "distinct_pairs")


@pytest.mark.parametrize("posterior", [diagonal(23, 4), full(23, 4)], ids=["diagonal", "full"])
def test_closed_form_is_the_mean_over_pairs(posterior):
    kl = all_pairs(posterior)
    everyone = mutual_posterior_divergence(posterior, pairs="all")
    distinct = mutual_posterior_divergence(posterior)
    assert everyone.value == pytest.approx(np.mean(kl), rel=1e-10)
    assert distinct.value == pytest.approx(np.mean(off_diagonal(kl)), rel=1e-10)
    assert distinct.value == pytest.approx(everyone.value * 23 / 22, rel=1e-12)
    # By example: the mean over the others, of both directions.
    expected = (kl.sum(axis=0) + kl.sum(axis=1)) / 44
    np.testing.assert_allclose(distinct.per_example, expected, rtol=1e-10)
    assert distinct.count == 23


def test_the_loss_has_the_same_pairs():
    posterior = diagonal(12, 3)
    loss = keras.ops.convert_to_numpy(
        pairwise_kl(*(keras.ops.convert_to_tensor(part.astype("float32")) for part in posterior))
    )
    np.testing.assert_allclose(loss.sum(axis=2), all_pairs(posterior), rtol=1e-4, atol=1e-4)
    estimate = mutual_posterior_divergence(posterior)
    assert estimate.value == pytest.approx(np.mean(off_diagonal(loss.sum(axis=2))), rel=1e-5)


@pytest.mark.parametrize("posterior", [diagonal(23, 4), full(23, 4)], ids=["diagonal", "full"])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_deviation_is_unbiased_over_distinct_pairs(posterior, chunk):
    expected = np.std(off_diagonal(all_pairs(posterior)), ddof=1)
    estimate = mutual_posterior_divergence(posterior, chunk=chunk)
    assert estimate.extra["standard_deviation"] == pytest.approx(expected, rel=1e-10)
    assert estimate.extra["standard_deviation_examples"] == 23


def test_mirrored_pair_has_no_deviation():
    posterior = DiagonalGaussian(np.array([[-1.0, 0.5], [1.0, -0.5]]), np.full((2, 2), -1.3))
    estimate = mutual_posterior_divergence(posterior)
    assert estimate.extra["standard_deviation"] == pytest.approx(0.0, abs=1e-6)


def test_divergence_to_and_from_the_mixture_is_the_mean_over_pairs():
    # Discrete posteriors over a grid of z: KL(q_x || q) + KL(q || q_x) averages to the MPD.
    rng = np.random.default_rng(0)
    posteriors = rng.dirichlet(np.ones(15), size=9)
    mixture = posteriors.mean(axis=0)

    def kl(p, q):
        return np.sum(p * np.log(p / q), axis=-1)

    pairs = np.mean(kl(posteriors[:, None], posteriors[None]))
    surrounded = np.mean(kl(posteriors, mixture) + kl(mixture, posteriors))
    assert surrounded == pytest.approx(pairs, rel=1e-12)
    # The same for Gaussians on a fine grid, against the closed form.
    gaussians = DiagonalGaussian(rng.normal(size=(9, 1)), rng.uniform(-1.0, 0.0, size=(9, 1)))
    grid = np.linspace(-15.0, 15.0, 20_001)
    scale = np.exp(0.5 * gaussians.log_var)
    log_density = -0.5 * (((grid - gaussians.mean) / scale) ** 2 + math.log(2.0 * math.pi))
    log_density -= np.log(scale)
    density = np.exp(log_density)
    mixture = density.mean(axis=0)
    difference = log_density - np.log(mixture)
    surrounded = np.mean(np.trapezoid((density - mixture) * difference, grid, axis=1))
    estimate = mutual_posterior_divergence(gaussians, pairs="all")
    assert estimate.value == pytest.approx(surrounded, rel=1e-6)


def test_far_offsets_cancel():
    posterior = diagonal(40, 3)
    moved = posterior._replace(mean=posterior.mean + 1e5)
    value = mutual_posterior_divergence(posterior)
    shifted = mutual_posterior_divergence(moved)
    assert shifted.value == pytest.approx(value.value, rel=1e-8)
    assert shifted.extra["standard_deviation"] == pytest.approx(
        value.extra["standard_deviation"], rel=1e-8
    )


def test_identical_posteriors_do_not_diverge():
    estimate = mutual_posterior_divergence(DiagonalGaussian(np.ones((30, 4)), np.ones((30, 4))))
    assert abs(estimate.value) < 1e-12
    assert estimate.extra["standard_deviation"] < 1e-6


@pytest.mark.one_backend
def test_standard_error_is_the_spread_over_choices_of_examples():
    values, errors = [], []
    for seed in range(300):
        estimate = mutual_posterior_divergence(diagonal(80, 2, seed))
        values.append(estimate.value)
        errors.append(estimate.standard_error)
    spread = np.std(values, ddof=1)
    # 4 standard errors of a standard deviation of 300, and what the linear part leaves out.
    assert math.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.2)


def test_deviation_of_some_examples_is_told():
    posterior = diagonal(300, 2)
    whole = mutual_posterior_divergence(posterior)
    part = mutual_posterior_divergence(posterior, max_examples=150, seed=1)
    assert part.value == whole.value
    assert part.extra["standard_deviation_examples"] == 150
    assert part.settings["max_examples"] == 150
    ratio = part.extra["standard_deviation"] / whole.extra["standard_deviation"]
    assert ratio == pytest.approx(1.0, abs=0.3)
    assert ratio != 1.0


# -- entropy -------------------------------------------------------------------------------------


def test_entropy_in_closed_form():
    log_var = np.array([[0.0, 1.0], [-2.0, 0.5]])
    expected = math.log(2.0 * math.pi * math.e) + 0.5 * log_var.sum(axis=1)
    estimate = conditional_entropy(DiagonalGaussian(np.zeros((2, 2)), log_var))
    np.testing.assert_allclose(estimate.per_example, expected, rtol=1e-12)
    assert estimate.value == pytest.approx(expected.mean(), rel=1e-12)
    assert estimate.standard_error == pytest.approx(abs(expected[0] - expected[1]) / 2.0)
    assert estimate.unit == "nats"


def test_entropy_of_the_noise_floor_is_zero():
    alpha = 1.0 / (2.0 * math.pi * math.e)
    posterior = DiagonalGaussian(np.zeros((4, 3)), np.full((4, 3), math.log(alpha)))
    assert conditional_entropy(posterior).value == pytest.approx(0.0, abs=1e-12)


def test_entropy_of_full_covariances():
    posterior = full(10, 3)
    covariance = posterior.scale_tril @ np.swapaxes(posterior.scale_tril, 1, 2)
    expected = 0.5 * np.linalg.slogdet(2.0 * math.pi * math.e * covariance)[1]
    np.testing.assert_allclose(conditional_entropy(posterior).per_example, expected, rtol=1e-12)


@pytest.mark.large_on_jax
def test_model_and_data():
    model = zoo.VAE(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh")]),
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]),
        latent_dim=3,
    )
    data = np.random.default_rng(0).random((20, 4), "float32")
    model.build(data.shape)
    posterior = model.encode(data)
    for function in (mutual_posterior_divergence, conditional_entropy):
        expected = function(posterior).value
        assert function(model, data, batch_size=8).value == pytest.approx(expected, rel=1e-4)
        foreign = function(lambda x: tuple(model.encode(x)), data, decoder=model.decoder)
        assert foreign.value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"pairs": "some"},
            ValueError,
            "`pairs` must be one of 'distinct', 'all'. Received: pairs='s",
        ),
        ({"max_examples": 1}, ValueError, "`max_examples` must be an integer of at least 2"),
        ({"chunk": 0}, ValueError, "`chunk` must be a positive integer"),
        ({"seed": 0.5}, ValueError, "`seed` must be an integer in .0, 2.31..*seed=0.5"),
    ],
)
def test_errors_say_what_came(arguments, error, message):
    with pytest.raises(error, match=message):
        mutual_posterior_divergence(diagonal(5, 2), **arguments)


@pytest.mark.parametrize("function", [mutual_posterior_divergence, conditional_entropy])
def test_a_density_is_needed(function):
    with pytest.raises(ValueError, match="must have a density.*Received: PointMass"):
        function(PointMass(np.zeros((5, 2))))
