"""Models that earlier versions saved load, and give the values that they gave then."""

from pathlib import Path

import keras
import numpy as np
import pytest

import vaezoo  # noqa: F401  Registers the classes.

FILES = Path(__file__).parent / "older_files"
# Random numbers differ between the backends.
SAME_NOISE = keras.backend.backend() == "tensorflow"


@pytest.mark.large
@pytest.mark.parametrize("name", ["du_vae", "iaf_vae", "text_vae"])
def test_keras_files_give_equal_values(name):
    model = keras.saving.load_model(FILES / f"{name}.keras")
    stored = np.load(FILES / f"{name}.npz")
    x = stored["x"].astype("int32" if name == "text_vae" else "float32")
    mean = model.encode(x, batch_size=len(x)).mean
    np.testing.assert_allclose(mean, stored["mean"], rtol=1e-5, atol=1e-6)
    if SAME_NOISE:
        log_prob = model.log_prob(x, num_samples=8, seed=1)
        np.testing.assert_allclose(log_prob, stored["log_prob"], rtol=1e-5)
        np.testing.assert_allclose(model.generate(4, seed=2), stored["generated"], atol=1e-6)


@pytest.mark.skipif(not SAME_NOISE, reason="SavedModels are TensorFlow's")
def test_saved_models_give_equal_values():
    import tensorflow as tf

    served = tf.saved_model.load(str(FILES / "du_vae_served"))
    stored = np.load(FILES / "du_vae.npz")
    x = tf.constant(stored["x"], "float32")
    codes = served.signatures["encode"](x=x)
    np.testing.assert_allclose(codes["mean"], stored["mean"], rtol=1e-5, atol=1e-6)
