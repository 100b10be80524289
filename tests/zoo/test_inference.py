"""Models in use: how often they compile, what a file holds of them, and what they refuse."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.layers import AutoregressiveFlowPrior, GaussianMixturePrior, StandardNormal, VampPrior
from vaezoo.losses._compiled import padded, rows_to_compile
from vaezoo.losses._replicas import GivenSeed

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
    drawn = ops.convert_to_numpy(model.prior.sample(5, GivenSeed(3)))
    rows = rows_to_compile(5, noise=True) if model.prior.nested_draws else 5
    more = ops.convert_to_numpy(model.prior.sample(rows, GivenSeed(3)))
    np.testing.assert_allclose(more[:5], drawn, rtol=1e-6, atol=1e-7)
    expected = ops.convert_to_numpy(model.decode(drawn))
    np.testing.assert_allclose(model.generate(5, seed=3), expected, rtol=1e-5)


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


@pytest.mark.parametrize("name", ["VAE", "DUIAF", "VLAE", "TextVAE"])
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
        with pytest.raises(ValueError, match="saved when it knows its data: call it on a batch"):
            save(
                tmp_path / "model.weights.h5"
                if save == model.save_weights
                else tmp_path / "m.keras"
            )
    model(np.ones((3, 4), "float32"))
    model.save_weights(tmp_path / "model.weights.h5")
