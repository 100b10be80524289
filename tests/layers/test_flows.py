"""MADE and inverse autoregressive flows against numerical Jacobians and integrals."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import MADE, IAFBlock, InverseAutoregressiveFlow

SIZE, CONTEXT = 4, 3


def draws(seed=0, batch=5, samples=2, size=SIZE):
    return np.random.default_rng(seed).normal(size=(batch, samples, size)).astype("float32")


def context_of(seed=1, batch=5):
    return np.random.default_rng(seed).normal(size=(batch, CONTEXT)).astype("float32")


def randomize(layer, scale=0.8, seed=2):
    """Weights far from their start, so that nothing holds by smallness."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(scale * rng.normal(size=variable.shape) / np.sqrt(variable.shape[0]))
    return layer


def jacobian(function, z, step=1e-2):
    """Central differences of a map of `(D,)` at `z`, `(D, D)`, column by input."""
    moved = z + step * np.concatenate([np.eye(len(z)), -np.eye(len(z))])
    values = np.asarray(function(moved.astype("float32")), "float64")
    return ((values[: len(z)] - values[len(z) :]) / (2 * step)).T


class TestMADE:
    @pytest.mark.parametrize("degrees", ["random", "sequential"])
    @pytest.mark.parametrize("direct", [False, True])
    @pytest.mark.parametrize("hidden_units", [(), (7,), (9, 6)])
    def test_outputs_see_only_coordinates_before_their_own(self, degrees, direct, hidden_units):
        made = MADE(2, hidden_units, degrees, "tanh", direct)
        made(draws())
        randomize(made)
        point = draws()[0, 0]
        for output in range(2):
            slopes = jacobian(lambda z, o=output: made(z[:, None])[:, 0, o], point)
            assert np.all(slopes[np.triu_indices(SIZE)] == 0.0)
        # Not by seeing nothing at all: the last output sees all coordinates of sequential degrees.
        if degrees == "sequential":
            assert np.all(slopes[-1, :-1] != 0.0)

    @pytest.mark.parametrize(("layers", "reached"), [("all", True), ("first", False)])
    def test_context_reaches_the_first_coordinate_by_the_output_alone(self, layers, reached):
        made = MADE(1, (8,), context_layers=layers)
        outputs = made(draws(), context=context_of())
        moved = made(draws(), context=context_of() + 1.0)
        change = ops.convert_to_numpy(ops.max(ops.abs(outputs - moved), axis=(0, 1, 2)))
        assert (change[0] > 0.0) == reached
        assert np.all(change[2:] > 0.0)

    def test_context_is_that_of_the_example(self):
        made = MADE(1, (8,))
        together = ops.convert_to_numpy(made(draws(), context=context_of()))
        alone = ops.convert_to_numpy(made(draws()[3:4], context=context_of()[3:4]))
        np.testing.assert_allclose(together[3:4], alone, atol=1e-6)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"Received: hidden_units=\(3, 0\)"):
            MADE(2, (3, 0))
        with pytest.raises(ValueError, match="`num_outputs` must be a positive integer"):
            MADE(0)
        with pytest.raises(ValueError, match="`degrees` must be one of 'random', 'sequential'"):
            MADE(degrees="even")
        with pytest.raises(ValueError, match=r"`z` must have shape \(batch, K, D\)"):
            MADE()(draws()[:, 0])
        made = MADE()
        made(draws())
        with pytest.raises(ValueError, match="`context` must be as in the first call, none"):
            made(draws(), context=context_of())

    def test_parameters_are_those_of_the_published_size(self):
        # DU-IAF at D = 32, width 60: kernels and biases of the MADE, context of 2 D into the first
        # layer, and 32 gate biases.
        block = IAFBlock((1920, 1920), context_layers="first")
        block.build((None, 1, 32), (None, 64))
        assert block.count_params() == 3_997_536


@pytest.mark.large
@pytest.mark.parametrize("order", ["reverse", "permute", "keep"])
@pytest.mark.parametrize("with_context", [False, True])
def test_log_determinant_is_that_of_the_jacobian(order, with_context):
    flow = InverseAutoregressiveFlow(3, (9,), order)
    given = {"context": context_of()} if with_context else {}
    flow(draws(), **given)
    randomize(flow)
    _, log_det = flow(draws(), **given)
    for row in range(3):
        # The same context for every moved point.
        same = {"context": np.repeat(context_of()[row : row + 1], 2 * SIZE, 0)} if given else {}
        slopes = jacobian(lambda z, same=same: flow(z[:, None], **same)[0][:, 0], draws()[row, 0])
        expected = np.linalg.slogdet(slopes)[1]
        assert float(log_det[row, 0]) == pytest.approx(expected, abs=5e-3)


