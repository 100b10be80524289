import numpy as np
import pytest
from keras import ops

from vaezoo.core.masks import masks_rows, num_valid, only_valid, only_valid_pairs, weighed
from vaezoo.core.replicas import batch_mean, has_rows

VALID = np.array([True, True, False])
VALUES = np.float32([1.0, 3.0, np.inf])


def test_other_rows_are_zeros():
    x = np.float32([[1.0, 2.0], [3.0, 4.0], [np.nan, np.inf]])
    np.testing.assert_array_equal(only_valid(x, VALID), [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    assert only_valid(x) is x


def test_pairs_need_both():
    x = np.float32(np.arange(1.0, 10.0).reshape(3, 3))
    np.testing.assert_array_equal(only_valid_pairs(x, VALID), [[1, 2, 0], [4, 5, 0], [0, 0, 0]])
    assert only_valid_pairs(x) is x


@pytest.mark.parametrize(("valid", "rows"), [(None, 3), (VALID, 2)])
def test_examples_are_counted(valid, rows):
    assert float(num_valid(VALUES, valid)) == rows
    for least in (2, 3):
        assert bool(has_rows(VALUES, least, valid)) == (rows >= least)


def test_means_are_those_of_examples():
    assert float(batch_mean(ops.convert_to_tensor(VALUES), VALID)) == 2.0
    assert float(batch_mean(ops.convert_to_tensor(VALUES[:2]))) == 2.0


def test_weights_are_those_of_examples():
    weight = np.float32([0.5, 2.0, 7.0])
    for given, expected in ((None, [1.0, 1.0, 0.0]), (weight, [0.5, 2.0, 0.0])):
        values, weights = weighed(ops.convert_to_tensor(VALUES), given, VALID)
        np.testing.assert_array_equal(values, [1.0, 3.0, 0.0])
        np.testing.assert_array_equal(weights, expected)
    assert weighed(VALUES, weight) == (VALUES, weight)


def test_a_class_says_so_for_itself():
    class Part:
        masks_rows = True

    class Derived(Part):
        pass

    assert masks_rows(Part())
    assert not masks_rows(Derived())
