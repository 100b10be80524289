"""Every public entry says what it got and what it wants, before the first step."""

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches
from vaezoo import zoo
from vaezoo.layers import CholeskyReparam, GaussianHead, MeanBatchNorm, PointHead
from vaezoo.losses import ELBO, MaximumMeanDiscrepancy, MuELBO, MutualPosteriorDivergence


def as_dataset(batches):
    tf = pytest.importorskip("tensorflow")
    first = batches[0]
    spec = tf.TensorSpec((None, *first.shape[1:]), first.dtype)
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


SOURCES = {
    "array": np.concatenate,
    "tf.data": as_dataset,
    "PyDataset": Batches,
    "generator": lambda batches: (batch for batch in batches),
}


@pytest.fixture(scope="module")
def make(dense_networks):
    def build(constructor=zoo.VAE, **kwargs):
        model = constructor(*dense_networks(), **{"latent_dim": 3, **kwargs})
        # JAX is slow without its compiler, TensorFlow is slow to start with one.
        model.compile(run_eagerly=keras.backend.backend() == "tensorflow")
        return model

    return build


@pytest.fixture(scope="module")
def prepared(make):
    """A built model, and its variables with their values."""
    keras.utils.set_random_seed(0)
    model = make()
    model.build((None, 6))
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables, model.head.reparam.noise.state]
    return model, [(variable, np.array(ops.convert_to_numpy(variable))) for variable in variables]


@pytest.fixture
def untouched(prepared):
    """A built model, of which nothing may have changed when the test is over."""
    model, before = prepared
    yield model
    for variable, value in before:
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


# -- data ------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6)).astype("uint8")
UNIT = (IMAGES / 255).astype("float32")


def spoilt(value):
    x = UNIT.copy()
    x[3, 2] = value
    return x


BAD = {
    "8-bit images": (
        IMAGES,
        ValueError,
        r"`x` must lie in \[0, 1\] under a Bernoulli likelihood \(divide 8-bit images by 255\). "
        r"Received: values from \d+ to \d+",
    ),
    "normalized images": (
        2 * UNIT - 1,
        ValueError,
        r"`x` must lie in \[0, 1\] under a Bernoulli likelihood. Received: values from -",
    ),
    "NaN": (spoilt(np.nan), ValueError, "`x` must hold finite numbers. Received: NaN or infinity"),
    "infinity": (spoilt(np.inf), ValueError, "`x` must hold finite numbers. Received: NaN or inf"),
    "columns": (
        UNIT[:, :5],
        ValueError,
        r"`x` must have the shape that the encoder takes, \(batch, 6\). Received: shape=\(8, 5\)",
    ),
    "rank": (UNIT[:, :, None], ValueError, r"\(batch, 6\). Received: shape=\(8, 6, 1\)"),
    "no rows": (
        UNIT[:0],
        ValueError,
        r"`x` must hold at least one example. Received: shape=\(0, 6\)",
    ),
    "complex": (
        UNIT.astype("complex64"),
        TypeError,
        "`x` must hold real numbers. Received: dtype=complex64",
    ),
    "strings": (UNIT.astype("S4"), TypeError, r"`x` must hold real numbers. Received: dtype=\|?S4"),
}


#: Bad where they are observed; inputs may have any finite values.
OUTSIDE = ("8-bit images", "normalized images")


@pytest.mark.parametrize(
    ("entry", "case"),
    [
        (entry, case)
        for entry in ("fit", "evaluate", "predict", "reconstruct", "log_prob")
        for case in BAD
        if entry not in ("predict", "reconstruct") or case not in OUTSIDE
    ],
)
def test_bad_arrays(untouched, case, entry):
    x, error, message = BAD[case]
    with pytest.raises(error, match=message):
        getattr(untouched, entry)(x)


@pytest.mark.parametrize("source", ["tf.data", "PyDataset", "generator"])
@pytest.mark.parametrize(
    ("entry", "case"),
    [
        (entry, case)
        for entry in ("fit", "evaluate", "predict")
        for case in ("8-bit images", "NaN", "columns", "no rows")
        if entry != "predict" or case not in OUTSIDE
    ],
)
def test_bad_first_batches(untouched, case, source, entry):
    x, error, message = BAD[case]
    with pytest.raises(error, match=message):
        getattr(untouched, entry)(SOURCES[source]([x, x]))


