"""Networks that compile in no time."""

import pytest


@pytest.fixture(scope="session")
def tiny_networks():
    """`tiny_networks()`: a fresh encoder and decoder for rows of six numbers."""
    import keras

    def make():
        encoder = keras.Sequential([keras.layers.Dense(5, activation="tanh")])
        return encoder, keras.Sequential([keras.layers.Dense(6)])

    return make


@pytest.fixture(scope="session")
def run():
    """`run(layer, function, *args)`: NumPy values of a function of tensors that uses a layer."""
    import keras

    from vaezoo.core.compile import compiled

    def call(layer, function, *args):
        if keras.backend.backend() == "jax":
            # Operation by operation JAX compiles each of them, which takes many times as long.
            function = compiled(layer, function)
        values = function(*map(keras.ops.convert_to_tensor, args))
        return keras.tree.map_structure(keras.ops.convert_to_numpy, values)

    return call
