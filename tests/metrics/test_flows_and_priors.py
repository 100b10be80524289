"""Posteriors that are flows, priors that are learned, decoders that see what they decode."""

import html
import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import layers, losses, metrics, zoo
from vaezoo.metrics import subject as _subject
from vaezoo.metrics.subject import as_subject

LATENT, EVENT, COUNT, NOISE = 3, 6, 120, 3.0
#: What the pinned gates multiply the noise by, in the order of the noise.
GATES = np.array([0.9, 0.7, 0.5])


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(COUNT, EVENT)).astype("float32")


def make(data, **parts):
    keras.utils.set_random_seed(2)
    encoder = keras.Sequential([keras.Input((EVENT,)), keras.layers.Dense(5, "tanh")])
    decoder = keras.Sequential([keras.Input((LATENT,)), keras.layers.Dense(EVENT)])
    model = zoo.VAE(encoder, decoder, **{"likelihood": layers.Gaussian(NOISE), **parts})
    model(data[:2])
    return model


def flow_head(blocks=1):
    keras.utils.set_random_seed(3)
    flow = layers.InverseAutoregressiveFlow(blocks, (8,))
    return layers.FlowHead(LATENT, flow, kernel_initializer="glorot_normal")


def set_scale(model, scale):
    """Makes standard deviations of the base about so large."""
    bias = np.zeros(model.head.projection.bias.shape, "float32")
    bias[LATENT : 2 * LATENT] = np.log(np.expm1(scale))
    model.head.projection.bias.assign(bias)


@pytest.fixture(scope="module")
def pinned(data):
    """A flow that multiplies by `GATES` and turns the order round: its posterior is Gaussian."""
    model = make(data, head=flow_head())
    block = model.head.flow.blocks[0]
    for weight in block.network.weights:
        weight.assign(0.0 * weight)
    block.bias.assign(np.log(GATES) - np.log1p(-GATES))
    set_scale(model, 1.5)
    return model


@pytest.fixture(scope="module")
def bent(data):
    """A flow whose every part depends on noise and context."""
    model = make(data, head=flow_head(2))
    rng = np.random.default_rng(1)
    for weight in model.head.flow.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def twin(pinned, data):
    """The same posterior, prior and likelihood without a flow, as a foreign pair."""

    def encoder(x):
        base = pinned.encode(x).base
        gates = GATES.astype("float32")
        log_var = base.log_var + 2.0 * np.log(gates)
        return ops.flip(base.mean * gates, axis=1), ops.flip(log_var, axis=1)

    return as_subject(encoder, pinned.decoder, data, layers.Gaussian(NOISE))


def close(estimate, exact, errors=4.0):
    assert abs(estimate.value - exact) < errors * estimate.standard_error, (estimate, exact)


# -- flows -----------------------------------------------------------------------------------------


@pytest.mark.large
def test_likelihood_of_a_flow_is_that_of_the_gaussian_which_it_is(pinned, twin, data):
    flow, plain = (
        metrics.negative_log_likelihood(model, data[:40], 400, seed=1) for model in (pinned, twin)
    )
    difference = flow.per_example - plain.per_example
    assert abs(difference.mean()) < 4.0 * difference.std() / np.sqrt(len(difference))
    assert difference.std() < 0.3
    rate = np.mean(ops.convert_to_numpy(losses.kl_divergence(twin.encode(data[:40]))))
    # 16,000 draws of a spread of about sqrt(D / 2) nats.
    assert flow.extra["rate"] == pytest.approx(rate, abs=0.05)
    assert flow.extra["elbo"] == pytest.approx(-flow.extra["distortion"] - flow.extra["rate"])


