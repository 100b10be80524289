import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.layers import MeanBatchNorm, RootMeanSquare

GAMMA, DIM = 0.5, 4


def _raw(seed=0, batch=16, dim=DIM):
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.4, 3.0, dim), rng.normal(0.0, 5.0, dim)
    return (shift + scale * rng.normal(size=(batch, dim))).astype("float32")


def _built(**arguments):
    norm = MeanBatchNorm(GAMMA, **arguments)
    norm.build((None, DIM))
    return norm


@pytest.fixture(scope="module")
def trained(tiny_networks):
    """A DU-VAE, its data, and its gains after each of five training steps."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((16, 6)).astype("float32")
    model = zoo.DUVAE(*tiny_networks(), latent_dim=DIM, gamma=GAMMA, seed=0)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    gains = []
    for _ in range(5):
        model.train_on_batch(x)
        gains.append(model.head.mean_norm.gamma.numpy())
    return model, x, np.array(gains, "float64")


def test_gain_is_pinned_after_every_step_and_free_per_dimension(trained):
    _, _, gains = trained
    np.testing.assert_allclose(np.sqrt((gains**2).mean(1)), GAMMA, rtol=1e-6)
    assert gains[-1].std() > 1e-3
    assert np.all(gains[0] != gains[1])


def test_spread_and_squares_of_a_training_batch():
    norm, raw = _built(), _raw()
    gain = np.array([0.7, -0.2, 0.5, 0.3])
    gain *= GAMMA / np.sqrt((gain**2).mean())
    beta = np.array([0.1, -0.4, 0.0, 0.8])
    norm.gamma.assign(gain)
    norm.beta.assign(beta)
    mean = np.asarray(norm(raw, training=True), "float64")
    v = raw.astype("float64").var(0)
    assert v.min() > 0.1
    kept = v / (v + 1e-5)
    np.testing.assert_allclose(mean.var(0), gain**2 * kept, rtol=1e-5)
    np.testing.assert_allclose(mean.var(0).sum(), DIM * GAMMA**2, rtol=1e-4)
    np.testing.assert_allclose((mean**2).mean(0), gain**2 * kept + beta**2, rtol=1e-4)
    np.testing.assert_allclose((mean**2).mean(0).sum(), DIM * GAMMA**2 + (beta**2).sum(), rtol=1e-4)


@pytest.mark.large
def test_inference_is_deterministic_and_takes_each_example_alone(trained):
    model, x, _ = trained
    first, again, part = model.encode(x), model.encode(x), model.encode(x[3:6])
    for one, two, three in zip(first, again, part, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one[3:6], three, rtol=1e-5, atol=1e-6)


@pytest.mark.large
def test_fixed_gain_is_not_trained(tiny_networks):
    x = np.random.default_rng(0).random((16, 6)).astype("float32")
    model = zoo.BNVAE(*tiny_networks(), latent_dim=DIM, gamma=0.6, seed=0)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    for _ in range(3):
        model.train_on_batch(x)
    norm = model.head.mean_norm
    np.testing.assert_array_equal(norm.gamma.numpy(), np.full(DIM, 0.6, "float32"))
    assert abs(norm.beta.numpy()).min() > 1e-3


@pytest.mark.parametrize(
    ("mode", "trained_names"),
    [("rms", ["gamma", "beta"]), ("fixed", ["beta"]), ("free", ["gamma", "beta"])],
)
def test_modes_differ_in_what_is_trained(mode, trained_names):
    norm = _built(mode=mode)
    assert [weight.name for weight in norm.trainable_weights] == trained_names
    assert (norm.gamma.constraint is not None) == (mode == "rms")
    assert norm.target == GAMMA
    np.testing.assert_allclose(norm.gamma.numpy(), GAMMA)


def test_training_normalizes_with_the_biased_batch_variance():
    raw = _raw()
    exact = raw.astype("float64")
    expected = GAMMA * (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(_built()(raw, training=True), expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_decay_and_take_the_unbiased_variance():
    norm = _built()
    mean, variance = np.zeros(DIM), np.ones(DIM)
    for seed in range(3):
        raw = _raw(seed, batch=5)
        norm(raw, training=True)
        mean = 0.9 * mean + 0.1 * raw.mean(0)
        variance = 0.9 * variance + 0.1 * raw.var(0, ddof=1)
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, rtol=1e-5)
    raw = _raw(9)
    expected = GAMMA * (raw - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(norm(raw), expected, rtol=1e-4, atol=1e-5)
    # Inference leaves them alone.
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, rtol=1e-5)


def test_gradient_sees_the_batch_statistics(gradient):
    """A shift or a scaling of the whole batch changes nothing."""
    norm, raw = _built(), _raw()
    upstream = np.random.default_rng(1).normal(size=raw.shape).astype("float32")
    slope = gradient(lambda value: ops.sum(norm(value, training=True) * upstream), raw)
    np.testing.assert_allclose(slope.sum(0), 0.0, atol=1e-5)
    centered = raw - raw.mean(0)
    np.testing.assert_allclose((slope * centered).sum(0), 0.0, atol=1e-3)
    assert abs(slope).max() > 0.01


def test_running_statistics_stand_in_for_those_of_one_row(gradient):
    norm, raw = _built(), _raw(batch=1)
    norm(_raw(), training=True)
    before = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    np.testing.assert_allclose(norm(raw, training=True), norm(raw), rtol=1e-6)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before[0])
    np.testing.assert_array_equal(norm.moving_variance.numpy(), before[1])
    slope = gradient(lambda value: ops.sum(ops.square(norm(value, training=True))), raw)
    assert np.all(np.isfinite(slope))
    assert norm.min_batch_size == 2


def test_constant_dimension_is_finite():
    raw = np.tile(np.float32([3.0, 1.0, 2.0, 0.0]), (6, 1))
    np.testing.assert_allclose(_built()(raw, training=True), np.zeros((6, DIM)), atol=1e-4)


def test_half_precision_goes_in_and_float32_comes_out(float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    mean = MeanBatchNorm(GAMMA)(_raw().astype("float16"), training=True)
    assert keras.backend.standardize_dtype(mean.dtype) == "float32"
    np.testing.assert_allclose(np.asarray(mean).std(0), GAMMA, rtol=1e-4)


def test_root_mean_square_rescales():
    constraint = RootMeanSquare(0.5)
    rescaled = np.asarray(constraint(np.float32([3.0, -4.0])))
    np.testing.assert_allclose(rescaled, np.array([3.0, -4.0]) * 0.5 / np.sqrt(12.5), rtol=1e-6)
    np.testing.assert_array_equal(constraint(np.zeros(2, "float32")), [0.0, 0.0])


@pytest.mark.parametrize(("target", "dim"), [(0.5, 2), (0.6, 32), (1.0, 1000)])
def test_root_mean_square_is_the_identity_at_its_target(target, dim):
    constraint = RootMeanSquare(target)
    start = np.full(dim, target, "float32")
    np.testing.assert_array_equal(constraint(start), start)
    weight = np.random.default_rng(0).normal(size=dim).astype("float32")
    rescaled = np.asarray(constraint(weight))
    assert np.sqrt(np.mean(rescaled.astype("float64") ** 2)) == pytest.approx(target, rel=1e-6)
    np.testing.assert_array_equal(constraint(rescaled), rescaled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, "`gamma` must be a finite, positive number. Received: gamma=0.0"),
        ({"gamma": float("nan")}, "`gamma` must be a finite, positive number. Received: gamma=nan"),
        ({"gamma": 1, "mode": "bn"}, "`mode` must be one of 'rms', 'fixed', 'free'. .* mode='bn'"),
        (
            {"gamma": 1, "momentum": 1.0},
            r"`momentum` must be a number in \[0, 1\). .* momentum=1.0",
        ),
        (
            {"gamma": 1, "momentum": -0.1},
            r"`momentum` must be a number in \[0, 1\). .* momentum=-0.1",
        ),
        (
            {"gamma": 1, "epsilon": 0.0},
            "`epsilon` must be a finite, positive number. Received: epsilon=0.0",
        ),
    ],
)
def test_argument_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        MeanBatchNorm(**arguments)


def test_constraint_error():
    with pytest.raises(
        ValueError, match="`target` must be a finite, positive number. Received: target=-1"
    ):
        RootMeanSquare(-1)
