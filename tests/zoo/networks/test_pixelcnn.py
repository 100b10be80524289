import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import compiled
from vaezoo.layers import Bernoulli, Categorical, Gaussian
from vaezoo.layers.weight_normalization import awaits_initialization, initialize_from_data
from vaezoo.zoo.networks.pixelcnn import GatedPixelCNN, ResidualPixelCNN

HEIGHT, WIDTH = 4, 5


def residual(channels=1, **kwargs):
    options = {"kernels": (5, 3, 3), "filters": 8, "latent_maps": 2, **kwargs}
    return ResidualPixelCNN(3, (HEIGHT, WIDTH, channels), **options)


def gated(channels=1, **kwargs):
    options = {"kernels": (5, 3, 3), "filters": 6, "latent_maps": 2, **kwargs}
    return GatedPixelCNN(3, (HEIGHT, WIDTH, channels), **options)


def codes(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype("float32")


def images(count, channels=1, levels=2, seed=1):
    shape = (count, HEIGHT, WIDTH, channels)
    return np.random.default_rng(seed).integers(0, levels, shape).astype("float32")


def parameters(layer):
    return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)


SMALL = (7, 7, 7, 5, 5, 3, 3)


def built(decoder):
    decoder.build((None, decoder.latent_dim), (None, *decoder.output_shape_))
    return decoder


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 894_400),
        ({"kernels": SMALL}, 502_208),
        ({"kernels": SMALL, "normalization": "weight"}, 505_346),
    ],
    ids=["DU-VAE", "small", "MAE"],
)
def test_published_numbers_of_parameters(options, expected):
    assert parameters(built(ResidualPixelCNN(32, (28, 28, 1), **options))) == expected


# Of module scope: initial values are drawn by the initializers themselves.
@pytest.fixture(scope="module")
def fresh():
    return built(ResidualPixelCNN(32, (28, 28, 1), kernels=(7, 7)))


def test_initial_values_of_the_published_decoder(fresh):
    decoder, block = fresh, fresh.blocks[0].parts
    convolutions = [decoder.first, *block]
    for part, area in zip(convolutions, (49, 1, 49, 1), strict=True):
        filters = part.conv.filters
        spread = ops.convert_to_numpy(part.conv.direction).std()
        assert spread == pytest.approx(np.sqrt(2.0 / (area * filters)), rel=0.1)
    head = ops.convert_to_numpy(decoder.head.conv.direction)
    assert 0.115 < abs(head).max() <= 0.125  # 1 / sqrt(64)
    maps = ops.convert_to_numpy(decoder.to_maps.kernel)
    assert abs(maps).max() == pytest.approx(np.sqrt(6.0 / (32 + 3136)), rel=0.01)


@pytest.fixture
def dependence(gradient):
    """`dependence(decoder, z, x)`: size of d params / dx, `(V, groups, V, channels)`.

    V counts positions; the parameters of a position's group of channels are taken together.
    """

    def measure(decoder, z, x):
        built(decoder)
        height, width, channels = decoder.output_shape_
        values, groups = height * width, decoder.channel_groups
        pick = np.eye(values * groups, dtype="float32")
        pick = pick.reshape(values * groups, height, width, groups)
        # Weights that no chance cancels.
        weight = np.random.default_rng(5).uniform(0.5, 1.5, 64).astype("float32")

        def total(x):
            params = decoder(ops.convert_to_tensor(np.repeat(z, len(pick), axis=0)), x)
            if decoder.num_classes is not None:
                params = ops.sum(params * weight[: decoder.num_classes], axis=-1)
            kinds = params.shape[-1] // groups
            params = ops.reshape(params, (-1, height, width, kinds, groups))
            return ops.sum(ops.sum(params * weight[:kinds, None], axis=3) * pick)

        answers = gradient(total, np.repeat(x, len(pick), axis=0))
        return abs(answers).reshape(values, groups, values, channels)

    return measure


CAUSAL = {
    "residual": lambda: residual(),
    "residual_gaussian": lambda: residual(2, params_per_value=2, normalization="weight"),
    "residual_classes": lambda: residual(2, num_classes=3),
    "residual_pixel": lambda: residual(3, params_per_pixel=10),
    "gated": lambda: gated(),
    "gated_channels": lambda: gated(3),
}


