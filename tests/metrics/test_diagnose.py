import ast
import functools
import html.parser
import inspect
import json
import re

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import callbacks, data, layers, losses, zoo
from vaezoo.metrics.diagnosis import causes, rules
from vaezoo.metrics.diagnosis import remedies as advice
from vaezoo.metrics.diagnosis.diagnose import diagnose
from vaezoo.metrics.subject import as_subject

# JAX is slow without its compiler, TensorFlow is slow to start with one.
QUICK = {"jit_compile": keras.backend.backend() == "jax"}

LATENT, EVENT, COUNT = 6, 12, 600
NOISE = 0.4
#: Gain of the decoder; orthogonal columns make the posterior diagonal.
GAIN = 1.2
#: Which dimensions there are.
ALL, NONE = (1,) * LATENT, (0,) * LATENT
HALF, BUT_LAST = (1, 1, 1, 0, 0, 0), (1, 1, 1, 1, 1, 0)


class LinearEncoder(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="encoder")
        self.matrix = self.add_weight(shape=(EVENT, LATENT), name="matrix")
        self.shift = self.add_weight(shape=(), name="shift")
        self.log_var = self.add_weight(shape=(LATENT,), name="log_var")

    def call(self, x):
        mean = ops.matmul(x, self.matrix) + self.shift
        return mean, ops.zeros_like(mean) + self.log_var


class LinearDecoder(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="decoder")
        self.matrix = self.add_weight(shape=(LATENT, EVENT), name="matrix")
        self.shift = self.add_weight(shape=(), name="shift")

    def call(self, z):
        return ops.matmul(z - self.shift, self.matrix)


class Toy:
    """x = W z + noise with z ~ N(0, I): the posterior N(precision-weighted W'x, v) is known.

    One pair of layers stands for all models, so that what is compiled for one serves the others.
    """

    def __init__(self):
        rng = np.random.default_rng(0)
        columns = np.linalg.qr(rng.standard_normal((EVENT, LATENT)))[0]
        self.weights = (GAIN * columns).astype("float32")
        z = rng.standard_normal((COUNT, LATENT))
        noise = NOISE * rng.standard_normal((COUNT, EVENT))
        self.x = (z @ self.weights.T + noise).astype("float32")
        self.rotation = np.linalg.qr(rng.standard_normal((LATENT, LATENT)))[0]
        self.likelihood = layers.Gaussian(scale=NOISE)
        self.encoder, self.decoder = LinearEncoder(), LinearDecoder()
        self.subject = as_subject(self.encoder, self.decoder, self.x, self.likelihood)

    def plant(
        self, beta=1.0, shift=0.0, log_var=0.0, used=ALL, write=None, read=None, rotate=False
    ):
        """Sets the optimum under KL weight `beta`, and breaks it.

        Dimensions `used` exist at all, those of `write` are encoded, those of `read` decoded.
        """
        write = np.asarray(used if write is None else write)
        read = np.asarray(used if read is None else read)
        precision = GAIN**2 / NOISE**2 / beta
        matrix = self.weights / NOISE**2 / beta / (precision + 1.0) * write
        self.encoder.matrix.assign(matrix @ self.rotation if rotate else matrix)
        self.encoder.shift.assign(shift)
        self.encoder.log_var.assign(np.where(write, -np.log(precision + 1.0), 0.0) + log_var)
        self.decoder.matrix.assign((self.weights * read).T)
        self.decoder.shift.assign(shift)
        return self


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.fixture(scope="module")
def examine(toy):
    @functools.cache
    def run(**faults):
        return diagnose(toy.plant(**faults).subject, toy.x, refinement_steps=30, trials=False)

    return run


PLANTED = {
    "silent encoder and decoder": ("full_collapse", {"used": NONE}),
    "silent encoder, decoder that would read": ("full_collapse", {"write": NONE, "read": ALL}),
    "half of the dimensions dead": ("partial_collapse", {"used": HALF}),
    "one dimension written, not read": (
        "partial_collapse",
        {"write": ALL, "read": BUT_LAST},
    ),
    "decoder without weights": ("decoder_ignores_z", {"write": ALL, "read": NONE}),
    "codes all shifted by 5": ("prior_hole", {"shift": 5.0}),
    "codes all shifted by 2": ("prior_hole", {"shift": 2.0}),
    "log-variances up by 6": ("variance_blow_up", {"log_var": 6.0}),
    "log-variances that overflow": ("variance_blow_up", {"log_var": 200.0}),
    "optimum of KL weight 4": ("over_regularized", {"beta": 4.0}),
    "optimum of KL weight 16": ("over_regularized", {"beta": 16.0}),
    "optimum of KL weight 0.1": ("under_regularized", {"beta": 0.1}),
    "log-variances down by 8": ("under_regularized", {"log_var": -8.0}),
    "codes mixed up": ("lagging_encoder", {"rotate": True}),
}