@pytest.mark.large_on_jax
def test_entropy_and_rates_of_a_flow_are_closed_forms_within_their_errors(pinned, twin, data):
    plain = metrics.conditional_entropy(twin, data)
    flow = metrics.conditional_entropy(pinned, data, num_samples=50)
    assert flow.estimator == "sampled"
    difference = flow.per_example - plain.per_example
    assert abs(difference.mean()) < 4.0 * difference.std() / np.sqrt(COUNT)
    # A spread of sqrt(D / 2) over the root of all draws.
    assert abs(difference.mean()) < 4.0 * np.sqrt(LATENT / 2 / (50 * COUNT))
    assert flow.value == pytest.approx(flow.extra["base"] + np.sum(np.log(GATES)), abs=0.1)
    exact = metrics.rate_per_dimension(twin, data)
    rates = metrics.rate_per_dimension(pinned, data, num_samples=50)
    assert (exact.estimator, rates.estimator) == ("closed_form", "sampled")
    np.testing.assert_allclose(
        rates.extra["per_dimension"], exact.extra["per_dimension"], atol=4 / np.sqrt(50 * COUNT)
    )
    # The order is that of the code, and no other would do.
    wrong = np.array(rates.extra["per_dimension"])[::-1] - exact.extra["per_dimension"]
    assert np.max(np.abs(wrong)) > 0.1


@pytest.mark.large
def test_rates_per_dimension_are_those_of_the_model(bent, data):
    rates = metrics.rate_per_dimension(bent, data, num_samples=4, seed=3, batch_size=50)
    terms = bent.log_terms(data, 4, seed=3, batch_size=50)
    np.testing.assert_allclose(rates.per_example, terms.kl_per_dimension, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rates.per_example.sum(axis=1), terms.kl, rtol=1e-4, atol=1e-4)


@pytest.mark.large_on_jax
def test_gates_can_only_lower_the_entropy(bent, data):
    entropy = metrics.conditional_entropy(bent, data)
    # H(z_T) = H(z_0) + E sum log g, with every gate below 1.
    assert entropy.value + 4.0 * entropy.standard_error < entropy.extra["base"]


@pytest.mark.large_on_jax
def test_moments_of_a_flow_are_those_of_its_draws(pinned, twin, data):
    exact = metrics.aggregate_moments(twin, data)
    drawn = metrics.aggregate_moments(pinned, data, num_samples=200)
    scale = np.sqrt(np.diagonal(exact.covariance))
    error = 4.0 * scale / np.sqrt(200 * COUNT)
    np.testing.assert_array_less(np.abs(drawn.mean - exact.mean), error)
    np.testing.assert_allclose(drawn.covariance, exact.covariance, atol=0.03)
    np.testing.assert_allclose(drawn.covariance_of_means, exact.covariance_of_means, atol=0.03)
    assert drawn.divergence == pytest.approx(exact.divergence, abs=0.1)


@pytest.mark.large
@pytest.mark.one_backend
def test_evaluation_of_a_flow_measures_what_there_is(bent, data):
    found = metrics.evaluate(bent, data, num_samples=8)
    assert set(found.skipped) == {"mutual_information"}
    assert "inverse pass for each pair of examples" in found.skipped["mutual_information"]
    base = bent.encode(data).base
    divergence = metrics.mutual_posterior_divergence(base)
    assert found["mutual_posterior_divergence"].value == pytest.approx(divergence.value, rel=1e-5)
    assert found["mutual_posterior_divergence"].estimator == "distinct_pairs of the flow's base"
    assert found["active_units"].value == metrics.active_units(base.mean).value
    assert found["active_units"].estimator.endswith("of the flow's base")
    assert found["aggregate_divergence"].estimator.endswith("(posteriors by draws)")
    rate, dimensions = found["rate"].value, found["rate_per_dimension"]
    assert abs(rate - dimensions.value) < 4.0 * dimensions.standard_error
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.large
def test_units_of_a_flow_are_in_the_order_of_the_code(pinned, data):
    posterior = pinned.encode(data)
    raw = np.var(ops.convert_to_numpy(posterior.base_mean), axis=0, ddof=1)
    threshold = float(np.sort(raw)[1])
    for source, order in (((pinned, data), [2, 1, 0]), ((posterior,), [0, 1, 2])):
        variances = metrics.active_units(*source, threshold=threshold).extra["variances"]
        np.testing.assert_allclose(variances, raw[order], rtol=1e-5)