@pytest.mark.large_on_jax
@pytest.mark.parametrize("make", CAUSAL.values(), ids=CAUSAL)
def test_outputs_depend_on_earlier_pixels_and_channels_alone(make, dependence):
    decoder = make()
    channels, groups = decoder.output_shape_[-1], decoder.channel_groups
    sizes = dependence(decoder, codes(1), images(1, channels))
    values = HEIGHT * WIDTH
    position, channel = np.arange(values), np.arange(channels)
    earlier = np.broadcast_to(
        (position[None] < position[:, None])[:, None, :, None], sizes.shape
    ).copy()
    if groups > 1:
        own = channel[None] < np.arange(groups)[:, None]
        earlier[position, :, position] = own
    assert (sizes[~earlier] == 0.0).all()
    if isinstance(decoder, GatedPixelCNN):
        # No blind spot.
        assert (sizes[earlier] > 0.0).all()
    elif groups > 1:
        assert (sizes[position, -1, position, 0] > 0.0).all()


@pytest.mark.large_on_jax
@pytest.mark.parametrize("make", [CAUSAL["residual"], CAUSAL["gated_channels"]])
def test_changed_pixel_leaves_outputs_up_to_its_own_unchanged(make):
    decoder = make()
    channels, values = decoder.output_shape_[-1], HEIGHT * WIDTH
    x = np.repeat(images(1, channels), values, axis=0)
    z = np.repeat(codes(1), values, axis=0)
    before = ops.convert_to_numpy(decoder(z, x)).reshape(values, values, channels)
    changed = x.reshape(values, values, channels).copy()
    changed[np.arange(values), np.arange(values)] += 3.0
    after = ops.convert_to_numpy(decoder(z, changed.reshape(x.shape)))
    moved = abs(after.reshape(before.shape) - before).max(axis=-1)
    later = np.arange(values)[None] > np.arange(values)[:, None]
    if decoder.channel_groups == 1:
        np.testing.assert_allclose(moved[~later], 0.0, atol=1e-6)
    np.testing.assert_allclose(moved[np.tril(np.ones_like(later), -1)], 0.0, atol=1e-6)
    assert ((moved > 1e-4) & later).any(axis=1)[:-1].all()


def visible(decoder, gradient, row, column):
    """Which pixels the outputs at one position depend on."""
    height, width, _ = decoder.output_shape_
    x, z = np.zeros((1, height, width, 1), "float32"), np.zeros((1, decoder.latent_dim), "float32")
    for variable in built(decoder).trainable_variables:
        # At zero all gates and units are linear; sums of positive terms then cannot cancel.
        positive = variable.name == "kernel" and variable is not decoder.to_maps.kernel
        scale = 1.0 / np.prod(variable.shape[:-1]) if positive else 0.0
        variable.assign(np.full(variable.shape, 10.0 * scale))
    slope = gradient(lambda x: ops.sum(decoder(z, x)[:, row, column]), x)[0, ..., 0] != 0.0
    assert not slope[row, column:].any()
    assert not slope[row + 1 :].any()
    return int(slope.sum())


@pytest.mark.one_backend
def test_blind_spot_of_the_published_decoder(gradient):
    decoder = ResidualPixelCNN(1, (28, 28, 1), filters=2, normalization=None)
    assert visible(decoder, gradient, 20, 14) == 552


@pytest.mark.large_on_jax
def test_gated_decoder_sees_all_574_earlier_pixels(gradient):
    decoder = GatedPixelCNN(1, (28, 28, 1), filters=1)
    assert visible(decoder, gradient, 20, 14) == 574


@pytest.mark.large_on_jax
@pytest.mark.parametrize("make", [residual, gated])
def test_every_position_depends_on_the_code(make):
    decoder = make()
    first, second = (ops.convert_to_numpy(decoder(codes(1, seed), images(1))) for seed in (0, 1))
    assert (abs(first - second) > 1e-7).all()


