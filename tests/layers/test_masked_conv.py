import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import compiled
from vaezoo.layers.masked_conv import (
    MaskedConv2D,
    ShiftedConv2D,
    ShiftedConv2DTranspose,
    channel_group,
)
from vaezoo.layers.raster import Raster, cut
from vaezoo.layers.weight_normalization import initialize_from_data

HEIGHT, WIDTH = 5, 7
RANDOM = {"kernel_initializer": "he_normal", "bias_initializer": "normal"}


@pytest.fixture
def sees(gradient):
    """`sees(layer, channels)`: which input each output of one image depends on.

    Bool `(rows', columns', filters, rows, columns, channels)`.
    """

    def measure(layer, channels, height=HEIGHT, width=WIDTH):
        x = np.random.default_rng(0).normal(size=(1, height, width, channels)).astype("float32")
        outputs = layer(x).shape[1:]
        count = int(np.prod(outputs))
        # Each example is asked for one output: one gradient answers for all.
        pick = np.eye(count, dtype="float32").reshape(count, *outputs)
        answers = gradient(lambda x: ops.sum(layer(x) * pick), np.repeat(x, count, axis=0))
        return answers.reshape(*outputs, height, width, channels) != 0.0

    return measure


def offsets(output, size):
    """Rows and columns of the inputs as seen from one output, `(size, 1)` and `(1, size)`."""
    return np.arange(size[0])[:, None] - output[0], np.arange(size[1])[None] - output[1]


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_masked_convolution_sees_exactly_the_earlier_pixels_of_its_window(sees, mask_type):
    seen = sees(MaskedConv2D(1, (5, 3), mask_type), 1)[:, :, 0, ..., 0]
    for r, c in np.ndindex(HEIGHT, WIDTH):
        rows, columns = offsets((r, c), (HEIGHT, WIDTH))
        above = (rows >= -2) & (rows < 0) & (abs(columns) <= 1)
        left = (rows == 0) & (columns >= -1) & (columns < (mask_type == "B"))
        np.testing.assert_array_equal(seen[r, c], above | left)


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_groups_of_channels_follow_each_other_at_the_pixel(sees, mask_type):
    seen = sees(MaskedConv2D(6, 3, mask_type, channel_groups=3), 3, height=3, width=3)
    before = np.less if mask_type == "A" else np.less_equal
    expected = before(np.arange(3)[None], np.array([0, 0, 1, 1, 2, 2])[:, None])
    np.testing.assert_array_equal(seen[1, 1, :, 1, 1], expected)
    assert seen[1, 1, :, 0].all()
    assert seen[1, 1, :, 1, 0].all()
    assert not seen[1, 1, :, 1, 2].any()
    assert not seen[1, 1, :, 2].any()


def test_unmasked_channels_are_seen_in_full(sees):
    seen = sees(MaskedConv2D(2, 3, "A", unmasked_channels=2), 3, height=3, width=3)[1, 1]
    assert seen[..., 1:].all()
    expected = np.zeros((3, 3), bool)
    expected[0] = expected[1, 0] = True
    np.testing.assert_array_equal(seen[0, ..., 0], expected)


def test_uneven_groups_are_consecutive_and_not_empty():
    assert channel_group(64, 3).tolist() == [0] * 22 + [1] * 21 + [2] * 21
    assert channel_group(3, 3).tolist() == [0, 1, 2]


