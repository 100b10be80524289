"""What every network does, whatever its architecture."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import Categorical, Gaussian, LatentSkip, get_likelihood
from vaezoo.zoo import networks

PAIRS = {
    "mlp": ("mlp", (4, 3), {"hidden_units": [8, 6], "params_per_value": 2, "skip": True}),
    "mlp_linear": ("mlp", (4,), {"hidden_units": []}),
    "conv": ("conv", (7, 5, 2), {"filters": [4, 6], "num_classes": 3, "skip": True}),
    "mu_vae": ("mu_vae", (8, 4, 1), {"params_per_value": 2, "skip": True}),
    "wae": ("wae", (8, 4, 3), {"filters": [4, 6], "skip": True}),
    "wae_affine": ("wae", (8, 4, 3), {"filters": [4, 6], "batch_norm": "affine"}),
}
LATENT_DIM = 3


def auto_encoder(kind, shape, options):
    encoder, decoder = networks.make(kind, shape, LATENT_DIM, **options)
    x = keras.Input(shape)
    return keras.Model(x, decoder(keras.layers.Dense(LATENT_DIM)(encoder(x))))


@pytest.mark.large
@pytest.mark.parametrize("pair", PAIRS)
def test_every_weight_learns_and_the_model_reloads(pair, tmp_path):
    kind, shape, options = PAIRS[pair]
    model = auto_encoder(kind, shape, options)
    x = np.random.default_rng(0).uniform(size=(6, *shape)).astype("float32")
    target = np.random.default_rng(1).normal(size=(6, *model.output_shape[1:]))
    # Lion steps by the sign of the gradient, however small that is.
    model.compile(keras.optimizers.Lion(0.1), loss="mse")
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    model.train_on_batch(x, target)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert np.abs(old - ops.convert_to_numpy(weight)).max() > 0, weight.path
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    out = model.predict_on_batch(x)
    assert out.shape == (6, *model.output_shape[1:])
    np.testing.assert_allclose(again.predict_on_batch(x), out, atol=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_config_survives_json(pair):
    for model in networks.make(*PAIRS[pair][:2], LATENT_DIM, **PAIRS[pair][2]):
        again = keras.models.model_from_json(model.to_json())
        assert again.to_json() == model.to_json()
        assert [w.path for w in again.weights] == [w.path for w in model.weights]


@pytest.mark.parametrize("pair", ["mlp", "conv", "mu_vae", "wae"])
def test_half_precision(pair, float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    model = auto_encoder(*PAIRS[pair])
    out = model.predict_on_batch(np.ones((2, *model.input_shape[1:]), "float32"))
    assert out.dtype == "float16"
    assert np.all(np.isfinite(out))
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.weights} == {"float32"}


@pytest.mark.parametrize("kind", ["mlp", "conv", "mu_vae", "wae"])
@pytest.mark.parametrize(
    "likelihood", ["bernoulli", Gaussian(scale="decoder"), Categorical(num_classes=5)]
)
def test_decoder_fits_the_likelihood(kind, likelihood):
    likelihood = get_likelihood(likelihood)
    options = {"params_per_value": likelihood.params_per_value, "output_activation": None}
    if isinstance(likelihood, Categorical):
        options["num_classes"] = likelihood.num_classes
    if kind == "wae":
        options["filters"] = [4, 6]
    encoder, decoder = networks.make(kind, (8, 12, 2), LATENT_DIM, **options)
    assert decoder.output_shape == (None, *likelihood.params_shape((8, 12, 2)))
    assert decoder.input_shape == (None, LATENT_DIM)
    assert encoder.input_shape == (None, 8, 12, 2)
    assert len(encoder.output_shape) == 2
    assert (encoder.name, decoder.name) == ("encoder", "decoder")


@pytest.mark.parametrize("kind", ["mlp", "conv", "mu_vae", "wae"])
def test_output_activation_is_for_the_mean_alone(kind):
    make = getattr(networks, f"{kind}_decoder")
    options = {"filters": (4, 6)} if kind == "wae" else {}
    decoder = make(
        LATENT_DIM, (8, 8, 2), output_activation="sigmoid", params_per_value=2, **options
    )
    for weight in decoder.weights:
        weight.assign(np.full(weight.shape, 0.1))
    raw_logits = keras.Model(decoder.input, decoder.get_layer("raw").output)
    z = np.ones((1, LATENT_DIM), "float32")
    mean, raw = np.split(decoder.predict_on_batch(z), 2, axis=-1)
    np.testing.assert_allclose(raw, raw_logits.predict_on_batch(z), rtol=1e-6)
    # Equal weights make both halves of equal logits.
    np.testing.assert_allclose(mean, 1 / (1 + np.exp(-raw)), rtol=1e-5)
    assert raw.max() > 0


@pytest.mark.parametrize("pair", ["mlp", "conv", "mu_vae", "wae"])
def test_skip_reaches_every_layer_but_the_first(pair):
    kind, shape, options = PAIRS[pair]
    decoder = networks.make(kind, shape, LATENT_DIM, **options)[1]
    plain = networks.make(kind, shape, LATENT_DIM, **{**options, "skip": False})[1]
    skips = [layer for layer in decoder.layers if isinstance(layer, LatentSkip)]
    layers = (keras.layers.Dense, keras.layers.Conv2DTranspose)
    assert len(skips) == sum(isinstance(layer, layers) for layer in plain.layers) - 1
    added = sum(LATENT_DIM * layer.kernel.shape[1] for layer in skips)
    assert decoder.count_params() == plain.count_params() + added
    assert decoder.output_shape == plain.output_shape


@pytest.mark.parametrize("kind", ["conv", "mu_vae", "wae"])
def test_channels_stay_last_whatever_the_global_format(kind):
    options = {"filters": [4, 6]} if kind == "wae" else {}
    keras.config.set_image_data_format("channels_first")
    try:
        encoder, decoder = networks.make(kind, (16, 16, 3), LATENT_DIM, **options)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert encoder.input_shape == decoder.output_shape == (None, 16, 16, 3)
    formats = {getattr(la, "data_format", "channels_last") for la in decoder.layers}
    assert formats == {"channels_last"}


IMAGE_NETWORKS = [f"{kind}_{part}" for kind in ("conv", "mu_vae", "wae") for part in ("en", "de")]


def call(network, shape, **options):
    function = getattr(networks, f"{network}coder")
    return function(shape, **options) if network.endswith("en") else function(4, shape, **options)


@pytest.mark.parametrize("network", IMAGE_NETWORKS)
@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 0), (None, 28, 1), (28.0, 28, 1), 784])
def test_shapes_that_are_no_image_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\), three") as error:
        call(network, shape)
    assert f"_shape={shape!r}" in str(error.value)


@pytest.mark.parametrize("kind", ["mlp", "conv", "mu_vae", "wae"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "`latent_dim` must be a positive integer. Received: latent_dim=0"),
        ({"latent_dim": 2.5}, "`latent_dim` must be .* latent_dim=2.5"),
        ({"latent_dim": True}, "`latent_dim` must be .* latent_dim=True"),
        ({"params_per_value": 0}, "`params_per_value` must be .* params_per_value=0"),
        (
            {"num_classes": 1},
            "`num_classes` must be an integer of at least 2 or None. .* num_classes=1",
        ),
        (
            {"num_classes": 4, "output_activation": "tanh"},
            "`output_activation` None when `num_classes` is given.*output_activation='tanh'",
        ),
        (
            {"num_classes": 4, "output_activation": None, "params_per_value": 2},
            "`params_per_value` must be 1 and .* num_classes=4, params_per_value=2",
        ),
    ],
)
def test_decoder_arguments_out_of_range_are_refused(kind, options, message):
    arguments = {"latent_dim": 4, "output_shape": (16, 16, 3), **options}
    with pytest.raises(ValueError, match=message):
        getattr(networks, f"{kind}_decoder")(**arguments)
