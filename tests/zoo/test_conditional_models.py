"""Conditional forms of the models: one mechanism serves all of them."""

import keras
import numpy as np
import pytest

from vaezoo import callbacks, layers, metrics, zoo
from vaezoo.zoo import networks

ROWS, EVENT, LATENT = 20, (4, 4, 1), 2
WORDS = np.array(["a", "b", "c"])[np.arange(ROWS) % 3]
X = np.random.default_rng(0).integers(0, 2, (ROWS, *EVENT)).astype("float32")
DATA = {"image": X, "kind": WORDS}
# Networks of `networks.make`, and options of the constructor.
DENSE = {"kind": "mlp", "hidden_units": [6]}
PIXELS = {
    "kind": "gated_pixelcnn",
    "encoder": {"kind": "mlp", "hidden_units": [6]},
    "decoder": {"filters": 2, "kernels": (3,), "latent_maps": 1},
}
MODELS = {
    "VAE": (zoo.VAE, DENSE, {}),
    "DUVAE": (zoo.DUVAE, DENSE, {}),
    "IWAE": (zoo.IWAE, DENSE, {"num_samples": 3}),
    "IAFVAE": (zoo.IAFVAE, DENSE, {}),
    "HEBAE": (zoo.HEBAE, DENSE, {}),
    "VAEAS": (zoo.VAEAS, DENSE, {"num_examples": ROWS}),
    "SAVAE": (zoo.SAVAE, DENSE, {"refine_steps": 2}),
    "AggVAE": (zoo.AggVAE, DENSE, {"max_inner_steps": 2}),
    "PixelCNN": (zoo.VAE, PIXELS, {}),
}


def make(name):
    constructor, options, settings = MODELS[name]
    pair = networks.make(
        input_shape=EVENT, latent_dim=LATENT, condition={"kind": ["a", "b", "c"]}, **options
    )
    return constructor(*pair, latent_dim=LATENT, **settings)


@pytest.mark.large
@pytest.mark.parametrize("name", MODELS)
def test_trains_scores_draws_and_comes_back(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = make(name)
    # Without a graph, which costs more than such a step; `test_conditions.py` has XLA.
    eager = keras.backend.backend() == "tensorflow"
    model.compile("adam", run_eagerly=eager)
    fixed = {"validation_data": DATA} if name == "AggVAE" else {}
    history = model.fit(DATA, batch_size=10, epochs=1, verbose=0, **fixed).history
    assert np.all(np.isfinite(history["loss"]))
    # It starts at 0.
    assert np.any(keras.ops.convert_to_numpy(model.encoder.kernel))
    model.evaluate(DATA, verbose=0)
    score = model.log_prob(DATA, 2, seed=1)
    other = model.log_prob({**DATA, "kind": WORDS[::-1]}, 2, seed=1)
    assert np.any(score != other)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.log_prob(DATA, 2, seed=1), score, rtol=1e-4)
    draws = model.generate(3, seed=1, condition=["a", "b", "a"])
    np.testing.assert_allclose(
        loaded.generate(3, seed=1, condition=["a", "b", "a"]), draws, rtol=1e-4, atol=1e-6
    )
    assert draws.shape == (3, *EVENT)


# On JAX each export is a child process of its own, and flows take long: CI has the two decoders.
EXPORTED = [
    "VAE",
    pytest.param("PixelCNN", marks=pytest.mark.one_backend),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("HEBAE", "IAFVAE")),
]


@pytest.mark.large
@pytest.mark.parametrize("name", EXPORTED)
def test_saved_model_takes_conditions(name, tmp_path):
    tf = pytest.importorskip("tensorflow")
    model = make(name)
    model.build((None, *EVENT))
    rng = np.random.default_rng(0)
    model.encoder.kernel.assign(rng.normal(size=model.encoder.kernel.shape))
    model.export(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved")).signatures
    x, kind, seed = tf.constant(X), tf.constant(WORDS), tf.constant(1)
    found = loaded["encode"](x=x, kind=kind)["mean"]
    np.testing.assert_allclose(found, model.encode(DATA).mean, rtol=1e-4, atol=1e-5)
    shown = loaded["reconstruct"](x=x, kind=kind)["x"]
    np.testing.assert_allclose(shown, model.reconstruct(DATA), rtol=1e-4, atol=1e-5)
    one = loaded["sample"](count=tf.constant(2), seed=seed, kind=tf.constant(["b"]))["x"]
    both = loaded["sample"](count=tf.constant(2), seed=seed, kind=tf.constant(["b", "b"]))["x"]
    np.testing.assert_array_equal(one, both)
    score = loaded["score"](x=x, kind=kind, num_samples=tf.constant(2), seed=seed)["log_prob"]
    assert np.all(np.isfinite(score))
    if keras.backend.backend() == "tensorflow":
        np.testing.assert_allclose(score, model.log_prob(DATA, 2, seed=1), rtol=1e-4)
        np.testing.assert_allclose(
            one,
            model.generate(2, seed=1, condition="b", mean=not model.autoregressive),
            rtol=1e-4,
            atol=1e-5,
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="`kind` must hold the classes"):
        loaded["encode"](x=x, kind=tf.constant(["z"] * ROWS))
    three = tf.constant(["a", "b", "c"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one row, or `count` of them"):
        loaded["sample"](count=tf.constant(2), seed=seed, kind=three)


@pytest.mark.one_backend
def test_vamp_prior_is_refused():
    pair = networks.make("mlp", EVENT, LATENT, hidden_units=[4], condition=3)
    with pytest.raises(ValueError, match="`prior` must not be a VampPrior of a conditional model"):
        zoo.VAE(*pair, latent_dim=LATENT, prior=layers.VampPrior(2))


@pytest.mark.large
@pytest.mark.one_backend
def test_callbacks_take_conditional_data(tmp_path):
    pytest.importorskip("tensorboard")
    model = make("VAE")
    model.compile("adam", run_eagerly=True)
    watching = [
        callbacks.LatentMonitor(DATA, log_dir=tmp_path, num_images=4),
        callbacks.CollapseWarning(DATA, start_epoch=9),
    ]
    model.fit(DATA, batch_size=10, epochs=1, verbose=0, callbacks=watching)
    active = watching[1].history[0]["active_units"]
    assert active == int(metrics.active_units(model, DATA).value)
