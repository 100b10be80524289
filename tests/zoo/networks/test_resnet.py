import numpy as np
import pytest
from keras import Model, ops

from vaezoo import zoo
from vaezoo.layers import GaussianHead
from vaezoo.layers.weight_normalization import (
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    awaits_initialization,
    initialize_from_data,
)
from vaezoo.zoo.networks.resnet import resnet_decoder, resnet_encoder


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def values(model, layer, x):
    """Outputs of a layer of a functional model."""
    part = Model(model.input, model.get_layer(layer).output)
    return ops.convert_to_numpy(part(x))


@pytest.fixture(scope="module")
def omniglot_encoder():
    return resnet_encoder()


def test_encoder_under_batch_normalization_has_the_published_size(omniglot_encoder):
    head = GaussianHead(32)
    head(omniglot_encoder.output)
    # 3x3 convolutions, shortcuts, the 4x4 one; two values a channel of 3 * 3 * 64 and 512.
    convolutions = 9 * 64 * (1 + 5 * 64) + 64 * (1 + 64 + 64) + 16 * 64 * 512
    assert trainable(omniglot_encoder) == convolutions + 2 * (9 * 64 + 512) == 719_616
    assert trainable(omniglot_encoder) + trainable(head) == 752_448
    assert omniglot_encoder.output_shape == (None, 512)
    sizes = [omniglot_encoder.get_layer(f"block_{n}_sum").output.shape[1:] for n in (1, 2, 3)]
    assert sizes == [(14, 14, 64), (7, 7, 64), (4, 4, 64)]


def test_encoder_starts_as_published(omniglot_encoder):
    for layer, outputs in (
        ("block_2_conv_1", 9 * 64),
        ("block_3_shortcut", 64),
        ("conv", 16 * 512),
    ):
        kernel = ops.convert_to_numpy(omniglot_encoder.get_layer(layer).kernel)
        # The standard error of a standard deviation is 1 / sqrt(2 n) of it.
        tolerance = 5 / np.sqrt(2 * kernel.size)
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / outputs), rtol=tolerance)
        assert omniglot_encoder.get_layer(layer).bias is None
    norm = omniglot_encoder.get_layer("block_1_shortcut_norm")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)
    np.testing.assert_array_equal(norm.gamma, np.ones(64))
    np.testing.assert_array_equal(norm.beta, np.zeros(64))


def test_networks_under_weight_normalization_have_the_published_size():
    encoder = resnet_encoder(filters=(32, 64, 64), normalization="weight")
    # Published with a head of 512 * 64 directions, 64 gains and 64 biases.
    assert trainable(encoder) == 703_872 - (512 * 64 + 64 + 64) == 670_976
    decoder = resnet_decoder(32, (28, 28, 1))
    weights = 16 * 32 * 64 + (2 * 9 + 1) * 64 * 64 + (9 + 1) * 64 * 32 + 9 * 32 * 32
    weights += (9 + 1) * 32 + 9
    assert trainable(decoder) == weights + 2 * (64 + 3 * 64 + 3 * 32 + 3) == 141_327
    sizes = [decoder.get_layer(name).output.shape[1:] for name in ("elu", "block_1", "block_2")]
    assert sizes == [(4, 4, 64), (7, 7, 64), (14, 14, 32)]
    assert decoder.output_shape == (None, 28, 28, 1)
    assert decoder.layers[-1].name == "params"


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 13, 2), (7, 5, 3), (1, 1, 2)])
@pytest.mark.parametrize("filters", [(3,), (2, 3, 4)])
def test_any_size_goes_there_and_back(shape, filters):
    encoder = resnet_encoder(shape, filters, features=6, normalization=None)
    decoder = resnet_decoder(2, shape, filters[::-1], normalization=None)
    assert encoder.output_shape == (None, 6)
    assert encoder.input_shape == decoder.output_shape == (None, *shape)


def test_an_even_size_is_padded_on_all_sides():
    encoder = resnet_encoder((4, 6, 1), (1,), features=1, normalization=None)
    x = np.random.default_rng(0).random((1, 4, 6, 1), "float32")
    padded = np.pad(x[0, :, :, 0], 1)
    kernel = ops.convert_to_numpy(encoder.get_layer("block_1_conv_1").kernel)[:, :, 0, 0]
    expected = [
        [(padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * kernel).sum() for j in range(3)]
        for i in range(2)
    ]
    found = values(encoder, "block_1_conv_1", x)[0, :, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    shortcut = ops.convert_to_numpy(encoder.get_layer("block_1_shortcut").kernel)[0, 0, 0, 0]
    found = values(encoder, "block_1_shortcut", x)
    np.testing.assert_allclose(found, shortcut * x[:, ::2, ::2], rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 6, 1), (6, 5, 1)])