@pytest.mark.large_on_jax
@pytest.mark.parametrize("direct", [True, False])
def test_residual_network_follows_its_equations(direct):
    decoder = residual(kernels=(3, 3, 3, 5, 3), normalization=None, direct=direct)
    z, x = codes(2), images(2)
    params = ops.convert_to_numpy(decoder(z, x))

    def bottleneck(block, h):
        inner = h
        for number, part in enumerate(block.parts):
            inner = ops.elu(part.conv(inner)) if number < 2 else part.conv(inner)
        return ops.elu(h + inner)

    maps = ops.reshape(decoder.to_maps(z), (2, HEIGHT, WIDTH, 2))
    h_0 = ops.elu(decoder.first.conv(ops.concatenate([x, maps], axis=-1)))
    b_1, b_2, b_3, b_4 = decoder.blocks
    if direct:
        d_0, d_1, d_2 = decoder.skips
        assert [d.parts[1].conv.kernel_size[0] for d in decoder.skips] == [3, 3, 5]
        h_2 = bottleneck(b_2, bottleneck(b_1, h_0))
        h_1 = bottleneck(b_1, h_0)
        h_3 = bottleneck(b_3, h_2 + bottleneck(d_0, h_0))
        h_4 = bottleneck(b_4, h_3 + bottleneck(d_1, h_1))
        last = h_4 + bottleneck(d_2, h_2)
    else:
        assert decoder.skips == []
        last = h_0
        for block in decoder.blocks:
            last = bottleneck(block, last)
    expected = decoder.outputs.conv(ops.elu(decoder.head.conv(last)))
    np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.large_on_jax
def test_gated_network_follows_its_equations():
    decoder = gated(kernels=(5, 3))
    z, x = codes(2), images(2)
    params = ops.convert_to_numpy(decoder(z, x))

    def gate(h):
        a, b = ops.split(h, 2, axis=-1)
        return ops.tanh(a) * ops.sigmoid(b)

    maps = ops.convert_to_numpy(ops.reshape(decoder.to_maps(z), (2, HEIGHT, WIDTH, 2)))
    above = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    v_0 = np.concatenate([above, maps], axis=-1)
    v_1 = decoder.vertical[0](v_0)
    v_2 = decoder.vertical[1](gate(v_1))
    h_1 = decoder.horizontal[0](np.concatenate([x, maps], axis=-1))
    h_1 = decoder.mixing[0](gate(h_1 + decoder.links[0](v_1)))
    h_2 = gate(decoder.horizontal[1](h_1) + decoder.links[1](v_2))
    expected = decoder.outputs(h_1 + decoder.mixing[1](h_2))
    np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.large_on_jax
