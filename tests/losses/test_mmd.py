import numpy as np
import pytest
from keras import ops

from vaezoo.losses import LinearSchedule, MaximumMeanDiscrepancy, maximum_mean_discrepancy

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _naive(x, y, kernel, scales, prior_variance):
    """The definition, pair by pair."""
    total = 0.0
    for scale in scales:
        base = 2.0 * x.shape[1] * prior_variance * scale

        def similarity(a, b, base=base):
            squared = ((a - b) ** 2).sum()
            return base / (base + squared) if kernel == "imq" else np.exp(-squared / base)

        for sample in (x, y):
            pairs = [
                similarity(a, b)
                for i, a in enumerate(sample)
                for j, b in enumerate(sample)
                if i != j
            ]
            total += np.mean(pairs)
        total -= 2.0 * np.mean([similarity(a, b) for a in x for b in y])
    return total


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("kernel", "scales", "prior_variance"),
    [("imq", None, 1.0), ("rbf", None, 1.0), ("imq", (0.5, 3.0), 2.0), ("rbf", (0.5, 3.0), 2.0)],
)
def test_mmd_against_a_double_loop(float64, kernel, scales, prior_variance):
    rng = np.random.default_rng(0)
    x, y = 0.5 + rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    value = maximum_mean_discrepancy(x, y, kernel, scales, prior_variance)
    defaults = {"imq": SCALES, "rbf": (1.0,)}
    expected = _naive(x, y, kernel, scales or defaults[kernel], prior_variance)
    np.testing.assert_allclose(value, expected, rtol=float64)


def test_mmd_gradient_by_finite_differences(float64, gradient):
    rng = np.random.default_rng(0)
    x, y = 0.5 + rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    found = gradient(lambda value: maximum_mean_discrepancy(value, y), x)
    step = np.zeros_like(x)
    step[2, 1] = 1e-5
    difference = _naive(x + step, y, "imq", SCALES, 1.0) - _naive(x - step, y, "imq", SCALES, 1.0)
    np.testing.assert_allclose(found[2, 1], difference / 2e-5, rtol=1e-6)


def test_discrepancy_of_a_batch_with_itself(float64):
    x = np.random.default_rng(0).normal(size=(128, 10))
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    off_diagonal = ~np.eye(128, dtype=bool)
    kernels = [2.0 * 10 * scale / (2.0 * 10 * scale + squared) for scale in SCALES]
    expected = -2.0 / 128 * sum(1.0 - kernel[off_diagonal].mean() for kernel in kernels)
    np.testing.assert_allclose(maximum_mean_discrepancy(x, x), expected, rtol=float64)
    assert expected == pytest.approx(-0.05, abs=0.005)


@pytest.mark.large
def test_mean_discrepancy_of_equal_distributions():
    rng = np.random.default_rng(0)
    pairs = rng.standard_normal((100, 2, 128, 10), "float32")
    values = [float(ops.convert_to_numpy(maximum_mean_discrepancy(x, y))) for x, y in pairs]
    assert abs(np.mean(values)) < 0.004


def test_discrepancy_at_full_collapse():
    rng = np.random.default_rng(0)
    codes = np.zeros((128, 10), "float32")
    values = [
        float(
            ops.convert_to_numpy(
                maximum_mean_discrepancy(codes, rng.standard_normal((128, 10), "float32"))
            )
        )
        for _ in range(30)
    ]
    assert abs(np.mean(values) - 1.854) < 4.0 * 0.044 / np.sqrt(30)


def test_regularizer_weighs_the_discrepancy_from_fresh_prior_draws(make_terms):
    z = np.random.default_rng(0).normal(2.0, 1.0, size=(16, 1, 3)).astype("float32")
    terms = make_terms(z[:, 0], 0.0 * z[:, 0], z=np.repeat(z, 2, axis=1))
    regularizer = MaximumMeanDiscrepancy(weight=5.0, seed=0)
    losses = [regularizer(terms, training=True) for _ in range(2)]
    values = [float(ops.convert_to_numpy(loss.report["mmd"])) for loss in losses]
    assert values[0] != values[1]
    # The population value for a shift of two lies near 1; for equal distributions it is 0.
    assert min(values) > 0.3
    np.testing.assert_allclose(losses[0].batch, 5.0 * values[0], rtol=1e-6)
    np.testing.assert_array_equal(losses[0].per_example, np.zeros(16))
    again = MaximumMeanDiscrepancy(weight=5.0, seed=0)(terms, training=True)
    np.testing.assert_array_equal(again.batch, losses[0].batch)


@pytest.mark.large_on_jax
def test_prior_draws_have_the_prior_variance(make_terms):
    z = np.random.default_rng(0).normal(0.0, 3.0, size=(64, 1, 2)).astype("float32")
    terms = make_terms(z[:, 0], 0.0 * z[:, 0], z=z)
    values = {
        variance: np.mean(
            [
                float(ops.convert_to_numpy(regularizer(terms).report["mmd"]))
                for regularizer in [MaximumMeanDiscrepancy(prior_variance=variance, seed=0)]
                for _ in range(5)
            ]
        )
        for variance in (1.0, 9.0)
    }
    assert abs(values[9.0]) < 0.1 < 0.5 < values[1.0]


def test_weight_may_be_set_or_scheduled(make_terms):
    z = np.random.default_rng(0).normal(2.0, 1.0, size=(16, 3)).astype("float32")
    terms = make_terms(z, 0.0 * z)
    regularizer = MaximumMeanDiscrepancy(LinearSchedule(2, stop=4.0), seed=0)
    for training, weight in ((True, 0.0), (True, 2.0), (False, 4.0)):
        loss = regularizer(terms, training=training)
        np.testing.assert_allclose(loss.batch, weight * np.asarray(loss.report["mmd"]), rtol=1e-6)
    np.testing.assert_allclose(regularizer.weight.numpy(), 2.0)


def test_one_row_is_finite_in_value_and_gradient(gradient):
    x = np.ones((1, 3), "float32")
    y = np.zeros((1, 3), "float32")
    assert np.isfinite(np.asarray(maximum_mean_discrepancy(x, y)))
    assert np.all(np.isfinite(gradient(lambda value: maximum_mean_discrepancy(value, y), x)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "linear"}, "`kernel` must be one of 'imq', 'rbf'. Received: kernel='linear'"),
        (
            {"scales": ()},
            r"`scales` must be a .*positive numbers or None. Received: scales=\(\)",
        ),
        (
            {"scales": (1.0, 0.0)},
            r"`scales` must be a .*positive numbers or None. Received: scales=\(1.0, 0.0\)",
        ),
        (
            {"prior_variance": 0.0},
            "`prior_variance` must be a finite, positive number.*prior_variance=0.0",
        ),
    ],
)
def test_argument_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaximumMeanDiscrepancy(**arguments)
    x = np.zeros((2, 2), "float32")
    with pytest.raises(ValueError, match=message):
        maximum_mean_discrepancy(x, x, **arguments)


def test_weight_error():
    with pytest.raises(
        ValueError,
        match="`weight` must be a finite, non-negative number or .* Received: weight=-1.0",
    ):
        MaximumMeanDiscrepancy(weight=-1.0)
