import functools

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import compiled
from vaezoo.layers.weight_normalization import awaits_initialization
from vaezoo.zoo.networks.densenet import GaussianFeatures, densenet_encoder

TINY = {"input_shape": (8, 4, 2), "growth": (2, 3), "steps": (1, 2), "latent_channels": 3}


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def convolution(inputs, outputs, area=1):
    """Kernel, bias and gain."""
    return area * inputs * outputs + 2 * outputs


def expected_parameters(channels, growth, steps, latent_channels):
    total = 0
    for block, (width, count) in enumerate(zip(growth, steps, strict=True)):
        if block:
            total += convolution(channels, channels, 9)
        for _ in range(count):
            total += convolution(channels, 4 * width) + convolution(4 * width, width, 9)
            channels += width
    total += convolution(channels, channels // 2)
    return total + convolution(channels // 2, 2 * latent_channels)


@functools.cache
def tiny():
    """Made within a test, so that JAX does not compile the draws of its kernels."""
    return densenet_encoder(**TINY)


def outputs(model, names, x):
    """Outputs of layers of a functional model, as NumPy arrays."""
    part = keras.Model(model.input, [model.get_layer(name).output for name in names])
    values = keras.tree.flatten(compiled(part, lambda x: part(x))(x))
    return [ops.convert_to_numpy(value) for value in values]


@pytest.mark.large_on_jax
def test_default_encoder_has_the_published_shapes_and_size():
    encoder = densenet_encoder()
    assert encoder.output_shape == (None, 2 * 8 * 8 * 16)
    sizes = [
        encoder.get_layer(f"block_{block}_step_{steps}_elu_2").output.shape[1:]
        for block, steps in ((1, 3), (2, 3), (3, 6))
    ]
    assert sizes == [(32, 32, 48), (16, 16, 96), (8, 8, 192)]
    assert encoder.get_layer("elu").output.shape[1:] == (8, 8, 96)
    expected = expected_parameters(3, (15, 16, 16), (3, 3, 6), 16)
    assert trainable(encoder) == expected == 302_614


def test_size_by_hand():
    # 2 -> 8 -> 2 maps, stacked 4; 4 -> 4 with stride; 4 -> 12 -> 3 and 7 -> 12 -> 3; 10 -> 5 -> 6.
    by_hand = (2 * 8 + 16) + (72 * 2 + 4) + (36 * 4 + 8) + (4 * 12 + 24) + (108 * 3 + 6)
    by_hand += (7 * 12 + 24) + (108 * 3 + 6) + (10 * 5 + 10) + (5 * 6 + 12)
    assert trainable(tiny()) == by_hand == expected_parameters(2, (2, 3), (1, 2), 3)


def test_features_are_the_mean_then_the_log_variance_by_row_column_and_channel():
    x = np.random.default_rng(0).random((3, 8, 4, 2)).astype("float32")
    maps, features = outputs(tiny(), ("maps", "features"), x)
    assert maps.shape == (3, 4, 2, 6)
    mean, log_var = maps[..., :3].reshape(3, -1), maps[..., 3:].reshape(3, -1)
    np.testing.assert_allclose(features[:, :24], mean, rtol=1e-6)
    np.testing.assert_allclose(features[:, 24:], np.clip(log_var, -7.0, 7.0), rtol=1e-6)


def test_log_variance_alone_is_clamped():
    maps = np.float32([[[[9.0, -9.0, 9.0, -9.0], [1.0, 2.0, 3.0, 4.0]]]])
    expected = [[9.0, -9.0, 1.0, 2.0, 7.0, -7.0, 3.0, 4.0]]
    np.testing.assert_array_equal(GaussianFeatures()(maps), expected)
    clamped = GaussianFeatures(2.5)(maps)
    np.testing.assert_array_equal(clamped[:, 4:], [[2.5, -2.5, 2.5, 2.5]])


def test_a_step_stacks_its_maps_on_its_input():
    x = np.random.default_rng(1).random((2, 8, 4, 2)).astype("float32")
    step = "block_1_step_1"
    names = ("to_unit_range", f"{step}_conv_2", f"{step}_stack", f"{step}_elu_2")
    scaled, new, stack, activated = outputs(tiny(), names, x)
    np.testing.assert_allclose(scaled, 2.0 * x - 1.0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stack, np.concatenate([scaled, new], axis=-1), rtol=1e-6)
    elu = np.where(stack > 0.0, stack, np.expm1(stack))
    np.testing.assert_allclose(activated, elu, rtol=1e-5, atol=1e-6)


def test_windows_of_stride_2_are_centered_on_even_pixels():
    x = np.random.default_rng(3).random((2, 8, 4, 2)).astype("float32")
    before, after = outputs(tiny(), ("block_1_step_1_elu_2", "down_2"), x)
    kernel = ops.convert_to_numpy(tiny().get_layer("down_2").kernel)
    around = np.pad(before, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i, j in ((0, 0), (1, 1), (3, 0)):
        window = around[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected = np.einsum("nabc,abco->no", window, kernel)
        np.testing.assert_allclose(after[:, i, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.large_on_jax
def test_first_batch_standardizes_the_maps(see_first_batch):
    encoder = densenet_encoder(**TINY)
    x = np.random.default_rng(2).random((32, 8, 4, 2)).astype("float32")
    assert awaits_initialization(encoder)
    see_first_batch(encoder, x)
    assert not awaits_initialization(encoder)
    (maps,) = outputs(encoder, ("maps",), x)
    np.testing.assert_allclose(maps.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(maps.std(axis=(0, 1, 2)), 1.0, rtol=1e-4)


@pytest.mark.large_on_jax
def test_saves_and_reloads(tmp_path):
    tiny().save(tmp_path / "encoder.keras")
    reloaded = keras.models.load_model(tmp_path / "encoder.keras")
    assert reloaded.get_layer("features").limit == 7.0
    for before, after in zip(tiny().weights, reloaded.weights, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (8, 5, 2)}, "`input_shape` must have.*multiples of 2.*8, 5, 2"),
        ({"input_shape": (8, 4)}, r"`input_shape` must be \(height, width, channels\)"),
        ({"growth": (2,)}, r"`growth` and `steps` must have one entry.*growth=\(2,\)"),
        ({"growth": (2, 0)}, "`growth` must be a non-empty sequence"),
        ({"steps": ()}, "`steps` must be a non-empty sequence"),
        ({"latent_channels": 0}, "`latent_channels` must be a positive integer.*=0"),
        (
            {"max_log_var": 0.0},
            "`max_log_var` must be a finite, positive number. Received: max_log_var=0.0",
        ),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        densenet_encoder(**{**TINY, **changes})
