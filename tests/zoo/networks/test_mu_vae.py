import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import GaussianHead
from vaezoo.zoo.networks import mu_vae_classifier, mu_vae_decoder, mu_vae_encoder


@pytest.fixture(scope="module")
def pair():
    keras.utils.set_random_seed(1)
    return mu_vae_encoder(), mu_vae_decoder()


def test_published_parameter_counts(pair):
    encoder, decoder = pair
    head = GaussianHead(10)
    head.build(encoder.output_shape)
    assert encoder.count_params() + head.count_params() == 137_236
    assert encoder.count_params() == 74_496
    assert decoder.count_params() == 90_177
    assert mu_vae_classifier().count_params() == 2_120_714


def test_feature_maps_are_those_of_the_paper(pair):
    encoder, decoder = pair
    maps = [encoder.get_layer(f"conv_{n}").output.shape[1:] for n in (1, 2, 3)]
    assert maps == [(28, 28, 64), (14, 14, 64), (7, 7, 64)]
    names = ("dense", "reshape", "deconv_1", "deconv_2", "params")
    maps = [decoder.get_layer(name).output.shape[1:] for name in names]
    assert maps == [(3136,), (7, 7, 64), (7, 7, 64), (14, 14, 32), (28, 28, 1)]


def test_activations(pair):
    encoder, decoder = pair
    layers = [*encoder.layers[1:4], decoder.get_layer("dense"), decoder.get_layer("deconv_2")]
    for layer in layers:
        slope = ops.convert_to_numpy(layer.activation(np.array([-1.0, 2.0], "float32")))
        np.testing.assert_allclose(slope, [-0.2, 2.0], rtol=1e-6)
    assert decoder.get_layer("params").activation is keras.activations.sigmoid
    logits = mu_vae_decoder(output_activation=None).get_layer("params")
    assert logits.activation is keras.activations.linear


@pytest.mark.parametrize(
    ("part", "name", "fan_in"),
    [
        ("encoder", "conv_1", 9),
        ("encoder", "conv_3", 9 * 64),
        ("decoder", "dense", 10),
        ("decoder", "deconv_2", 9 * 64),
        # The paper's example: a 3x3x32 kernel has standard deviation 0.0833.
        ("decoder", "params", 9 * 32),
    ],
)
def test_kernels_start_from_an_untruncated_he_gaussian(pair, part, name, fan_in):
    kernel = ops.convert_to_numpy(pair[part == "decoder"].get_layer(name).kernel)
    expected = np.sqrt(2.0 / fan_in)
    error = expected / np.sqrt(2.0 * kernel.size)
    assert abs(np.sqrt(np.mean(kernel**2)) - expected) < 4 * error
    if kernel.size > 10_000:
        # A Gaussian cut at two deviations would end at 2.3.
        assert np.abs(kernel).max() > 3.0 * expected


def test_classifier_returns_probabilities():
    z = np.random.default_rng(0).normal(size=(5, 10)).astype("float32")
    p = mu_vae_classifier(num_classes=4).predict_on_batch(z)
    assert p.shape == (5, 4)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
    logits = mu_vae_classifier(num_classes=4, output_activation=None).layers[-1]
    assert logits.activation is keras.activations.linear


@pytest.mark.parametrize("shape", [(30, 28, 1), (28, 105, 3)])
def test_sizes_that_do_not_halve_twice_are_refused(shape):
    message = "`{}_shape` must have a height and width that are multiples of 4.*'conv'.*{}"
    text = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=message.format("input", text)):
        mu_vae_encoder(shape)
    with pytest.raises(ValueError, match=message.format("output", text)):
        mu_vae_decoder(10, shape)


def test_classifier_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`latent_dim` must be a positive .* latent_dim=-1"):
        mu_vae_classifier(latent_dim=-1)
    with pytest.raises(ValueError, match="`num_classes` must be .* at least 2.* num_classes=1"):
        mu_vae_classifier(num_classes=1)
