"""A `VAE` whose decoder sees the image, on binary images of 4x4 pixels."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.core.random import StatelessSeed
from vaezoo.layers import Categorical, VampPrior, awaits_initialization
from vaezoo.zoo.networks import GatedPixelCNN, ResidualPixelCNN, mlp_encoder, resnet_encoder

SHAPE, SIZE = (4, 4, 1), 2
JAX = keras.backend.backend() == "jax"
# For a step or two: JAX is slow without its compiler, TensorFlow is slow to start with a graph.
BRIEF = {"jit_compile": JAX, "run_eagerly": not JAX}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 2, (40, *SHAPE)).astype("float32")


def make(
    decoder=ResidualPixelCNN,
    constructor=zoo.VAE,
    encoder=None,
    shape=SHAPE,
    kernels=(3, 3),
    **options,
):
    settings = {"kernels": kernels, "filters": 8, "latent_maps": 2, "normalization": "weight"}
    model_options = {"latent_dim": SIZE, **options}
    decoder = decoder(SIZE, shape, **settings)
    return constructor(encoder or mlp_encoder(SHAPE, (8,)), decoder, **model_options)


@pytest.fixture(scope="module")
def model(images):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(images, batch_size=20, epochs=3, verbose=0)
    return model


@pytest.mark.large
@pytest.mark.one_backend
def test_training_initializes_the_gains_from_the_first_data_and_lowers_the_loss(images):
    keras.utils.set_random_seed(1)
    encoder = resnet_encoder(SHAPE, (4,), 8, "weight")
    # Without noise in the code, the batch looks the same again.
    model = make(constructor=zoo.AE, encoder=encoder, deterministic=True)
    model.build((None, *SHAPE))
    assert awaits_initialization(model)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=JAX)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append(model.predict(images, verbose=0).params)
    )
    history = model.fit(images, batch_size=20, epochs=4, verbose=0, callbacks=[watch]).history
    assert not awaits_initialization(model)
    np.testing.assert_allclose(seen[0].mean(), 0.0, atol=1e-4)
    np.testing.assert_allclose(seen[0].std(), 1.0, rtol=1e-3)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.large
def test_summary_shows_what_the_decoder_returns(model):
    lines = []
    model.summary(120, expand_nested=True, print_fn=lambda text, **_: lines.append(text))
    decoder = next(line for line in "\n".join(lines).splitlines() if "ResidualPixelCNN" in line)
    assert "(None, 4, 4, 1)" in decoder


@pytest.mark.large
def test_likelihood_is_that_of_each_pixel_given_those_before(model, images):
    z = np.random.default_rng(1).normal(size=(40, 3, SIZE)).astype("float32")
    params = ops.convert_to_numpy(model.params(z, images))
    assert params.shape == (40, 3, *SHAPE)
    single = model.decoder(z[:, 2], images)
    np.testing.assert_allclose(params[:, 2], single, rtol=1e-4, atol=1e-5)
    changed = images.copy()
    changed[:, 2, 1] = 1.0 - changed[:, 2, 1]
    again = ops.convert_to_numpy(model.params(z, changed))
    earlier = np.arange(16).reshape(SHAPE) <= 2 * 4 + 1
    np.testing.assert_allclose(again[..., earlier], params[..., earlier], atol=1e-6)
    assert np.any(np.abs(again - params)[..., ~earlier] > 1e-3)


@pytest.mark.large
def test_probabilities_of_all_images_sum_to_one(images):
    # A 2x2 image has 16 values; the decoder gives each its probability.
    keras.utils.set_random_seed(0)
    model = make(encoder=mlp_encoder((2, 2, 1), (4,)), shape=(2, 2, 1))
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1
    everything = bits.reshape(16, 2, 2, 1).astype("float32")
    z = np.full((16, 1, SIZE), 0.7, "float32")
    log_px = model.likelihood.log_prob(everything, model.params(z, everything))
    np.testing.assert_allclose(ops.sum(ops.exp(log_px)), 1.0, rtol=1e-5)


@pytest.mark.large
@pytest.mark.one_backend
def test_greedy_decoding_takes_each_mode_in_turn(model):
    z = np.random.default_rng(2).normal(size=(5, SIZE)).astype("float32")
    x = np.zeros((5, *SHAPE), "float32")
    for row in range(4):
        for column in range(4):
            logits = ops.convert_to_numpy(model.decoder(z, x))
            x[:, row, column] = logits[:, row, column] > 0.0
    np.testing.assert_array_equal(model.decode(z, batch_size=2), x)
    np.testing.assert_array_equal(model.decode(z[:, None], batch_size=5)[:, 0], x)


@pytest.mark.large
def test_generation_follows_its_seed_whatever_the_batch(model):
    first = model.generate(7, seed=3, mean=False)
    assert set(np.unique(first)) <= {0.0, 1.0}
    np.testing.assert_array_equal(model.generate(7, seed=3, mean=False, batch_size=3), first)
    assert np.any(model.generate(7, seed=4, mean=False) != first)
    # The mean is that of each pixel given the drawn ones before it.
    means = model.generate(7, seed=3)
    assert np.all((means > 0.0) & (means < 1.0))
    codes = model.prior.sample(7, StatelessSeed(3))
    expected = ops.sigmoid(model.decoder(codes, first))
    np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.large
def test_draws_have_the_frequencies_of_the_likelihood(model):
    count = 2000
    z = np.repeat(np.array([[0.5, -0.5]], "float32"), count, axis=0)
    x = ops.convert_to_numpy(model._drawn(z, 0, 500))
    probability = ops.convert_to_numpy(ops.sigmoid(model.decoder(z, x)))
    # A martingale: draws minus their conditional means, of mean zero at every pixel.
    error = np.sqrt(np.mean(probability * (1.0 - probability), axis=0) / count)
    assert np.all(np.abs(np.mean(x - probability, axis=0)) < 4.5 * error)


@pytest.mark.large
def test_a_target_of_its_own_is_what_the_decoder_sees(model, images):
    target = 1.0 - images
    output = model(images)
    model.reset_metrics()
    loss = model.compute_loss(images, target, output, training=False)
    terms = model.terms(target, output._replace(params=model.params(output.z, target)))
    np.testing.assert_allclose(loss, np.mean(terms.kl - terms.log_px[:, 0]), rtol=1e-5)


@pytest.mark.large
def test_reloaded_model_is_the_same(model, images, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.log_prob(images[:6], num_samples=9),
        model.log_prob(images[:6], num_samples=9),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(
        again.generate(4, seed=1, mean=False), model.generate(4, seed=1, mean=False)
    )
    assert not awaits_initialization(again)


@pytest.mark.large
@pytest.mark.skipif(JAX, reason="JAX draws other noise")
def test_saved_model_draws_what_the_model_draws(model, images, tmp_path):
    import tensorflow as tf

    model.export(tmp_path / "saved")
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures
    drawn = served["sample"](count=tf.constant(6), seed=tf.constant(5))["x"]
    np.testing.assert_array_equal(drawn, model.generate(6, seed=5, mean=False))
    greedy = served["reconstruct"](x=tf.constant(images[:4]))["x"]
    np.testing.assert_array_equal(greedy, model.reconstruct(images[:4]))
    score = served["score"](
        x=tf.constant(images[:4]), num_samples=tf.constant(8), seed=tf.constant(0)
    )["log_prob"]
    np.testing.assert_allclose(score, model.log_prob(images[:4], num_samples=8), rtol=1e-4)


@pytest.mark.large
@pytest.mark.parametrize(
    ("constructor", "options"),
    [
        (zoo.MuVAE, {"likelihood": "bernoulli"}),
        (zoo.WAE, {"likelihood": "bernoulli"}),
        (zoo.HEBAE, {}),
        (zoo.DUIAF, {"flow_width": 2, "num_blocks": 1}),
    ],
)
@pytest.mark.one_backend
def test_other_models_take_such_a_decoder(constructor, options, images):
    keras.utils.set_random_seed(0)
    model = make(GatedPixelCNN, constructor, kernels=(3,), **options)
    model.compile("adam", **BRIEF)
    history = model.fit(images, batch_size=20, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert model.reconstruct(images[:3]).shape == (3, *SHAPE)


@pytest.mark.large
@pytest.mark.one_backend
def test_class_numbers_are_decoded_one_channel_after_the_other(images):
    keras.utils.set_random_seed(0)
    encoder = mlp_encoder((2, 2, 3), (4,))
    decoder = ResidualPixelCNN(SIZE, (2, 2, 3), kernels=(3,), filters=6, num_classes=5)
    model = zoo.VAE(encoder, decoder, latent_dim=SIZE, likelihood=Categorical(5))
    model.build((None, 2, 2, 3))
    x = model.generate(20, seed=0, mean=False)
    assert x.shape == (20, 2, 2, 3)
    assert set(np.unique(x)) == set(range(5))
    assert np.all(np.isfinite(model.log_prob(x, num_samples=3)))


@pytest.mark.large
@pytest.mark.one_backend
def test_learned_prior_goes_with_such_a_decoder(images):
    keras.utils.set_random_seed(0)
    model = make(prior=VampPrior(num_components=3), kernels=(3,))
    model.compile("adam", **BRIEF)
    model.fit(images, batch_size=20, verbose=0)
    assert model.generate(3, seed=0).shape == (3, *SHAPE)


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"`decoder` must take codes of shape \(batch, 3\)"):
        make(latent_dim=3)
    wrong = make(shape=(4, 5, 1))
    with pytest.raises(ValueError, match=r"images of shape \(4, 4, 1\).*Received.*\(4, 5, 1\)"):
        wrong.build((None, *SHAPE))
