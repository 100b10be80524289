"""Networks and data that the tests of models share: 6 binary values, 3 latent dimensions."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def binary_data():
    """Function of the number of rows: distinct binary rows, float32 `(n, 6)`."""

    def make(num, seed=0):
        return np.random.default_rng(seed).integers(0, 2, (num, 6)).astype("float32")

    return make


@pytest.fixture(scope="session")
def dense_networks():
    """Function that makes an encoder 6 -> 8 and a decoder 3 -> 8 -> 6."""
    import keras

    def make(event=6, latent_dim=3, units=8, first=()):
        encoder = keras.Sequential(
            [keras.Input((event,)), *first, keras.layers.Dense(units, "relu")], name="encoder"
        )
        decoder = keras.Sequential(
            [
                keras.Input((latent_dim,)),
                keras.layers.Dense(units, "relu"),
                keras.layers.Dense(event),
            ],
            name="decoder",
        )
        return encoder, decoder

    return make


@pytest.fixture(scope="session")
def sentences():
    """Function of the number of rows: sentences of 1 to 4 of 8 words, int32 `(n, 6)`."""

    def make(num, seed=0):
        rng = np.random.default_rng(seed)
        x = np.zeros((num, 6), "int32")
        x[:, 0] = 1
        for row, length in zip(x, rng.integers(1, 5, num), strict=True):
            row[1 : 1 + length] = rng.integers(4, 12, length)
            row[1 + length] = 2
        return x

    return make


@pytest.fixture(scope="session")
def text_networks():
    """Function that makes an encoder and a decoder of such sentences, 3 latent dimensions."""
    import keras

    from vaezoo.zoo import networks

    def make(first=(), latent_dim=3, length=6, **decoder):
        options = {"scale": 0.5, "max_length": 6, "embedding_dropout": 0.1, **decoder}
        encoder, decoder = networks.make(
            "lstm",
            (length,),
            latent_dim,
            vocabulary_size=12,
            embedding_dim=4,
            units=8,
            decoder=options,
        )
        if first:
            encoder = keras.Sequential([keras.Input((length,), dtype="int32"), *first, encoder])
        return encoder, decoder

    return make


@pytest.fixture(scope="session")
def to_numpy():
    """Function that turns the tensors of a structure into NumPy arrays."""
    import keras

    def convert(structure):
        return keras.tree.map_structure(keras.ops.convert_to_numpy, structure)

    return convert


@pytest.fixture(scope="session")
def small_parts():
    """Function of a constructor's name: options that it needs, or compiles faster with."""
    flow = {"num_blocks": 2, "flow_width": 2}
    prior = {"prior": {"num_blocks": 1, "hidden_units": (4,)}}
    options = {"IAFVAE": flow, "DUIAF": flow, "MAE": prior, "ResNetVAE": prior, "VLAE": prior}
    options["AggVAE"] = {"max_inner_steps": 3, "window": 2}
    options["VAEAS"] = {"num_examples": 33, "hidden_units": (8,)}
    options["SAVAE"] = {"refine_steps": 2}

    return lambda name: options.get(name, {})
