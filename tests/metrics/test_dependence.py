import itertools
import math

import numpy as np
import pytest

from vaezoo.losses import DiagonalGaussian
from vaezoo.metrics.dependence import (
    characteristic_matrix,
    information_coefficients,
    latent_dependence,
)


def information(columns, rows):
    joint = np.zeros((columns.max() + 1, rows.max() + 1))
    np.add.at(joint, (columns, rows), 1.0 / len(rows))
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    inside = joint > 0
    return np.sum(joint[inside] * np.log(joint[inside] / product[inside]))


def best_of_all_cuts(x, rows, num_columns):
    ranks = np.unique(x, return_inverse=True)[1]
    cuts = range(1, ranks.max() + 1)
    return max(
        information(np.searchsorted(chosen, ranks, side="right"), rows)
        for count in range(1, num_columns)
        for chosen in itertools.combinations(cuts, count)
    )


def test_every_grid_of_few_points_against_all_cuts():
    rng = np.random.default_rng(0)
    x, y = rng.permutation(12) / 7, rng.permutation(12)
    matrix = characteristic_matrix(x, y, alpha=1.0)
    assert set(matrix) == {(a, b) for a in range(2, 7) for b in range(2, 7) if a * b <= 12}

    def shares(values, number):
        # 2, 3, 4 or 6 of 12: equal shares leave no choice of rounding.
        return np.argsort(np.argsort(values)) * number // 12

    for (a, b), entry in matrix.items():
        if 5 not in (a, b):
            best = max(best_of_all_cuts(x, shares(y, b), a), best_of_all_cuts(y, shares(x, a), b))
            assert entry == pytest.approx(best / math.log(min(a, b)), abs=1e-12)


def test_tied_values_are_never_cut_apart():
    y = np.random.default_rng(1).permutation(12)
    x = np.repeat([0, 1], [8, 4])
    # The only cut of x, at 8, makes both the columns and the nearest to equal shares.
    halves = y // 6
    best = max(information(x, halves), best_of_all_cuts(y, x, 2))
    value = characteristic_matrix(x, y)[2, 2] * math.log(2)
    assert value == pytest.approx(best, abs=1e-12)
    assert value < best_of_all_cuts(np.arange(12), halves, 2)


def test_values_that_the_reference_program_publishes():
    # The example in the documentation of minepy 1.2: MINE(alpha=0.6, c=15).
    x = np.linspace(0, 1, 1000)
    y = np.sin(10 * np.pi * x) + x
    smooth = information_coefficients(x, y)
    assert smooth.mic == pytest.approx(1.0, abs=1e-9)
    assert smooth.tic == pytest.approx(67.6612295532, abs=1e-9)
    noise = np.random.RandomState(0).uniform(-1, 1, 1000)
    noisy = information_coefficients(x, y + noise)
    assert noisy.mic == pytest.approx(0.505716693417, abs=1e-11)
    assert noisy.tic == pytest.approx(28.7498326953, abs=1e-9)


def test_functions_are_told_from_independence():
    rng = np.random.default_rng(1)
    x, independent = rng.normal(size=(2, 1000))
    for function in (np.square, np.sin, np.exp):
        assert information_coefficients(x, function(x)).mic == pytest.approx(1.0, abs=1e-6)
    assert 0.05 < information_coefficients(x, independent).mic < 0.2


def test_only_order_matters_and_roles_may_be_swapped():
    x, noise = np.random.default_rng(2).normal(size=(2, 300))
    y = x**2 + noise
    reference = characteristic_matrix(x, y)
    assert characteristic_matrix(np.exp(x), np.arctan(y)) == reference
    swapped = characteristic_matrix(y, x)
    assert reference == {(a, b): swapped[b, a] for a, b in reference}
    # A falling transform puts the roundings of equal shares at the other end: nearly the same.
    assert max(characteristic_matrix(-x, y).values()) == pytest.approx(
        max(reference.values()), abs=0.03
    )


def test_constants_depend_on_nothing():
    assert information_coefficients(np.zeros(50), np.arange(50)).tic == pytest.approx(0.0, abs=1e-9)


class Encoder:
    def encode(self, x, batch_size):
        return DiagonalGaussian(x, 0.0 * x)


def test_latent_dependence_averages_over_coordinates():
    rng = np.random.default_rng(3)
    n = 400
    codes = np.stack([np.arange(n) / n, rng.normal(size=n)], axis=1)
    result = latent_dependence(codes, num_permutations=2, seed=4)
    parts = [information_coefficients(np.arange(n), code) for code in codes.T]
    assert result.value == pytest.approx(np.mean([part.mic for part in parts]))
    assert result.extra["tic"] == pytest.approx(np.mean([part.tic for part in parts]))
    assert result.extra["tic_per_grid"] == result.extra["tic"] / parts[0].num_grids
    assert result.extra["mic_per_dimension"] == [part.mic for part in parts]
    assert parts[0].mic == pytest.approx(1.0)
    # Without order both coordinates fall to the floor of independent variables.
    assert result.extra["mic_floor"] == pytest.approx(parts[1].mic, abs=0.05)
    assert result.extra["tic_floor"] < result.extra["tic"]
    assert latent_dependence(Encoder(), codes).value == result.value


def test_another_variable_and_a_subsample():
    x = np.random.default_rng(5).normal(size=(600, 1))
    index = latent_dependence(x, max_samples=200)
    given = latent_dependence(x, variable=x[:, 0] ** 3, max_samples=200)
    assert given.value == pytest.approx(1.0)
    assert index.value < 0.5
    assert given.count == 200
    assert given.settings["max_samples"] == 200
    assert (index.settings["variable"], given.settings["variable"]) == ("index", "given")
    assert latent_dependence(x, max_samples=200).value == index.value
    assert latent_dependence(x, max_samples=200, seed=1).value != index.value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros(5), "y": np.zeros(4)}, r"one shape .* shapes \(5,\) and \(4,\)"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, "n of at least 4"),
        ({"x": np.array([0, 1, 2, np.nan]), "y": np.zeros(4)}, "must be finite"),
        ({"x": np.zeros(5), "y": np.zeros(5), "alpha": 0.0}, "alpha=0.0"),
        ({"x": np.zeros(5), "y": np.zeros(5), "alpha": 1.1}, "alpha=1.1"),
        ({"x": np.zeros(5), "y": np.zeros(5), "clumps": 0}, "clumps=0"),
    ],
)
def test_coefficient_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        information_coefficients(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variable": np.zeros(3)}, r"`variable` must have shape \(9,\)"),
        ({"max_samples": 3}, "max_samples=3"),
        ({"num_permutations": -1}, "num_permutations=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_latent_dependence_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        latent_dependence(np.zeros((9, 2)), **arguments)