@pytest.mark.large_on_jax
def test_codes_of_a_flow_are_base_and_code(bent, data):
    posterior = bent.encode(data)
    base = ops.convert_to_numpy(posterior.base_mean)
    both = metrics.probes.posterior_means(bent, data)
    np.testing.assert_allclose(both[:, :LATENT], base, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[:, LATENT:], posterior.mean, rtol=1e-4, atol=1e-5)
    for flow, part in (("base", both[:, :LATENT]), ("code", both[:, LATENT:])):
        codes = metrics.probes.posterior_means(bent, data, flow=flow)
        np.testing.assert_allclose(codes, part)
    with pytest.raises(ValueError, match="`flow` must be one of 'both', 'base', 'code'.*='all'"):
        metrics.probes.posterior_means(bent, data, flow="all")
    labels = np.arange(COUNT) % 2
    pair = (data, labels)
    assert metrics.knn_probe(pair, pair, model=bent, num_neighbors=1).value == 1.0


@pytest.mark.large
@pytest.mark.one_backend
def test_draws_of_a_flow_are_enough_for_mine(bent, data):
    found = metrics.mine(bent, data, epochs=1, hidden_units=(8,))
    assert np.isfinite(found.value)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (
            lambda m, x: metrics.mutual_information(m, x),
            "must be Gaussian: the density of .* takes an inverse",
        ),
        (lambda m, x: metrics.marginal_divergence(m.encode(x)), "inverse pass for each pair"),
        (lambda m, x: metrics.conditional_entropy(m.encode(x)), "must be the model, with `data`"),
        (lambda m, x: metrics.rate_per_dimension(m.encode(x)), "`posterior` must be the model"),
        (lambda m, x: metrics.aggregate_moments(m.encode(x)), "Received: FlowGaussian"),
    ],
)
@pytest.mark.large_on_jax
def test_what_a_flow_does_not_give_is_said(bent, data, measure, message):
    with pytest.raises(TypeError, match=message):
        measure(bent, data)


@pytest.mark.parametrize(
    "measure", [metrics.conditional_entropy, metrics.rate_per_dimension, metrics.aggregate_moments]
)
def test_numbers_of_draws_are_checked(bent, data, measure):
    with pytest.raises(
        ValueError, match="`num_samples` must be an? .*integer.* Received: num_samples=0"
    ):
        measure(bent, data, num_samples=0)


# -- priors ----------------------------------------------------------------------------------------


PRIOR_MEAN, PRIOR_VARIANCE = np.array([1.0, -0.5, 0.0]), np.array([2.0, 1.0, 0.25])


@pytest.fixture(scope="module")
def mixture(data):
    """A mixture of one component: the prior is Gaussian, without the model's knowing it."""
    model = make(data, latent_dim=LATENT, prior=layers.GaussianMixturePrior(1))
    model.prior.means.assign(PRIOR_MEAN[None])
    model.prior.log_vars.assign(np.log(PRIOR_VARIANCE)[None])
    return model


def gaussian_kl(mean, variance):
    """KL to the prior above, by example and dimension."""
    ratio = variance / PRIOR_VARIANCE
    return 0.5 * (ratio + (mean - PRIOR_MEAN) ** 2 / PRIOR_VARIANCE - 1.0 - np.log(ratio))


