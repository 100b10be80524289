"""Models in use: how often they compile, what a file holds of them, and what they refuse."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import metrics, zoo
from vaezoo.core.compile import padded, rows_to_compile
from vaezoo.core.random import StatelessSeed
from vaezoo.layers import AutoregressiveFlowPrior, GaussianMixturePrior, StandardNormal, VampPrior

JAX = keras.backend.backend() == "jax"


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class CountsRuns(keras.layers.Layer):
    """The identity; counts how often Python runs through it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.runs = 0

    def call(self, x):
        self.runs += 1
        return x


# -- compilation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        (1, None, 1),
        (3, None, 4),
        (8, None, 8),
        (9, 12, 12),
        (9, 64, 16),
        (5, 5, 5),
        (65, None, 128),
    ],
)
def test_few_sizes_are_compiled_where_a_shape_takes_a_compilation(rows, most, expected):
    for noise in (False, True):
        assert rows_to_compile(rows, most, noise=noise) == (expected if JAX else rows)
    assert rows_to_compile(rows, most, xla=True) == expected


def test_missing_rows_are_copies_of_the_first():
    x = np.arange(6.0).reshape(3, 2)
    (got,) = padded((ops.convert_to_tensor(x),), 5)
    np.testing.assert_array_equal(got, [*x, x[0], x[0]])
    assert padded((x,), 3)[0] is x


@pytest.mark.large
def test_thirty_numbers_of_rows_take_few_compilations(dense_networks, binary_data):
    counter = CountsRuns()
    encoder, decoder = dense_networks(first=[counter])
    after = CountsRuns()
    decoder = keras.Sequential([keras.Input((3,)), after, *decoder.layers])
    model = zoo.VAE(encoder, decoder, latent_dim=3)
    model.build((None, 6))
    x = binary_data(40)
    calls = {
        "log_prob": lambda rows: model.log_prob(x[:rows], num_samples=2, batch_size=16),
        "encode": lambda rows: model.encode(x[:rows], batch_size=16),
        "generate": lambda rows: model.generate(rows, batch_size=16),
        "draws": lambda rows: model.generate(rows, mean=False, batch_size=16),
    }
    for name, call in calls.items():
        before = max(counter.runs, after.runs)
        lengths = [len(keras.tree.flatten(call(rows))[0]) for rows in range(1, 31)]
        assert lengths == list(range(1, 31)), name
        # 1, 2, 4, 8 and 16 rows; TensorFlow compiles for any number.
        assert max(counter.runs, after.runs) - before <= (5 if JAX else 1) * 2, name


@pytest.mark.large_on_jax
@pytest.mark.parametrize("name", ["StandardNormal", "flow", "mixture", "VampPrior"])
def test_first_rows_of_prior_draws_do_not_depend_on_those_that_follow(name, dense_networks):
    priors = {
        "StandardNormal": StandardNormal,
        "flow": lambda: AutoregressiveFlowPrior(1, (4,)),
        "mixture": lambda: GaussianMixturePrior(3),
        "VampPrior": lambda: VampPrior(4),
    }
    model = zoo.VAE(*dense_networks(), latent_dim=3, prior=priors[name]())
    model.build((None, 6))
    # As many as are drawn, wherever more of them are.
    drawn = ops.convert_to_numpy(model.prior.sample(5, StatelessSeed(3)))
    rows = rows_to_compile(5, noise=True) if model.prior.nested_draws else 5
    more = ops.convert_to_numpy(model.prior.sample(rows, StatelessSeed(3)))
    np.testing.assert_allclose(more[:5], drawn, rtol=1e-6, atol=1e-7)
    expected = ops.convert_to_numpy(model.decode(drawn))
    np.testing.assert_allclose(model.generate(5, seed=3), expected, rtol=1e-5)


