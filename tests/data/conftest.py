import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    """Class folders of 5 + 4 gray 12x10 images, whose pixels tell class and number."""
    rng = np.random.default_rng(0)
    for label, count in (("cat", 5), ("ant", 4)):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (12, 10), dtype=np.uint8)
            pixels[0, 0], pixels[0, 1] = i, count
            Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "pictures"


@pytest.fixture
def grays(tmp_path):
    """An `.npz` of 36 random uint8 images of 6x5 with labels sorted by class."""
    x = np.random.default_rng(1).integers(0, 256, (36, 6, 5), dtype=np.uint8)
    np.savez(tmp_path / "grays.npz", x=x, y=np.repeat([0, 1, 2], 12))
    return tmp_path / "grays.npz", x


@pytest.fixture(scope="session")
def assert_indexed():
    """Checks batches with an index against the stored `(x, y)`; returns the order of 2 epochs."""

    def check(dataset, stored):
        x, y = stored
        orders = []
        for _ in range(2):
            batches = list(dataset)
            index = np.concatenate([np.asarray(target["index"]) for _, target in batches])
            assert index.dtype == np.int32
            np.testing.assert_array_equal(np.sort(index), np.arange(len(x)))
            images = np.concatenate([images for images, _ in batches])
            np.testing.assert_array_equal(images, x[index])
            keys = {"index"} if y is None else {"index", "y"}
            assert all(set(target) == keys for _, target in batches)
            if y is not None:
                labels = np.concatenate([target["y"] for _, target in batches])
                np.testing.assert_array_equal(labels, y[index])
            orders.append(index)
        return orders

    return check