def test_masked_convolution_is_a_convolution_with_the_masked_kernel():
    layer = MaskedConv2D(3, 3, "B", activation="relu", **RANDOM)
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 2)).astype("float32")
    outputs = ops.convert_to_numpy(layer(x))
    mask = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]])[..., None, None]
    kernel = ops.convert_to_numpy(layer.direction) * mask
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), kernel)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, i : i + 4, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    expected = np.maximum(expected + ops.convert_to_numpy(layer.bias), 0.0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exclude", [False, True])
def test_window_of_the_down_shift(sees, exclude):
    seen = sees(ShiftedConv2D(1, (2, 3), "down", exclude=exclude), 1)[:, :, 0, ..., 0]
    for r, c in np.ndindex(HEIGHT, WIDTH):
        rows, columns = offsets((r + 0 - exclude, c), (HEIGHT, WIDTH))
        inside = (rows >= -1) & (rows <= 0) & (abs(columns) <= 1)
        np.testing.assert_array_equal(seen[r, c], inside)


@pytest.mark.parametrize("exclude", [False, True])
def test_window_of_the_down_right_shift(sees, exclude):
    seen = sees(ShiftedConv2D(1, (2, 3), "down_right", exclude=exclude), 1)[:, :, 0, ..., 0]
    for r, c in np.ndindex(HEIGHT, WIDTH):
        rows, columns = offsets((r, c + 0 - exclude), (HEIGHT, WIDTH))
        inside = (rows >= -1) & (rows <= 0) & (columns >= -2) & (columns <= 0)
        np.testing.assert_array_equal(seen[r, c], inside)


@pytest.mark.parametrize("shift", ["down", "down_right"])
def test_strides_pick_outputs_of_stride_one(shift):
    every, second = (ShiftedConv2D(3, (2, 3), shift, strides=s, **RANDOM) for s in (1, 2))
    x = np.random.default_rng(1).normal(size=(2, HEIGHT, 6, 2)).astype("float32")
    outputs = every(x)
    second.build(x.shape)
    second.set_weights(every.get_weights())
    assert second.compute_output_shape(x.shape) == (2, 3, 3, 3)
    np.testing.assert_allclose(second(x), outputs[:, ::2, ::2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shift", "columns"), [("down", 3), ("down_right", 2)])
def test_window_of_the_transposed_convolution(sees, shift, columns):
    layer = ShiftedConv2DTranspose(1, (2, columns), shift)
    seen = sees(layer, 1, height=2, width=3)[:, :, 0, ..., 0]
    assert seen.shape[:2] == (4, 6)
    assert layer.compute_output_shape((None, 2, 3, 1)) == (None, 4, 6, 1)
    for r, c in np.ndindex(4, 6):
        expected = np.zeros((2, 3), bool)
        expected[r // 2, c // 2] = True
        if shift == "down" and c % 2 and c // 2 < 2:
            expected[r // 2, c // 2 + 1] = True
        np.testing.assert_array_equal(seen[r, c], expected)


def at_each_pixel(layers, x, scale):
    """Outputs at a scale, from steps of one pixel."""

    def evaluate(x):
        raster = Raster(HEIGHT, WIDTH, ops.shape(x)[0], layers)

        def step(number, state):
            caches, outputs = state
            row, column = number // WIDTH, number % WIDTH
            at, h = raster.at(caches, row, column), cut(x, row, column)
            for layer, _ in layers:
                h = at(layer, h)
            start = (0, row // scale, column // scale, 0)
            return at.caches, ops.slice_update(outputs, start, h)

        shape = (ops.shape(x)[0], -(-HEIGHT // scale), -(-WIDTH // scale), layers[-1][0].filters)
        return ops.fori_loop(0, HEIGHT * WIDTH, step, (raster.caches, ops.zeros(shape)))[1]

    return compiled(layers[0][0], evaluate)(x)


def at_each_row(layers, x, scale):
    """Outputs at a scale, from steps of one row."""

    def evaluate(x):
        raster = Raster(HEIGHT, WIDTH, ops.shape(x)[0], layers)

        def step(row, state):
            caches, outputs = state
            at, h = raster.at(caches, row), cut(x, row, 0, 1, WIDTH)
            for layer, _ in layers:
                h = at(layer, h)
            start = (0, row // scale, 0, 0)
            return at.caches, ops.slice_update(outputs, start, h[:, :, : outputs.shape[2]])

        shape = (ops.shape(x)[0], -(-HEIGHT // scale), -(-WIDTH // scale), layers[-1][0].filters)
        return ops.fori_loop(0, HEIGHT, step, (raster.caches, ops.zeros(shape)))[1]

    return compiled(layers[0][0], evaluate)(x)


def downward(filters, kernel_size, shift, **kwargs):
    return ShiftedConv2D(filters, kernel_size, shift, **RANDOM, **kwargs)


@pytest.mark.large
@pytest.mark.parametrize(
    ("evaluate", "make", "scale"),
    [
        pytest.param(
            at_each_pixel,
            lambda: [
                (MaskedConv2D(4, 3, "A", **RANDOM), 1),
                (MaskedConv2D(4, 1, "B", activation="elu", **RANDOM), 1),
                (MaskedConv2D(5, (5, 7), "B", weight_norm=True, **RANDOM), 1),
            ],
            1,
            id="masked",
        ),
        pytest.param(
            at_each_pixel,
            lambda: [
                (downward(4, (2, 3), "down_right", exclude=True), 1),
                (downward(4, (2, 2), "down_right", strides=2), 1),
                (downward(4, (3, 2), "down_right", strides=2), 2),
                (ShiftedConv2DTranspose(4, (2, 2), "down_right", **RANDOM), 4),
            ],
            2,
            id="down_right",
        ),
        pytest.param(
            at_each_row,
            lambda: [
                (downward(4, (2, 3), "down", exclude=True), 1),
                (downward(4, (2, 3), "down", strides=2, activation="elu"), 1),
                (downward(4, (2, 5), "down"), 2),
                (ShiftedConv2DTranspose(3, (2, 3), "down", **RANDOM), 2),
            ],
            1,
            id="down",
        ),
    ],
)
def test_positions_in_turn_give_the_whole(evaluate, make, scale):
    layers = make()
    x = whole = np.random.default_rng(2).normal(size=(2, HEIGHT, WIDTH, 3)).astype("float32")
    for layer, _ in layers:
        whole = layer(whole)
    single = ops.convert_to_numpy(evaluate(layers, ops.convert_to_tensor(x), scale))
    assert single.std() > 0.1
    whole = ops.convert_to_numpy(whole)[:, : single.shape[1], : single.shape[2]]
    np.testing.assert_allclose(single, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    "layer",
    [
        MaskedConv2D(4, 3, "B", weight_norm=True, init_scale=0.5),
        ShiftedConv2D(4, (2, 3), weight_norm=True, init_scale=0.5, activation="tanh"),
        ShiftedConv2DTranspose(4, 3, weight_norm=True, init_scale=0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_initialization_from_data_standardizes_outputs(layer):
    x = np.random.default_rng(3).normal(2.0, 3.0, (8, 6, 6, 3)).astype("float32")
    with initialize_from_data():
        first = ops.convert_to_numpy(layer(x))
    again = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(again, first, rtol=1e-3, atol=1e-4)
    raw = np.arctanh(again) if layer.activation.__name__ == "tanh" else again
    np.testing.assert_allclose(raw.mean(axis=(0, 1, 2)), 0.0, atol=1e-3)
    np.testing.assert_allclose(raw.std(axis=(0, 1, 2)), 0.5, rtol=1e-3)


@pytest.mark.large_on_jax
def test_fully_masked_output_keeps_finite_gradient(gradient):
    layer = MaskedConv2D(2, 1, "A", channel_groups=2, weight_norm=True)
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype("float32")
    with initialize_from_data():
        outputs = ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(outputs[..., 0], 0.0)
    assert np.isfinite(gradient(lambda x: ops.sum(ops.square(layer(x))), x)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedConv2D(0, 3), "`filters` must be a positive integer. Received: filters=0"),
        (lambda: MaskedConv2D(4, 4), "`kernel_size` must be odd. Received: kernel_size=4"),
        (lambda: MaskedConv2D(4, (3, 0)), "`kernel_size` must be a positive integer or two"),
        (
            lambda: MaskedConv2D(4, 3, "C"),
            "`mask_type` must be one of 'A', 'B'. .*mask_type='C'",
        ),
        (lambda: MaskedConv2D(4, 3, channel_groups=5), "at most `filters`. .* channel_groups=5"),
        (lambda: MaskedConv2D(4, 3, unmasked_channels=-1), "Received: unmasked_channels=-1"),
        (
            lambda: MaskedConv2D(4, 3, init_scale=0.0),
            "`init_scale` must be a finite, positive number. .*=0.0",
        ),
        (
            lambda: MaskedConv2D(4, 3, channel_groups=3).build((None, 4, 4, 2)),
            "at least `channel_groups` channels .* Received: 2 channels",
        ),
        (lambda: MaskedConv2D(4, 3).build((None, 4, 4, None)), "channels must be known"),
        (lambda: ShiftedConv2D(4, 3, "up"), "`shift` must be one of 'down', 'down_right'. .*'up'"),
        (lambda: ShiftedConv2D(4, 2), "odd number of columns .* Received: kernel_size=\\(2, 2\\)"),
        (lambda: ShiftedConv2D(4, 3, strides=0), "`strides` must be a positive integer"),
        (lambda: ShiftedConv2D(4, 3, strides=2, exclude=True), "needs strides of 1. .*strides=2"),
        (lambda: ShiftedConv2DTranspose(4, 1), "`kernel_size` must be at least 2. .*=1"),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
