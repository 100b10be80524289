import functools

import keras
import numpy as np
import pytest
from keras import ops

from helpers import pixelcnn_pp
from vaezoo.core.compile import compiled
from vaezoo.layers.logistic_mixture import DiscretizedLogisticMixture
from vaezoo.layers.masked_conv import ShiftedConv2D
from vaezoo.layers.weight_normalization import (
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    awaits_initialization,
)
from vaezoo.zoo.networks.pixelcnn_pp import PixelCNNPlusPlus

HEIGHT, WIDTH = SHAPE = (8, 4)
LATENT_DIM = 4
OPTIONS = {
    "latent_dim": LATENT_DIM,
    "output_shape": (*SHAPE, 3),
    "latent_shape": (2, 1, 2),
    "filters": 3,
    "units_per_level": 1,
    "levels": 2,
    "num_mixtures": 2,
    "condition_filters": 2,
}
FIELDS = ("full", "small")


#: Images at once, everywhere: each number of them is compiled anew on JAX.
BATCH = HEIGHT * WIDTH + 2


@pytest.fixture
def decoder(see_first_batch):
    """`decoder(field)`: one whose layers have seen a first batch; for reading only."""

    def get(field):
        made = _made(field)
        if awaits_initialization(made):
            see_first_batch(made, *codes_and_images(BATCH))
        return made

    return get


@functools.cache
def _made(field):
    keras.utils.set_random_seed(1)
    made = PixelCNNPlusPlus(**OPTIONS, field=field, name="decoder")
    made.build((None, LATENT_DIM), (None, *SHAPE, 3))
    return made


@functools.cache
def _function(field):
    made = _made(field)
    return compiled(made, lambda z, x: made(z, x))


def run(decoder, z, x):
    """The parameters as a NumPy array."""
    z, x = (np.resize(values, (BATCH, *values.shape[1:])) for values in (z, x))
    return ops.convert_to_numpy(_function(decoder.field)(z, x))


def codes_and_images(count, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, LATENT_DIM))
    return z.astype("float32"), rng.random((count, *SHAPE, 3)).astype("float32")


def trainable(layer):
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


def convolution(inputs, outputs, area=1):
    """Kernel, bias and gain."""
    return area * inputs * outputs + 2 * outputs


