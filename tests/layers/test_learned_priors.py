"""Mixture priors against explicit sums over their components."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from vaezoo.core.compile import compiled
from vaezoo.core.random import StatelessSeed
from vaezoo.layers import (
    Bernoulli,
    CholeskyReparam,
    FlowHead,
    Gaussian,
    GaussianHead,
    InverseAutoregressiveFlow,
    PointHead,
    initialize_from_data,
)
from vaezoo.layers.mixture_prior import GaussianMixturePrior
from vaezoo.layers.vamp_prior import VampPrior
from vaezoo.layers.weight_normalization import WeightNormDense
from vaezoo.losses import ELBO, tfd
from vaezoo.zoo import VAE

COMPONENTS, SIZE, EVENT = 5, 3, 6


def numpy(values):
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def draws(batch=4, samples=2, size=SIZE, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, samples, size)).astype("float32")


def rows(num=16, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (num, EVENT)).astype("float32")


def close(values, expected, count):
    """Whether a sample mean is within four standard errors."""
    np.testing.assert_array_less(
        np.abs(values.mean(0) - expected), 4 * values.std(0) / np.sqrt(count)
    )


@pytest.fixture(scope="module")
def mixture():
    prior = GaussianMixturePrior(COMPONENTS)
    prior.build((None, 1, SIZE))
    rng = np.random.default_rng(0)
    for variable in prior.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return prior


class TestMixture:
    @pytest.mark.large_on_jax
    def test_density_is_the_sum_over_components(self, mixture):
        logits, means, log_vars = numpy(
            (mixture.logits.value, mixture.means.value, mixture.log_vars.value)
        )
        z = draws()
        by_component = stats.norm.logpdf(z[..., None, :], means, np.exp(0.5 * log_vars)).sum(-1)
        expected = special.logsumexp(by_component + special.log_softmax(logits), axis=-1)
        np.testing.assert_allclose(numpy(mixture(z)), expected, rtol=1e-5)
        oracle = tfd().MixtureSameFamily(
            tfd().Categorical(logits=ops.convert_to_tensor(logits)),
            tfd().Independent(
                tfd().Normal(ops.convert_to_tensor(means), np.exp(0.5 * log_vars)), 1
            ),
        )
        np.testing.assert_allclose(numpy(mixture(z)), numpy(oracle.log_prob(z)), rtol=1e-5)

    @pytest.mark.large_on_jax
    def test_draws_have_the_moments_of_the_mixture(self, mixture):
        z = numpy(mixture.sample(40_000, keras.random.SeedGenerator(0)))
        weights = special.softmax(numpy(mixture.logits.value))
        means, variances = numpy(mixture.means.value), np.exp(numpy(mixture.log_vars.value))
        close(z, weights @ means, len(z))
        close(z**2, weights @ (means**2 + variances), len(z))

    def test_equal_seeds_give_equal_draws(self, mixture):
        first, again, other = (numpy(mixture.sample(5, StatelessSeed(seed))) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert np.all(first != other)

    @pytest.mark.large_on_jax
    def test_starts_with_equal_weights_and_unit_variances(self):
        prior = GaussianMixturePrior(2, "zeros")
        z = draws()
        np.testing.assert_allclose(numpy(prior(z)), stats.norm.logpdf(z).sum(-1), rtol=1e-5)
        prior = GaussianMixturePrior(2)
        prior.build((None, 1, SIZE))
        assert not np.allclose(prior.means[0], prior.means[1])
        assert prior.kl_divergence(None) is None
        assert prior.log_prob_per_dimension(z) is None

    def test_errors(self):
        with pytest.raises(ValueError, match="`num_components` must be a positive integer"):
            GaussianMixturePrior(0)


def make(head=None, likelihood=None, components=COMPONENTS, encoder=None, **options):
    encoder = encoder or keras.Sequential([keras.layers.Dense(5, "tanh"), keras.layers.Dense(4)])
    model = VAE(
        encoder,
        keras.Sequential([keras.layers.Dense(EVENT)]),
        head=head or GaussianHead(SIZE),
        prior=VampPrior(components),
        likelihood=likelihood or Bernoulli(),
        **options,
    )
    model.build((None, EVENT))
    return model


class TestVamp:
    @pytest.mark.large
    def test_under_a_flow_its_density_compiles_for_any_number_of_points(self):
        model, x = make(FlowHead(SIZE, InverseAutoregressiveFlow(1, (4,)))), rows(8)
        terms = model.log_terms(x, num_samples=2, seed=1, batch_size=4)
        expected = numpy(model.prior.log_prob(terms.z))
        np.testing.assert_allclose(numpy(terms.log_pz), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.large
    @pytest.mark.parametrize(
        "make_head",
        [
            lambda: GaussianHead(SIZE),
            lambda: GaussianHead(SIZE, reparam=CholeskyReparam(1)),
            lambda: FlowHead(SIZE, InverseAutoregressiveFlow(2, (8,))),
        ],
        ids=["diagonal", "full", "flow"],
    )
    def test_density_is_the_sum_over_pseudo_inputs(self, make_head, run):
        model = make(make_head())
        z = draws()

        def log_q(u, point):
            return model.head.log_prob(model.encode(u), point)

        by_component = np.empty((4, 2, COMPONENTS))
        pseudo_inputs = numpy(model.prior.pseudo_inputs)
        log_q = compiled(model, log_q)
        for where in np.ndindex(by_component.shape):
            u, point = pseudo_inputs[where[2]][None], z[where[:2]][None, None]
            by_component[where] = numpy(log_q(u, point))[0, 0]
        expected = special.logsumexp(by_component, axis=-1) - np.log(COMPONENTS)
        np.testing.assert_allclose(run(model, model.prior, z), expected, rtol=1e-4)

    @pytest.mark.large_on_jax
    def test_draws_have_the_moments_of_the_mixture(self):
        model = make()
        z = numpy(model.prior.sample(40_000, StatelessSeed(0)))
        posterior = numpy(model.encode(model.prior.pseudo_inputs))
        close(z, posterior.mean.mean(0), len(z))
        close(z**2, (posterior.mean**2 + np.exp(posterior.log_var)).mean(0), len(z))
        again, other = (numpy(model.prior.sample(3, StatelessSeed(seed))) for seed in (0, 1))
        np.testing.assert_array_equal(again, numpy(model.prior.sample(3, StatelessSeed(0))))
        assert np.all(again != other)

    def test_pseudo_inputs_stay_in_the_support(self):
        for likelihood, inside in ((Bernoulli(), True), (Gaussian(), False)):
            prior = make(likelihood=likelihood).prior
            prior.raw_inputs.assign(10.0 * draws(COMPONENTS, 1, EVENT)[:, 0])
            values = numpy(prior.pseudo_inputs)
            assert values.shape == (COMPONENTS, EVENT)
            assert np.all((values >= 0.0) & (values <= 1.0)) == inside

    def test_examples_can_be_pseudo_inputs(self):
        x = rows(COMPONENTS)
        prior = make().prior
        prior.assign(x)
        np.testing.assert_allclose(numpy(prior.pseudo_inputs), np.clip(x, 0.01, 0.99), atol=1e-5)
        prior = make(likelihood=Gaussian()).prior
        prior.assign(7.0 * x)
        np.testing.assert_allclose(numpy(prior.pseudo_inputs), 7.0 * x)
        with pytest.raises(ValueError, match=r"for each pseudo-input, \(5, 6\).*shape=\(4, 6\)"):
            prior.assign(x[:4])

    @pytest.mark.large
    def test_trains_saves_and_reloads(self, tmp_path):
        model = make(seed=0)
        names = [variable.path for variable in model.trainable_variables]
        # The encoder is the model's, not the prior's once more.
        assert len(names) == len({id(v) for v in model.trainable_variables}) == 9
        assert len(model.prior.trainable_variables) == 1
        model.compile(keras.optimizers.SGD(0.1))
        before = numpy([variable.value for variable in model.trainable_variables])
        model.fit(rows(), batch_size=8, epochs=2, verbose=0)
        after = numpy([variable.value for variable in model.trainable_variables])
        assert all(np.any(a != b) for a, b in zip(before, after, strict=True))
        model.save(tmp_path / "vamp.keras")
        again = keras.saving.load_model(tmp_path / "vamp.keras")
        np.testing.assert_allclose(numpy(again.prior(draws())), numpy(model.prior(draws())))
        np.testing.assert_allclose(again.generate(3, seed=1), model.generate(3, seed=1), rtol=1e-6)
        expected = model.log_prob(rows(4), num_samples=8)
        np.testing.assert_allclose(again.log_prob(rows(4), num_samples=8), expected, rtol=1e-5)

    @pytest.mark.one_backend
    def test_pseudo_inputs_do_not_initialize_the_encoder(self):
        encoder = keras.Sequential([WeightNormDense(4)])
        model = make(encoder=encoder)
        x = rows(64)
        with initialize_from_data():
            model.terms(x, model(x))
        features = numpy(encoder(x))
        np.testing.assert_allclose(features.mean(0), 0.0, atol=1e-5)
        np.testing.assert_allclose(features.std(0), 1.0, rtol=1e-4)

    def test_errors(self):
        with pytest.raises(ValueError, match="`num_components` must be a positive integer"):
            VampPrior(0)
        with pytest.raises(ValueError, match="needs the shape of an example"):
            VampPrior()(draws())
        alone = VampPrior(2)
        alone.event_shape = (EVENT,)
        with pytest.raises(ValueError, match="only as the `prior` of a VAE"):
            alone(draws())
        with pytest.raises(ValueError, match="a deterministic encoder has none.*head=PointHead"):
            make(PointHead(SIZE), objective=ELBO(0.0))
        model = make(name="first")
        with pytest.raises(ValueError, match="Received: the prior of another model, 'first'"):
            VAE(model.encoder, model.decoder, head=GaussianHead(SIZE), prior=model.prior)