@pytest.mark.large_on_jax
def test_jacobian_of_a_block_is_triangular_with_the_gates_on_its_diagonal():
    block = IAFBlock((9,))
    block(draws())
    randomize(block)
    point = draws()[0, 0]
    slopes = jacobian(lambda z: block(z[:, None])[0][:, 0], point)
    assert np.all(np.abs(slopes[np.triu_indices(SIZE, 1)]) < 1e-5)
    gates = np.diagonal(slopes)
    assert np.all((gates > 0.0) & (gates < 1.0))
    _, log_det = block(point[None, None])
    assert float(log_det[0, 0]) == pytest.approx(np.sum(np.log(gates)), abs=1e-3)


@pytest.mark.large
def test_density_integrates_to_one_and_entropy_falls():
    flow = InverseAutoregressiveFlow(2, (9,))
    z0 = draws(batch=200_000, samples=1, size=2)
    flow(z0[:2])
    randomize(flow, 0.5)
    z, log_det = (ops.convert_to_numpy(part).astype("float64") for part in flow(z0))
    log_q = -0.5 * np.sum(z0.astype("float64") ** 2 + np.log(2 * np.pi), axis=2) - log_det
    # A normal density about the middle of q and narrower than it.
    center, scale = z.mean(axis=(0, 1)), 0.5 * z.std(axis=(0, 1))
    log_u = -0.5 * np.sum(((z - center) / scale) ** 2 + np.log(2 * np.pi * scale**2), axis=2)
    weights = np.exp(log_u - log_q)
    assert np.mean(weights) == pytest.approx(1.0, abs=4 * np.std(weights) / np.sqrt(weights.size))
    assert np.std(weights) > 0.05
    assert np.max(log_det) < 0.0


def test_gates_open_to_sigmoid_of_their_bias():
    block = IAFBlock((9,))
    block(draws())
    for variable in block.network.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    z, log_det = block(draws())
    np.testing.assert_allclose(ops.convert_to_numpy(z), 0.880797 * draws(), rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(log_det), SIZE * np.log(0.880797), rtol=1e-5)


@pytest.mark.parametrize("order", ["reverse", "permute"])
def test_inverse_undoes_the_flow(order):
    flow = InverseAutoregressiveFlow(3, (9,), order)
    flow(draws(), context=context_of())
    randomize(flow, 0.5)
    z, log_det = flow(draws(), context=context_of())
    back, reverse = flow.inverse(z, context_of())
    np.testing.assert_allclose(ops.convert_to_numpy(back), draws(), atol=1e-4)
    np.testing.assert_allclose(
        ops.convert_to_numpy(reverse), -ops.convert_to_numpy(log_det), atol=1e-4
    )


def test_block_is_the_inverse_of_tfps_masked_autoregressive_flow():
    if keras.backend.backend() == "tensorflow":
        from tensorflow_probability import bijectors as tfb
    else:
        from tensorflow_probability.substrates.jax import bijectors as tfb
    block = IAFBlock((9,))
    block(draws())
    randomize(block)

    def shift_and_log_scale(z):
        mean, logits = block._parameters(ops.convert_to_tensor(z), None)
        gate = ops.sigmoid(logits)
        return -(1.0 - gate) * mean / gate, -ops.log(gate)

    flow = tfb.Invert(tfb.MaskedAutoregressiveFlow(shift_and_log_scale))
    z, log_det = block(draws())
    x = ops.convert_to_tensor(draws())
    np.testing.assert_allclose(
        ops.convert_to_numpy(z), ops.convert_to_numpy(flow.forward(x)), atol=1e-5
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(log_det),
        ops.convert_to_numpy(flow.forward_log_det_jacobian(x, event_ndims=1)),
        atol=1e-5,
    )
    back, _ = block.inverse(z)
    np.testing.assert_allclose(
        ops.convert_to_numpy(back), ops.convert_to_numpy(flow.inverse(z + 0.0)), atol=1e-4
    )


def test_errors():
    with pytest.raises(ValueError, match="`num_blocks` must be a positive integer"):
        InverseAutoregressiveFlow(0)
    with pytest.raises(ValueError, match="`order` must be one of 'reverse', 'permute', 'keep'"):
        InverseAutoregressiveFlow(order="shuffle")
