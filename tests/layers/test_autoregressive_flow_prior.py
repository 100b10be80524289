"""Flow priors: counts of parameters, densities that integrate to one, draws that follow them."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from vaezoo.core.random import StatelessSeed
from vaezoo.layers import InverseAutoregressiveFlow
from vaezoo.layers.autoregressive_flow_prior import (
    AutoregressiveFlowPrior,
    ConvAutoregressiveFlowPrior,
    FlowPrior,
)
from vaezoo.testing import check_serialization


def numpy(values):
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def trained_parameters(prior):
    return sum(int(np.prod(variable.shape)) for variable in prior.trainable_variables)


def randomize(prior, scale=0.4, seed=0):
    rng = np.random.default_rng(seed)
    for variable in prior.trainable_variables:
        if variable.name != "log_gain":
            variable.assign(scale * rng.normal(size=variable.shape))
    return prior


@pytest.fixture(scope="module")
def planar():
    """A prior over two dimensions, far from normal."""
    prior = AutoregressiveFlowPrior(1, (8,), init_scale=0.3)
    prior.build((None, 1, 2))
    return randomize(prior)


def test_parameters_are_those_of_the_published_size():
    # 8 flows of two networks at D = 32, H = 320: kernels, and a bias and a gain for each output.
    hidden, output, direct = 32 * 320 + 2 * 320, 320 * 32 + 2 * 32, 32 * 32 + 2 * 32
    prior = AutoregressiveFlowPrior()
    prior.build((None, 1, 32))
    assert trained_parameters(prior) == 16 * (hidden + output + direct) == 356_352


@pytest.mark.large
def test_parameters_of_the_convolutional_prior():
    # 16x8x8 latent maps; 3x3 kernels in full, with what their masks leave out.
    first, middle, last = 9 * 16 * 128 + 256, 9 * 128 * 128 + 256, 9 * 128 * 16 + 32
    prior = ConvAutoregressiveFlowPrior((8, 8, 16))
    prior.build((None, 1, 1024))
    expected = 16 * (first + 2 * middle + last + 9 * 16 * 16 + 32)
    assert trained_parameters(prior) == expected == 5_358_592


@pytest.mark.large_on_jax
def test_density_integrates_to_one_and_draws_follow_it(planar, run):
    axis = np.linspace(-9.0, 9.0, 400, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    density = np.exp(run(planar, planar, grid)[:, 0].astype("float64"))
    cell = float(axis[1] - axis[0]) ** 2
    assert np.sum(density) * cell == pytest.approx(1.0, abs=1e-3)
    normal = np.exp(stats.norm.logpdf(grid[:, 0]).sum(-1))
    assert 0.5 * np.sum(np.abs(density - normal)) * cell > 0.1
    z = numpy(planar.sample(20_000, keras.random.SeedGenerator(0)))
    assert z.shape == (20_000, 2)
    for function in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: np.cos(z[:, 0] * z[:, 1])):
        values = function(z)
        expected = np.sum(function(grid[:, 0]) * density) * cell
        assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(20_000))


def test_equal_seeds_give_equal_draws(planar):
    first, again, other = (numpy(planar.sample(5, StatelessSeed(seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)


@pytest.mark.large
@pytest.mark.parametrize("kind", ["masked", "inverse", "maps"])
def test_density_is_that_of_the_noise_and_the_jacobian(kind, run):
    prior = {
        "masked": lambda: AutoregressiveFlowPrior(1, (8,)),
        # An odd number of reversals: coordinates of noise and code differ.
        "inverse": lambda: FlowPrior(InverseAutoregressiveFlow(3, (8,))),
        "maps": lambda: ConvAutoregressiveFlowPrior((1, 2, 2), 1, 3),
    }[kind]()
    z = np.random.default_rng(1).normal(size=(3, 2, 4)).astype("float32")
    prior.build(z.shape)
    randomize(prior, 0.2)
    eps, log_det = run(prior, prior.flow.inverse, z)
    assert np.std(log_det) > 0.01
    expected = stats.norm.logpdf(eps).sum(-1) + log_det
    np.testing.assert_allclose(run(prior, prior, z), expected, rtol=1e-4, atol=1e-4)
    per_dimension = run(prior, prior.log_prob_per_dimension, z)
    assert per_dimension.shape == (3, 2, 4)
    np.testing.assert_allclose(per_dimension.sum(-1), expected, rtol=1e-4, atol=1e-4)


def test_dimensions_are_those_of_the_code(run):
    prior = FlowPrior(InverseAutoregressiveFlow(1, (8,)))
    z = np.random.default_rng(1).normal(size=(1, 1, 4)).astype("float32")
    prior.build(z.shape)
    randomize(prior)
    # The first moved by one, and the last.
    moved = z + np.eye(4, dtype="float32")[[0, 3]][:, None]
    before, first, last = run(prior, prior.log_prob_per_dimension, np.concatenate([z, moved]))[:, 0]
    # The only block reads the noise from its first coordinate on, which the reversal has put last.
    assert np.all(np.abs(last - before) > 1e-5)
    assert abs(first - before)[0] > 1e-3
    np.testing.assert_allclose(first[1:], before[1:], atol=1e-5)


@pytest.mark.large
@pytest.mark.one_backend
@pytest.mark.parametrize(
    "make",
    [
        lambda: AutoregressiveFlowPrior(1, (12,)),
        lambda: ConvAutoregressiveFlowPrior((2, 2, 1), 1, 3),
    ],
    ids=["dense", "maps"],
)
def test_a_prior_of_equal_weights_draws_the_same(make):
    prior, z = make(), np.random.default_rng(2).normal(size=(2, 1, 4)).astype("float32")
    prior.build(z.shape)
    randomize(prior)
    again = check_serialization(prior)
    again.build(z.shape)
    again.set_weights(prior.get_weights())
    draws = [numpy(each.sample(3, StatelessSeed(1))) for each in (again, prior)]
    np.testing.assert_allclose(*draws, rtol=1e-5)
    assert np.ptp(draws[0]) > 0.1


@keras.saving.register_keras_serializable(package="tests")
def negative(_, log_prob):
    return -ops.mean(log_prob)


def test_errors():
    with pytest.raises(TypeError, match="`flow` must be a vaezoo Flow. Received: flow=.*Dense"):
        FlowPrior(keras.layers.Dense(2))
    for make in (AutoregressiveFlowPrior, lambda num: ConvAutoregressiveFlowPrior((1, 1, 1), num)):
        with pytest.raises(ValueError, match="`num_blocks` must be a positive integer"):
            make(0)
    with pytest.raises(ValueError, match=r"`z` must have shape \(batch, K, 12\)"):
        ConvAutoregressiveFlowPrior((2, 3, 2)).build((None, 1, 8))