@pytest.mark.large
def test_scores_are_those_of_the_rows_alone(dense_networks, binary_data):
    model = zoo.VAE(*dense_networks(), latent_dim=3)
    x = binary_data(21)
    got = model.log_prob(x, num_samples=9, seed=5, batch_size=16)
    for start, part in ((0, x[:16]), (16, x[16:])):
        alone = model.score(ops.convert_to_tensor(part), 9, 5, start)
        np.testing.assert_allclose(got[start : start + 16], alone, rtol=1e-5)
    terms = model.log_terms(x[:5], 3, seed=2, batch_size=8)
    alone = model.log_terms(ops.convert_to_tensor(x[:5]), 3, seed=2)
    np.testing.assert_allclose(terms.z, alone.z, rtol=1e-5, atol=1e-6)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize(
    "name",
    # Those with flows are alike on both backends.
    [
        "VAE",
        "TextVAE",
        *(pytest.param(n, marks=pytest.mark.one_backend) for n in ("DUIAF", "VLAE")),
    ],
)
def test_a_file_holds_a_model_that_was_only_used(
    name, tmp_path, dense_networks, text_networks, binary_data, sentences, small_parts
):
    text = name == "TextVAE"
    constructor, networks = getattr(zoo, name), text_networks if text else dense_networks
    x = sentences(4) if text else binary_data(4)
    z = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    uses = {
        "encode": lambda model: model.encode(x).mean,
        "decode": lambda model: model.decode(z),
        "log_prob": lambda model: model.log_prob(x, num_samples=2) if not text else z,
    }
    for use, call in uses.items():
        model = constructor(*networks(), latent_dim=3, **small_parts(name))
        expected = ops.convert_to_numpy(call(model))
        model.save(tmp_path / f"{use}.keras")
        reloaded = keras.models.load_model(tmp_path / f"{use}.keras")
        np.testing.assert_allclose(call(reloaded), expected, rtol=1e-5, atol=1e-6)
        model.save_weights(tmp_path / "model.weights.h5")
        other = constructor(*networks(), latent_dim=3, **small_parts(name))
        other.build((None, 6))
        other.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_allclose(call(other), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.one_backend
def test_a_model_that_no_file_could_hold_is_not_saved(tmp_path):
    class Mute(keras.layers.Layer):
        """Tells nothing about the shape of its input."""

        def get_build_config(self):
            return None

        def call(self, x):
            return 2.0 * x

    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    model = zoo.VAE(Mute(), decoder, latent_dim=2)
    model.head.posterior(model.encoder(np.ones((3, 4), "float32")))
    for save in (model.save, model.save_weights):
        with pytest.raises(ValueError, match="must be built before it is saved: call it"):
            save(
                tmp_path / "model.weights.h5"
                if save == model.save_weights
                else tmp_path / "m.keras"
            )
    model(np.ones((3, 4), "float32"))
    model.save_weights(tmp_path / "model.weights.h5")


# -- targets ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(binary_data):
    """Clean rows, noisy ones, and clean ones in 8 bits."""
    x = binary_data(8)
    noisy = x + np.random.default_rng(0).normal(0.0, 0.3, x.shape).astype("float32")
    return {"clean": x, "noisy": noisy, "8 bits": (255.0 * x).astype("float32")}


@pytest.fixture(scope="module")
def model(dense_networks):
    keras.utils.set_random_seed(0)
    model = zoo.VAE(*dense_networks(), latent_dim=3)
    model.build((None, 6))
    return model


@pytest.mark.large
def test_noisy_inputs_are_used_and_scored_by_their_targets(model, data):
    noisy, clean = data["noisy"], data["clean"]
    posterior = model.encode(noisy, batch_size=4)
    np.testing.assert_allclose(model.reconstruct(noisy), model.decode(posterior.mean), rtol=1e-5)
    assert model.predict(noisy, verbose=0).z.shape == (8, 1, 3)
    assert model.interpolate(noisy[:2], noisy[2:4], steps=3).shape == (2, 3, 6)
    terms = model.log_terms(noisy, 9, seed=1, batch_size=8, target=clean)
    z = ops.convert_to_tensor(terms.z)
    by_hand = model.likelihood.log_prob(clean, model.params(z))
    np.testing.assert_allclose(terms.log_px, by_hand, rtol=1e-5)
    np.testing.assert_allclose(terms.posterior.mean, posterior.mean, rtol=1e-5)
    # Weighted as `log_prob` weights its draws, with the noise of its only chunks.
    got = model.log_prob(noisy, num_samples=8, seed=1, target=clean)
    terms = model.log_terms(noisy, 8, seed=1, batch_size=8, target=clean)
    weights = terms.log_px + terms.log_pz - terms.log_qz
    by_hand = ops.convert_to_numpy(ops.logsumexp(weights, axis=1)) - np.log(8.0)
    np.testing.assert_allclose(got, by_hand, rtol=1e-5)
    assert np.all(got != model.log_prob(clean, num_samples=8, seed=1))


@pytest.mark.large
def test_8_bit_inputs_are_those_of_a_model_that_scales_them_or_was_trained_on_them(
    model, data, dense_networks, tmp_path
):
    x, clean = data["8 bits"], data["clean"]
    encoder, decoder = dense_networks(first=[keras.layers.Rescaling(1.0 / 255.0)])
    scales = zoo.VAE(encoder, decoder, latent_dim=3)
    for dtype in ("uint8", "float32"):
        assert np.all(np.isfinite(scales.reconstruct(x.astype(dtype))))
        assert np.all(np.isfinite(scales.log_prob(x.astype(dtype), 2, target=clean)))
    trained = zoo.VAE(*dense_networks(), latent_dim=3)
    trained.compile("adam", jit_compile=JAX, run_eagerly=not JAX)
    assert not trained.takes_target
    trained.fit(x, clean, batch_size=8, verbose=0)
    trained.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    trained.save_weights(tmp_path / "model.weights.h5")
    weighed = zoo.VAE(*dense_networks(), latent_dim=3)
    weighed.build((None, *x.shape[1:]))
    weighed.load_weights(tmp_path / "model.weights.h5")
    expected = ops.convert_to_numpy(trained.encode(x).mean)
    for other in (trained, reloaded, weighed):
        assert other.takes_target
        np.testing.assert_allclose(other.encode(x).mean, expected, rtol=1e-5)
        assert np.all(np.isfinite(other.reconstruct(x)))
        assert np.all(np.isfinite(other.log_prob(x, 2, target=clean)))


# -- bad input -------------------------------------------------------------------------------------

FINITE = "must hold finite numbers. Received: NaN or infinity"
SCALED = "`x` must be scaled as in training: divide 8-bit images by 255"
ARRAY = "`x` must be an array. Received: "


def bad_inputs(x):
    """Name of an input, the input, and what its error says of `x`."""
    nan, infinite = x.copy(), x.copy()
    nan[5, 2], infinite[7, 0] = np.nan, -np.inf
    return {
        "NaN": (nan, f"`x` {FINITE}"),
        "infinity": (infinite, f"`x` {FINITE}"),
        "8 bits": (255.0 * x, SCALED),
        "uint8": ((255 * x).astype("uint8"), SCALED),
        "None": (None, f"{ARRAY}NoneType"),
        "list": (x.tolist(), f"{ARRAY}list; make it an array"),
        "string": ("x.npy", f"{ARRAY}str 'x.npy'"),
        "strings": (x.astype("str"), "`x` must hold real numbers. Received: dtype=<U"),
        "complex": (x + 0j, "`x` must hold real numbers. Received: dtype=complex"),
        "dict": ({"x": x}, f"{ARRAY}dict with the keys 'x'"),
        "shape": (x.reshape(8, 2, 3), "`x` must have the shape that the encoder takes"),
        "columns": (x[:, :5], "`x` must have the shape that the encoder takes"),
        "nothing": (x[:0], "`x` must hold at least one example"),
        "number": (3.0, f"{ARRAY}float"),
    }


@pytest.mark.parametrize("name", list(bad_inputs(np.zeros((8, 6)))))
def test_bad_inputs_are_one_sentence(model, data, name):
    x, message = bad_inputs(data["clean"])[name]
    good = data["clean"]
    uses = {
        "encode": lambda: model.encode(x),
        "encode in batches": lambda: model.encode(x, batch_size=3),
        "reconstruct": lambda: model.reconstruct(x),
        "a": lambda: model.interpolate(x, good),
        "b": lambda: model.interpolate(good, x),
    }
    for use, call in uses.items():
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        here = message.replace("`x`", f"`{use}`") if use in ("a", "b") else message
        assert str(caught.value).startswith(here), use
    if message is SCALED:
        message = "`x` must lie in [0, 1] under a Bernoulli likelihood"
    for call in (model.log_prob, lambda x: model.log_terms(x, batch_size=3)):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(x)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.full((2, 3), np.nan), f"`z` {FINITE}"),
        (np.full((2, 4, 3), np.inf), f"`z` {FINITE}"),
        (np.zeros((2, 4)), "`z` must have shape (batch, 3) or (batch, K, 3). Received: shape="),
        (np.zeros(3), "`z` must have shape (batch, 3) or (batch, K, 3). Received: shape="),
        (np.zeros((1, 1, 1, 3)), "`z` must have shape (batch, 3) or (batch, K, 3). Received"),
        (None, "`z` must be an array. Received: NoneType"),
        ("z", "`z` must be an array. Received: str 'z'"),
        ([[0.0, 0.0], [0.0]], "`z` must be an array. Received: list"),
        (np.zeros((2, 3), "complex64"), "`z` must hold real numbers. Received: dtype=complex64"),
        (np.zeros((2, 3), "str"), "`z` must hold real numbers. Received: dtype=<U1"),
    ],
)
def test_bad_codes_are_one_sentence(model, z, message):
    for options in ({}, {"batch_size": 2}):
        with pytest.raises((TypeError, ValueError)) as caught:
            model.decode(z, **options)
        assert str(caught.value).startswith(message)


