"""Models under `set_floatx("float64")`: all of them works, and gives what float32 gives."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import metrics, zoo
from vaezoo.zoo.networks import ResidualPixelCNN, mlp_encoder

JAX = keras.backend.backend() == "jax"
BRIEF = {"jit_compile": JAX, "run_eagerly": not JAX}


@pytest.fixture
def floatx():
    """Function that sets the default precision, which is float32 again after the test."""

    def set_to(name):
        keras.config.set_floatx(name)
        keras.config.set_dtype_policy(name)

    yield set_to
    set_to("float32")


@pytest.fixture
def x64():
    """Lets JAX have float64, which it leaves off by default and replaces by float32."""
    if not JAX:
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def make(name, networks, small_parts):
    if name == "PixelCNN":
        options = {"kernels": (3, 3), "filters": 4, "latent_maps": 2}
        decoder = ResidualPixelCNN(3, (2, 3, 1), **options)
        return zoo.VAE(mlp_encoder((2, 3, 1), (8,)), decoder, latent_dim=3)
    return getattr(zoo, name)(*networks, latent_dim=3, **small_parts(name))


# In CI all kinds on one backend, those that differ most on the other.
EVERYWHERE = ("VAE", "TextVAE")
KINDS = [
    pytest.param(name, marks=pytest.mark.slow if JAX and name not in EVERYWHERE else ())
    for name in (*EVERYWHERE, "SAVAE", "HEBAE", "IAFVAE", "PixelCNN")
]


@pytest.mark.large
@pytest.mark.parametrize("name", KINDS)
def test_all_methods_give_what_they_give_in_float32(
    name, floatx, x64, text_networks, dense_networks, sentences, binary_data, small_parts
):
    text = name == "TextVAE"
    networks = text_networks if text else dense_networks
    x = sentences(8) if text else binary_data(8)
    x = x.reshape(8, 2, 3, 1) if name == "PixelCNN" else x
    found, weights = {}, None
    for precision in ("float32", "float64"):
        floatx(precision)
        keras.utils.set_random_seed(0)
        model = make(name, networks(), small_parts)
        data = x if text else x.astype(precision)
        model.build((None, *x.shape[1:]))
        if weights is None:
            weights = model.get_weights()
        model.set_weights(weights)
        posterior = model.encode(data, batch_size=8)
        found[precision] = {
            "mean": posterior.mean,
            "log_prob": model.log_prob(data, num_samples=10),
            "reconstruct": model.reconstruct(data),
            "decode": model.decode(posterior.mean, batch_size=8),
            "mean of draws": model.generate(4, seed=1),
            "draws": model.generate(4, seed=1, mean=False),
            "path": model.interpolate(data[:2], data[2:4], steps=3),
        }
        assert found[precision]["log_prob"].dtype == np.float32
        if precision == "float64":
            assert "float64" in {v.dtype for v in model.encoder.variables}
    for key, value in found["float32"].items():
        np.testing.assert_allclose(found["float64"][key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    # Of this model, in float64.
    model.compile("adam", **BRIEF)
    loss = model.fit(data, batch_size=8, verbose=0).history["loss"][0]
    assert np.isfinite(loss)
    assert np.isfinite(model.evaluate(data, batch_size=8, verbose=0)[0])


@pytest.mark.large
@pytest.mark.parametrize(
    "name", ["VAE", pytest.param("VLAE", marks=pytest.mark.slow if JAX else ())]
)
def test_a_model_of_float64_is_diagnosed_scored_and_reloaded(
    name, floatx, x64, dense_networks, binary_data, small_parts, tmp_path
):
    floatx("float64")
    model = make(name, dense_networks(), small_parts)
    x = binary_data(24).astype("float64")
    before = ops.convert_to_numpy(model.encode(x).mean)
    diagnosis = metrics.diagnose(model, x, refinement_steps=2, trials=False)
    assert diagnosis.measurements["rate"].value > 0.0
    assert metrics.negative_log_likelihood(model, x, 4).value > 0.0
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").encode(x).mean
    np.testing.assert_allclose(again, before, rtol=1e-6)


@pytest.mark.large
@pytest.mark.one_backend
def test_a_model_of_float64_is_exported(floatx, dense_networks, binary_data, small_parts, tmp_path):
    import tensorflow as tf

    floatx("float64")
    model = make("VAE", dense_networks(), small_parts)
    x = binary_data(4).astype("float64")
    expected = model.log_prob(x, num_samples=3, seed=2)
    model.export(tmp_path / "exported")
    score = tf.saved_model.load(tmp_path / "exported").signatures["score"]
    scalars = {"num_samples": tf.constant(3), "seed": tf.constant(2)}
    got = score(x=tf.constant(x, score.structured_input_signature[1]["x"].dtype), **scalars)
    np.testing.assert_allclose(got["log_prob"], expected, rtol=1e-5)
