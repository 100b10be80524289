"""The causes behind a diagnosis, on models whose posterior is known and then broken."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import layers
from vaezoo.metrics import diagnose, try_remedies
from vaezoo.metrics.diagnosis import causes, tried
from vaezoo.metrics.diagnosis.reference import Reference
from vaezoo.metrics.diagnosis.trainer import Changes

D, EVENT, NOISE = 2, 6, 0.4


class Linear:
    """x = W z + noise: the encoder gives the exact posterior, unless it is told otherwise."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.weights = 1.2 * np.linalg.qr(rng.normal(size=(EVENT, D)))[0].astype("float32")
        z = rng.normal(size=(300, D))
        self.x = (z @ self.weights.T + NOISE * rng.normal(size=(300, EVENT))).astype("float32")
        precision = 1.44 / NOISE**2
        self.matrix = self.weights / NOISE**2 / (precision + 1.0)
        self.log_var = float(-np.log(precision + 1.0))
        self.likelihood = layers.Gaussian(NOISE)

    def decoder(self, z):
        return ops.matmul(z, self.weights.T)

    def encoder(self, x):
        mean = ops.matmul(x, self.matrix)
        # Varied a little, as that of a network.
        return mean, self.log_var + 0.05 * ops.tanh(mean)


@pytest.fixture(scope="module")
def linear():
    return Linear()


def examined(linear, encoder=None, decoder=None, x=None, **options):
    options = {"refinement_steps": 0, "trials": False, **options}
    x = linear.x if x is None else x
    return diagnose(
        encoder or linear.encoder, decoder or linear.decoder, x, linear.likelihood, **options
    )


def relu_on_log_var(mean, log_var):
    return mean, ops.relu(log_var)


def relu_on_mean(mean, log_var):
    return ops.relu(mean), log_var


def tanh_on_mean(mean, log_var):
    return ops.tanh(3.0 * mean), log_var


def deviation(mean, log_var):
    return mean, ops.exp(0.5 * log_var)


def variance(mean, log_var):
    return mean, ops.exp(log_var)


def constant(mean, log_var):
    return 0.0 * mean + 0.3, 0.0 * log_var


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("planted", "cause", "said"),
    [
        (relu_on_log_var, "log_var_limited", "100% are exactly 0"),
        (relu_on_mean, "mean_limited", "all lie on one side of 0"),
        (tanh_on_mean, "mean_limited", "every dimension in use ends at 1"),
        (deviation, "log_var_is_deviation", "Taken for a standard deviation"),
        (variance, "log_var_is_deviation", "Taken for a variance"),
        (constant, "encoder_constant", "equal for every x"),
    ],
)
def test_what_the_encoder_gives_out_is_named(linear, planted, cause, said):
    found = examined(linear, lambda x: planted(*linear.encoder(x)))
    assert found.causes[0].name == cause, str(found)
    assert said in found.causes[0].evidence[0]
    assert found.remedies[0].cause == cause
    assert not found.healthy


@pytest.mark.one_backend
def test_sound_outputs_have_no_cause(linear):
    found = examined(linear)
    assert found.causes == ()
    assert found.healthy


@pytest.mark.one_backend
def test_noise_in_inference_is_named(linear):
    seed = keras.random.SeedGenerator(0)

    def noisy(x):
        mean, log_var = linear.encoder(x)
        return mean + 0.3 * keras.random.normal(ops.shape(mean), seed=seed), log_var

    found = examined(linear, noisy)
    assert found.causes[0].name == "noise_left_on"


@pytest.mark.large_on_jax
@pytest.mark.parametrize("arrived", [True, False])
def test_moving_statistics_that_never_arrived_are_named(arrived):
    x = np.random.default_rng(0).normal(4.0, 3.0, size=(200, 6)).astype("float32")
    inputs, codes = keras.Input((6,)), keras.Input((2,))
    normalized = keras.layers.BatchNormalization(name="normalized")
    h = normalized(inputs)
    outputs = [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)]
    encoder = keras.Model(inputs, outputs)
    decoder = keras.Model(codes, keras.layers.Dense(6)(codes))
    if arrived:
        normalized.moving_mean.assign(x.mean(axis=0))
        normalized.moving_variance.assign(x.var(axis=0))
    found = diagnose(encoder, decoder, x, likelihood="gaussian", refinement_steps=0, trials=False)
    named = [cause for cause in found.causes if cause.name == "batch_statistics"]
    assert bool(named) is not arrived
    if named:
        assert "moving means of normalized" in named[0].evidence[0]
    kept = keras.ops.convert_to_numpy(normalized.moving_mean)
    np.testing.assert_allclose(kept, x.mean(axis=0) if arrived else np.zeros(6), rtol=1e-6)


