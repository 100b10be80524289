import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.random import StatelessSeed
from vaezoo.layers import (
    FlowHead,
    GaussianHead,
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
    MeanBatchNorm,
    VarianceDropout,
)
from vaezoo.losses import ELBO, FreeBits, Terms, log_prob, log_prob_per_dimension

SIZE = 3


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(4, 5)).astype("float32")


def make(order="permute", num_blocks=3, **options):
    keras.utils.set_random_seed(1)
    flow = InverseAutoregressiveFlow(num_blocks, (8, 8), order=order, seed=2)
    return FlowHead(SIZE, flow, seed=3, **options)


def still(head, features):
    """Makes the flow a mere change of order: all gates are 1."""
    head(features)
    for block in head.flow.blocks:
        block.bias.assign(np.full(SIZE, 40.0))
        for variable in block.network.trainable_variables:
            variable.assign(np.zeros(variable.shape))
    return head


@pytest.mark.large
def test_density_of_own_draws_is_that_of_the_inverse(features):
    head = make()
    posterior, z, log_qz = head(features, density=True)
    np.testing.assert_allclose(
        ops.sum(log_qz, axis=-1), head.log_prob(posterior, z), rtol=1e-4, atol=1e-4
    )
    z, log_qz = head.sample_and_log_prob(posterior, 6, StatelessSeed(1))
    assert tuple(z.shape) == tuple(log_qz.shape) == (4, 6, SIZE)
    np.testing.assert_allclose(
        ops.sum(log_qz, axis=-1), head.log_prob(posterior, z), rtol=1e-4, atol=1e-4
    )


@pytest.mark.one_backend
def test_density_integrates_to_one(features):
    keras.utils.set_random_seed(1)
    head = FlowHead(2, InverseAutoregressiveFlow(2, (8,), degrees="sequential"))
    head(features)
    # So far out on the grid, steep gates would leave the range of float32.
    for variable in head.flow.trainable_variables:
        variable.assign(0.3 * variable)
    posterior = head(features)[0]
    edges = np.linspace(-9.0, 9.0, 300, dtype="float32")
    grid = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(1, -1, 2)
    density = ops.exp(head.log_prob(posterior, np.repeat(grid, 4, axis=0)))
    total = ops.convert_to_numpy(ops.sum(density, axis=1)) * (edges[1] - edges[0]) ** 2
    np.testing.assert_allclose(total, 1.0, rtol=1e-2)