@pytest.mark.parametrize("source", ["tf.data", "PyDataset", "generator"])
@pytest.mark.parametrize("entry", ["fit", "evaluate"])
def test_empty_sources(untouched, source, entry):
    if source == "tf.data":
        empty = SOURCES[source]([UNIT]).take(0)
    else:
        empty = SOURCES[source]([])
    with pytest.raises(ValueError, match="`x` must hold at least one batch. Received: an empty"):
        getattr(untouched, entry)(empty)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[None] * 6]), "`x` must hold real numbers. Received: dtype=object"),
        (UNIT.tolist(), "`x` must be an array, .* or a generator. Received: list"),
        ({"image": UNIT}, "`x` must be an array, .* or a generator. Received: dict"),
        ("mnist.npz", "`x` must be an array, .* or a generator. Received: str"),
        (keras.KerasTensor((None, 6)), "`x` must hold values. Received: a symbolic KerasTensor"),
    ],
)
def test_what_is_no_data(untouched, x, message):
    with pytest.raises(TypeError, match=message):
        untouched.fit(x)


def test_no_data_at_all(untouched):
    with pytest.raises(ValueError, match="`x` must be given. Received: x=None"):
        untouched.fit()
    with pytest.raises(ValueError, match="at least one example"):
        untouched.fit(np.float32(0.5))


@pytest.mark.parametrize("entry", ["fit", "evaluate"])
def test_bad_targets(untouched, entry):
    for y, error, message in (
        (2 * UNIT, ValueError, r"must lie in \[0, 1\].*values from"),
        (spoilt(np.nan), ValueError, "must hold finite numbers"),
        (UNIT.astype("complex64"), TypeError, "`y` must hold real numbers.*dtype=complex64"),
        ([0] * 8, TypeError, "`y` must be an array. Received: list"),
    ):
        with pytest.raises(error, match=message):
            getattr(untouched, entry)(UNIT, y)
    # The inputs are not observed, so they may lie anywhere but must be finite.
    with pytest.raises(ValueError, match="`x` must hold finite numbers"):
        getattr(untouched, entry)(spoilt(np.inf), UNIT)


@pytest.mark.parametrize("form", [lambda x: (x,), lambda x: (x, None), lambda x: Batches([x])])
def test_bad_validation_data(untouched, form):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        untouched.fit(UNIT, validation_data=form(IMAGES), verbose=0)


@pytest.mark.large_on_jax
def test_numbers_of_any_kind_are_data(make):
    model = make()
    bits = (IMAGES > 127).astype("float32")
    for dtype in ("bool", "uint8", "int64", "float16", "float64"):
        logs = model.evaluate(bits.astype(dtype), verbose=0, return_dict=True)
        assert np.isfinite(logs["loss"])


def test_a_gaussian_takes_what_a_bernoulli_refuses(make):
    model = make(likelihood="gaussian")
    logs = model.evaluate(2 * UNIT - 1, verbose=0, return_dict=True)
    assert np.isfinite(logs["loss"])


# -- batch size ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "needed", "part"),
    [
        ({"head": lambda: GaussianHead(3, reparam=CholeskyReparam(1))}, 4, "the posterior head"),
        ({"head": lambda: GaussianHead(3, mean_norm=MeanBatchNorm(0.5))}, 2, "the posterior head"),
        (
            {"objective": lambda: ELBO(regularizers=[MaximumMeanDiscrepancy()])},
            2,
            "the objective",
        ),
        (
            {"objective": lambda: ELBO(regularizers=[MutualPosteriorDivergence()])},
            2,
            "the objective",
        ),
    ],
    ids=["covariance", "mean norm", "MMD", "MPD"],
)
@pytest.mark.parametrize(
    "source",
    ["array", *(pytest.param(s, marks=pytest.mark.one_backend) for s in SOURCES if s != "array")],
)
@pytest.mark.filterwarnings("ignore:batch_size=")
def test_batches_too_small_for_a_statistic(make, settings, needed, part, source):
    model = make(**{name: value() for name, value in settings.items()})
    short = needed - 1
    batches = [UNIT[:short], UNIT[short : 2 * short]]
    sizes = {"batch_size": short} if source == "array" else {}
    message = f"`batch_size` must be at least {needed}, because {part}.*batch_size={short}"
    with pytest.raises(ValueError, match=message):
        model.fit(SOURCES[source](batches), verbose=0, **sizes)
    # It suffices where no statistic is taken.
    assert np.isfinite(model.evaluate(SOURCES[source](batches), verbose=0, **sizes)[0])