@pytest.mark.one_backend
def test_data_sets_are_not_scored_at_once(model, data):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(data["clean"]).batch(4)
    uses = (
        model.log_prob,
        model.encode,
        model.reconstruct,
        lambda x: model.encode(x, batch_size=2),
    )
    for call in uses:
        with pytest.raises(TypeError, match="must be an array. Received: a data set .*; give one "):
            call(batches)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "1", True])
def test_bad_seeds_are_one_sentence(model, data, seed):
    x = data["clean"]
    uses = (
        model.generate,
        lambda n, seed: model.log_prob(x, n, seed),
        lambda n, seed: model.log_terms(x, n, seed),
    )
    for call in uses:
        with pytest.raises(ValueError, match=r"`seed` must be an integer in \[0, 2\^31\)"):
            call(2, seed=seed)


def test_bad_targets_are_one_sentence(model, data):
    x, noisy = data["clean"], data["noisy"]
    for target, message in {
        "shape": (x[:3], r"`target` must have the shape of `x`, \(8, 6\)"),
        "labels": (np.zeros(8), r"`target` must have the shape of `x`, \(8, 6\)"),
        "NaN": (x + np.nan, f"`target` {FINITE}"),
        "8 bits": (255 * x, r"`target` must lie in \[0, 1\]"),
        "list": (x.tolist(), "`target` must be an array. Received: list"),
    }.values():
        with pytest.raises((TypeError, ValueError), match=message):
            model.log_prob(noisy, target=target)


