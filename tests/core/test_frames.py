"""DataFrames as arrays."""

import numpy as np
import pytest

from helpers.sources import Frame
from vaezoo.core.frames import unframed

pytestmark = pytest.mark.one_backend
ROWS = np.array([[1.5, True], [2.5, False]], object)


class Nullable:
    """As `pandas.Int64Dtype()`."""

    kind, numpy_dtype = "i", np.dtype("int64")


def test_what_is_no_frame_stays():
    for value in (None, "x", ROWS, [1, 2]):
        assert unframed(value) is value


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([np.dtype("float32"), np.dtype(bool)], "float32"),
        ([np.dtype("float64"), Nullable()], "float64"),
        # Of a Series.
        (np.dtype("float64"), "float64"),
    ],
)
def test_columns_of_numbers_are_numbers_together(dtypes, expected):
    found = unframed(Frame(ROWS, dtypes))
    assert found.dtype == expected
    np.testing.assert_array_equal(found, ROWS.astype(float))


def test_missing_values_are_nan():
    found = unframed(Frame(np.array([[1], [None]], object), [Nullable()]))
    np.testing.assert_array_equal(found, [[1.0], [np.nan]])
    whole = unframed(Frame(np.array([[1], [2]], object), [Nullable()]))
    assert whole.dtype == "int64"


@pytest.mark.parametrize("dtypes", [(), [np.dtype("float64"), np.dtype(object)]])
def test_columns_of_anything_else_stay_objects(dtypes):
    assert unframed(Frame(ROWS, dtypes)).dtype == object
