"""What sets each model of the zoo apart, and its presets."""

import inspect
import math

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import data, zoo
from vaezoo.callbacks import PlateauDecay
from vaezoo.layers import (
    ENTROPY_FLOOR,
    AutoregressiveFlowPrior,
    IsotropicNormal,
    LatentSkip,
    StandardNormal,
)
from vaezoo.losses import ELBO, EmpiricalBayesELBO, LinearSchedule, MaximumMeanDiscrepancy
from vaezoo.zoo.networks import registry

# JAX is slow without its compiler; TensorFlow without XLA compiles faster than with it.
QUICK = {"jit_compile": keras.backend.backend() == "jax"}


@pytest.fixture
def make(dense_networks):
    """Equal weights and noise for every constructor with a plain head."""

    def build(constructor, **kwargs):
        keras.utils.set_random_seed(0)
        if "seed" in inspect.signature(constructor).parameters:
            kwargs.setdefault("seed", 1)
        model = constructor(*dense_networks(), latent_dim=3, **kwargs)
        model.build((None, 6))
        return model

    return build


@pytest.fixture
def values_of(binary_data, to_numpy):
    """`(terms, per-example loss, batch loss, report)` of a model on 16 rows, as arrays."""

    def compute(model, training=True):
        x = binary_data(16)
        terms = model.terms(x, model(x, training=training))
        return to_numpy((terms, *model.objective(terms, training=training)))

    return compute


def total(loss):
    _, per_example, batch, _ = loss
    return np.mean(per_example) + batch


# -- identities --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_step(binary_data, dense_networks, to_numpy):
    """Loss and trainable weights after one step of plain descent."""

    def run(constructor, **kwargs):
        keras.utils.set_random_seed(0)
        model = constructor(*dense_networks(), latent_dim=3, seed=1, **kwargs)
        model.build((None, 6))
        model.compile(keras.optimizers.SGD(1.0), **QUICK)
        loss = model.fit(binary_data(16), batch_size=16, verbose=0).history["loss"][0]
        return loss, to_numpy([v.value for v in model.trainable_variables])

    return run


@pytest.fixture(scope="module")
def plain_step(one_step):
    return one_step(zoo.VAE)