@pytest.mark.large
@pytest.mark.one_backend
def test_served_signatures_refuse_bad_inputs(model, data, tmp_path):
    import tensorflow as tf

    model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures
    x, scalars = data["clean"], {"num_samples": tf.constant(2), "seed": tf.constant(1)}
    nan = x.copy()
    nan[3, 1] = np.nan
    for given, scored, encoded in (
        (
            x.reshape(8, 2, 3),
            *["[8,2,3] is not compatible with expected shape [?,6]"] * 2,
        ),
        (x[:, :5], *["[8,5] is not compatible with expected shape [?,6]"] * 2),
        (x[0], *["[6] is not compatible with expected shape [?,6]"] * 2),
        (nan, "`x` must hold finite numbers in [0, 1]", "`x` must hold finite numbers"),
        (255 * x, "`x` must hold finite numbers in [0, 1]", "`x` must be scaled as in training"),
    ):
        given = tf.constant(given)
        for name, message in (("score", scored), ("encode", encoded), ("reconstruct", encoded)):
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                served[name](x=given, **(scalars if name == "score" else {}))
            assert message in str(caught.value)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            served["interpolate"](a=tf.constant(x), b=given, steps=tf.constant(2))
        assert encoded.replace("`x`", "`b`") in str(caught.value)
    for z in (np.zeros((2, 4)), np.zeros((2, 1, 3)), np.full((2, 3), np.inf)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`z` must h|shape_of_z"):
            served["decode"](z=tf.constant(z, "float32"))
    # What is good passes, noise and no rows included.
    np.testing.assert_allclose(
        served["score"](x=tf.constant(x), **scalars)["log_prob"], model.log_prob(x, 2, 1), rtol=1e-6
    )
    assert served["encode"](x=tf.constant(data["noisy"]))["mean"].shape == (8, 3)
    assert served["encode"](x=tf.zeros((0, 6)))["mean"].shape == (0, 3)


@pytest.mark.large
@pytest.mark.one_backend
def test_a_model_of_targets_is_served_with_them(dense_networks, data, tmp_path):
    import tensorflow as tf

    model = zoo.VAE(*dense_networks(), latent_dim=3)
    model.compile("adam", run_eagerly=True, jit_compile=False)
    model.fit(data["noisy"], data["clean"], batch_size=8, verbose=0)
    model.export(tmp_path / "served")
    score = tf.saved_model.load(tmp_path / "served").signatures["score"]
    x, target = (tf.constant(data[name]) for name in ("noisy", "clean"))
    scalars = {"num_samples": tf.constant(2), "seed": tf.constant(1)}
    expected = model.log_prob(data["noisy"], 2, 1, target=data["clean"])
    got = score(x=x, target=target, **scalars)["log_prob"]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="`target` must hold finite numbers in"
    ):
        score(x=x, target=x, **scalars)


