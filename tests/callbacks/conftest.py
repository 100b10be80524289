import keras
import numpy as np
import pytest

from vaezoo import zoo

EVENT = (4, 4, 1)
# JAX is slow without its compiler, TensorFlow is slow to start with one.
QUICK = {"jit_compile": keras.backend.backend() == "jax"}


@pytest.fixture(scope="session")
def images():
    """Forty images with two factors of variation, and a label each."""
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 4
    patterns = generator.random((4, *EVENT)) < 0.5
    noise = 0.2 * generator.random((40, *EVENT))
    return (0.8 * patterns[labels] + noise).astype("float32"), labels


@pytest.fixture(scope="session")
def make_vae():
    """Makes small compiled models of `EVENT`, the same with every call."""

    def make(constructor=zoo.VAE, event=EVENT, learning_rate=1e-2, compile_args=None, **arguments):
        keras.utils.set_random_seed(1)
        size = int(np.prod(event))
        encoder = keras.Sequential(
            [keras.Input(event), keras.layers.Flatten(), keras.layers.Dense(12, "relu")]
        )
        decoder = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(size), keras.layers.Reshape(event)]
        )
        model = constructor(encoder, decoder, latent_dim=3, **arguments)
        model.build((None, *event))
        model.compile(keras.optimizers.SGD(learning_rate), **{**QUICK, **(compile_args or {})})
        return model

    return make