def test_transposed_kernels_are_centered_on_every_second_pixel(shape):
    decoder = resnet_decoder(2, shape, (1,), normalization=None)
    z = np.array([[0.7, -1.3]], "float32")
    code = values(decoder, "params_elu_1", z)[0, :, :, 0]
    assert code.shape == (3, 3)
    kernel = ops.convert_to_numpy(decoder.get_layer("params_deconv_1").kernel)[:, :, 0, 0]
    # One pixel more on each side than can be reached.
    expected, shortcut = np.zeros((8, 8)), np.zeros((8, 8))
    for i, j in np.ndindex(3, 3):
        expected[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += code[i, j] * kernel
        shortcut[2 * i + 1, 2 * j + 1] = code[i, j]
    window = (slice(1, 1 + shape[0]), slice(1, 1 + shape[1]))
    # What follows the cut layers.
    np.testing.assert_allclose(
        values(decoder, "params_elu_2", z)[0, :, :, 0],
        np.where(expected > 0, expected, np.expm1(expected))[window],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    weight = ops.convert_to_numpy(decoder.get_layer("params_shortcut").kernel)[0, 0, 0, 0]
    second = values(decoder, "params_deconv_2", z)[0, :, :, 0]
    np.testing.assert_allclose(
        ops.convert_to_numpy(decoder(z))[0, :, :, 0], second + weight * shortcut[window],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


@pytest.mark.one_backend
def test_weight_normalized_layers_are_initialized_from_data():
    rng = np.random.default_rng(0)
    encoder = resnet_encoder((9, 9, 1), (3, 4), features=5, normalization="weight")
    decoder = resnet_decoder(3, (9, 9, 1), (4, 3))
    for model, data in (
        (encoder, rng.random((40, 9, 9, 1), "float32")),
        (decoder, rng.normal(size=(40, 3)).astype("float32")),
    ):
        assert awaits_initialization(model)
        with initialize_from_data():
            model(data)
        assert not awaits_initialization(model)
        convolutions = [
            layer
            for layer in model.layers
            if isinstance(layer, (WeightNormConv2D, WeightNormConv2DTranspose))
        ]
        assert len(convolutions) == 7
        every = Model(model.input, [layer.output for layer in convolutions])(data)
        for outputs in map(ops.convert_to_numpy, every):
            np.testing.assert_allclose(outputs.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
            np.testing.assert_allclose(outputs.std(axis=(0, 1, 2)), 1.0, rtol=1e-3)


@pytest.mark.large
@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_a_step_reaches_every_weight(normalization):
    model = zoo.VAE(
        resnet_encoder((5, 5, 2), (3, 4), 6, normalization),
        resnet_decoder(2, (5, 5, 2), (4, 3), normalization),
        latent_dim=2,
    )
    # Two channels: the direction of a kernel of a single weight has no gradient.
    x = (np.random.default_rng(0).random((12, 5, 5, 2)) < 0.5).astype("float32")
    model.build(x.shape)
    model.compile("sgd")
    model.fit(x, batch_size=12, verbose=0)
    before = [np.array(ops.convert_to_numpy(v.value)) for v in model.trainable_variables]
    assert np.isfinite(model.fit(x, batch_size=12, verbose=0).history["loss"][0])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, ops.convert_to_numpy(variable.value)), variable.path


@pytest.mark.large
def test_outputs_for_the_likelihoods():
    def decoder(**options):
        return resnet_decoder(2, (4, 5, 3), (2,), **options)

    assert decoder(params_per_value=2).output_shape == (None, 4, 5, 6)
    assert decoder(num_classes=7).output_shape == (None, 4, 5, 3, 7)
    z = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    params = decoder(params_per_value=2, output_activation="sigmoid")
    means = ops.convert_to_numpy(params(z))[..., :3]
    raw = values(params, "mean", z)
    np.testing.assert_allclose(means, 1 / (1 + np.exp(-raw)), rtol=1e-5)
    skips = decoder(skip=True)
    assert skips.output_shape == (None, 4, 5, 3)
    assert trainable(skips) == trainable(decoder()) + 3 * 2 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": ()}, r"`filters` must be a non-empty sequence of .* filters=\(\)"),
        (
            {"normalization": "layer"},
            "`normalization` .*'batch', 'weight', None. Received: normalization='layer'",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        resnet_encoder((8, 8, 1), **arguments)
    with pytest.raises(ValueError, match=message):
        resnet_decoder(2, (8, 8, 1), **arguments)


def test_what_only_one_of_them_takes():
    with pytest.raises(ValueError, match="`features` must be a positive integer. .* features=0"):
        resnet_encoder((8, 8, 1), features=0)
    with pytest.raises(
        ValueError, match="`latent_dim` must be a positive integer. .* latent_dim=0"
    ):
        resnet_decoder(0, (8, 8, 1))
    with pytest.raises(ValueError, match=r"`input_shape` must be \(height, width, channels\)"):
        resnet_encoder((8, 8))
    with pytest.raises(ValueError, match=r"`output_shape` must be \(height, width, channels\)"):
        resnet_decoder(2, (8, 8))
    with pytest.raises(ValueError, match="`params_per_value` must be 1"):
        resnet_decoder(2, (8, 8, 1), num_classes=3, params_per_value=2)