@pytest.mark.large
def test_targets_are_what_instruments_score(model, data):
    noisy, clean = data["noisy"], data["clean"]
    plain, paired = (
        metrics.negative_log_likelihood(model, clean, 16, batch_size=8, **options)
        for options in ({}, {"target": clean})
    )
    np.testing.assert_allclose(paired.per_example, plain.per_example, rtol=1e-6)
    assert paired.extra["bits_per_dim"] == pytest.approx(plain.extra["bits_per_dim"])
    log_px = model.log_terms(noisy, 256, seed=0, batch_size=8, target=clean).log_px
    found = metrics.negative_log_likelihood(model, noisy, 256, batch_size=8, target=clean)
    assert found.extra["distortion"] == pytest.approx(-log_px.mean(), abs=0.2)
    diagnosis = metrics.diagnose(model, noisy, target=clean, refinement_steps=2)
    assert diagnosis.measurements["log_px_own"].value == pytest.approx(log_px.mean(), abs=0.2)
    with pytest.raises(ValueError, match="must lie in"):
        metrics.negative_log_likelihood(model, noisy)
    unfit = metrics.diagnose(model, noisy)
    assert unfit.verdict == "unfit_data"
    assert "must lie in" in str(unfit)
    for call in (metrics.diagnose, metrics.negative_log_likelihood):
        with pytest.raises(ValueError, match="`target` must have the shape of `data`"):
            call(model, noisy, target=clean[:4])


@pytest.mark.large
def test_predict_compiles_for_few_numbers_of_rows():
    x = (np.random.default_rng(0).random((21, 8)) < 0.3).astype("float32")
    shapes = []

    class Seen(keras.layers.Layer):
        def call(self, x):
            shapes.append(x.shape[0])
            return x

    encoder = keras.Sequential([keras.Input((8,)), Seen(), keras.layers.Dense(4)])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8)])
    model = zoo.VAE(encoder, decoder, latent_dim=2, seed=0)
    model.compile(jit_compile=JAX)
    model.predict(x[:8], batch_size=8, verbose=0)
    means = keras.ops.convert_to_numpy(model.encode(x).mean)
    shapes.clear()
    for rows in (3, 4, 5, 6, 7, 13, 14, 15, 21):
        found = model.predict(x[:rows], batch_size=8, verbose=0)
        assert found.z.shape == (rows, 1, 2)
        assert found.params.shape == (rows, 1, 8)
        np.testing.assert_allclose(found.posterior.mean, means[:rows], rtol=1e-5, atol=1e-6)
        # Rows that only fill up are nobody's: the draws are those of the rows' own numbers.
        assert len(np.unique(found.z.round(5), axis=0)) == rows
    if keras.backend.backend() == "jax":
        assert set(shapes) <= {4, 8}
    shapes.clear()
    for rows in (3, 4, 5, 6, 7, 13, 14, 15, 21):
        found = model.predict_on_batch(x[:rows])
        assert found.z.shape == (rows, 1, 2)
        np.testing.assert_allclose(found.posterior.mean, means[:rows], rtol=1e-5, atol=1e-6)
    if keras.backend.backend() == "jax":
        # The first as it is, others as those at hand or as powers of two.
        assert set(shapes) <= {3, 4, 8, 16, 32}
