"""Masked autoregressive flows against their inverses, numerical Jacobians and TFP."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import MADE, initialize_from_data
from vaezoo.layers.masked_autoregressive_flow import (
    ConvAutoregressiveFlow,
    MaskedAutoregressiveFlow,
)

SIZE, CONTEXT = 4, 3
MAPS = (2, 3, 2)


def draws(seed=0, batch=3, samples=2, size=SIZE, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(batch, samples, size)).astype(dtype)


def context_of(seed=1, batch=3):
    return np.random.default_rng(seed).normal(size=(batch, CONTEXT)).astype("float32")


def randomize(layer, scale=0.5, seed=2):
    """Weights far from their start, so that nothing holds by smallness."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        values = rng.normal(size=variable.shape)
        # Gains multiply through all blocks.
        shift = -0.7 if variable.name == "log_gain" else 0.0
        variable.assign(shift + scale * values / np.sqrt(np.prod(variable.shape[:-1])))
    return layer


def numpy(values):
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def inverse_jacobian(run, flow, z, step=1e-5):
    """Central differences of the inverse at `z (D,)`, `(D, D)`, column by input."""
    moved = z + step * np.concatenate([np.eye(len(z)), -np.eye(len(z))])
    values = run(flow, flow.inverse, moved[:, None])[0][:, 0]
    return ((values[: len(z)] - values[len(z) :]) / (2 * step)).T


def dense(num_blocks=3, order="reverse", dtype="float32", **options):
    flow = MaskedAutoregressiveFlow(num_blocks, (9,), order, dtype=dtype, **options)
    flow.build((None, 2, SIZE))
    return randomize(flow)


def convolutional(num_blocks=2, dtype="float32", **options):
    flow = ConvAutoregressiveFlow(MAPS, num_blocks, 4, dtype=dtype, **options)
    flow.build((None, 2, 12))
    return randomize(flow)


FLOWS = {
    "reverse": (SIZE, dense),
    "permute": (SIZE, lambda **given: dense(order="permute", weight_norm=False, **given)),
    "keep": (SIZE, lambda **given: dense(order="keep", direct=False, degrees="random", **given)),
    "one network": (SIZE, lambda **given: dense(separate_networks=False, **given)),
    "maps": (12, convolutional),
}


@pytest.mark.large
@pytest.mark.parametrize("name", FLOWS)
def test_call_undoes_the_inverse_and_log_det_is_that_of_the_jacobian(name, float64, run):
    size, make = FLOWS[name]
    flow, z = make(dtype="float64"), draws(size=size, dtype="float64")
    eps, log_det = run(flow, flow.inverse, z)
    assert np.std(eps - z) > 0.1
    back, reverse = run(flow, flow, eps)
    np.testing.assert_allclose(back, z, atol=1e-6)
    np.testing.assert_allclose(reverse, -log_det, atol=1e-6)
    expected = np.linalg.slogdet(inverse_jacobian(run, flow, z[0, 1]))
    assert expected[0] == 1.0
    assert log_det[0, 1] == pytest.approx(expected[1], abs=1e-7)


@pytest.mark.parametrize("name", ["reverse", "maps"])
@pytest.mark.one_backend
def test_call_undoes_the_inverse_in_float32(name, run):
    size, make = FLOWS[name]
    flow, z = make(), draws(size=size)
    eps, log_det = run(flow, flow.inverse, z)
    assert eps.dtype == log_det.dtype == "float32"
    back, reverse = run(flow, flow, eps)
    np.testing.assert_allclose(back, z, atol=1e-4)
    np.testing.assert_allclose(reverse, -log_det, atol=1e-4)


@pytest.mark.large
@pytest.mark.parametrize(("size", "make"), FLOWS.values(), ids=FLOWS)
def test_networks_of_output_zero_leave_the_noise_as_it_is(size, make, run):
    flow, z = make(), draws(size=size)
    for variable in flow.trainable_variables:
        # Without gain there is no output.
        variable.assign(ops.full(variable.shape, -np.inf if variable.name == "log_gain" else 0.0))
    for outputs, log_det in (run(flow, flow, z), run(flow, flow.inverse, z)):
        np.testing.assert_allclose(outputs, z)
        np.testing.assert_array_equal(log_det, np.zeros((3, 2)))