@pytest.mark.large
def test_rates_and_divergences_are_to_the_learned_prior(mixture, data):
    posterior = mixture.encode(data)
    mean, log_var = (ops.convert_to_numpy(part).astype("float64") for part in posterior)
    exact = gaussian_kl(mean, np.exp(log_var)).sum(axis=1)
    found = metrics.evaluate(mixture, data, num_samples=64)
    assert found.provenance["prior"] == "GaussianMixturePrior"
    assert found["rate"].value == pytest.approx(exact.mean(), abs=0.1)
    # Both from one set of draws: they add up to the rate of these, not to that against N(0, I).
    total = found["mutual_information"].value + found["marginal_divergence"].value
    assert total == pytest.approx(found["mutual_information"].extra["rate"], abs=1e-6)
    assert total == pytest.approx(exact.mean(), abs=0.5)
    assert "no density per dimension" in found.skipped["rate_per_dimension"]
    moments = metrics.aggregate_moments(mixture, data)
    ratio = moments.covariance / PRIOR_VARIANCE[:, None]
    shift = moments.mean - PRIOR_MEAN
    divergence = 0.5 * (
        np.trace(ratio) + shift @ (shift / PRIOR_VARIANCE) - LATENT - np.linalg.slogdet(ratio)[1]
    )
    # 5,000 draws tell each moment of the prior to about 2 %.
    assert found["aggregate_divergence"].value == pytest.approx(divergence, rel=0.1)
    assert found["aggregate_divergence"].estimator.endswith("(prior by draws)")


@pytest.mark.large
def test_flow_prior_has_rates_per_dimension(data):
    keras.utils.set_random_seed(3)
    prior = layers.AutoregressiveFlowPrior(1, (8,), weight_norm=False)
    model = make(data, latent_dim=LATENT, prior=prior)
    rng = np.random.default_rng(3)
    for weight in prior.weights:
        weight.assign(weight + 0.2 * rng.normal(size=weight.shape))
    rates = metrics.rate_per_dimension(model, data, num_samples=4, seed=2, batch_size=60)
    assert rates.settings["prior"] == "AutoregressiveFlowPrior"
    terms = model.log_terms(data, 4, seed=2, batch_size=60)
    np.testing.assert_allclose(rates.per_example.sum(axis=1), terms.kl, rtol=1e-3, atol=1e-3)
    posterior = model.encode(data)
    assert rates.value != pytest.approx(metrics.rate_per_dimension(posterior).value, rel=0.02)


# -- autoregressive decoders -----------------------------------------------------------------------


SHAPE = (4, 4, 1)


@keras.saving.register_keras_serializable(package="tests")
class Chain(layers.AutoregressiveImageDecoder):
    """Logits that are a linear map of the pixels before, and of z."""

    def build(self, z_shape, x_shape):
        size = int(np.prod(self.output_shape_))
        self.mask = np.triu(np.ones((size, size), "float32"), 1)
        self.matrix = self.add_weight(shape=(size, size), initializer="glorot_normal")
        self.reader = self.add_weight(shape=(self.latent_dim, size), initializer="glorot_normal")
        self.bias = self.add_weight(shape=(size,), initializer="glorot_normal")

    def call(self, z, x, training=False):
        flat = ops.reshape(x, (-1, self.mask.shape[0]))
        logits = ops.matmul(flat, self.matrix * self.mask) + ops.matmul(z, self.reader) + self.bias
        return ops.reshape(logits, (-1, *self.output_shape_))


def make_chain(shape=SHAPE, **parts):
    keras.utils.set_random_seed(4)
    encoder = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(8, "tanh")]
    )
    parts = parts or {"latent_dim": 2}
    latent_dim = parts["head"].latent_dim if "head" in parts else parts["latent_dim"]
    model = zoo.VAE(encoder, Chain(latent_dim, shape), **parts)
    model(np.zeros((2, *shape), "float32"))
    return model


@pytest.fixture(scope="module")
def binary():
    rng = np.random.default_rng(5)
    patterns = rng.random((2, *SHAPE)) < 0.5
    noise = rng.random((COUNT, *SHAPE)) < 0.1
    return (patterns[np.arange(COUNT) % 2] ^ noise).astype("float32")