@pytest.mark.parametrize("left_on", [True, False])
def test_dropout_that_stays_on_in_a_functional_model_is_named(left_on):
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    inputs, codes = keras.Input((6,)), keras.Input((2,))
    dropout = keras.layers.Dropout(0.5, seed=0)
    h = dropout(inputs, training=True) if left_on else dropout(inputs)
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    decoder = keras.Model(codes, keras.layers.Dense(6)(codes))
    found = diagnose(encoder, decoder, x, likelihood="gaussian", refinement_steps=0, trials=False)
    assert ("noise_left_on" in [cause.name for cause in found.causes]) is left_on


@pytest.mark.one_backend
def test_rows_that_are_not_finite_are_named_and_left_out(linear):
    x = linear.x.copy()
    x[[4, 17], 2] = np.nan, np.inf
    found = examined(linear, x=x)
    assert found.verdict == "unfit_data"
    assert found.causes[0].name == "data_not_finite"
    assert "2 of 300 examples" in found.causes[0].evidence[0]
    assert "rows 4, 17." in found.causes[0].evidence[0]
    # The rest was measured.
    assert found.settings["examples"] == 298
    assert found.measurements["rate"].value > 0.5
    assert "rows 4, 17." in found.to_html()


@pytest.mark.one_backend
def test_data_beyond_the_likelihood_are_named(linear):
    found = diagnose(linear.encoder, linear.decoder, np.float32(255.0) * np.eye(EVENT))
    assert found.verdict == "unfit_data"
    assert found.causes[0].name == "data_range"
    assert found.remedies[0].code == "x = x / 255.0"
    assert "unfit_data" in found.to_json()


@pytest.mark.one_backend
def test_only_rows_that_are_not_finite(linear):
    found = examined(linear, x=np.full((4, EVENT), np.nan, "float32"))
    assert [cause.name for cause in found.causes] == ["data_not_finite"]
    assert "What to change" in found.to_html()


@pytest.mark.one_backend
def test_equal_and_repeated_examples_are_named(linear):
    same = examined(linear, x=np.repeat(linear.x[:1], 60, axis=0))
    assert same.causes[0].name == "data_constant"
    few = examined(linear, x=np.tile(linear.x[:5], (12, 1)))
    assert "data_duplicated" in [cause.name for cause in few.causes]


@pytest.mark.one_backend
def test_examples_of_another_kind_are_named(linear):
    other = examined(linear, x=linear.x[:100] + 3.0, train_data=linear.x)
    assert other.causes[0].name == "data_shift"
    own = examined(linear, x=linear.x[:100], train_data=linear.x[100:])
    assert "data_shift" not in [cause.name for cause in own.causes]


def small_networks():
    x = keras.Input((EVENT,))
    h = keras.layers.Dense(8, "tanh")(x)
    encoder = keras.Model(x, [keras.layers.Dense(D)(h), keras.layers.Dense(D)(h)])
    z = keras.Input((D,))
    return encoder, keras.Model(z, keras.layers.Dense(EVENT)(z))


@pytest.mark.one_backend
def test_weights_that_are_not_finite_are_named(linear):
    encoder, decoder = small_networks()
    decoder.layers[-1].kernel.assign(np.full((D, EVENT), np.nan))
    found = examined(linear, encoder, decoder)
    assert found.verdict == "variance_blow_up"
    assert found.causes[0].name == "diverged"


@pytest.mark.one_backend
def test_networks_that_were_never_trained_are_named(linear):
    found = examined(linear, *small_networks())
    assert {"encoder_untrained", "decoder_untrained"} <= {cause.name for cause in found.causes}


@pytest.mark.one_backend
def test_a_code_pays_beyond_its_error():
    assert causes.pays(Reference(4.0, -20.0, 4.0, 0.5, 1.0))
    assert not causes.pays(Reference(4.0, -20.0, 1.0, 0.5, 1.0))
    assert not causes.pays(Reference(0.0, -20.0, 0.1, 0.01, 1.0))


@pytest.mark.large
@pytest.mark.one_backend
def test_a_reference_model_says_whether_a_code_pays(linear):
    found = examined(linear, lambda x: constant(*linear.encoder(x)), trials=True)
    assert "pay for themselves" in found.worth
    noise = np.random.default_rng(1).normal(size=(300, EVENT)).astype("float32")
    found = examined(linear, lambda x: constant(*linear.encoder(x)), x=noise, trials=True)
    assert found.worth.endswith("nothing to encode.")
    assert "nothing_to_encode" in [cause.name for cause in found.causes]