@pytest.mark.large_on_jax
def test_each_coordinate_keeps_its_density_through_all_orders(features):
    head = still(make(), features)
    posterior, z, log_qz = head(features, density=True)
    origin = head.flow.coordinates
    assert sorted(origin) == [0, 1, 2]
    assert list(origin) != [0, 1, 2]
    base = type(posterior.base)(*(ops.take(part, origin, axis=-1) for part in posterior.base))
    np.testing.assert_allclose(log_qz, log_prob_per_dimension(base, z), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(posterior.mean, base.mean, rtol=1e-5, atol=1e-6)


@pytest.mark.large_on_jax
def test_still_flow_is_the_gaussian_head(features):
    head = still(make("keep"), features)
    posterior, z = head(features)
    weights = ops.convert_to_numpy(head.projection.kernel)[:, : 2 * SIZE]
    plain = GaussianHead(SIZE)
    plain(features)
    plain.projection.kernel.assign(weights)
    expected = plain.posterior(features)
    np.testing.assert_allclose(posterior.base_mean, expected.mean, rtol=1e-5)
    # The raw scale is the softplus' argument rather than a log-variance.
    sd = np.log1p(np.exp(ops.convert_to_numpy(expected.log_var)))
    np.testing.assert_allclose(ops.exp(posterior.base_log_var), sd**2, rtol=1e-4)
    np.testing.assert_allclose(
        head.log_prob(posterior, z), log_prob(posterior.base, z), rtol=1e-5, atol=1e-5
    )


@pytest.mark.large_on_jax
def test_tiny_scales_stay_finite(features):
    head = make()
    head(features)
    bias = np.zeros(head.projection.units, "float32")
    bias[SIZE : 2 * SIZE] = -60.0
    head.projection.bias.assign(bias)
    head.projection.kernel.assign(np.zeros(head.projection.kernel.shape))
    # softplus(-60)^2 = exp(-120), which float32 cannot hold: the precision goes on from the end of
    # the range, exp(30), along its tangent.
    expected = -30.0 - np.log1p(120.0 - 30.0)
    np.testing.assert_allclose(head.posterior(features).base_log_var, expected, rtol=1e-6)


def test_regularizers_work_on_the_base(features):
    head = make(mean_norm=MeanBatchNorm(0.7), variance_dropout=VarianceDropout(0.5, seed=1))
    posterior = head(features, training=True)[0]
    mean = ops.convert_to_numpy(posterior.base_mean)
    np.testing.assert_allclose(mean.std(axis=0), 0.7, rtol=1e-3)
    variance = ops.convert_to_numpy(ops.exp(posterior.base_log_var))
    floor = 1.0 / (2.0 * np.pi * np.e)
    dropped = np.isclose(variance, floor, rtol=1e-5)
    assert 0 < dropped.sum() < dropped.size
    assert head.min_batch_size == 2


def test_context_may_be_left_out(features):
    head = make(context_dim=0)
    posterior, _ = head(features)
    assert head.projection.units == 2 * SIZE
    assert posterior.context.shape == (4, 0)
    assert head.flow.blocks[0].network.context_dim is None


def terms_of(rates):
    rates = ops.convert_to_tensor(rates, dtype="float32")
    batch = ops.zeros((rates.shape[0], 1))
    return Terms(batch, batch, batch, ops.sum(rates, axis=1), rates, None, None)


def test_free_bits_of_rates_below_the_floor_are_the_floor():
    # D * lambda, whatever the rates; one above the floor is charged.
    objective = FreeBits(0.5)
    low = objective(terms_of([[0.1, 0.2, 0.3], [0.3, -0.2, 0.5]]), training=True)
    np.testing.assert_allclose(low.batch, 3 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(low.per_example, 0.0)
    high = objective(terms_of([[0.1, 0.2, 0.3], [0.3, -0.2, 2.5]]), training=True)
    np.testing.assert_allclose(high.batch, 0.5 + 0.5 + 1.4, rtol=1e-6)


@pytest.mark.large_on_jax
def test_rates_below_the_floor_leave_the_encoder_alone(features, gradient):
    head = make()
    head(features)

    def charged(kernel, objective):
        projected = ops.matmul(features, kernel)
        mean, raw, context = ops.split(projected, [SIZE, 2 * SIZE], axis=-1)
        source = (mean + ops.softplus(raw))[:, None]
        z, log_scale = head.flow.forward_and_log_det(source, context)
        log_qz = head.flow.permute(-ops.log(ops.softplus(raw))[:, None]) - log_scale
        rates = log_qz + 0.5 * ops.square(z)
        loss = objective(terms_of(rates[:, 0]), training=True)
        return ops.sum(loss.per_example) + loss.batch

    kernel = ops.convert_to_numpy(head.projection.kernel)
    below = gradient(lambda value: charged(value, FreeBits(100.0)), kernel)
    np.testing.assert_array_equal(below, np.zeros_like(below))
    assert np.any(gradient(lambda value: charged(value, ELBO()), kernel) != 0.0)


@pytest.mark.large
def test_gradient_runs_through_the_slow_direction(run, gradient):
    # A posterior by a masked flow draws one dimension after the other, in a loop.
    flow = MaskedAutoregressiveFlow(2, (6,), init_scale=0.5)
    eps = np.random.default_rng(0).normal(size=(2, 1, SIZE)).astype("float32")
    flow(eps)
    weights = np.array([0.3, -1.0, 0.7], "float32")

    def total(eps):
        z, log_det = flow(eps)
        return ops.sum(z * weights) + ops.sum(log_det)

    found = gradient(total, eps)
    step = 1e-2
    for index in np.ndindex(eps.shape):
        move = np.zeros_like(eps)
        move[index] = step
        slope = (run(flow, total, eps + move) - run(flow, total, eps - move)) / (2 * step)
        np.testing.assert_allclose(found[index], slope, rtol=2e-2, atol=2e-3)


@pytest.mark.large
def test_masked_flow_as_posterior_knows_the_density_of_its_draws(features):
    keras.utils.set_random_seed(0)
    head = FlowHead(SIZE, MaskedAutoregressiveFlow(2, (6,)))
    head(features)
    posterior, z, log_qz = head(features, density=True)
    np.testing.assert_allclose(
        ops.sum(log_qz, axis=-1), head.log_prob(posterior, z), rtol=1e-3, atol=1e-3
    )


def test_errors_name_the_values():
    with pytest.raises(TypeError, match="`flow` must be a vaezoo Flow. Received: flow=.*Dense"):
        FlowHead(3, keras.layers.Dense(3))
    with pytest.raises(ValueError, match="`context_dim` .* Received: context_dim=-1"):
        make(context_dim=-1)