def test_class_numbers_are_scaled_to_the_unit_interval():
    decoder, x = residual(num_classes=5, normalization=None), images(2, levels=5)
    params = decoder(codes(2), x)
    assert params.shape == (2, HEIGHT, WIDTH, 1, 5)
    plain = residual(params_per_value=5, normalization=None)
    built(plain).set_weights(decoder.get_weights())
    np.testing.assert_allclose(
        ops.convert_to_numpy(params)[..., 0, :], plain(codes(2), x / 4.0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(decoder(codes(2), x.astype("int32")), params)


SAMPLED = {
    "residual": (lambda: residual(), Bernoulli),
    "residual_jointly": (
        lambda: residual(2, normalization="weight", channel_order=False),
        Bernoulli,
    ),
    "residual_classes": (lambda: residual(2, num_classes=4), lambda: Categorical(4)),
    "residual_gaussian": (
        lambda: residual(2, params_per_value=2),
        lambda: Gaussian(scale="decoder"),
    ),
    "gated": (lambda: gated(), Bernoulli),
    "gated_channels": (lambda: gated(2), Bernoulli),
}


def uniforms(decoder, likelihood, count=6):
    shape = (count, HEIGHT, WIDTH, likelihood.num_uniforms(decoder.output_shape_[-1]))
    return np.random.default_rng(2).uniform(0.01, 0.99, shape).astype("float32")


def generated(decoder, likelihood, noise, generate):
    """Images drawn by one of the decoder's two ways, compiled."""

    def run(z, noise):
        return generate(z, likelihood.from_uniform, noise)

    return ops.convert_to_numpy(compiled(decoder, run)(codes(len(noise)), noise))


def agitated(decoder):
    """The decoder with random weights and statistics, so that draws depend on what came before."""
    rng = np.random.default_rng(3)
    for variable in built(decoder).weights:
        value = ops.convert_to_numpy(variable.value)
        if variable.name == "moving_variance":
            variable.assign(rng.uniform(0.5, 2.0, value.shape))
        elif variable.name not in ("log_gain", "initialized_from_data"):
            variable.assign(value + 0.3 * rng.normal(size=value.shape))
    return decoder


@pytest.mark.large
@pytest.mark.parametrize(("make", "likelihood"), SAMPLED.values(), ids=SAMPLED)
def test_each_draw_is_that_of_its_conditional(make, likelihood):
    decoder, likelihood = agitated(make()), likelihood()
    noise = uniforms(decoder, likelihood)
    drawn = generated(decoder, likelihood, noise, decoder.generate)
    assert drawn.dtype == np.float32
    assert drawn.std() > 0.1

    # One pass over the finished images gives every conditional that they were drawn from: no other
    # images are drawn from their own conditionals by this noise.
    def conditionals(z, x, noise):
        return likelihood.from_uniform(decoder(z, x), noise)

    expected = compiled(decoder, conditionals)(codes(6), drawn, noise)
    np.testing.assert_allclose(drawn, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.large
@pytest.mark.parametrize("make", [residual, lambda: gated(2)])
def test_cached_sampling_equals_full_passes(make):
    decoder, likelihood = agitated(make()), Bernoulli()
    noise = uniforms(decoder, likelihood)
    cached, full = (
        generated(decoder, likelihood, noise, generate)
        for generate in (decoder.generate, decoder.generate_by_full_passes)
    )
    np.testing.assert_array_equal(cached, full)


def test_cached_sampling_in_half_precision():
    decoder = built(gated(kernels=(3,), dtype="mixed_bfloat16"))
    noise = uniforms(decoder, Bernoulli(), count=2)
    drawn = generated(decoder, Bernoulli(), noise, decoder.generate)
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) == {0.0, 1.0}


@pytest.mark.parametrize("make", [residual, gated])
@pytest.mark.one_backend
def test_initialization_from_data(make):
    decoder = make(normalization="weight", kernels=(3, 3))
    z, x = codes(64), images(64)
    built(decoder)
    assert awaits_initialization(decoder)
    with initialize_from_data():
        decoder(z, x)
    assert not awaits_initialization(decoder)
    params = ops.convert_to_numpy(decoder(z, x))
    assert params.mean() == pytest.approx(0.0, abs=1e-3)
    assert params.std() == pytest.approx(1.0, rel=1e-2)


@pytest.mark.large
@pytest.mark.parametrize("make", [residual, lambda: gated(normalization="weight")])
def test_saves_and_reloads(make, tmp_path):
    decoder = agitated(make())
    z, x = keras.Input((3,)), keras.Input((HEIGHT, WIDTH, 1))
    model = keras.Model([z, x], decoder(z, x))
    model.save(tmp_path / "decoder.keras")
    reloaded = keras.saving.load_model(tmp_path / "decoder.keras")
    np.testing.assert_array_equal(reloaded([codes(2), images(2)]), decoder(codes(2), images(2)))
    revived = type(decoder).from_config(decoder.get_config())
    assert revived.get_config() == decoder.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualPixelCNN(0, (4, 4, 1)), "`latent_dim` must be a positive .*latent_dim=0"),
        (lambda: ResidualPixelCNN(3, (4, 4)), "`output_shape` must be \\(height, width, channels"),
        (lambda: residual(kernels=()), "`kernels` must be a non-empty sequence"),
        (lambda: residual(kernels=(3, 4)), "`kernels` must be odd. Received: kernels=\\(3, 4\\)"),
        (lambda: residual(filters=7), "`filters` must be even.* Received: filters=7"),
        (lambda: residual(3, filters=4), "twice the channels .* filters=4, of 3 channels"),
        (lambda: residual(latent_maps=0), "`latent_maps` must be a positive integer"),
        (lambda: residual(normalization="layer"), "'batch', 'weight', None. .*'layer'"),
        (lambda: gated(normalization="batch"), "'weight', None. .*normalization='batch'"),
        (lambda: gated(3, filters=4), "multiple of the channels .* filters=4, of 3 channels"),
        (lambda: residual(num_classes=1), "`num_classes` must be an integer of at least 2"),
        (lambda: residual(params_per_value=0), "`params_per_value` must be a positive integer"),
        (lambda: residual(params_per_pixel=0), "`params_per_pixel` must be a positive integer"),
        (
            lambda: residual(params_per_pixel=4, num_classes=2),
            "`num_classes` None when `params_per_pixel` is given. .*num_classes=2",
        ),
        (lambda: residual()(codes(2), images(2, 3)), "`x` shape \\(batch, 4, 5, 1\\)"),
        (lambda: residual()(codes(2)[:, :2], images(2)), "`z` must have shape \\(batch, 3\\)"),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