@pytest.mark.large
@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_named(examine, name):
    expected, faults = PLANTED[name]
    diagnosis = examine(**faults)
    assert diagnosis.verdict == expected, str(diagnosis)
    assert diagnosis.evidence
    assert diagnosis.remedies
    assert not diagnosis.healthy
    assert diagnosis.findings[0].name == expected
    json.loads(diagnosis.to_json(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def exact(examine):
    return examine()


def test_exact_posterior_is_healthy(exact):
    assert exact.verdict == "healthy", str(exact)
    assert exact.healthy
    assert exact.findings == exact.remedies == ()
    assert exact.dimensions["active"] == list(range(LATENT))


def test_measurements_of_the_exact_posterior(toy, exact):
    precision = GAIN**2 / NOISE**2
    mean = toy.x @ toy.weights / NOISE**2 / (precision + 1.0)
    spread = 1.0 / (precision + 1.0)
    rate = 0.5 * np.sum(mean**2 + spread - np.log(spread) - 1.0, axis=1)
    measured = exact.measurements
    np.testing.assert_allclose(measured["rate"].value, rate.mean(), rtol=1e-5)
    np.testing.assert_allclose(exact.arrays["kl_per_dimension"].sum(), rate.mean(), rtol=1e-5)
    # With the true posterior the bound is log p(x), of which one draw is an unbiased estimate.
    covariance = toy.weights @ toy.weights.T + NOISE**2 * np.eye(EVENT)
    squares = np.sum(toy.x @ np.linalg.inv(covariance) * toy.x, axis=1)
    log_px = -0.5 * (squares + np.linalg.slogdet(covariance)[1] + EVENT * np.log(2.0 * np.pi))
    elbo = measured["elbo"]
    assert abs(elbo.value - log_px.mean()) < 4.0 * elbo.standard_error
    weight = measured["implied_weight"]
    assert abs(weight.value - 1.0) < 4.0 * weight.standard_error + 0.01
    assert abs(measured["refinement_gain"].value) < 0.3
    total = measured["mutual_information"].value + measured["marginal_divergence"].value
    np.testing.assert_allclose(total, measured["rate"].value)


@pytest.mark.parametrize("beta", [0.1, 4.0])
def test_implied_weight_is_the_weight(examine, beta):
    weight = examine(beta=beta).measurements["implied_weight"]
    cause = examine(beta=beta).causes[0]
    assert cause.name == ("kl_weight_heavy" if beta > 1.0 else "kl_weight_light")
    assert f"a KL weight of {weight.value:.2g}"[:-1] in cause.evidence[0]
    np.testing.assert_allclose(weight.value, beta, rtol=0.05)
    assert weight.extra["explained"] > 0.95


def test_collapsed_dimensions_are_listed(examine):
    silent = examine(used=HALF)
    assert silent.dimensions == {
        "active": [0, 1, 2],
        "collapsed": [3, 4, 5],
        "silent": [3, 4, 5],
        "unread": [],
    }
    assert "Silent: 3-5." in silent.evidence[1]
    assert any(remedy.code.endswith("latent_dim=3)") for remedy in silent.remedies)
    unread = examine(write=ALL, read=BUT_LAST)
    assert unread.dimensions["unread"] == [5]
    assert unread.dimensions["silent"] == []


def test_cause_and_consequence_are_held_apart(examine):
    ignored = examine(write=ALL, read=NONE)
    assert {f.consequence_of for f in ignored.findings[1:]} == {"decoder_ignores_z"}
    # The decoder would read: then the encoder's lag is a fault of its own, and of the remedies for
    # what is seen annealing comes first.
    lag = examine(write=NONE, read=ALL)
    assert [(f.name, f.consequence_of) for f in lag.findings] == [
        ("full_collapse", None),
        ("lagging_encoder", None),
    ]
    # Outputs that are exactly equal are no doing of the KL: what reaches the encoder comes first.
    assert lag.remedies[0].cause == "encoder_constant"
    assert "KLAnnealing" in next(r for r in lag.remedies if not r.cause).code


def test_rate_without_information_is_a_collapse(toy):
    toy.plant(used=NONE)
    toy.encoder.shift.assign(0.7)
    diagnosis = diagnose(toy.subject, toy.x, refinement_steps=0, trials=False)
    assert diagnosis.verdict == "full_collapse"
    np.testing.assert_allclose(diagnosis.measurements["rate"].value, 0.245 * LATENT, rtol=1e-5)
    assert "the same for every x" in diagnosis.evidence[1]
    assert any("refinement_steps=0" in note for note in diagnosis.notes)


@pytest.mark.one_backend
def test_deterministic_encoder(toy):
    toy.plant()
    diagnosis = diagnose(lambda x: {"mean": toy.encoder(x)[0]}, toy.decoder, toy.x, toy.likelihood)
    assert diagnosis.verdict == "under_regularized"
    assert "deterministic" in diagnosis.evidence[0]
    json.loads(diagnosis.to_json(), parse_constant=pytest.fail)
    _check_page(diagnosis)


@pytest.mark.one_backend
def test_subsample_is_seeded_and_recorded(toy):
    toy.plant()
    first, again, other = (
        diagnose(toy.subject, toy.x, max_examples=50, refinement_steps=0, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first.settings["examples"] == 50
    assert first.settings["available"] == COUNT
    assert first.to_json() == again.to_json()
    assert first.measurements["rate"].value != other.measurements["rate"].value


# -- trained models --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return data.load_arrays("digits")[0]


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    model = zoo.DUVAE(
        zoo.networks.mlp_encoder((8, 8, 1), hidden_units=(64,)),
        zoo.networks.mlp_decoder(4, (8, 8, 1), hidden_units=(64,)),
        latent_dim=4,
    )
    model.compile(keras.optimizers.Adam(3e-3), **QUICK)
    model.fit(digits, batch_size=64, epochs=12, verbose=0)
    return model


@pytest.mark.large
@pytest.mark.one_backend
def test_trained_du_vae_is_healthy(trained, digits):
    diagnosis = diagnose(trained, digits)
    assert diagnosis.verdict == "healthy", str(diagnosis)
    assert "The model's objective is ELBO, its KL weight now 1." in diagnosis.notes
    assert set(diagnosis.pictures) == {"data", "reconstructions", "draws from the prior"}
    _check_page(diagnosis)


class Sampling(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, log_var = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_var) * noise


@pytest.mark.large
@pytest.mark.one_backend
def test_textbook_vae_is_diagnosed_unchanged(digits):
    class Textbook(keras.Model):
        def __init__(self, encoder, decoder):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def call(self, x):
            mean, log_var, z = self.encoder(x)
            kl = -0.5 * (1.0 + log_var - ops.square(mean) - ops.exp(log_var))
            self.add_loss(ops.mean(ops.sum(kl, axis=1)))
            return self.decoder(z)

    def reconstruction(x, y):
        return ops.sum(keras.losses.binary_crossentropy(x, y), axis=(1, 2))

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Dense(64, "relu")(keras.layers.Flatten()(inputs))
    mean = keras.layers.Dense(2, name="z_mean")(hidden)
    log_var = keras.layers.Dense(2, name="z_log_var")(hidden)
    encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])], name="encoder")
    codes = keras.Input((2,))
    hidden = keras.layers.Dense(64, "relu")(codes)
    pixels = keras.layers.Dense(64, "sigmoid")(hidden)
    decoder = keras.Model(codes, keras.layers.Reshape((8, 8, 1))(pixels), name="decoder")
    model = Textbook(encoder, decoder)
    model.compile(keras.optimizers.Adam(3e-3), loss=reconstruction, **QUICK)
    model.fit(digits, digits, batch_size=64, epochs=15, verbose=0)
    before = [np.array(weight) for weight in model.get_weights()]
    diagnosis = diagnose(encoder, decoder, digits, likelihood="bernoulli")
    assert diagnosis.verdict == "healthy", str(diagnosis)
    assert any("taken for probabilities" in note for note in diagnosis.notes)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.large
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports need TensorFlow")
def test_saved_model_is_diagnosed_alike(trained, digits, tmp_path):
    trained.export(tmp_path / "model")
    kept = digits[:300]
    ours, exported = (diagnose(model, kept) for model in (trained, str(tmp_path / "model")))
    assert exported.verdict == ours.verdict
    for name in ("rate", "moment_divergence"):
        np.testing.assert_allclose(
            exported.measurements[name].value, ours.measurements[name].value, rtol=1e-3
        )
    assert "refinement_gain" in exported.measurements