@pytest.mark.large
def test_likelihood_is_taken_with_the_image_in_sight(binary):
    model = make_chain()
    x, z = binary[:3], np.random.default_rng(6).normal(size=(3, 2, 2)).astype("float32")
    found = ops.convert_to_numpy(as_subject(model).log_px(ops.convert_to_tensor(x), z))
    matrix, reader, bias = (ops.convert_to_numpy(w) for w in model.decoder.weights)
    flat = x.reshape(3, 16)
    expected = np.zeros((3, 2))
    for row, draw, pixel in itertools.product(range(3), range(2), range(16)):
        logit = bias[pixel] + z[row, draw] @ reader[:, pixel]
        logit += sum(flat[row, before] * matrix[before, pixel] for before in range(pixel))
        expected[row, draw] += flat[row, pixel] * logit - np.logaddexp(0.0, logit)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.large_on_jax
def test_likelihood_is_exact_where_the_code_is_empty():
    model = make_chain((2, 2, 1))
    model.decoder.reader.assign(0.0 * model.decoder.reader)
    for weight in model.head.projection.weights:
        weight.assign(0.0 * weight)
    every = np.array(list(itertools.product((0.0, 1.0), repeat=4)), "float32")
    found = metrics.negative_log_likelihood(model, every.reshape(-1, 2, 2, 1), 3)
    # The posterior is the prior and nothing is read: no estimate, but the probabilities themselves.
    assert np.exp(-found.per_example).sum() == pytest.approx(1.0, abs=1e-5)
    assert found.per_example.std() > 0.1
    assert found.extra["rate"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.large_on_jax
def test_memory_of_convolutions_without_layers_is_counted():
    from vaezoo.metrics.negative_log_likelihood import draws_at_once

    class Convolution(layers.AutoregressiveImageDecoder):
        def build(self, z_shape, x_shape):
            self.kernel = self.add_weight(shape=(3, 3, 5, 100))

    decoder = Convolution(2, SHAPE)
    decoder.build(None, None)
    subject = as_subject(make_chain())
    subject.decoder = decoder
    images = np.zeros((1, *SHAPE))
    # 100 maps at 16 positions, twice, and 4 times the parameters.
    assert draws_at_once(subject, images, 4 * 10 * (2 * 1600 + 4 * 16)) == 10
    assert draws_at_once(subject, images, 1) == 1


@pytest.mark.parametrize(
    ("details", "posterior", "what"),
    [
        ({}, {"mean": 0, "base_mean": 0}, "the posterior of a flow"),
        ({"autoregressive": True}, {"mean": 0}, "an autoregressive decoder"),
        ({"prior": "VampPrior"}, {"mean": 0}, "a prior of its own, VampPrior"),
    ],
)
def test_saved_models_that_do_not_tell_their_densities_are_refused(details, posterior, what):
    with pytest.raises(ValueError, match=f"`model` must be the VAE itself.*{what}"):
        _subject._check_parts(details, posterior)
    _subject._check_parts({"prior": "StandardNormal"}, {"mean": 0})


# -- the diagnosis ---------------------------------------------------------------------------------


def examine(model, data, **options):
    diagnosis = metrics.diagnose(model, data, **{"refinement_steps": 3, **options})
    json.loads(diagnosis.to_json(), parse_constant=pytest.fail)
    assert html.escape(diagnosis.title) in diagnosis.to_html()
    assert str(diagnosis)
    return diagnosis


@pytest.mark.one_backend
@pytest.mark.slow
def test_pinned_flow_is_diagnosed_as_the_gaussian_which_it_is(pinned, twin, data):
    flow, plain = examine(pinned, data), examine(twin, data)
    assert "mutual_information" not in flow.measurements
    assert any("inverse pass for each pair" in note for note in flow.notes)
    for name, tolerance in (
        ("rate", 0.3),
        ("conditional_entropy", 0.3),
        ("moment_divergence", 0.2),
        ("elbo_before", 0.5),
        ("elbo_after", 0.5),
        ("implied_weight", 0.3),
    ):
        found = flow.measurements[name].value
        assert found == pytest.approx(plain.measurements[name].value, abs=tolerance), name
    for name, tolerance in (
        ("mean_of_means", 0.1),
        ("variance_of_means", 0.1),
        ("posterior_variance", 0.1),
        ("kl_per_dimension", 0.2),
        ("aggregate_variance", 0.15),
    ):
        np.testing.assert_allclose(flow.arrays[name], plain.arrays[name], atol=tolerance)


@pytest.mark.large
@pytest.mark.one_backend
def test_collapsed_flow_is_named(data):
    # The noise of the data, so that its scale is no cause.
    model = make(data, head=flow_head(), likelihood=layers.Gaussian(1.0))
    for weight in (*model.head.weights, *model.decoder.weights):
        weight.assign(0.0 * weight)
    # Gates of one half halve a standard deviation of 2.
    set_scale(model, 2.0)
    diagnosis = examine(model, data)
    assert diagnosis.verdict == "full_collapse", str(diagnosis)
    assert "The rate, at least the information about x, is" in diagnosis.evidence[0]
    assert any("zoo.DUIAF(" in remedy.code for remedy in diagnosis.remedies)


@pytest.mark.parametrize("prior", ["flow", "vamp"])
@pytest.mark.one_backend
@pytest.mark.slow
def test_learned_priors_are_diagnosed(data, prior):
    keras.utils.set_random_seed(3)
    prior = {
        "flow": lambda: layers.AutoregressiveFlowPrior(1, (4,), weight_norm=False),
        "vamp": lambda: layers.VampPrior(4),
    }[prior]()
    model = make(data, latent_dim=LATENT, prior=prior)
    diagnosis = examine(model, data)
    assert diagnosis.settings["prior"] == type(prior).__name__
    terms = model.log_terms(data, 16, seed=9, batch_size=60)
    rate = diagnosis.measurements["rate"]
    assert abs(rate.value - np.mean(terms.kl)) < 4.0 * rate.standard_error
    assert np.isfinite(diagnosis.measurements["refinement_gain"].value)
    of_prior = not any("taken to N(0, 1)" in note for note in diagnosis.notes)
    assert of_prior == isinstance(prior, layers.AutoregressiveFlowPrior)


@pytest.mark.large
@pytest.mark.one_backend
def test_decoder_that_models_the_data_alone_is_named(binary):
    model = make_chain(head=layers.GaussianHead(2))
    model.decoder.reader.assign(0.0 * model.decoder.reader)
    # Means far apart: a code that says which of the two patterns it was.
    model.head.projection.kernel.assign(3.0 * model.head.projection.kernel)
    model.head.projection.bias.assign([0.0, 0.0, -4.0, -4.0])
    diagnosis = examine(model, binary)
    assert "decoder_ignores_z" in [finding.name for finding in diagnosis.findings], str(diagnosis)
    assert diagnosis.measurements["sensitivity"].value == pytest.approx(0.0, abs=1e-5)
    assert diagnosis.measurements["refinement_gain"].count == 64
    found = next(f for f in diagnosis.findings if f.name == "decoder_ignores_z")
    assert found.evidence
    codes = [remedy.code for remedy in diagnosis.remedies]
    assert any("networks.ResidualPixelCNN(" in code for code in codes)
    assert set(diagnosis.pictures) == {"data", "reconstructions", "draws from the prior"}
    assert all(len(images) == 5 for images in diagnosis.pictures.values())
    # Nothing is read: every code is decoded alike.
    assert np.ptp(diagnosis.pictures["reconstructions"], axis=0).max() == 0.0


@pytest.mark.large
@pytest.mark.one_backend
def test_decoder_that_reads_is_seen_to(binary):
    model = make_chain(head=flow_head())
    model.decoder.reader.assign(3.0 * model.decoder.reader)
    diagnosis = examine(model, binary, refinement_steps=0)
    assert diagnosis.measurements["sensitivity"].value > 0.5
    assert len(diagnosis.arrays["use"]) == LATENT