@pytest.mark.large_on_jax
def test_a_block_takes_coordinates_in_its_order_and_scales_each(float64, run):
    flow = dense(1, "permute", dtype="float64")
    order, z = flow.orders[0], draws(dtype="float64")
    assert list(order) != sorted(order)
    slopes = inverse_jacobian(run, flow, z[0, 0])
    in_order = slopes[order][:, order]
    assert np.all(np.abs(in_order[np.triu_indices(SIZE, 1)]) < 1e-9)
    assert np.all(np.abs(in_order[np.tril_indices(SIZE, -1)]) > 1e-6)
    # By coordinate, and so to be had as the density of one coordinate given others.
    _, log_scale = run(flow, flow.inverse_and_log_det, z)
    np.testing.assert_allclose(log_scale[0, 0], np.log(np.diagonal(slopes)), atol=1e-7)


@pytest.mark.large_on_jax
def test_blocks_alternate_between_both_directions(float64, run):
    flow = dense(2, "reverse", dtype="float64")
    np.testing.assert_array_equal(flow.orders, [np.arange(SIZE), np.arange(SIZE)[::-1]])
    # The second one alone: the first is the identity.
    for network in flow.networks[:2]:
        for variable in network.trainable_variables:
            variable.assign(ops.full(variable.shape, -100.0 if "gain" in variable.name else 0.0))
    slopes = inverse_jacobian(run, flow, draws(dtype="float64")[0, 0])
    assert np.all(np.abs(slopes[np.tril_indices(SIZE, -1)]) < 1e-9)
    assert np.all(np.abs(slopes[np.triu_indices(SIZE, 1)]) > 1e-6)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("number", [0, 1])
def test_maps_depend_on_earlier_positions_alone(number, float64, run):
    flow = convolutional(2, dtype="float64")
    for network in flow.networks[2 * (1 - number) : 2 * (1 - number) + 2]:
        for variable in network.trainable_variables:
            variable.assign(ops.full(variable.shape, -100.0 if "gain" in variable.name else 0.0))
    slopes = inverse_jacobian(run, flow, draws(size=12, dtype="float64")[0, 0])
    position = np.arange(12) // MAPS[-1]
    # The second block runs through the maps from their end.
    before = position[:, None] < position if number == 0 else position[:, None] > position
    same = (position[:, None] == position) & ~np.eye(12, dtype=bool)
    assert np.all(np.abs(slopes[before | same]) < 1e-9)
    # All earlier positions are seen, over the residual layers: by the last position taken.
    last = slopes[-2:, :-2] if number == 0 else slopes[:2, 2:]
    assert np.all(np.abs(last) > 1e-12)


@pytest.mark.large
def test_a_block_is_tfps_masked_autoregressive_flow():
    if keras.backend.backend() == "tensorflow":
        from tensorflow_probability import bijectors as tfb
    else:
        from tensorflow_probability.substrates.jax import bijectors as tfb
    flow = dense(1)

    def shift_and_log_scale(z):
        shift, log_scale = flow._parameters(0, ops.convert_to_tensor(z), None)
        return -shift * ops.exp(-log_scale), -log_scale

    oracle = tfb.MaskedAutoregressiveFlow(shift_and_log_scale)
    x = ops.convert_to_tensor(draws())
    z, log_det = numpy(flow(x))
    np.testing.assert_allclose(z, numpy(oracle.forward(x)), atol=1e-5)
    expected = oracle.forward_log_det_jacobian(x, event_ndims=1)
    np.testing.assert_allclose(log_det, numpy(expected), atol=1e-5)
    eps, log_det = numpy(flow.inverse(x))
    # Another tensor, whose forward value TFP has not kept.
    np.testing.assert_allclose(eps, numpy(oracle.inverse(x + 0.0)), atol=1e-5)
    expected = oracle.inverse_log_det_jacobian(x + 0.0, event_ndims=1)
    np.testing.assert_allclose(log_det, numpy(expected), atol=1e-5)


def test_later_coordinates_cannot_spoil_earlier_ones(run):
    flow, eps = dense(1), draws(batch=1, samples=1)
    expected, _ = run(flow, flow, eps)
    eps[..., -1] = np.inf
    z, _ = run(flow, flow, eps)
    np.testing.assert_array_equal(z[..., :-1], expected[..., :-1])


@pytest.mark.large_on_jax
def test_context_moves_the_draws_and_is_undone_with_them(run):
    flow = MaskedAutoregressiveFlow(2, (9,))
    flow.build((None, 2, SIZE), (None, CONTEXT))
    randomize(flow, 0.2)
    z, log_det = run(flow, flow, draws(), context_of())
    moved, _ = run(flow, flow, draws(), context_of() + 1.0)
    assert np.all(np.std(z - moved, axis=(0, 1)) > 0.0)
    back, reverse = run(flow, flow.inverse, z, context_of())
    np.testing.assert_allclose(back, draws(), atol=1e-4)
    np.testing.assert_allclose(reverse, -log_det, atol=1e-4)