def test_fewer_rows_than_the_batch_size(make):
    with pytest.raises(ValueError, match=r"`batch_size` must be at least 4.*batch_size=2"):
        make(zoo.HEBAE).fit(UNIT[:2], batch_size=64)


@pytest.mark.one_backend
def test_a_split_beside_validation_data_leaves_every_row_to_the_batch(make):
    model = make(head=GaussianHead(3, mean_norm=MeanBatchNorm(0.5)))
    # As in Keras, which ignores the split then: it would leave a single row.
    options = {"batch_size": 8, "verbose": 0, "validation_split": 0.8}
    history = model.fit(UNIT, validation_data=UNIT[:4], **options).history
    assert np.isfinite([*history["loss"], *history["val_loss"]]).all()
    with pytest.raises(ValueError, match="`batch_size` must be at least 2.*batch_size=1"):
        model.fit(UNIT, **options)


@pytest.mark.one_backend
def test_a_noisy_covariance_warns(make):
    with pytest.warns(UserWarning, match="batch_size=5 is below 6, twice the latent dimension"):
        make(zoo.HEBAE).fit(UNIT, batch_size=5, verbose=0)


@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_counts(untouched, value):
    message = f"must be a positive integer. Received: {{}}={value}"
    for name, call in {
        "batch_size": lambda: untouched.fit(UNIT, batch_size=value),
        "num": lambda: untouched.generate(value),
        "num_samples": lambda: untouched.log_prob(UNIT, num_samples=value),
    }.items():
        with pytest.raises(ValueError, match=f"`{name}` " + message.format(name)):
            call()
    with pytest.raises(ValueError, match="`num_samples` " + message.format("num_samples")):
        untouched.log_terms(UNIT, num_samples=value)
    z = np.zeros((2, 3), "float32")
    for call in (
        lambda: untouched.evaluate(UNIT, batch_size=value),
        lambda: untouched.predict(UNIT, batch_size=value),
        lambda: untouched.encode(UNIT, batch_size=value),
        lambda: untouched.decode(z, batch_size=value),
        lambda: untouched.reconstruct(UNIT, batch_size=value),
        lambda: untouched.generate(2, batch_size=value),
        lambda: untouched.log_prob(UNIT, batch_size=value),
    ):
        with pytest.raises(ValueError, match="`batch_size` " + message.format("batch_size")):
            call()


@pytest.mark.one_backend
@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, "a"])
def test_seeds(untouched, seed):
    for call in (
        lambda: untouched.generate(2, seed=seed),
        lambda: untouched.log_prob(UNIT, seed=seed),
        lambda: untouched.log_terms(UNIT, seed=seed),
    ):
        with pytest.raises(ValueError, match=rf"`seed` must be an integer in \[0, 2\^31\).*{seed}"):
            call()


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.one_backend
@pytest.mark.parametrize("constructor", [zoo.VAE, zoo.DUVAE, zoo.WAE, zoo.DeltaVAE])
@pytest.mark.parametrize("latent_dim", [0, -3, 2.5, True, "3"])
def test_latent_dim(dense_networks, constructor, latent_dim):
    message = f"`latent_dim` must be a positive integer.* Received: latent_dim={latent_dim!r}"
    with pytest.raises(ValueError, match=message):
        constructor(*dense_networks(), latent_dim=latent_dim)


@pytest.mark.one_backend
def test_missing_and_conflicting_dimensions(dense_networks):
    encoder, decoder = dense_networks()
    with pytest.raises(ValueError, match="`latent_dim` or `head` must be given. Received: neither"):
        zoo.VAE(encoder, decoder)
    with pytest.raises(ValueError, match=r"latent_dim=2, head.latent_dim=3"):
        zoo.VAE(encoder, decoder, latent_dim=2, head=GaussianHead(3))
    with pytest.raises(ValueError, match=r"`decoder` must take codes of shape \(batch, 5\).*None"):
        zoo.VAE(encoder, decoder, latent_dim=5)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (
            "encoder",
            len,
            "`encoder` must be a Keras layer or model. Received: encoder=",
        ),
        ("decoder", "mlp", "`decoder` must be a Keras layer or model. Received: decoder='mlp'"),
        ("head", "gaussian", "`head` must be a PosteriorHead. Received: head='gaussian'"),
        ("prior", "normal", "`prior` must be a vaezoo Prior. Received: prior='normal'"),
        ("objective", "elbo", "`objective` must be a vaezoo Objective. Received: objective='elbo'"),
        ("likelihood", 0.5, "`likelihood` must be a name or a vaezoo likelihood. Received: float"),
    ],
)
def test_parts_of_the_wrong_kind(dense_networks, part, value, message):
    encoder, decoder = dense_networks()
    parts = {"encoder": encoder, "decoder": decoder, "latent_dim": 3, part: value}
    with pytest.raises(TypeError, match=message):
        zoo.VAE(parts.pop("encoder"), parts.pop("decoder"), **parts)


