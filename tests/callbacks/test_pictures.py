import numpy as np
import pytest

from vaezoo.callbacks import _pictures


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.7], (0.0, 1.0)),
        ([-0.2, 0.7], (-1.0, 1.0)),
        ([0.0, 255.0], (0.0, 255.0)),
        ([-3.0, 0.5], (-3.0, 0.5)),
    ],
)
def test_value_range_is_a_usual_one_where_it_fits(values, expected):
    assert _pictures.value_range(np.array(values)) == expected


def test_images_are_laid_out_by_rows():
    levels = np.array([-1.0, 0.0, 1.0, 3.0])
    images = np.ones((4, 40, 32, 1)) * levels[:, None, None, None]
    grid = _pictures.tile(images, columns=3, limits=(-1.0, 1.0))
    # Each image has a frame one wide.
    assert grid.shape == (2 * 42, 3 * 34, 1)
    np.testing.assert_array_equal(grid[20, [10, 44, 78], 0], [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(grid[62, [10, 44], 0], [1.0, 0.0])
    np.testing.assert_array_equal(grid[0, :102, 0], 0.5)


def test_small_images_are_enlarged():
    image = np.random.default_rng(0).random((1, 8, 8, 3))
    grid = _pictures.tile(image, columns=1, limits=(0.0, 1.0))
    assert grid.shape == (34, 34, 3)
    np.testing.assert_allclose(grid[1:33:4, 1:33:4], image[0], rtol=1e-6)


def test_means_of_two_dimensions_are_shown_as_they_are():
    means = np.random.default_rng(0).normal(size=(6, 2))
    points, names = _pictures._in_two_dimensions(means)
    np.testing.assert_array_equal(points, means)
    assert names == ("mean of z[0]", "mean of z[1]")


def test_more_dimensions_are_projected_on_those_of_largest_variance():
    means = np.random.default_rng(0).normal(size=(500, 5)) * [0.1, 5.0, 0.1, 2.0, 0.1]
    points, _ = _pictures._in_two_dimensions(means)
    centered = means - means.mean(axis=0)
    for axis, dimension in enumerate((1, 3)):
        assert abs(np.corrcoef(points[:, axis], centered[:, dimension])[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("dim", "labels"),
    [(1, None), (2, np.arange(30) % 3), (4, np.arange(30)), (3, np.array(["a", "b"] * 15))],
)
@pytest.mark.filterwarnings("error")
def test_means_are_drawn_even_when_all_are_one(dim, labels):
    for means in (np.zeros((30, dim)), np.random.default_rng(0).normal(size=(30, dim))):
        picture = _pictures.draw_means(means, labels)
        assert picture.dtype == "uint8"
        assert picture.shape == (490, 600, 3)
        assert len(np.unique(picture)) > 2


def test_traversals_are_labeled():
    grid = np.random.default_rng(0).random((20, 30, 1))
    one, other, third = (
        _pictures.draw_traversals(grid, dimensions, values)
        for dimensions, values in (
            ([2, 7], [-3.0, 0.0, 3.0]),
            ([2, 8], [-3.0, 0.0, 3.0]),
            ([2, 7], [-3.0, 0.0, 2.0]),
        )
    )
    changed_rows = np.flatnonzero((one != other).any(axis=(1, 2)))
    changed_columns = np.flatnonzero((one != third).any(axis=(0, 2)))
    # A digit beside the second row, and one below the third column.
    assert len(one) / 2 < changed_rows.min() <= changed_rows.max() < len(one) / 2 + 60
    assert changed_columns.min() > one.shape[1] / 2
    assert np.ptp(changed_columns) < 15
