import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import (
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
    awaits_initialization,
    initialize_from_data,
    normalized_kernel,
)

LAYERS = {
    "dense": lambda **options: WeightNormDense(5, **options),
    "conv": lambda **options: WeightNormConv2D(5, 3, strides=2, **options),
    "transposed": lambda **options: WeightNormConv2DTranspose(5, 3, strides=2, **options),
}


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(2.0, 3.0, (64, 6, 7, 3)).astype("float32")


@pytest.fixture(params=LAYERS)
def make(request):
    keras.utils.set_random_seed(0)
    return LAYERS[request.param]


def statistics(outputs):
    outputs = ops.convert_to_numpy(outputs)
    flat = outputs.reshape(-1, outputs.shape[-1])
    return flat.mean(axis=0), flat.std(axis=0)


@pytest.mark.large_on_jax
def test_kernel_has_the_length_of_its_gain(make, images):
    layer = make()
    layer(images)
    layer.log_gain.assign(np.log([1.0, 2.0, 0.5, 1.0, 3.0]))
    axes = {4: (0, 1, 2), 2: (0,)}[len(layer.kernel.shape)]
    kernel = ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, WeightNormConv2DTranspose):
        kernel = np.swapaxes(kernel, 2, 3)
    lengths = np.sqrt(np.sum(kernel**2, axis=axes))
    np.testing.assert_allclose(lengths, [1.0, 2.0, 0.5, 1.0, 3.0], rtol=1e-5)


def test_layer_is_the_keras_layer_of_its_kernel(make, images):
    layer = make(activation="elu")
    ours = layer(images)
    config = layer.get_config()
    config.pop("init_scale"), config.pop("symmetric", None)
    bases = (base for base in type(layer).__mro__ if base.__module__.startswith("keras"))
    plain = next(bases).from_config(config)
    plain.build(images.shape)
    plain.set_weights([layer.kernel, layer.bias])
    np.testing.assert_allclose(ours, plain(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kind", [WeightNormConv2D, WeightNormConv2DTranspose])
def test_symmetric_windows_have_equal_margins(images, kind, strides):
    images = images[:2]
    layer = kind(5, 3, strides=strides, padding="same", symmetric=True, activation="relu")
    layer.build(images.shape)
    layer.bias.assign(np.arange(5.0) - 2.0)
    kernel = ops.convert_to_numpy(layer.kernel)
    if kind is WeightNormConv2D:
        size = (-(-6 // strides), -(-7 // strides))
        around = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        expected = np.zeros((2, *size, 5))
        for i, j in np.ndindex(*size):
            window = around[:, strides * i : strides * i + 3, strides * j : strides * j + 3]
            expected[:, i, j] = np.einsum("nabc,abco->no", window, kernel)
    else:
        size = (6 * strides, 7 * strides)
        expected = np.zeros((2, size[0] + 2, size[1] + 2, 5))
        for i, j in np.ndindex(6, 7):
            part = np.einsum("nc,aboc->nabo", images[:, i, j], kernel)
            expected[:, strides * i : strides * i + 3, strides * j : strides * j + 3] += part
        expected = expected[:, 1 : size[0] + 1, 1 : size[1] + 1]
    assert tuple(layer.compute_output_shape(images.shape)) == (2, *size, 5)
    expected = np.maximum(expected + np.arange(5.0) - 2.0, 0.0)
    np.testing.assert_allclose(layer(images), expected, rtol=1e-4, atol=1e-4)
    assert type(layer).from_config(layer.get_config()).symmetric


def test_symmetric_windows_are_standardized_as_they_are(images):
    layer = WeightNormConv2DTranspose(5, 3, strides=2, padding="same", symmetric=True)
    with initialize_from_data():
        layer(images)
    mean, std = statistics(layer(images))
    np.testing.assert_allclose(mean, 0.0, atol=1e-4)
    np.testing.assert_allclose(std, 1.0, rtol=1e-3)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
        {"kernel_size": 3, "padding": "same", "data_format": "channels_first"},
    ],
)
def test_symmetric_windows_need_a_center(options):
    with pytest.raises(ValueError, match="`symmetric` needs kernels of odd sizes"):
        WeightNormConv2D(2, symmetric=True, **options)


@pytest.mark.parametrize("init_scale", [1.0, 0.1])
def test_first_batch_standardizes_the_outputs(make, images, init_scale):
    layer = make(init_scale=init_scale)
    with initialize_from_data():
        during = layer(images)
    mean, std = statistics(during)
    np.testing.assert_allclose(mean, 0.0, atol=1e-5)
    np.testing.assert_allclose(std, init_scale, rtol=1e-4)
    np.testing.assert_allclose(layer(images), during, atol=1e-5)


def test_layers_behind_see_initialized_ones(images):
    model = keras.Sequential(
        [keras.Input((6, 7, 3)), LAYERS["conv"](activation="elu"), LAYERS["transposed"]()]
    )
    assert awaits_initialization(model)
    with initialize_from_data():
        model(images)
    assert not awaits_initialization(model)
    mean, std = statistics(model(images))
    np.testing.assert_allclose(mean, 0.0, atol=1e-5)
    np.testing.assert_allclose(std, 1.0, rtol=1e-4)


def test_constant_outputs_keep_their_gain():
    layer = WeightNormDense(2)
    with initialize_from_data():
        layer(np.ones((4, 3), "float32"))
    np.testing.assert_allclose(layer.log_gain, 0.0)
    np.testing.assert_allclose(layer(np.ones((4, 3), "float32")), 0.0, atol=1e-6)


def test_norm_of_nothing_is_differentiable():
    zero = np.zeros((3, 2), "float32")
    np.testing.assert_array_equal(normalized_kernel(zero, np.zeros(2, "float32")), zero)


def test_reloaded_layer_keeps_gains_and_remembers_its_batch(make, images, tmp_path):
    x = keras.Input((6, 7, 3))
    model = keras.Model(x, make()(x))
    with initialize_from_data():
        model(images)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))
    assert not awaits_initialization(again)


def test_direction_and_gain_train_and_the_flag_does_not(make, images):
    layer = make()
    layer(images)
    names = [variable.name for variable in layer.trainable_variables]
    assert sorted(names) == ["bias", "kernel", "log_gain"]


def test_error_names_the_value():
    with pytest.raises(
        ValueError, match="`init_scale` must be a finite, positive number. Received: init_scale=0"
    ):
        WeightNormDense(2, init_scale=0)