@pytest.mark.one_backend
def test_unknown_likelihood(dense_networks):
    with pytest.raises(ValueError, match="`likelihood` must be one of bernoulli.*'poisson'"):
        zoo.VAE(*dense_networks(), latent_dim=3, likelihood="poisson")


@pytest.mark.one_backend
def test_a_deterministic_head_has_no_rate(dense_networks):
    message = "`objective` must do without a rate.*objective=ELBO, head=PointHead"
    with pytest.raises(ValueError, match=message):
        zoo.VAE(*dense_networks(), head=PointHead(3))


def test_decoder_of_another_output_shape(dense_networks):
    encoder, _ = dense_networks()
    _, decoder = dense_networks(event=7)
    model = zoo.VAE(encoder, decoder, latent_dim=3)
    model.compile()
    message = (
        r"The decoder must return the parameters of a Bernoulli likelihood for data of shape "
        r"\(6,\), that is \(batch, 6\). Received: shape=\(None, 7\)"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(UNIT, verbose=0)


def test_encoder_of_another_rank():
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    message = r"The encoder must return features of shape \(batch, F\).*shape=\(None, 2, 3\)"
    with pytest.raises(ValueError, match=message):
        zoo.VAE(encoder, decoder, latent_dim=3).build((None, 6))


def test_an_objective_for_another_posterior(make):
    model = make(head=GaussianHead(3, reparam=CholeskyReparam(1)), objective=MuELBO())
    with pytest.raises(TypeError, match="needs a diagonal Gaussian.*HierarchicalGaussian"):
        model.fit(UNIT, verbose=0)


# -- use -------------------------------------------------------------------------------------------


def test_generate_before_the_shape_of_the_data_is_known(make):
    with pytest.raises(ValueError, match="`generate` needs a built model: fit it"):
        make().generate(2)


@pytest.mark.parametrize("shape", [(2, 4), (2, 2, 4), (3,), (2, 2, 2, 3)])
def test_codes_of_another_shape(untouched, shape):
    message = r"`z` must have shape \(batch, 3\) or \(batch, K, 3\). Received: shape=\({}"
    with pytest.raises(ValueError, match=message.format(", ".join(map(str, shape)))):
        untouched.decode(np.zeros(shape, "float32"))


def test_nothing_to_encode(untouched):
    with pytest.raises(ValueError, match="`x` must hold at least one example"):
        untouched.encode(UNIT[:0], batch_size=4)


def test_weights_of_another_model(untouched, make, tmp_path):
    untouched.save_weights(tmp_path / "plain.weights.h5")
    other = make(zoo.BNVAE)
    other.build((None, 6))
    with pytest.raises(ValueError, match="could not be loaded.*mean_batch_norm"):
        other.load_weights(tmp_path / "plain.weights.h5")


@pytest.mark.parametrize(
    ("call", "size"),
    [
        (lambda model, x: model.fit(x, batch_size=16, verbose=0), "16"),
        (lambda model, x: model.log_prob(x, batch_size=8), "8"),
        (lambda model, x: model.generate(4), "256"),
    ],
)
def test_full_memory_is_explained(untouched, binary_data, monkeypatch, call, size):
    def exhausted(*args, **kwargs):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")

    monkeypatch.setattr(keras.Model, "fit", exhausted)
    monkeypatch.setattr(untouched, "_compiled", lambda *args, **kwargs: exhausted)
    with pytest.raises(MemoryError, match=f"ran out of memory.*Received: batch_size={size}"):
        call(untouched, binary_data(32))


def test_other_errors_pass_through(untouched, binary_data, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("INTERNAL: something else")

    monkeypatch.setattr(keras.Model, "fit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        untouched.fit(binary_data(32), verbose=0)