@pytest.mark.large
def test_remedies_are_tried_on_networks_made_anew(linear):
    encoder, decoder = small_networks()
    before = [np.array(weight) for weight in encoder.get_weights()]
    found = try_remedies(
        (encoder, decoder), linear.x, linear.likelihood, steps=150, remedies=1, beta=50.0,
        learning_rate=1e-2, diagnosis=examined(linear, encoder, decoder),
    )  # fmt: skip
    original, first = found.trials
    assert original.remedy is None
    assert found.held_out == 75
    paired = first.nll.per_example - original.nll.per_example
    np.testing.assert_allclose(first.difference.value, paired.mean())
    assert first.helped == (paired.mean() < -3.0 * paired.std(ddof=1) / np.sqrt(75))
    # A KL charged 50 times has no code; batch-normalized means have one.
    assert original.rate.value < 0.2 < first.rate.value
    assert found.winner is first
    assert "winner" in str(found)
    assert "What it gave when we tried" in found.to_html()
    assert f"It helped when we tried: NLL {first.difference.value:+.2f}" in found.to_html()
    assert "a KL of weight 50 (as given), by Adam at 0.01" in found.assumed
    assert found.assumed in str(found)
    assert found.assumed in found.to_html()
    # What the remedy put behind the encoder goes along with it.
    kept, same = first.model
    again = diagnose(kept, same, linear.x, linear.likelihood, refinement_steps=0, trials=False)
    assert again.measurements["rate"].value == pytest.approx(first.rate.value, rel=0.2)
    pinned = any(isinstance(layer, layers.MeanBatchNorm) for layer in kept.layers)
    assert pinned == ("gamma" in first.remedy.change)
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class AddsTwice(keras.Model):
    """A user's VAE without draws, which charges its KL as it is told."""

    def __init__(self, encoder, decoder, beta):
        super().__init__()
        self.encoder, self.decoder, self.beta = encoder, decoder, beta

    def call(self, x):
        mean, log_var = self.encoder(x)
        kl = 0.5 * ops.sum(mean**2 + ops.exp(log_var) - log_var - 1.0, axis=-1)
        self.add_loss(self.beta * ops.mean(kl))
        return self.decoder(mean)


@pytest.mark.large
def test_the_original_is_trained_by_the_recipe_of_its_user(linear):
    made = []

    def recipe(encoder, decoder):
        vae = AddsTwice(encoder, decoder, 1000.0)
        vae.compile(keras.optimizers.Adam(1e-2), loss="mse")
        made.append(vae)
        return vae

    pair = small_networks()
    found = try_remedies(
        pair, linear.x, linear.likelihood, steps=100, remedies=1, recipe=recipe,
        learning_rate=1e-2, diagnosis=examined(linear, *pair),
    )  # fmt: skip
    (vae,) = made
    assert found.assumed == ""
    assert found.trials[0].model == (vae.encoder, vae.decoder)
    assert int(vae.optimizer.iterations) == 100
    assert found.trials[0].rate.value < 0.05
    assert len(found.trials[0].losses) == 1


@pytest.mark.large
def test_a_remedy_of_what_diverged_helps(linear):
    def recipe(encoder, decoder):
        vae = AddsTwice(encoder, decoder, 1.0)
        vae.compile(keras.optimizers.SGD(1e4), loss="mse")
        return vae

    pair = small_networks()
    found = try_remedies(
        pair, linear.x, linear.likelihood, steps=20, remedies=1, recipe=recipe,
        diagnosis=examined(linear, *pair),
    )  # fmt: skip
    original, first = found.trials
    assert not np.isfinite(original.nll.value)
    assert np.isfinite(first.nll.value)
    assert first.helped
    assert "original recipe, which diverged, is not finite" in found.outcome
    assert found.outcome in found.to_html()
    found.to_json()


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"recipe": "elbo"}, TypeError, "`recipe` must be a function. Received: recipe='elbo'"),
        ({"recipe": keras.Sequential()}, TypeError, "`recipe` must be a function"),
        ({"recipe": lambda e, d: None}, TypeError, "`recipe` must return a keras.Model"),
        ({"recipe": lambda e, d: keras.Sequential()}, ValueError, "the networks that it is given"),
        ({"recipe": AddsTwice, "beta": 2.0}, ValueError, "`beta` goes with a pair without"),
        ({"build": lambda change, steps: None}, ValueError, "`build` goes with a VAE"),
    ],
)
def test_a_recipe_must_train_the_networks(linear, options, error, message):
    pair = small_networks()
    known = examined(linear)
    with pytest.raises(error, match=message):
        try_remedies(pair, linear.x, linear.likelihood, steps=1, diagnosis=known, **options)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "soon"}, "`budget` must be"),
        ({"remedies": 0}, "`remedies` must be a positive integer"),
        ({"beta": -1.0}, "`beta` must be"),
        ({"steps": 0}, "`steps` must be"),
    ],
)
def test_errors_say_what_came(linear, options, message):
    with pytest.raises(ValueError, match=message):
        try_remedies((linear.encoder, linear.decoder), linear.x, linear.likelihood, **options)