class TestWeightNorm:
    def test_kernels_have_the_norm_of_their_gain_under_the_mask(self):
        made = MADE(1, (9,), "sequential", direct=True, weight_norm=True)
        made.build((None, 1, SIZE))
        randomize(made)
        connection = made.shortcut
        outputs = numpy(connection(np.eye(SIZE, dtype="float32")[None]))[0]
        kernel = outputs - numpy(connection.bias)
        norms = np.linalg.norm(kernel, axis=0)
        gains = np.exp(numpy(connection.log_gain))
        np.testing.assert_allclose(norms[1:], gains[1:], rtol=1e-5)
        np.testing.assert_array_equal(kernel[np.tril_indices(SIZE)], 0.0)

    @pytest.mark.large
    def test_data_standardize_every_connection_by_itself(self):
        made = MADE(2, (9, 9), "sequential", direct=True, weight_norm=True, init_scale=0.1)
        z = 3.0 + 2.0 * draws(batch=400)
        made.build(z.shape)
        with initialize_from_data():
            during = numpy(made(z))
        np.testing.assert_allclose(numpy(made(z)), during, atol=1e-5)
        hidden = z
        for number, connection in enumerate((*made.layers_, made.shortcut)):
            outputs = numpy(connection(z if connection is made.shortcut else hidden))
            np.testing.assert_allclose(outputs.mean((0, 1)), 0.0, atol=1e-5)
            # The first coordinate's outputs see nothing; all others vary.
            varies = np.any(numpy(connection.mask), axis=0)
            assert np.sum(~varies) == (0 if number < 2 else 2)
            np.testing.assert_allclose(outputs.std((0, 1))[varies], 0.1, rtol=1e-4)
            np.testing.assert_array_equal(outputs[..., ~varies], 0.0)
            hidden = np.maximum(outputs, 0.0)

    @pytest.mark.large
    def test_flow_starts_near_the_identity_on_the_data(self):
        z = draws(batch=400)
        flow = MaskedAutoregressiveFlow(2)
        flow.build(z.shape)
        with initialize_from_data():
            flow.inverse(z)
        assert flow.networks[0].layers_[0].mask.shape == (SIZE, 10 * SIZE)
        # The block that sees the data, in its order: sums of two standardized connections.
        shift, log_scale = numpy(flow._parameters(1, z[..., ::-1], None))
        np.testing.assert_allclose(shift.mean((0, 1)), 0.0, atol=1e-5)
        assert np.all(shift.std((0, 1))[1:] < 0.2)
        assert np.all(log_scale.std((0, 1))[1:] < 0.1)

    def test_equal_layers_start_apart(self):
        for options in ({}, {"weight_norm": True}, {"kernel_initializer": "he_normal"}):
            made = MADE(1, (6, 6, 6), **options)
            made.build((None, 1, SIZE))
            second, third = (numpy(layer.kernel) for layer in made.layers_[1:3])
            assert not np.allclose(second, third)

    def test_kernels_start_small(self):
        made = MADE(1, (60, 60), weight_norm=True)
        made.build((None, 1, SIZE))
        kernel = numpy(made.layers_[1].kernel)
        assert np.std(kernel) == pytest.approx(0.05, abs=4 * 0.05 / np.sqrt(2 * kernel.size))


@pytest.mark.large_on_jax
def test_errors():
    with pytest.raises(ValueError, match="`num_blocks` must be a positive integer.*num_blocks=0"):
        MaskedAutoregressiveFlow(0)
    with pytest.raises(ValueError, match="`order` must be one of 'reverse', 'permute', 'keep'"):
        MaskedAutoregressiveFlow(order="shuffle")
    with pytest.raises(
        ValueError, match="`init_scale` must be a finite, positive number. Received: init_scale=0"
    ):
        MaskedAutoregressiveFlow(init_scale=0.0)
    with pytest.raises(ValueError, match=r"Received: hidden_units=\(0,\)"):
        MaskedAutoregressiveFlow(hidden_units=(0,))
    with pytest.raises(ValueError, match=r"latent_shape=\(4, 4\)"):
        ConvAutoregressiveFlow((4, 4))
    with pytest.raises(ValueError, match="`latent_shape` must be .height, width, channels"):
        ConvAutoregressiveFlow((4, 4, 0))
    with pytest.raises(ValueError, match="`filters` must be a positive integer"):
        ConvAutoregressiveFlow(MAPS, filters=0)
    with pytest.raises(ValueError, match=r"`z` must have shape \(batch, K, 12\)"):
        ConvAutoregressiveFlow(MAPS)(draws())
    with pytest.raises(ValueError, match="`context` must not be given"):
        ConvAutoregressiveFlow(MAPS, 1, 4)(draws(size=12), context=context_of())