def expected_parameters(field, filters, units, levels, codes, condition_filters, outputs):
    """Of images of three channels; `codes` are the channels of the code on its way to the image."""
    two = 2 * filters

    def stream(area):
        return 2 * convolution(two, filters, area) + convolution(two, two, area)

    def condition(maps):
        return convolution(2 * maps, filters, 9) + convolution(two, two, 9)

    total = sum(convolution(*pair, 9) for pair in zip(codes[:-1], codes[1:], strict=True))
    total += convolution(codes[-1], condition_filters)
    total += convolution(filters, filters) + convolution(filters, outputs)
    if field == "small":
        units *= levels
        return (
            total + convolution(3, filters, 35) + units * (stream(1) + condition(condition_filters))
        )
    total += sum(convolution(3, filters, area) for area in (6, 3, 2))
    resampling = convolution(filters, filters, 6) + convolution(filters, filters, 4)
    for level in range(levels):
        maps = condition_filters * 2**level
        unit = stream(6) + stream(4) + convolution(two, filters) + condition(maps)
        total += 2 * units * unit
        if level:
            total += 2 * resampling
            total += convolution(maps // 2, maps, 9) + convolution(maps, maps // 2, 9)
    skips = levels * units + levels - 2
    return total + 2 * skips * convolution(two, filters)


# -- what depends on what ------------------------------------------------------------------------


@functools.cache
def changes(decoder):
    """Largest change of each output s by a change of pixel t, `(t, s)`, and of the code, `(s,)`."""
    pixels = HEIGHT * WIDTH
    z, x = codes_and_images(1)
    codes, images = np.repeat(z, BATCH, axis=0), np.repeat(x, BATCH, axis=0)
    by_pixel = images.reshape(BATCH, pixels, 3)
    by_pixel[np.arange(pixels), np.arange(pixels)] = 1.0 - by_pixel[-1]
    codes[pixels] += 1.0
    params = run(decoder, codes, images).reshape(BATCH, pixels, -1)
    change = abs(params[:-1] - params[-1]).max(-1)
    return change[:-1], change[-1]


@pytest.mark.large
def test_full_field_sees_all_earlier_pixels_and_no_other(decoder):
    change, by_code = changes(decoder("full"))
    later = np.triu(np.ones_like(change, dtype=bool), 1)
    assert change[~later].max() <= 1e-6
    assert change[later].min() > 1e-6
    assert by_code.min() > 1e-4


@pytest.mark.large
def test_small_field_sees_two_rows_above_and_three_pixels_to_the_left(decoder):
    change, by_code = changes(decoder("small"))
    rows, columns = np.divmod(np.arange(HEIGHT * WIDTH), WIDTH)
    down, right = rows - rows[:, None], columns - columns[:, None]
    seen = ((down == 0) & (right > 0)) | ((down > 0) & (down <= 2))
    seen &= abs(right) <= 3
    assert change[~seen].max() <= 1e-6
    assert change[seen].min() > 1e-6
    assert by_code.min() > 1e-4


@pytest.mark.large
@pytest.mark.parametrize("field", FIELDS)
def test_gradient_by_later_pixels_is_zero(decoder, gradient, field):
    z, x = codes_and_images(1)
    network, position = decoder(field), 5 * WIDTH + 2

    def value(x):
        params = ops.reshape(network(z, x), (-1, HEIGHT * WIDTH, 20))
        return ops.sum(params[:, : position + 1])

    slopes = gradient(value, x).reshape(-1, 3)
    np.testing.assert_array_equal(slopes[position:], 0.0)
    assert (abs(slopes[position - 3 : position]).max(-1) > 0.0).all()


@pytest.mark.one_backend
@pytest.mark.large
@pytest.mark.parametrize("field", FIELDS)
def test_the_whole_network_is_that_written_in_numpy(decoder, field):
    made, (z, x) = decoder(field), codes_and_images(BATCH)
    for code in (z, 0.0 * z):
        got = ops.convert_to_numpy(run(made, code, x))
        expected = pixelcnn_pp.params(made, np.asarray(code[:3]), np.asarray(x[:3]))
        np.testing.assert_allclose(got[:3], expected, atol=1e-5)


@pytest.mark.large_on_jax
def test_dropout_is_for_training_alone(decoder):
    z, x = codes_and_images(2)
    calm = run(decoder("small"), z, x)[:2]
    noisy = ops.convert_to_numpy(decoder("small")(z, x, training=True))
    assert abs(noisy - calm).max() > 1e-3


# -- sampling ------------------------------------------------------------------------------------


@pytest.mark.large
def test_what_the_code_adds_starts_at_a_tenth(decoder):
    network = decoder("full")
    z, _ = codes_and_images(BATCH)
    maps = compiled(network, lambda z: network.core.conditions(network._maps(z)))(z)
    maps = [ops.convert_to_numpy(part) for part in maps if part is not None]
    assert len(maps) == 4
    for part in maps:
        np.testing.assert_allclose(part.std(axis=(0, 1, 2)), 0.1, rtol=1e-2)


@pytest.mark.one_backend
def test_windows_of_the_code_are_centered(decoder):
    layers = [layer for field in FIELDS for layer in decoder(field)._flatten_layers()]
    kinds = (WeightNormConv2D, WeightNormConv2DTranspose)
    strided = [layer for layer in layers if isinstance(layer, kinds) and layer.strides == (2, 2)]
    assert len(strided) == 2 * 2 + 2
    assert all(layer.symmetric for layer in strided)


@pytest.mark.large
def test_first_layers_add_zeros_beyond_the_borders():
    # The first pixel has nothing before it, so no first layer may reach it, not by its bias either.
    network = PixelCNNPlusPlus(**OPTIONS)
    network.build((None, LATENT_DIM), (None, *SHAPE, 3))
    z, x = codes_and_images(1)
    function = compiled(network, lambda z, x: network(z, x))
    before = ops.convert_to_numpy(function(z, x))
    core, reached = network.core, []
    for layer in (core.above, core.row_above, core.left):
        layer.bias.assign(np.ones(3))
        reached.append(abs(ops.convert_to_numpy(function(z, x)) - before).max(axis=(0, 3)) > 1e-6)
        layer.bias.assign(np.zeros(3))
    above, row_above, left = reached
    assert not np.any([above[0], row_above[0]])
    assert not left[:, 0].any()
    assert np.all([above[1:], row_above[1:]])
    assert left[:, 1:].all()


@pytest.mark.large
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.one_backend
def test_cached_sampling_is_that_by_full_passes(decoder, field):
    network = decoder(field)
    z, _ = codes_and_images(3, seed=5)
    noise = np.random.default_rng(6).random((3, *SHAPE, 4)).astype("float32")

    def draw(params, noise):
        # Without the rounding to levels, which may tip over.
        return ops.sigmoid(params[..., :3] + params[..., 3:6] * noise[..., :3])

    def both(z, noise):
        return network.generate(z, draw, noise), network.generate_by_full_passes(z, draw, noise)

    fast, slow = map(ops.convert_to_numpy, compiled(network, both)(z, noise))
    assert fast.shape == (3, *SHAPE, 3)
    assert fast.std(axis=(1, 2)).min() > 1e-2
    np.testing.assert_allclose(fast, slow, rtol=0.0, atol=2e-5)


@pytest.mark.large
@pytest.mark.one_backend
def test_draws_are_images_of_the_likelihood(decoder):
    likelihood, network = DiscretizedLogisticMixture(2), decoder("small")
    z, _ = codes_and_images(2, seed=7)
    noise = np.random.default_rng(8).random((2, *SHAPE, 4)).astype("float32")

    def generate(z, noise):
        return network.generate(z, likelihood.from_uniform, noise)

    images = ops.convert_to_numpy(compiled(network, generate)(z, noise))
    np.testing.assert_allclose(images * 255.0, np.round(images * 255.0), atol=1e-4)
    # What was drawn is what its own parameters give for that noise, but for ties of rounding.
    again = likelihood.from_uniform(run(network, z, images)[:2], noise)
    assert (abs(ops.convert_to_numpy(again) - images) < 1e-4).mean() > 0.98


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_size(field):
    expected = expected_parameters(field, 3, 1, 2, (2, 1, 1), 2, 20)
    assert trainable(_made(field)) == expected


def test_size_by_hand():
    # The window 35 * 3 -> 1; two units of 2 -> 1, 2 -> 1, 2 -> 2 and 4 -> 1, 2 -> 2 on 3x3; the
    # code 2 -> 2; 1 -> 1 and 1 -> 10.
    unit = (2 + 2) + (2 + 2) + (4 + 4) + (9 * 4 + 2) + (9 * 4 + 4)
    by_hand = (35 * 3 + 2) + 2 * unit + (4 + 4) + (1 + 2) + (10 + 20)
    assert by_hand == expected_parameters("small", 1, 2, 1, (2,), 2, 10)


def test_default_sizes_in_the_documentation():
    codes = (16, 8, 4)
    for field, size in (("full", 42_703_712), ("small", 7_851_968)):
        assert expected_parameters(field, 96, 6, 3, codes, 16, 100) == size
        assert f"{size:,}" in PixelCNNPlusPlus.__doc__


@pytest.mark.large_on_jax
@pytest.mark.parametrize("field", FIELDS)
def test_first_batch_standardizes_the_outputs_and_reaches_every_layer(decoder, field):
    assert not awaits_initialization(decoder(field))
    params = run(decoder(field), *codes_and_images(BATCH))
    np.testing.assert_allclose(params.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(params.std(axis=(0, 1, 2)), 1.0, rtol=1e-3)
    last = {layer.init_scale for layer in _last_layers(decoder(field), ShiftedConv2D)}
    conditions = {layer.init_scale for layer in _last_layers(decoder(field), WeightNormConv2D)}
    assert (last, conditions) == ({0.1}, {0.1})


def _last_layers(network, kind):
    layers = network._flatten_layers()
    return [layer for layer in layers if layer.name == "last" and isinstance(layer, kind)]


@pytest.mark.one_backend
def test_a_code_without_a_shape():
    options = {**OPTIONS, "latent_dim": 5, "latent_shape": None, "field": "small"}
    network = PixelCNNPlusPlus(**options)
    params = network(np.zeros((2, 5), "float32"), codes_and_images(2)[1])
    assert params.shape == (2, *SHAPE, 20)
    assert network.to_grid.units == 2 * 1 * 16


@pytest.mark.large
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.one_backend
def test_saves_and_reloads(decoder, field, tmp_path):
    code, image = keras.Input((LATENT_DIM,)), keras.Input((*SHAPE, 3))
    model = keras.Model([code, image], decoder(field)(code, image))
    assert model.output_shape == (None, *SHAPE, 20)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras").get_layer("decoder")
    assert reloaded.get_config() == decoder(field).get_config()
    for before, after in zip(decoder(field).weights, reloaded.weights, strict=True):
        np.testing.assert_array_equal(before, after)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 0}, "`latent_dim` must be a positive integer.*latent_dim=0"),
        ({"filters": 0}, "`filters` must be a positive integer.*filters=0"),
        ({"units_per_level": 0}, "units_per_level=0"),
        ({"levels": 1.5}, "levels=1.5"),
        ({"condition_filters": -1}, "condition_filters=-1"),
        ({"num_mixtures": 0}, "num_mixtures=0"),
        ({"dropout": 1.0}, r"`dropout` must be a number in \[0, 1\). Received: dropout=1.0"),
        ({"field": "large"}, "`field` must be one of 'full', 'small'. Received: field='large'"),
        ({"output_shape": (8, 5, 3)}, "multiples of 2.*8, 5, 3"),
        ({"latent_shape": (2, 1, 3)}, "product is `latent_dim`.*latent_dim=4"),
        ({"latent_shape": (2, 2)}, "`latent_shape` must be .height, width, channels"),
        ({"latent_shape": (2, 2, 1)}, "same power of 2"),
        ({"latent_shape": None, "field": "small", "output_shape": (8, 6, 3)}, "multiples of 4"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        PixelCNNPlusPlus(**{**OPTIONS, **changes})


def test_code_and_image_must_fit():
    decoder = PixelCNNPlusPlus(**OPTIONS)
    with pytest.raises(ValueError, match=r"`z` must have shape \(batch, 4\).*8, 4, 1"):
        decoder.build((None, 4), (None, *SHAPE, 1))
