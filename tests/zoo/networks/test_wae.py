import math

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import GaussianHead
from vaezoo.zoo.networks import UntrainedBatchNormalization, wae_decoder, wae_encoder
from vaezoo.zoo.networks.common import BatchNormalization


def count(weights):
    return sum(math.prod(weight.shape) for weight in weights)


@pytest.fixture(scope="module")
def pair():
    return wae_encoder(), wae_decoder()


@pytest.fixture(scope="module")
def narrow():
    keras.utils.set_random_seed(1)
    filters = {"filters": (32, 64)}
    return wae_encoder((8, 8, 3), **filters), wae_decoder(4, (8, 8, 3), **filters)


@pytest.mark.one_backend
def test_published_parameter_counts(pair):
    encoder, decoder = pair
    mean_and_scale = GaussianHead(64)
    mean_and_scale.build(encoder.output_shape)
    heads = mean_and_scale.count_params()
    assert count(encoder.trainable_weights) + heads == 19_313_920
    assert count(encoder.trainable_weights) == 17_216_640
    assert count(encoder.non_trainable_weights) == 3_840
    assert count(decoder.trainable_weights) == 21_539_968
    assert count(decoder.non_trainable_weights) == 132_864


@pytest.mark.one_backend
def test_feature_maps_are_those_of_the_paper(pair):
    encoder, decoder = pair
    maps = [encoder.get_layer(f"conv_{n}").output.shape[1:] for n in (1, 2, 3, 4)]
    assert maps == [(32, 32, 128), (16, 16, 256), (8, 8, 512), (4, 4, 1024)]
    names = ("dense", "reshape", "deconv_1", "deconv_2", "deconv_3", "params")
    maps = [decoder.get_layer(name).output.shape[1:] for name in names]
    assert maps[0] == (65_536,)
    assert maps[1:4] == [(8, 8, 1024), (16, 16, 512), (32, 32, 256)]
    assert maps[4:] == [(64, 64, 128), (64, 64, 3)]
    assert decoder.get_layer("params").activation is keras.activations.tanh


def test_kernels_start_from_an_untruncated_gaussian(narrow):
    encoder, decoder = narrow
    layers = [encoder.get_layer("conv_2"), decoder.get_layer("dense"), decoder.get_layer("params")]
    for layer in layers:
        kernel = ops.convert_to_numpy(layer.kernel)
        assert abs(np.sqrt(np.mean(kernel**2)) - 0.02) < 4 * 0.02 / np.sqrt(2 * kernel.size)
        assert np.abs(kernel).max() > 0.06
        assert not layer.use_bias


def test_affine_is_the_same_map_in_training_and_inference():
    layer = UntrainedBatchNormalization()
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(8, 2, 2, 3)).astype("float32")
    layer.build(x.shape)
    layer.gamma.assign([1.0, 2.0, -1.0])
    layer.beta.assign([0.0, 1.0, 0.5])
    expected = x * np.array([1.0, 2.0, -1.0]) / np.sqrt(1.001) + np.array([0.0, 1.0, 0.5])
    for training in (True, False):
        out = ops.convert_to_numpy(layer(x, training=training))
        np.testing.assert_allclose(out, expected, rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.moving_mean), 0.0)


def test_batch_norm_chooses_the_layer():
    for batch_norm, kind in (
        ("real", BatchNormalization),
        ("affine", UntrainedBatchNormalization),
    ):
        encoder = wae_encoder((8, 8, 3), filters=(4, 6), batch_norm=batch_norm)
        decoder = wae_decoder(2, (8, 8, 3), filters=(6, 4), batch_norm=batch_norm)
        for model in (encoder, decoder):
            norms = [layer for layer in model.layers if "batch_norm" in layer.name]
            assert [type(layer) for layer in norms] == [kind, kind]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (28, 28, 1)}, r"multiples of {}; the 'conv' .*=\(28, 28, 1\)"),
        ({"batch_norm": "none"}, "`batch_norm` must be one of 'real', 'affine'. .*'none'"),
        ({"filters": (0,)}, r"`filters` must be a non-empty sequence .* filters=\(0,\)"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    arguments = {"shape": (64, 64, 3), **arguments}
    shape = arguments.pop("shape")
    with pytest.raises(ValueError, match=message.format(16)):
        wae_encoder(shape, **arguments)
    with pytest.raises(ValueError, match=message.format(8)):
        wae_decoder(64, shape, **arguments)