class Wide:
    """x = W z + noise of which few dimensions matter, and a code of twelve."""

    def __init__(self, sizes):
        rng = np.random.default_rng(0)
        self.size = len(sizes)
        self.weights = (np.eye(self.size) * np.sqrt(sizes)).astype("float32")
        z = rng.normal(size=(400, self.size))
        self.x = (z @ self.weights + rng.normal(size=z.shape)).astype("float32")
        self.variance = (1.0 / (1.0 + np.array(sizes))).astype("float32")

    def encoder(self, x):
        mean = ops.matmul(x, self.weights) * self.variance
        return mean, ops.log(self.variance) + 0.01 * ops.tanh(mean)

    def decoder(self, z):
        return ops.matmul(z, self.weights)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("sizes", "wide"),
    [
        # Nats of each dimension are log(1 + size) / 2.
        ([4.0] * 3 + [0.1] * 9, True),
        # As pinned gains leave it: little in each, and nearly all of it there.
        ([0.15] * 12, False),
        ([4.0] * 7 + [0.1] * 5, False),
    ],
)
def test_spare_dimensions_need_not_be_silent(sizes, wide):
    model = Wide(sizes)
    found = diagnose(
        model.encoder, model.decoder, model.x, layers.Gaussian(1.0), refinement_steps=0,
        trials=False,
    )  # fmt: skip
    assert found.dimensions["active"] == list(range(12))
    assert ("code_too_wide" in [cause.name for cause in found.causes]) == wide
    assert found.verdict == ("partial_collapse" if wide else "healthy")
    if wide:
        assert "9 of 12 dimensions carry less than 0.1 nats" in found.evidence[0]
        assert found.remedies[0].what.startswith("Use 3 dimensions")


def record(change, tried, helped, share):
    key = ("full_collapse", json.dumps(change))
    return key, {"tried": tried, "helped": helped, "share": share}


@pytest.mark.one_backend
def test_remedies_are_ordered_by_what_trials_have_shown(monkeypatch, linear):
    ramp = {"ramp": 1.0 / 3.0}
    shown = dict([record(ramp, 3, 0, 0.0), record({"gamma": 0.5}, 3, 3, 0.6)])
    shown |= dict([record({"free_bits": 0.1}, 3, 3, 0.9)])

    def changes():
        empty = examined(linear, lambda x: constant(*linear.encoder(x)))
        assert empty.verdict == "full_collapse"
        return [remedy.change for remedy in empty.remedies if not remedy.cause]

    monkeypatch.setattr(tried, "_records", dict)
    untried = changes()
    monkeypatch.setattr(tried, "_records", lambda: shown)
    ordered = changes()
    assert untried != ordered
    assert ordered[:2] == [{"free_bits": 0.1}, {"gamma": 0.5}]
    assert ordered[-1] == ramp
    # What was not tried keeps its order.
    known = [{"free_bits": 0.1}, {"gamma": 0.5}, ramp]
    assert [c for c in ordered if c not in known] == [c for c in untried if c not in known]
    assert tried.is_vain("full_collapse", ramp)
    assert not tried.is_vain("prior_hole", ramp)
    assert tried.worth("full_collapse", {"gamma": 0.5}) == pytest.approx((3 * 0.6 + 1) / 5)
    assert tried.worth("prior_hole", ramp) == tried.worth("full_collapse", {}) == 0.5


@pytest.mark.one_backend
def test_the_record_of_trials_is_whole():
    records = json.loads(tried.FILE.read_text("utf-8"))
    assert records
    for one in records:
        assert 0 <= one["helped"] <= one["tried"]
        assert 0.0 <= one["share"] <= 1.0
        assert set(one["change"]) <= set(Changes._fields)
