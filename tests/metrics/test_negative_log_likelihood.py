import functools

import numpy as np
import pytest

from vaezoo import data, zoo
from vaezoo.losses import ImportanceWeightedELBO
from vaezoo.losses.importance_weighting import CHUNK
from vaezoo.metrics.negative_log_likelihood import negative_log_likelihood
from vaezoo.metrics.subject import as_subject


@pytest.fixture(scope="module")
def score(linear_gaussian):
    """NLL of the linear Gaussian model, by the true posterior or a wrong one."""

    @functools.cache
    def subject(shift, log_var_shift):
        return as_subject(
            linear_gaussian.encoder(shift, log_var_shift),
            linear_gaussian.decoder(),
            linear_gaussian.data,
            linear_gaussian.likelihood(),
        )

    def run(num_samples, seed=0, shift=0.0, log_var_shift=0.0, examples=None, **kwargs):
        model = subject(shift, log_var_shift)
        return negative_log_likelihood(
            model, linear_gaussian.data[:examples], num_samples, seed=seed, **kwargs
        )

    return run


@pytest.fixture(scope="module")
def digits_vae():
    x, _ = data.load_arrays("digits", split="test")
    x = x[:70].reshape(70, -1)
    encoder, decoder = zoo.networks.make("mlp", (x.shape[1],), 4, hidden_units=(16,))
    model = zoo.VAE(encoder, decoder, latent_dim=4)
    model(x)
    return model, x


class TestLinearGaussian:
    @pytest.mark.large
    @pytest.mark.parametrize("num_samples", [1, 10, 500])
    def test_true_posterior_gives_the_evidence(self, score, linear_gaussian, num_samples):
        evidence = linear_gaussian.log_evidence()
        for seed in (0, 1):
            estimate = score(num_samples, seed)
            np.testing.assert_allclose(estimate.per_example, -evidence, atol=1e-4)
        assert estimate.value == pytest.approx(-np.mean(evidence), abs=1e-4)
        assert estimate.extra["effective_samples"] == pytest.approx(num_samples, rel=1e-3)

    @pytest.mark.large
    def test_wrong_posterior_gives_a_bound_that_falls_with_the_draws(self, score, linear_gaussian):
        exact = -np.mean(linear_gaussian.log_evidence()[:20])
        means, errors = [], []
        for num_samples in (1, 5, 25):
            values = [
                score(num_samples, seed, shift=0.3, log_var_shift=0.5, examples=20).value
                for seed in range(200)
            ]
            means.append(np.mean(values))
            errors.append(np.std(values, ddof=1) / np.sqrt(len(values)))
        assert means[0] - means[1] > 2 * np.hypot(errors[0], errors[1])
        assert means[1] - means[2] > 2 * np.hypot(errors[1], errors[2])
        assert means[2] > exact - 2 * errors[2]

    @pytest.mark.large_on_jax
    def test_elbo_is_the_one_of_the_wrong_posterior(self, score, linear_gaussian):
        # The gap of the bound is KL(q || true posterior), known for Gaussians.
        variance = linear_gaussian.posterior_variance
        gap = 0.5 * np.sum(np.exp(0.5) + 0.3**2 / variance - 0.5 - 1.0)
        estimate = score(2000, shift=0.3, log_var_shift=0.5)
        expected = np.mean(linear_gaussian.log_evidence()) - gap
        # Spread of a draw's ELBO is of order 3: 400,000 draws make 0.005.
        assert estimate.extra["elbo"] == pytest.approx(expected, abs=0.02)
        assert -estimate.extra["distortion"] - estimate.extra["rate"] == pytest.approx(
            estimate.extra["elbo"], abs=1e-4
        )
        assert 1.0 < estimate.extra["effective_samples_min"] < 2000.0

    def test_standard_error_is_that_of_the_mean_over_examples(self, score):
        estimate = score(10)
        assert estimate.count == 200
        spread = np.std(estimate.per_example, ddof=1)
        assert estimate.standard_error == pytest.approx(spread / np.sqrt(200))

    def test_ragged_batches_and_chunks_count_every_draw_once(self, score, linear_gaussian):
        # With the true posterior any miscount of draws shifts the estimate by a log ratio.
        for num_samples in (7, 9):
            estimate = score(num_samples, batch_size=64)
            assert num_samples % estimate.settings["draws_at_once"]
            assert estimate.extra["effective_samples"] == pytest.approx(num_samples, rel=1e-3)
            evidence = linear_gaussian.log_evidence()
            np.testing.assert_allclose(estimate.per_example, -evidence, atol=1e-4)

    def test_memory_bounds_the_draws_in_flight(self, score):
        settings = [score(8, memory=memory).settings for memory in (10**4, 10**9)]
        assert settings[0]["batch_size"] < settings[1]["batch_size"] == 64

    def test_bits_and_perplexity(self, score):
        estimate = score(1, num_tokens=1200)
        assert estimate.extra["bits_per_dim"] == pytest.approx(estimate.value / (6 * np.log(2)))
        total = np.sum(estimate.per_example)
        assert estimate.extra["perplexity"] == pytest.approx(np.exp(total / 1200))