# -- what comes out --------------------------------------------------------------------------------


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _check_page(diagnosis):
    text = diagnosis.to_html()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.seen.count("svg") == 4
    # Nothing is fetched from anywhere: only inner references and inlined pictures.
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(http" not in text
    # Among the letters of a picture any word may stand.
    assert "NaN" not in re.sub(r"data:image/png;base64,[^\"']*", "", text)
    assert ">nan<" not in text
    assert diagnosis.title in text
    return text


@pytest.mark.one_backend
def test_page_tells_verdict_evidence_and_remedies(examine, tmp_path):
    diagnosis = examine(used=HALF)
    text = _check_page(diagnosis)
    for part in (*diagnosis.evidence, diagnosis.remedies[0].what, diagnosis.remedies[0].code):
        assert _escaped(part) in text
    assert diagnosis.to_html(tmp_path / "page.html") == text
    assert (tmp_path / "page.html").read_text("utf-8") == text


def _escaped(text):
    return html.escape(text)


def test_decoder_that_is_not_finite(toy):
    toy.plant()
    toy.decoder.matrix.assign(toy.decoder.matrix * float("nan"))
    diagnosis = diagnose(toy.subject, toy.x, refinement_steps=30)
    assert diagnosis.verdict == "variance_blow_up"
    assert diagnosis.evidence == (
        "100.0% of the examples have a log p(x|z) that is NaN or infinite.",
    )
    assert "Adam" in diagnosis.to_html()
    json.loads(diagnosis.to_json(), parse_constant=pytest.fail)


def test_weight_that_pressed_dimensions_out(examine):
    # At weight 1.7 the bound gains too little for that to be the verdict.
    pressed = examine(beta=1.7, used=HALF)
    assert pressed.verdict == "partial_collapse"
    assert "imply a KL weight of 1.7" in pressed.evidence[2]
    assert "beta=1.0" in pressed.remedies[0].code


def test_page_without_measurements(examine):
    text = examine(log_var=200.0).to_html()
    assert "Variance blow-up" in text
    assert "NaN or infinite" in text


def test_text_and_json(examine, tmp_path):
    diagnosis = examine(beta=4.0)
    text = str(diagnosis)
    assert text.startswith("Over-regularized  [over_regularized]\n")
    for part in ("Evidence", "Remedies", "Measurements", "follows from: over-regularized"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110
    diagnosis.to_json(tmp_path / "diagnosis.json")
    read = json.loads((tmp_path / "diagnosis.json").read_text("utf-8"))
    assert read["verdict"] == "over_regularized"
    assert read["measurements"]["implied_weight"]["value"] == pytest.approx(4.0, rel=0.05)
    assert len(read["per_dimension"]["kl_per_dimension"]) == LATENT
    assert read["settings"]["seed"] == 0


def test_remedies_name_what_exists(exact):
    """Every line of code parses, and every call in it binds to the signature it names."""
    found = _measurements_of(exact)
    remedies = [remedy for make in advice._REMEDIES.values() for remedy in make(found, LATENT)]
    spaces = {
        "zoo": zoo,
        "networks": zoo.networks,
        "layers": layers,
        "losses": losses,
        "callbacks": callbacks,
        "keras": keras,
    }
    checked = 0
    for remedy in remedies:
        for call in ast.walk(ast.parse(remedy.code)):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            path = ast.unparse(call.func).split(".")
            if path[0] not in spaces:
                continue
            target = spaces[path[0]]
            for name in path[1:]:
                target = getattr(target, name)
            keywords = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(target).bind(*call.args, **keywords)
            checked += 1
    assert checked >= len(remedies)


@pytest.fixture(scope="module")
def sigmoid_data():
    """Values in [0, 1] that two numbers tell: standard deviation 0.24, at most 0.56 together."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 12))
    return (1.0 / (1.0 + np.exp(-rng.normal(size=(1000, 2)) @ weights))).astype("float32")


@pytest.fixture(scope="module")
def trained_on(sigmoid_data):
    """Function of likelihood and factor: a model trained on that many times the data."""

    @functools.cache
    def train(scale, factor=1.0):
        keras.utils.set_random_seed(0)
        x = factor * sigmoid_data
        networks = zoo.networks.make("mlp", (12,), 4, hidden_units=(32,))
        vae = zoo.VAE(*networks, latent_dim=4, likelihood=layers.Gaussian(scale), seed=0)
        vae.compile(keras.optimizers.Adam(5e-3), **QUICK)
        vae.fit(x, batch_size=50, epochs=20, verbose=0)
        return vae, x

    return train


@pytest.mark.large
@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore:The likelihood's scale", "ignore:`x` is not scaled")
@pytest.mark.parametrize(
    ("factor", "verdict", "consequence"),
    [(1.0, "scale_too_large", "full_collapse"), (100.0, "scale_too_small", None)],
)
def test_the_likelihoods_scale_is_named_first(trained_on, factor, verdict, consequence):
    model, x = trained_on(1.0, factor)
    diagnosis = diagnose(model, x, refinement_steps=10, max_examples=500, trials=False)
    assert diagnosis.verdict == verdict, str(diagnosis)
    assert all(finding.consequence_of == verdict for finding in diagnosis.findings[1:])
    assert consequence in (None, *(finding.name for finding in diagnosis.findings))
    found = diagnosis.measurements
    residual = np.sqrt(np.mean((x - model.reconstruct(x)) ** 2))
    assert found["likelihood_scale"].value == 1.0
    assert found["residual_scale"].value == pytest.approx(residual, rel=0.2)
    optimal = f"{found['residual_scale'].value:.2g}"
    assert optimal in diagnosis.remedies[0].what
    assert 'layers.Gaussian(scale="optimal")' in diagnosis.remedies[0].code
    assert f"layers.Gaussian(scale={optimal})" in diagnosis.remedies[1].code
    # By a pair of functions without a scale of their own, too, with a remedy in their terms.
    if factor == 1.0:
        pair = diagnose(
            lambda x: tuple(model.encode(x)),
            lambda z: model.decoder(z),
            x,
            "gaussian",
            refinement_steps=0,
            max_examples=500,
            trials=False,
        )
        assert pair.verdict == verdict
        assert "(2 * variance)" in pair.remedies[0].code


@pytest.mark.large
@pytest.mark.one_backend
@pytest.mark.parametrize("scale", ["optimal", 0.1])
def test_the_remedy_of_a_large_scale_cures(trained_on, scale):
    model, x = trained_on(scale)
    diagnosis = diagnose(model, x, refinement_steps=0, max_examples=500, trials=False)
    names = {finding.name for finding in diagnosis.findings}
    assert not names & {"scale_too_large", "scale_too_small", "full_collapse"}
    assert diagnosis.measurements["rate"].value > 3.0


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore:The likelihood's scale", "ignore:`x` is not scaled")
def test_the_remedy_of_a_small_scale_cures(sigmoid_data):
    x = 10.0 * (sigmoid_data - sigmoid_data.mean(0)) / sigmoid_data.std(0)

    def train(scale, data, epochs):
        keras.utils.set_random_seed(0)
        networks = zoo.networks.make("mlp", (12,), 4, hidden_units=(32,))
        model = zoo.VAE(*networks, latent_dim=4, likelihood=layers.Gaussian(scale), seed=0)
        model.compile(keras.optimizers.Adam(5e-3), **QUICK)
        model.fit(data, batch_size=50, epochs=epochs, verbose=0)
        found = diagnose(model, data, refinement_steps=10, max_examples=500, trials=False)
        return found, model

    def likelihood(model, data):
        return float(np.mean(model.log_prob(data[:200], 32)))

    ill, model = train(1.0, x, 20)
    assert ill.verdict == "scale_too_small"
    assert all(finding.consequence_of == ill.verdict for finding in ill.findings[1:])
    assert "root mean square of" in " ".join(ill.notes)
    assert [remedy.what.split()[0] for remedy in ill.remedies] == ["Let", "Or", "Standardize"]
    rate, before = ill.measurements["rate"].value, likelihood(model, x)
    # At the optimal scale, what is left of the inputs' size needs time, or standardized data.
    cured, model = train("optimal", x, 20)
    assert cured.measurements["rate"].value < 0.2 * rate
    assert likelihood(model, x) > before + 200.0
    assert cured.verdict == "variance_blow_up"
    assert cured.remedies[0].what.startswith("Standardize the data")
    best, model = train("optimal", x / 10.0, 20)
    assert best.verdict == "healthy", str(best)
    assert likelihood(model, x / 10.0) - 12 * np.log(10.0) > before + 250.0


def _measurements_of(diagnosis):
    from vaezoo.metrics.diagnosis.measure import Measurements

    return Measurements(diagnosis.measurements, diagnosis.arrays)


@pytest.mark.one_backend
def test_a_held_gain_is_named_in_place_of_the_weight_of_the_kl(examine):
    diagnosis = examine(beta=4.0)
    found = _measurements_of(diagnosis)
    for gain, name in ((0.5, "gain_small"), (1.0, "kl_weight_heavy")):
        found.facts["gain"] = gain
        first = causes.causes(found, diagnosis.findings, None)[0]
        assert first.name == name
    found.facts["gain"] = 0.5
    held, *others = causes.causes(found, diagnosis.findings, None)
    assert held.remedy.what == "Raise the gain of batch normalization from 0.5 to 1"
    assert held.gain > 1.0
    assert not {"kl_weight_heavy", "encoder_behind"} & {other.name for other in others}


@pytest.mark.slow
@pytest.mark.one_backend
def test_raising_a_held_gain_cures():
    x, _ = data.load_arrays("digits", "train")
    x, kept = x[:1000], x[1000:1400]

    def train(gamma):
        keras.utils.set_random_seed(0)
        networks = zoo.networks.make("mlp", (8, 8, 1), 4, hidden_units=(64,))
        likelihood = layers.Gaussian(0.15)
        model = zoo.DUVAE(*networks, latent_dim=4, gamma=gamma, likelihood=likelihood, seed=0)
        model.compile(keras.optimizers.Adam(4e-3), jit_compile=False, steps_per_execution=20)
        model.fit(x, batch_size=50, epochs=30, verbose=0)
        found = diagnose(model, kept, refinement_steps=30, trials=False)
        return found, model.log_prob(kept, num_samples=32)

    (ill, before), (cured, after) = map(train, (0.5, 1.0))
    assert [cause.name for cause in ill.causes][0] == "gain_small", str(ill)
    assert ill.remedies[0].what.startswith("Raise the gain of batch normalization from 0.5")
    assert "gain_small" not in [cause.name for cause in cured.causes]
    difference = after - before
    assert np.mean(difference) > 3.0 * np.std(difference) / np.sqrt(len(difference))


def test_every_verdict_has_words_and_remedies():
    assert set(rules.TITLES) == set(rules.MEANINGS)
    # Of these a cause alone tells, which has the remedy.
    by_causes = {"unfit_data", "misread_outputs", "limited_encoder", "inference_differs"}
    assert set(advice._REMEDIES) == set(rules.TITLES) - {"healthy"} - by_causes


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ("pair", {}, ValueError, "`data` must be given: diagnose.*Received: data=None"),
        ("all", {"max_examples": 1}, ValueError, "`max_examples` must be an integer of at least 2"),
        (
            "all",
            {"refinement_steps": -1},
            ValueError,
            "`refinement_steps` must be a non-negative integer",
        ),
        ("all", {"batch_size": 0}, ValueError, "`batch_size` must be .* Received: batch_size=0"),
        ("all", {"seed": -1}, ValueError, "`seed` must be an integer in .0, 2.31."),
        ("text", {}, TypeError, "`model` must be a vaezoo VAE"),
    ],
)
def test_errors_say_what_came(toy, arguments, settings, error, message):
    arguments = {
        "pair": (toy.encoder,),
        "all": (toy.encoder, toy.decoder, toy.x, toy.likelihood),
        "text": (3, toy.x),
    }[arguments]
    with pytest.raises(error, match=message):
        diagnose(*arguments, **settings)