@pytest.mark.parametrize(
    ("constructor", "settings"),
    [
        (zoo.BetaVAE, {"beta": 1.0}),
        (zoo.FreeBitsVAE, {"free_bits": 0.0}),
        (zoo.InfoVAE, {"alpha": 0.0, "lam": 1.0}),
        (zoo.DUVAE, {"gamma": None, "keep_prob": 1.0, "floor": 1e-12}),
        (zoo.SAVAE, {"refine_steps": 0}),
    ],
    ids=["BetaVAE", "FreeBitsVAE", "InfoVAE", "DUVAE", "SAVAE"],
)
def test_neutral_settings_train_as_the_plain_vae(one_step, plain_step, constructor, settings):
    loss, weights = one_step(constructor, **settings)
    np.testing.assert_allclose(loss, plain_step[0], rtol=1e-5)
    for got, expected in zip(weights, plain_step[1], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_other_settings_do_not(one_step, plain_step):
    _, weights = one_step(zoo.BetaVAE, beta=4.0)
    assert np.max(np.abs(weights[0] - plain_step[1][0])) > 1e-3


# -- weights on the rate -----------------------------------------------------------------------


@pytest.mark.large_on_jax
def test_beta_vae_charges_the_rate_beta_times(make, values_of):
    loss = values_of(make(zoo.BetaVAE, beta=3.0))
    np.testing.assert_allclose(loss[1], loss[0].distortion + 3.0 * loss[0].kl, rtol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("num_samples", [1, 5])
def test_iwae_is_the_log_mean_of_importance_weights(make, values_of, num_samples):
    terms, per_example, *_ = values_of(make(zoo.IWAE, num_samples=num_samples))
    log_weights = (terms.log_px + terms.log_pz - terms.log_qz).astype("float64")
    assert log_weights.shape == (16, num_samples)
    expected = -np.log(np.mean(np.exp(log_weights), axis=1))
    np.testing.assert_allclose(per_example, expected, rtol=1e-5)
    if num_samples == 1:
        sampled_rate = terms.log_qz[:, 0] - terms.log_pz[:, 0]
        np.testing.assert_allclose(per_example, terms.distortion + sampled_rate, rtol=1e-5)


@pytest.mark.large_on_jax
def test_free_bits_are_free_in_training_and_charged_in_evaluation(make, values_of):
    model = make(zoo.FreeBitsVAE, free_bits=50.0)
    terms, *_ = training = values_of(model)
    np.testing.assert_allclose(total(training), np.mean(terms.distortion) + 150.0, rtol=1e-5)
    terms, *_ = evaluation = values_of(model, training=False)
    np.testing.assert_allclose(total(evaluation), np.mean(terms.distortion + terms.kl), rtol=1e-5)


@pytest.mark.large_on_jax
def test_delta_vae_keeps_its_rate(make, binary_data, to_numpy):
    model = make(zoo.DeltaVAE, delta=0.2)
    # Weights far off their start push the head to both ends of its range.
    for variable in model.trainable_variables:
        variable.assign(20.0 * variable)
    terms = to_numpy(model.log_terms(binary_data(64), seed=0))
    assert np.all(terms.kl_per_dimension >= 0.2 - 1e-6)
    assert np.all(terms.kl >= 3 * (0.2 - 1e-6))
    # The bound is reached, not merely kept.
    assert terms.kl_per_dimension.min() < 0.2 + 1e-5


def test_info_vae_pays_back_the_rate_and_charges_the_discrepancy(make, values_of):
    terms, per_example, batch, report = values_of(make(zoo.InfoVAE, alpha=1.0, lam=10.0))
    np.testing.assert_allclose(per_example, terms.distortion, rtol=1e-5)
    np.testing.assert_allclose(batch, 10.0 * report["mmd"], rtol=1e-5)
    terms, per_example, batch, report = values_of(make(zoo.InfoVAE, alpha=0.25, lam=2.0))
    np.testing.assert_allclose(per_example, terms.distortion + 0.75 * terms.kl, rtol=1e-5)
    np.testing.assert_allclose(batch, 1.25 * report["mmd"], rtol=1e-5)


@pytest.mark.parametrize(("alpha", "lam"), [(1.5, 10.0), (-1.0, 1.0)])
def test_info_vae_refuses_weights_without_a_meaning(make, alpha, lam):
    with pytest.raises(ValueError, match=f"`alpha` must be at most 1.*alpha={alpha}, lam={lam}"):
        make(zoo.InfoVAE, alpha=alpha, lam=lam)


# -- posteriors --------------------------------------------------------------------------------


def test_bn_vae_means_have_the_gain_as_their_standard_deviation(make, values_of):
    model = make(zoo.BNVAE, gamma=0.7)
    terms, *_ = values_of(model)
    mean = terms.posterior.mean
    np.testing.assert_allclose(mean.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(mean.std(axis=0), 0.7, rtol=1e-3)
    assert np.mean(terms.kl) > 3 * 0.7**2 / 2 * 0.999
    assert all("gamma" not in variable.path for variable in model.trainable_variables)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(("gamma_mode", "trained"), [("rms", True), ("fixed", False)])
def test_du_vae_pins_its_gains(make, binary_data, gamma_mode, trained):
    model = make(zoo.DUVAE, gamma=0.5, gamma_mode=gamma_mode)
    gamma = model.head.mean_norm.gamma
    assert any(gamma is variable for variable in model.trainable_variables) == trained
    model.compile(keras.optimizers.SGD(0.5), **QUICK)
    model.fit(binary_data(16), batch_size=8, epochs=2, verbose=0)
    gains = ops.convert_to_numpy(gamma)
    np.testing.assert_allclose(np.sqrt(np.mean(gains**2)), 0.5, rtol=1e-5)
    assert (np.ptp(gains) > 1e-4) == trained


def test_du_vae_without_batch_normalization_and_dropout_keeps_the_floor(
    make, binary_data, to_numpy
):
    x = binary_data(8)
    plain = to_numpy(make(zoo.VAE).encode(x))
    ablated = make(zoo.DUVAE, gamma=None, keep_prob=1.0)
    for posterior in (ablated.encode(x), ablated(x, training=True).posterior):
        mean, log_var = to_numpy(posterior)
        np.testing.assert_allclose(mean, plain.mean, rtol=1e-5, atol=1e-6)
        expected = np.log(np.exp(plain.log_var) + ENTROPY_FLOOR)
        np.testing.assert_allclose(log_var, expected, rtol=1e-5, atol=1e-6)


def test_du_vae_drops_variances_to_the_floor(make, values_of):
    terms, *_ = values_of(make(zoo.DUVAE, keep_prob=0.5))
    dropped = np.isclose(terms.posterior.log_var, math.log(ENTROPY_FLOOR))
    # 48 masks, four standard errors.
    assert abs(dropped.mean() - 0.5) < 4 * 0.5 / math.sqrt(48)


def test_du_vae_regularizers_wait_for_the_schedule(make):
    schedule = LinearSchedule(10, stop=1.0)

    def start(weight):
        model = make(zoo.DUVAE, beta=schedule, reg_start_weight=weight)
        return model.head.variance_dropout.start_step

    assert [start(weight) for weight in (0.0, 0.5, 1.0)] == [0, 5, 10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma_mode": "max"}, "`gamma_mode` must be one of 'rms', 'fixed'.*gamma_mode='max'"),
        ({"reg_start_weight": 1.5}, "must not exceed.*reg_start_weight=1.5, beta=1.0"),
        (
            {"reg_start_weight": 1.5, "beta": LinearSchedule(10)},
            "`weight` must be reached by the schedule.*weight=1.5, largest=1",
        ),
        (
            {
                "reg_start_weight": 0.5,
                "beta": keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0),
            },
            "`reg_start_weight` must be 0 unless.*beta=PolynomialDecay",
        ),
        ({"keep_prob": 0.0}, r"`keep_prob` must be a number in \(0, 1\].*keep_prob=0.0"),
        ({"gamma": 0.0}, "`gamma` must be a finite, positive number.*gamma=0.0"),
        ({"beta": -1.0}, "`reg_start_weight` must not exceed|`beta` must be a .*non-negative"),
    ],
)
def test_du_vae_names_what_is_out_of_range(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(zoo.DUVAE, **settings)


def test_mu_vae_means_stay_in_the_ball(make, binary_data, to_numpy):
    model = make(zoo.MuVAE, clip_factor=0.1)
    radius = 0.1 * math.sqrt(3)
    for posterior in (
        model.encode(binary_data(16)),
        model(binary_data(16), training=True).posterior,
    ):
        norms = np.linalg.norm(to_numpy(posterior.mean), axis=1)
        assert np.all(norms <= radius * (1 + 1e-5))
        assert np.any(norms > radius * (1 - 1e-5))


def test_mu_vae_loss_is_the_papers_up_to_a_constant(make, values_of, binary_data, to_numpy):
    model = make(zoo.MuVAE)
    loss = values_of(model)
    terms, x = loss[0], binary_data(16)
    # The likelihood's mean is the decoder's output itself.
    images = to_numpy(model.decode(terms.z))[:, 0]
    squares = np.mean(np.sum((x - images) ** 2, axis=1))
    mean, log_var = terms.posterior
    mean_term = abs(mean.sum()) / 16
    variance_term = np.mean(np.sum(np.exp(log_var) - log_var - 1, axis=1))
    expected = squares + 6 / 2 * math.log(math.pi) + mean_term + variance_term
    np.testing.assert_allclose(total(loss), expected, rtol=1e-5)
    report = loss[3]
    np.testing.assert_allclose(report["mean_term"], mean_term, rtol=1e-5)
    np.testing.assert_allclose(np.mean(report["variance_term"]), variance_term, rtol=1e-4)


def test_mu_vae_halves_both_terms(make, values_of):
    whole, half = (values_of(make(zoo.MuVAE, half=half))[3] for half in (False, True))
    for name in ("mean_term", "variance_term"):
        np.testing.assert_allclose(half[name], whole[name] / 2, rtol=1e-5)


def test_mu_vae_draws_wider_codes(make, to_numpy):
    model = make(zoo.MuVAE, sampling_scale=3.0)
    z = to_numpy(model.prior.sample(20_000, keras.random.SeedGenerator(0)))
    # The standard error of a standard deviation is scale / sqrt(2 n).
    assert np.all(np.abs(z.std(axis=0) - 3.0) < 4 * 3.0 / math.sqrt(40_000))


def test_mu_vae_warns_of_the_printed_variance_term_and_stops_it(make, binary_data, to_numpy):
    with pytest.warns(UserWarning, match="variance_mode='raw_lv' has no lower bound"):
        model = make(zoo.MuVAE, variance_mode="raw_lv")
    model.head.projection.bias.assign(np.full(6, -40.0))
    assert np.all(to_numpy(model.encode(binary_data(4)).log_var) == -10.0)


@pytest.mark.large
def test_hebae_charges_the_divergence_of_its_population(make, values_of):
    terms, per_example, batch, report = values_of(make(zoo.HEBAE, weight=2.0))
    mean = terms.posterior.mean.astype("float64")
    beta, sigma = mean.mean(axis=0), np.cov(mean.T, bias=True) + 1e-6 * np.eye(3)
    kl = 0.5 * (np.trace(sigma) + beta @ beta - 3 - np.linalg.slogdet(sigma)[1])
    np.testing.assert_allclose(report["hyper_kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(batch, 2.0 * kl, rtol=1e-4)
    np.testing.assert_allclose(per_example, terms.distortion, rtol=1e-6)


@pytest.mark.large
def test_hebae_posterior_scales(make, values_of):
    def factors(**settings):
        return values_of(make(zoo.HEBAE, **settings))[0].posterior

    vector, scalar = factors(), factors(scale="scalar")
    # L = diag(sigma) R: rows of L / R are the sigmas.
    sigmas, shared = (
        np.diagonal(q.scale_tril, axis1=1, axis2=2)
        / np.diagonal(q.hyper_scale_tril, axis1=1, axis2=2)
        for q in (vector, scalar)
    )
    assert np.median(np.ptp(sigmas, axis=1)) > 0.01
    np.testing.assert_allclose(shared, shared[:, :1].repeat(3, axis=1), rtol=1e-4)
    diagonal = factors(sampling="diagonal").scale_tril
    np.testing.assert_array_equal(diagonal, diagonal * np.eye(3))
    assert np.abs(vector.scale_tril * (1 - np.eye(3))).max() > 1e-3


@pytest.mark.large_on_jax
def test_hebae_shrinkage_of_one_is_the_identity(make, values_of):
    posterior = values_of(make(zoo.HEBAE, shrinkage=1.0))[0].posterior
    np.testing.assert_allclose(posterior.hyper_scale_tril[0], np.eye(3), atol=1e-5)


@pytest.mark.large_on_jax
def test_hebae_statistics_in_inference(make, values_of):
    running, batch = (
        values_of(make(zoo.HEBAE, statistics=statistics), training=False)[0].posterior
        for statistics in ("running", "batch")
    )
    # Nothing has been collected yet.
    np.testing.assert_allclose(running.hyper_mean, 0.0, atol=1e-6)
    np.testing.assert_allclose(batch.hyper_mean[0], batch.mean.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_hebae_passes_its_switch_for_the_gradient_on(make):
    assert make(zoo.HEBAE, stop_gradient=True).head.reparam.stop_gradient is True
    assert make(zoo.HEBAE).head.reparam.stop_gradient is False


# -- auto-encoders -----------------------------------------------------------------------------


def test_ae_pays_no_rate_and_still_reports_it(make, values_of):
    terms, per_example, batch, _ = values_of(make(zoo.AE))
    np.testing.assert_allclose(per_example, terms.distortion, rtol=1e-6)
    assert batch == 0
    assert np.mean(terms.kl) > 0.1


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("constructor", "settings"), [(zoo.AE, {"deterministic": True}), (zoo.WAE, {})]
)
def test_deterministic_codes_are_the_encoders(make, binary_data, to_numpy, constructor, settings):
    model, x = make(constructor, **settings), binary_data(6)
    first, second = to_numpy((model(x, training=True), model(x, training=True)))
    np.testing.assert_array_equal(first.z, second.z)
    np.testing.assert_array_equal(first.z[:, 0], to_numpy(model.encode(x).mean))
    np.testing.assert_allclose(
        model.reconstruct(x), 1 / (1 + np.exp(-first.params[:, 0])), rtol=1e-5
    )
    assert np.all(np.isposinf(to_numpy(model.log_terms(x).kl)))
    with pytest.raises(ValueError, match="a deterministic encoder has none.*head=PointHead"):
        model.log_prob(x)


def test_deterministic_ae_repeats_its_code(make, binary_data, to_numpy):
    z = to_numpy(make(zoo.AE, deterministic=True, num_samples=3)(binary_data(4)).z)
    assert z.shape == (4, 3, 3)
    np.testing.assert_array_equal(z, z[:, :1].repeat(3, axis=1))


def test_wae_adds_the_weighted_discrepancy(make, values_of):
    terms, per_example, batch, report = values_of(make(zoo.WAE, weight=5.0))
    np.testing.assert_allclose(per_example, terms.distortion, rtol=1e-6)
    np.testing.assert_allclose(batch, 5.0 * report["mmd"], rtol=1e-5)
    assert report["mmd"] != 0


# -- the prior follows the objective ---------------------------------------------------------------


def mean_square_of_generated_codes(model, count=4000):
    codes = np.asarray(model.prior.sample(count, keras.random.SeedGenerator(0)), "float64")
    return np.mean(codes**2), np.sqrt(2.0 / codes.size)


@pytest.mark.parametrize(
    ("constructor", "settings", "variance"),
    [
        (zoo.WAE, {}, 1.0),
        (zoo.WAE, {"prior_variance": 2.0}, 2.0),
        (zoo.WAE, {"prior_variance": 0.25, "kernel": "rbf"}, 0.25),
        (zoo.InfoVAE, {}, 1.0),
        (zoo.HEBAE, {}, 1.0),
        # Its objective matches no variance; the paper draws with a standard deviation of 3.
        (zoo.MuVAE, {}, 9.0),
    ],
)
def test_generated_codes_are_those_that_the_objective_matches(
    make, constructor, settings, variance
):
    found, error = mean_square_of_generated_codes(make(constructor, **settings))
    assert abs(found - variance) < 5.0 * error * variance


def test_density_rate_and_draws_are_of_one_prior(make, values_of, binary_data):
    def build(prior=None):
        return make(zoo.VAE, objective=ELBO(regularizers=[penalty(2.0)]), prior=prior)

    terms, *_ = values_of(build())
    z = np.asarray(terms.z, "float64")
    expected = -0.5 * np.sum(z**2 / 2.0 + np.log(2.0 * np.pi * 2.0), axis=-1)
    np.testing.assert_allclose(terms.log_pz, expected, rtol=1e-5)
    mean, var = np.asarray(terms.posterior.mean), np.exp(terms.posterior.log_var)
    rate = 0.5 * np.sum((mean**2 + var) / 2.0 - np.log(var / 2.0) - 1.0, axis=-1)
    np.testing.assert_allclose(terms.kl, rate, rtol=1e-4)
    given, *_ = values_of(build(IsotropicNormal(2.0**0.5)))
    np.testing.assert_allclose(given.log_pz, terms.log_pz, rtol=1e-6)


def penalty(variance):
    return MaximumMeanDiscrepancy(prior_variance=variance)


@pytest.mark.parametrize(
    ("objective", "prior", "received"),
    [
        (lambda: ELBO(regularizers=[penalty(2.0)]), StandardNormal, "prior=StandardNormal of sd 1"),
        (lambda: ELBO(regularizers=[penalty(1.0)]), lambda: IsotropicNormal(3.0), "of sd 3"),
        (lambda: ELBO(regularizers=[penalty(1.0)]), lambda: StandardNormal(3.0), "draws of sd 3"),
        (lambda: ELBO(regularizers=[penalty(2.0)]), AutoregressiveFlowPrior, "Autoregressive"),
        (lambda: ELBO(regularizers=[penalty(2.0), penalty(1.0)]), None, "IsotropicNormal of sd 1"),
        (lambda: EmpiricalBayesELBO(), lambda: IsotropicNormal(2.0), "of sd 2"),
    ],
)
def test_a_prior_that_disagrees_with_the_objective_is_refused(make, objective, prior, received):
    with pytest.raises(ValueError, match=f"`prior` must be N\\(0, . I\\).*Received: .*{received}"):
        make(zoo.VAE, objective=objective(), prior=prior and prior())


def test_a_regularizer_of_another_prior_is_refused(make):
    model = make(zoo.VAE)
    with pytest.raises(ValueError, match=r"`prior` must be N\(0, 2 I\), which MaximumMean"):
        model.add_regularizer(penalty(2.0))
    model.add_regularizer(penalty(1.0))


def test_a_wae_of_another_prior_is_saved_and_one_from_before_follows_its_objective(make, tmp_path):
    model = make(zoo.WAE, prior_variance=2.0)
    model.save(tmp_path / "new.keras")
    config = model.get_config()
    # As it was written when N(0, I) stood beside any objective.
    config["prior"] = keras.saving.serialize_keras_object(StandardNormal())
    for loaded in (
        keras.saving.load_model(tmp_path / "new.keras"),
        type(model).from_config(config),
    ):
        assert loaded.prior.scale == pytest.approx(2.0**0.5)


# -- decoders ----------------------------------------------------------------------------------


def test_skip_vae_decoder_sees_z_in_every_layer(dense_networks, to_numpy):
    encoder, decoder = dense_networks()
    model = zoo.SkipVAE(encoder, decoder, latent_dim=3)
    skips = [layer for layer in model.decoder.layers if isinstance(layer, LatentSkip)]
    # Of the two dense layers the first has z as its input.
    assert [skip.kernel.shape for skip in skips] == [(3, 6)]
    assert not any(isinstance(layer, LatentSkip) for layer in decoder.layers)
    z = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    plain, skipping = to_numpy((decoder(z), model.decoder(z)))
    np.testing.assert_allclose(
        skipping - plain, z @ to_numpy(skips[0].kernel), rtol=1e-4, atol=1e-5
    )


def test_skip_vae_keeps_a_decoder_with_skips_of_its_own(dense_networks):
    encoder, _ = dense_networks()
    z = keras.Input((3,))
    h = keras.layers.Dense(8, "relu")(z)
    decoder = keras.Model(z, LatentSkip()(keras.layers.Dense(6)(h), z))
    assert zoo.SkipVAE(encoder, decoder, latent_dim=3).decoder is decoder


# -- presets -----------------------------------------------------------------------------------

PRESETS = zoo.presets()
SMALL = [name for name in PRESETS if "digits" in name]
TEXT = [name for name, (_, p) in PRESETS.items() if p["networks"]["kind"] == "lstm"]
# One of each kind of the larger ones.
LARGE = ["vae_mnist_mlp", "mu_vae_mnist_cnn", "du_iaf_omniglot", "mae_mnist"]
ONCE = [*LARGE, "text_vae_yahoo", *(name for name in TEXT if "text_tiny" in name)]
BUILT = [pytest.param(name, marks=pytest.mark.one_backend) for name in (*SMALL, *ONCE)]


def test_every_constructor_has_presets():
    parts = {"Output", "Preset", "auxiliary_softmax", "load", "networks", "presets"}
    constructors = set(zoo.__all__) - parts
    assert {constructor.__name__ for constructor, _ in PRESETS.values()} == constructors
    small = {PRESETS[name][0].__name__ for name in SMALL}
    assert small | {"TextVAE"} == constructors


@pytest.mark.parametrize("name", PRESETS)
def test_preset_settings_are_arguments(name):
    constructor, settings = PRESETS[name]
    assert set(settings) == {"networks", "model", "training", "data", "source"}
    assert set(settings["model"]) <= set(inspect.signature(constructor).parameters)
    assert set(settings["data"]) <= set(inspect.signature(data.load).parameters)
    assert settings["source"]
    training = dict(settings["training"])
    assert training.pop("epochs") > 0
    PlateauDecay(**training.pop("plateau", {}))
    for name in ("validation", "initial_examples"):
        training.pop(name, None)
    keras.optimizers.get({"class_name": training.pop("optimizer", "adam"), "config": training})
    network = dict(settings["networks"])
    assert network.pop("kind") in registry.DECODERS
    assert "latent_dim" in settings["model"]


@pytest.mark.one_backend
def test_mu_vae_has_presets_of_both_variance_terms():
    own = {name: settings for name, (make, settings) in PRESETS.items() if make is zoo.MuVAE}
    printed = [name for name in own if name.endswith("_raw_lv")]
    assert len(own) == 2 * len(printed)
    for name in printed:
        raw, full = own[name], own[name.removesuffix("_raw_lv")]
        assert {"variance_mode": "full", **full["model"]}["variance_mode"] == "full"
        assert raw["model"] == {**full["model"], "variance_mode": "raw_lv"}
        for part in ("networks", "training", "data"):
            assert raw[part] == full[part]


@pytest.mark.large
@pytest.mark.parametrize("name", BUILT)
def test_presets_build(name):
    constructor, settings = PRESETS[name]
    words = {"networks": {"vocabulary_size": 20}} if name in TEXT else {}
    run = zoo.load(name, **words)
    shape = settings["networks"]["input_shape"]
    assert run.name == name
    assert run.model.name == inspect.signature(constructor).parameters["name"].default
    assert run.model.built
    assert run.model.encoder.input_shape == (None, *shape)
    assert run.model.latent_dim == settings["model"]["latent_dim"]
    callbacks = run.fit_args.pop("callbacks", [])
    assert run.fit_args == {"epochs": settings["training"]["epochs"]}
    kinds = [type(callback).__name__ for callback in callbacks]
    wanted = {"PlateauDecay": "plateau", "SwapEMAWeights": "use_ema"}
    assert kinds == [kind for kind, key in wanted.items() if settings["training"].get(key)]
    assert run.data_args == settings["data"]


#: Rows of DU-VAE's table 1, Yahoo and Yelp, and table 2: what sets each text model apart.
ROWS = {
    "text_vae": [{}] * 3,
    "beta_vae": [{"beta": 0.4}] * 2,
    "free_bits_vae": [{"free_bits": 0.1}] * 3,
    "delta_vae": [{"delta": 0.1}] * 3,
    "bn_vae": [{"gamma": 0.6}] * 3,
    "mae": [
        {"diversity": weight, "smoothness": 0.2, "prior": "standard_normal"}
        for weight in (1.0, 2.0, 2.0)
    ],
    "du_vae": [{"gamma": gamma, "keep_prob": 0.8} for gamma in (0.6, 0.5, 0.5)],
    "iaf_vae": [{"free_bits": bits} for bits in (0.15, 0.25, 0.25)],
    "du_iaf": [{"gamma": gamma, "keep_prob": 0.7} for gamma in (0.7, 0.6, 0.6)],
    "agg_vae": [{}] * 3,
    "sa_vae": [{}] * 2,
}


@pytest.mark.parametrize("model", ROWS)
def test_text_presets_are_rows_of_the_tables(model):
    # From 0.1 to 1 in 10 epochs (He et al.), or by 0.1 an epoch (Kim et al.).
    start = {"agg_vae": [0.1, 0.19], "sa_vae": [0.1, 0.2]}.get(model, [0.0, 0.1])
    for corpus, row in zip(("yahoo", "yelp", "yelp_sentences"), ROWS[model], strict=False):
        _, settings = PRESETS[f"{model}_{corpus}"]
        arguments = dict(settings["model"])
        assert arguments.pop("likelihood") == "tokens"
        assert arguments.pop("latent_dim") == 32
        if model != "beta_vae":
            schedule = arguments.pop("beta")
            assert schedule.unit == "epochs"
            weights = [float(schedule.at_epoch(epoch)) for epoch in (0, 1, 10)]
            np.testing.assert_allclose(weights, [*start, 1.0], rtol=1e-5)
        assert arguments == row
        sentences = corpus == "yelp_sentences"
        assert f"table {2 if sentences else 1}" in settings["source"]
        networks = settings["networks"]
        sizes = networks["embedding_dim"], networks["units"]
        assert sizes == ((128, 512) if sentences else (512, 1024))
        training = settings["training"]
        assert (training["optimizer"], training["learning_rate"]) == ("sgd", 1.0)
        epochs = 30 if model == "sa_vae" else {"yelp": 150}.get(corpus, 100)
        assert training["epochs"] == epochs
        plateau = training["plateau"]
        assert plateau["start_epoch"] == 15
        assert plateau["warm_up"] == (0 if model == "beta_vae" else 10)


def test_text_presets_ask_for_the_size_of_the_vocabulary():
    with pytest.raises(ValueError, match="`networks` of preset 'du_vae_yelp' must have `vocab"):
        zoo.load("du_vae_yelp")


@pytest.mark.large
@pytest.mark.one_backend
def test_a_text_preset_trains_on_sentences(sentences):
    keras.utils.set_random_seed(0)
    networks = {"vocabulary_size": 12, "embedding_dim": 8, "units": 16}
    run = zoo.load("du_vae_text_tiny", networks=networks, training={"learning_rate": 0.02})
    run.model.compile(**{**run.compile_args, **QUICK})
    history = run.model.fit(sentences(256), verbose=0, **{**run.fit_args, "epochs": 4}).history
    assert history["distortion"][-1] < 0.9 * history["distortion"][0]
    # Eight batches an epoch, and a ramp over three epochs.
    np.testing.assert_allclose(history["beta"], [3.5 / 24, 11.5 / 24, 19.5 / 24, 1.0], rtol=1e-3)
    assert run.model.generate(2, seed=0).shape == (2, 64)


def test_the_flow_prior_can_be_left_out(text_networks):
    model = zoo.MAE(*text_networks(), latent_dim=3, prior="standard_normal", likelihood="tokens")
    assert isinstance(model.prior, StandardNormal)
    with pytest.raises(TypeError, match="`prior` must be a vaezoo Prior, .* prior='normal'"):
        zoo.MAE(*text_networks(), latent_dim=3, prior="normal", likelihood="tokens")


def test_mnist_preset_has_the_widths_of_the_literature():
    model = zoo.load("vae_mnist_mlp").model
    widths = [(784, 800), (800, 800), (800, 40), (20, 800), (800, 800), (800, 784)]
    kernels = [tuple(v.shape) for v in model.trainable_variables if len(v.shape) == 2]
    assert sorted(kernels) == sorted(widths)


PUBLISHED_TEXT = [*(name for name in TEXT if name.endswith("_yelp")), "ae_yelp_sentences"]


@pytest.mark.one_backend
@pytest.mark.parametrize("name", PUBLISHED_TEXT)
def test_text_networks_start_as_in_the_official_codes(name, to_numpy):
    keras.utils.set_random_seed(0)
    model = zoo.load(
        name,
        model={"latent_dim": 2, **({"flow_width": 1} if "iaf" in name else {})},
        networks={"vocabulary_size": 50, "embedding_dim": 16, "units": 64},
    ).model
    encoder, decoder = model.encoder.get_layer("lstm"), model.decoder.lstm
    embeddings = to_numpy(model.encoder.get_layer("embedding").embeddings)
    kernel, recurrent, *biases = map(to_numpy, encoder.cell.weights)
    head, scale = to_numpy(model.head.projection.kernel), np.abs(kernel).max()
    assert len(biases) == len(decoder.cell.weights[2:]) == 2
    assert not np.array_equal(*map(to_numpy, decoder.cell.weights[2:]))
    assert model.head.projection.use_bias is ("sa_vae" in name)
    if name.startswith(("bn_vae", "du_vae")):
        # PyTorch's defaults: U(+-1/8) and N(0, 1).
        assert 0.12 < scale < 0.125
        assert 0.1 < np.abs(head).max() < 0.125
        assert np.std(embeddings) == pytest.approx(1.0, abs=0.1)
    else:
        s = 0.1 if "sa_vae" in name else 0.01
        assert 0.97 * s < scale < s
        assert 0.9 * s < np.abs(head).max() < s
        assert 0.097 < np.abs(embeddings).max() < 0.1
    if "iaf" in name:
        assert not any(map(np.any, biases))
    else:
        assert all(0.8 * scale < np.abs(bias).max() < scale * 1.05 for bias in biases)
        assert np.any(biases[0] != biases[1])
    assert 0.95 * scale < np.abs(recurrent).max() < scale * 1.05


@pytest.mark.one_backend
def test_heads_of_presets_are_their_own_and_are_saved(tmp_path, to_numpy):
    networks = {"vocabulary_size": 9, "embedding_dim": 3, "units": 4}
    models = [
        zoo.load("delta_vae_yelp", model={"latent_dim": 2}, networks=networks).model
        for _ in range(2)
    ]
    kernels = [to_numpy(model.head.projection.kernel) for model in models]
    assert not np.array_equal(*kernels)
    models[0].save(tmp_path / "delta.keras")
    revived = keras.saving.load_model(tmp_path / "delta.keras")
    np.testing.assert_array_equal(to_numpy(revived.head.projection.kernel), kernels[0])
    assert revived.head.get_config() == models[0].head.get_config()
    assert revived.head.use_bias is False
    with pytest.raises(RuntimeError, match="before the model is built"):
        revived.head.set_projection(use_bias=True)
    with pytest.raises(ValueError, match="`networks.head` of preset .*did you mean use_bias"):
        zoo.load("delta_vae_yelp", networks={**networks, "head": {"usebias": True}})


def test_load_applies_overrides_without_touching_the_presets():
    run = zoo.load(
        "du_vae_digits_mlp",
        model={"latent_dim": 4, "gamma": 0.6},
        networks={"hidden_units": (16,), "decoder": {"hidden_units": (8,)}},
        training={"epochs": 2, "learning_rate": 0.5, "optimizer": "sgd", "momentum": 0.9},
        data={"batch_size": 32},
    )
    assert run.model.latent_dim == 4
    assert run.model.head.mean_norm.target == 0.6
    assert run.model.encoder.output_shape == (None, 16)
    assert run.fit_args == {"epochs": 2}
    optimizer = run.compile_args["optimizer"]
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.learning_rate) == 0.5
    assert optimizer.momentum == 0.9
    assert run.data_args["batch_size"] == 32
    assert run.settings["model"]["keep_prob"] == 0.9
    _, settings = zoo.presets()["du_vae_digits_mlp"]
    assert settings["model"] == {"latent_dim": 16, "gamma": 0.5, "keep_prob": 0.9}
    assert settings["data"]["batch_size"] == 64


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("du_vae_mnist", {}, "`preset` must be .*du_vae_mnist_mlp.*preset='du_vae_mnist'"),
        ("resnet", {}, "`preset` must be .*resnet_vae_mnist.*preset='resnet'"),
        (
            "du_vae_digits_mlp",
            {"model": {"gama": 0.6}},
            "`model` of preset 'du_vae_digits_mlp' takes latent_dim, gamma.*"
            r"Received: gama=0.6 \(did you mean gamma",
        ),
        (
            "vae_digits_mlp",
            {"networks": {"hiden_units": (8,)}},
            "hidden_units.*Received: hiden_units",
        ),
        ("vae_digits_mlp", {"training": {"learning_rat": 1e-3}}, "learning_rat"),
        ("vae_digits_mlp", {"training": {"optimizer": "adan"}}, "adan"),
    ],
)
def test_load_names_what_it_does_not_know(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        zoo.load(name, **overrides)


@pytest.mark.large
@pytest.mark.parametrize("name", ["du_vae_digits_mlp", "mu_vae_digits_mlp"])
@pytest.mark.one_backend
def test_digits_presets_train(name):
    keras.utils.set_random_seed(0)
    run = zoo.load(name, networks={"hidden_units": (16,), "decoder": {"hidden_units": (16,)}})
    run.model.compile(**{**run.compile_args, **QUICK})
    history = run.model.fit(
        data.load(split="train[:512]", **run.data_args),
        verbose=0,
        **{**run.fit_args, "epochs": 3},
    ).history
    assert history["loss"][-1] < history["loss"][0]
    images = run.model.generate(2, seed=0)
    assert images.shape == (2, 8, 8, 1)


# -- learned priors ----------------------------------------------------------------------------

# The others compare codes with N(0, I) in a term of their own, or not at all.
WITH_PRIOR = sorted(
    constructor.__name__
    for constructor in {constructor for constructor, _ in PRESETS.values()}
    if "prior" in inspect.signature(constructor).parameters
)


def test_models_whose_rate_is_their_objective_take_a_prior():
    without = {constructor.__name__ for constructor, _ in PRESETS.values()} - set(WITH_PRIOR)
    assert without == {"AE", "HEBAE", "InfoVAE", "MuVAE", "VAEAS", "WAE"}


@pytest.mark.large
@pytest.mark.parametrize("name", WITH_PRIOR)
@pytest.mark.one_backend
def test_learned_prior_trains_along(name, dense_networks, small_parts, binary_data):
    keras.utils.set_random_seed(0)
    # Weight normalization, for which JAX compiles the model twice, has its turn in the contract.
    prior = AutoregressiveFlowPrior(num_blocks=1, hidden_units=(4,), weight_norm=False)
    options = {**small_parts(name), "prior": prior, "likelihood": "bernoulli"}
    model = getattr(zoo, name)(*dense_networks(), latent_dim=3, **options)
    assert model.prior is prior
    model.build((None, 6))
    before = [ops.convert_to_numpy(v) for v in prior.trainable_variables]
    model.compile("sgd", jit_compile=False, run_eagerly=keras.backend.backend() == "tensorflow")
    model.fit(binary_data(16), batch_size=16, verbose=0)
    after = [ops.convert_to_numpy(v) for v in prior.trainable_variables]
    assert np.all(np.isfinite(np.concatenate([value.ravel() for value in after])))
    assert any(np.any(a != b) for a, b in zip(after, before, strict=True))


@pytest.mark.large
def test_averaged_weights_are_what_validation_sees():
    keras.utils.set_random_seed(0)
    networks = {"hidden_units": (8,), "decoder": {"hidden_units": (8,)}}
    training = {"epochs": 2, "learning_rate": 0.05, "use_ema": True, "ema_momentum": 0.99}
    run = zoo.load("vae_digits_mlp", networks=networks, training=training)
    run.model.compile(**{**run.compile_args, **QUICK})
    x = data.load_arrays("digits", "train[:256]", binarize="fixed")[0]
    history = run.model.fit(x, validation_data=x, batch_size=32, verbose=0, **run.fit_args).history
    # The averages lag behind weights that learn fast, and are what training leaves.
    assert history["val_distortion"][0] > history["distortion"][0]
    logs = run.model.evaluate(x, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["distortion"], history["val_distortion"][-1], rtol=0.05)


@pytest.mark.one_backend
def test_flows_of_the_zoo_start_as_in_the_official_code(dense_networks, to_numpy, tmp_path):
    model = zoo.DUIAF(*dense_networks(), latent_dim=3, flow_width=16)
    model.build((None, 6))
    for block in model.head.flow.blocks:
        first, second, last = block.network.layers_
        kernels = [first.kernel, first.context_kernel, second.kernel, last.kernel]
        for kernel in map(to_numpy, kernels):
            bound = kernel.shape[0] ** -0.5
            assert 0.95 * bound < np.abs(kernel).max() < bound
    kernels = [to_numpy(block.network.layers_[1].kernel) for block in model.head.flow.blocks]
    assert not np.array_equal(*kernels)
    model.save(tmp_path / "flow.keras")
    revived = keras.saving.load_model(tmp_path / "flow.keras")
    assert revived.head.flow.get_config() == model.head.flow.get_config()