def assert_same_estimates(first, second):
    """Estimates of the same examples from other draws: apart by their noise only."""
    difference = np.asarray(first) - np.asarray(second)
    spread = np.std(difference, ddof=1)
    assert 0.0 < spread < 2.0
    assert abs(np.mean(difference)) < 4.0 * spread / np.sqrt(len(difference))


class TestOurModels:
    @pytest.mark.large
    @pytest.mark.parametrize("num_samples", [8, 20])
    def test_all_estimates_agree_at_equal_seeds(self, digits_vae, num_samples):
        model, x = digits_vae
        ours = negative_log_likelihood(model, x, num_samples, seed=3)
        theirs = model.log_prob(x, num_samples, seed=3)
        # 70 examples are two batches, of 64 and 6.
        np.testing.assert_allclose(-ours.per_example, theirs, rtol=1e-6)
        # The objective's draws are one step of the loop.
        terms = model.log_terms(x[:64], CHUNK, seed=3)
        bound = -model.log_prob(x[:64], CHUNK, seed=3)
        np.testing.assert_allclose(ImportanceWeightedELBO()(terms).per_example, bound, rtol=1e-5)

    @pytest.mark.large_on_jax
    def test_agrees_with_the_models_own_estimate(self, digits_vae):
        model, x = digits_vae
        ours = negative_log_likelihood(model, x, 400)
        theirs = -model.log_prob(x, 400, seed=1)
        assert_same_estimates(ours.per_example, theirs)

    @pytest.mark.large
    @pytest.mark.one_backend
    def test_full_covariances_are_scored(self, digits_vae):
        _, x = digits_vae
        encoder, decoder = zoo.networks.make("mlp", (x.shape[1],), 4, hidden_units=(8,))
        model = zoo.HEBAE(encoder, decoder, latent_dim=4, likelihood="bernoulli")
        model(x, training=True)
        ours = negative_log_likelihood(model, x, 400)
        assert_same_estimates(ours.per_example, -model.log_prob(x, 400, seed=1))

    def test_equal_seeds_repeat_and_others_differ(self, digits_vae):
        model, x = digits_vae
        first, again, other = (negative_log_likelihood(model, x, 5, seed=s) for s in (3, 3, 4))
        np.testing.assert_array_equal(first.per_example, again.per_example)
        assert np.all(first.per_example != other.per_example)

    @pytest.mark.large
    @pytest.mark.one_backend
    def test_saved_model_scores_like_its_source(self, digits_vae, tmp_path):
        pytest.importorskip("tensorflow")
        model, x = digits_vae
        model.export(tmp_path / "served")
        ours = negative_log_likelihood(model, x[:10], 200)
        served = negative_log_likelihood(tmp_path / "served", x[:10], 200)
        # The same draws, decoded to means there and to logits here.
        np.testing.assert_allclose(served.per_example, ours.per_example, rtol=1e-4)


class TestErrors:
    def test_counts(self, digits_vae):
        model, x = digits_vae
        with pytest.raises(ValueError, match="`num_samples` must be a positive integer"):
            negative_log_likelihood(model, x, 0)
        with pytest.raises(ValueError, match="`batch_size` must be .* Received: batch_size=0"):
            negative_log_likelihood(model, x, batch_size=0)
        with pytest.raises(ValueError, match="`seed` must be an integer in .0, 2.31."):
            negative_log_likelihood(model, x, seed=-1)

    def test_data(self, digits_vae):
        model, x = digits_vae
        with pytest.raises(ValueError, match=r"`data` must lie in \[0, 1\]"):
            negative_log_likelihood(model, 255 * x)
        with pytest.raises(TypeError, match="`data` must be an array"):
            negative_log_likelihood(model, None)

    def test_deterministic_encoder(self, digits_vae):
        _, x = digits_vae
        encoder, decoder = zoo.networks.make("mlp", (x.shape[1],), 4, hidden_units=(8,))
        model = zoo.WAE(encoder, decoder, latent_dim=4)
        model(x)
        with pytest.raises(ValueError, match="must have a posterior with a density"):
            negative_log_likelihood(model, x)

    def test_no_model(self):
        with pytest.raises(TypeError, match="`model` must be a vaezoo VAE"):
            negative_log_likelihood(3, np.zeros((4, 2), "float32"))
