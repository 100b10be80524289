import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from vaezoo.data import describe, load, load_arrays
from vaezoo.zoo.vae.data import clear_errors

BACKENDS = ["tf", "numpy"] if importlib.util.find_spec("tensorflow") else ["numpy"]
pytestmark = pytest.mark.one_backend


def batches(dataset):
    return [[np.asarray(part) for part in batch] for batch in dataset]


def joined(dataset):
    return [np.concatenate(parts) for parts in zip(*batches(dataset), strict=True)]


@pytest.mark.both_backends
def test_uint8_is_scaled_and_gets_a_channel(grays):
    path, stored = grays
    x, y = load_arrays(path)
    np.testing.assert_array_equal(x, stored[..., None] / np.float32(255))
    assert (y.dtype, y.tolist()) == (np.int32, [0] * 12 + [1] * 12 + [2] * 12)
    assert describe(path) == (str(path), "train", 36, (6, 5, 1), 3, "npz")


def test_npz_splits_floats_and_columns_of_labels(tmp_path):
    x = np.random.default_rng(0).random((4, 3, 3, 3))
    path = tmp_path / "a.npz"
    np.savez(path, x_train=x, x_val=x[:1], x_test=x[:2], y_test=np.array([[3], [5]]))
    np.testing.assert_array_equal(load_arrays(path)[0], x.astype("float32"))
    assert load_arrays(path)[1] is None
    assert len(load_arrays(path, "validation")[0]) == 1
    assert load_arrays(path, "test")[1].tolist() == [3, 5]
    assert load_arrays(path, "test", labels=False)[1] is None
    assert describe(path, "test").num_classes == 6


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
def test_integers_of_zero_and_one_are_black_and_white(tmp_path, dtype):
    np.save(tmp_path / "b.npy", np.eye(4, dtype=dtype)[None].repeat(3, axis=0))
    x, y = load_arrays(tmp_path / "b.npy")
    assert y is None
    np.testing.assert_array_equal(x[1, :, :, 0], np.eye(4))
    inverted, _ = load_arrays(tmp_path / "b.npy", invert=True)
    np.testing.assert_array_equal(inverted, 1 - x)


def test_vectors_are_kept(tmp_path):
    x = np.linspace(0, 1, 12, dtype="float32").reshape(4, 3)
    np.save(tmp_path / "v.npy", x)
    np.testing.assert_array_equal(load_arrays(tmp_path / "v.npy")[0], x)
    np.testing.assert_array_equal(load_arrays(tmp_path / "v.npy", invert=True)[0], 1 - x)
    with pytest.raises(ValueError, match=r"need images, but .* holds vectors of shape \(3,\)"):
        load_arrays(tmp_path / "v.npy", image_size=8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("binarize", [None, "fixed"])
def test_a_memory_map_gives_the_batches_of_memory(tmp_path, monkeypatch, backend, binarize):
    stored = np.random.default_rng(2).integers(0, 256, (40, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "m.npy", stored)
    options = {
        "batch_size": 8, "image_size": 4, "binarize": binarize, "labels": False,
        "backend": backend,
    }  # fmt: skip
    held = [np.asarray(x) for x in load(tmp_path / "m.npy", "train[3:]", **options)]
    monkeypatch.setattr(sys.modules["vaezoo.data.load"], "MEMORY_LIMIT", 0)
    mapped = [np.asarray(x) for x in load(tmp_path / "m.npy", "train[3:]", **options)]
    np.testing.assert_array_equal(mapped, held)
    assert np.shape(held) == (4, 8, 4, 4, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "in_memory"), [("npz", None), ("npy", False), ("folder", None), ("folder", True)]
)
def test_every_source_knows_the_index(
    grays, pictures, tmp_path, assert_indexed, backend, kind, in_memory
):
    np.save(tmp_path / "grays.npy", grays[1])
    path = {"npz": grays[0], "npy": tmp_path / "grays.npy", "folder": pictures}[kind]
    # Held out is every so many-th example, which the indices of both sides must not show.
    selected = {"validation_split": 4, "limit": 20}
    batches = {"batch_size": 4, "drop_remainder": False, "backend": backend}
    for split in ("train", "validation"):
        dataset = load(path, split, with_index=True, in_memory=in_memory, **batches, **selected)
        orders = assert_indexed(dataset, load_arrays(path, split, **selected))
        assert np.array_equal(*orders) == (split == "validation")


def test_geometry_crops_converts_and_averages(tmp_path):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)
    np.save(tmp_path / "c.npy", x)
    cropped, _ = load_arrays(tmp_path / "c.npy", crop=(4, 6))
    np.testing.assert_array_equal(cropped, x[:, 2:6, 2:8] / np.float32(255))
    gray, _ = load_arrays(tmp_path / "c.npy", channels=1)
    np.testing.assert_allclose(gray[..., 0], x @ [0.299, 0.587, 0.114] / 255, atol=0.51 / 255)
    # Antialiasing keeps the mean of a checkerboard that plain sampling would lose.
    board = np.indices((32, 32)).sum(axis=0) % 2
    np.save(tmp_path / "board.npy", np.uint8(255) * board[None].astype(np.uint8))
    small, _ = load_arrays(tmp_path / "board.npy", image_size=8, channels=3)
    assert small.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(small[:, 1:-1, 1:-1], 0.5, atol=0.01)


def columns(images):
    """Images (N, side, side) as MATLAB's columns of stacked columns."""
    return np.stack([image.ravel(order="F") for image in images], axis=1)


@pytest.fixture
def chardata(tmp_path):
    """A file laid out as OMNIGLOT's: 60 + 20 images of an L with a mark of their own."""
    images = np.zeros((80, 28, 28))
    images[:, 4:24, 6] = 1.0
    images[:, 23, 6:16] = 0.5
    images[np.arange(80), 0, np.arange(80) % 28] = 0.25
    target = np.eye(5)[np.arange(80) % 5].T
    content = {
        "data": columns(images[:60]), "target": target[:, :60],
        "targetchar": np.arange(60)[None] // 20 + 1.0, "testdata": columns(images[60:]),
        "testtarget": target[:, 60:], "testtargetchar": np.arange(20)[None] % 3 + 1.0,
    }  # fmt: skip
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "chardata.mat", content, do_compression=True)
    return tmp_path / "chardata.mat", images


def test_omniglot_of_a_matlab_file_is_upright(chardata):
    path, images = chardata
    x, y = load_arrays(path)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(x[..., 0], images[:60].astype("float32"))
    assert y.tolist() == [n % 5 for n in range(60)]
    # The long stroke of an L stands, the short one lies at its foot.
    assert x[0, 4:23, 6, 0].sum() == 19
    assert x[0, 23, 6:16, 0].sum() == 5
    np.testing.assert_array_equal(
        load_arrays(str(path), "test")[0][..., 0], images[60:].astype("float32")
    )
    assert describe(path, "test") == (str(path), "test", 20, (28, 28, 1), 5, "mat")
    assert describe(path, "validation", validation_split=10).num_examples == 10
    assert describe(path, "train", validation_split=10).num_examples == 50


def test_omniglot_of_a_matlab_file_has_characters(chardata, tmp_path):
    path, images = chardata
    x, y = load_arrays(path, labels="characters")
    np.testing.assert_array_equal(x[..., 0], images[:60].astype("float32"))
    assert y.dtype == np.int32
    assert y.tolist() == [[n % 5, n // 20 + 1] for n in range(60)]
    _, y = load_arrays(path, "test[:4]", labels="characters")
    assert y.tolist() == [[0, 1], [1, 2], [2, 3], [3, 1]]
    assert describe(path, labels="characters").num_classes is None
    loadmat, savemat = (getattr(pytest.importorskip("scipy.io"), n) for n in ("loadmat", "savemat"))
    content = {key: value for key, value in loadmat(path).items() if key[0] != "_"}
    # A one for each character, as alphabets have it.
    marked = {**content, "targetchar": np.eye(4)[np.arange(60) // 20 + 1].T}
    savemat(tmp_path / "marked.mat", marked)
    assert load_arrays(tmp_path / "marked.mat", labels="characters")[1][:, 1].max() == 3
    savemat(tmp_path / "short.mat", {**content, "targetchar": np.ones((1, 59))})
    with pytest.raises(ValueError, match="`targetchar` must have a whole number for each"):
        load_arrays(tmp_path / "short.mat")
    del content["testtargetchar"]
    savemat(tmp_path / "less.mat", content)
    assert load_arrays(tmp_path / "less.mat")[1].shape == (60,)
    with pytest.raises(ValueError, match="needs `target` and `targetchar` of each split"):
        load_arrays(tmp_path / "less.mat", labels="characters")
    with pytest.raises(ValueError, match="`labels` names a feature for TFDS sets only"):
        load_arrays("digits", labels="characters")


@pytest.mark.parametrize("backend", BACKENDS)
def test_omniglot_of_a_matlab_file_as_the_papers_have_it(chardata, backend):
    path, images = chardata
    data = {"batch_size": 10, "labels": False, "validation_split": 10, "backend": backend}
    train = load(path, binarize="dynamic", **data)
    first, second = ([np.asarray(x) for x in train] for _ in range(2))
    assert np.shape(first) == (5, 10, 28, 28, 1)
    assert set(np.unique(first)) == {0.0, 1.0}
    assert not np.array_equal(np.sum(first, axis=0), np.sum(second, axis=0))
    held = load(path, "validation", binarize="fixed", **data)
    one, two = ([np.asarray(x) for x in held] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    p, _ = load_arrays(path, "validation", validation_split=10)
    assert np.all(one[0][p == 1] == 1)
    assert np.all(one[0][p == 0] == 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.zeros((4, 4))}, "must hold `data`, `testdata` or both.* Received: neither"),
        ({"data": np.zeros((5, 4))}, r"`data` must have shape \(side \* side, N\).*shape=\(5, 4\)"),
        ({"testdata": np.zeros((2, 2, 4))}, r"`testdata` must have shape .*shape=\(2, 2, 4\)"),
        ({"data": np.zeros((0, 4))}, r"`data` must have shape .*shape=\(0, 4\)"),
        ({"data": np.full((4, 3), 2.0)}, r"must lie in \[0, 1\].*values from 2 to 2"),
        ({"data": np.zeros((4, 3)), "target": np.eye(5)}, "must be equally many"),
        ({"data": np.zeros((4, 3)), "target": [[0, 1, -7]]}, "`target` must have one 1 in each"),
        (
            {"data": np.zeros((4, 3)), "target": np.eye(3), "targetchar": [[0, 1, -7]]},
            "`targetchar` must number classes from 0 on. Received: -7 in '.*bad.mat'",
        ),
    ],
)
def test_unusable_matlab_files_are_refused(tmp_path, content, message):
    pytest.importorskip("scipy.io").savemat(tmp_path / "bad.mat", content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "bad.mat")


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file at all", bytes(200)])
def test_files_that_only_end_like_matlab_are_refused(tmp_path, content):
    (tmp_path / "noise.mat").write_bytes(content)
    with pytest.raises(
        ValueError, match="noise.mat' (cannot be read as a MATLAB|must hold `data`)"
    ):
        load(tmp_path / "noise.mat")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(5), r"must have shape .* Received: shape=\(5,\)"),
        (np.zeros((1, 2, 3, 4, 5)), "must have shape .* Received: shape="),
        (np.zeros((0, 4, 4)), r"No examples: .* has shape \(0, 4, 4\)"),
        (np.full((2, 4, 4), 300), "must lie in 0..255. Received: values from 300 to 300"),
        (np.full((2, 4, 4), 255.0), r"must lie in \[0, 1\].* values from 255 to 255"),
        (np.full((2, 4, 4), -0.5), r"must lie in \[0, 1\].* values from -0.5 to -0.5"),
        (np.full((2, 4, 4), np.nan), "must be finite: .* contains NaN or infinity"),
        (np.full((2, 4, 4), np.inf), "must be finite: .* contains NaN or infinity"),
        (np.array([["a"]]), "must be real numbers. Received: dtype=<U1"),
        (np.array([[None]]), "cannot be read: .* pickle.* never loaded"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_unusable_arrays_are_refused(tmp_path, x, message, kind):
    path = tmp_path / f"bad.{kind}"
    np.save(path, x) if kind == "npy" else np.savez(path, x=x)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4))}, r"must hold `x` .* Received: keys \['images'\]"),
        ({"x": np.zeros((2, 4, 4)), "y": np.zeros(3)}, "must be equally many"),
        ({"x": np.zeros((2, 4, 4)), "y": np.array(["a", "b"])}, "Labels must be numbers"),
        ({"x": np.zeros((2, 4, 4)), "y": np.array([1, -7])}, "from 0 on. Received: -7 in '.*bad"),
        ({"x": np.zeros((2, 4, 4)), "y": np.array([1.0, -7.0])}, "from 0 on. Received: -7 in"),
        ({"x": np.zeros((2, 4, 4)), "y": np.array([[1], [-7]])}, "from 0 on. Received: -7 in"),
        ({"x_train": np.zeros((2, 4)), "x_test": np.zeros((2, 5))}, "differ in shape"),
    ],
)
def test_unusable_archives_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "bad.npz")


def test_files_that_are_none(tmp_path, grays):
    (tmp_path / "noise.npy").write_bytes(b"not an array")
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(ValueError, match="noise.npy' cannot be read: it is no array file"):
        load(tmp_path / "noise.npy")
    endings = "must end in .npz, .npy or .mat, or in .txt or .tsv for text. Received: .*table.csv"
    with pytest.raises(ValueError, match=endings):
        load(str(tmp_path / "table.csv"))
    with pytest.raises(FileNotFoundError, match="No file or folder .*missing.npz"):
        load("missing.npz")
    with pytest.raises(FileNotFoundError, match="No file or folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no split 'test'. Available: train, validation .held"):
        load(grays[0], "test")


@pytest.mark.both_backends
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("in_memory", [None, True])
def test_folder_is_sorted_and_labeled_by_subfolder(pictures, backend, in_memory):
    options = {"batch_size": 4, "shuffle": False, "backend": backend, "in_memory": in_memory}
    x, y = joined(load(pictures, **options))
    assert y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(x[:, 0, 0, 0] * 255, [0, 1, 2, 3, 0, 1, 2, 3, 4])
    files = [*sorted((pictures / "ant").glob("*.png")), *sorted((pictures / "cat").glob("*.png"))]
    expected = np.stack([np.asarray(Image.open(file)) for file in files])[..., None]
    np.testing.assert_array_equal(x, expected / np.float32(255))


@pytest.mark.parametrize("backend", BACKENDS)
def test_folder_shuffles_draws_and_resizes_reproducibly(pictures, backend):
    options = {"batch_size": 3, "image_size": (6, 5), "channels": 3, "backend": backend}
    one, two = load(pictures, **options), load(pictures, **options)
    first, second = joined(one), joined(one)
    for mine, theirs in zip(first + second, joined(two) + joined(two), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert first[0].shape == (9, 6, 5, 3)
    assert not np.array_equal(first[0], second[0])
    # Either decoder's resize is the same filter, rounded to 1/255 at different steps.
    stored, _ = load_arrays(pictures, image_size=(6, 5), channels=3)
    unshuffled = joined(load(pictures, shuffle=False, **options))[0]
    np.testing.assert_allclose(unshuffled, stored, atol=2.01 / 255)

    draw = {"binarize": "fixed", "backend": backend, "drop_remainder": False}
    fixed = joined(load(pictures, shuffle=False, **draw))[0]
    part = joined(load(pictures, "train[4:]", shuffle=False, batch_size=2, **draw))[0]
    np.testing.assert_array_equal(part, fixed[4:])
    mixed = joined(load(pictures, batch_size=2, **draw))[0]
    assert sorted(mixed.reshape(9, -1).tolist()) == sorted(fixed.reshape(9, -1).tolist())
    p, _ = load_arrays(pictures)
    assert abs(np.mean(fixed - p)) < 5 * np.sqrt(np.mean(p * (1 - p)) / p.size)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_images_of_a_folder_have_draws_of_their_own(tmp_path, backend):
    for i in range(4):
        Image.new("L", (20, 20), 128).save(tmp_path / f"{i}.png")
    options = {"batch_size": 4, "shuffle": False, "binarize": "fixed", "backend": backend}
    draws = np.asarray(next(iter(load(tmp_path, **options)))).reshape(4, -1)
    agreement = (draws[:, None] == draws[None]).mean(axis=-1)
    # 400 fair pixels: a standard error of 0.025.
    np.testing.assert_allclose(agreement[~np.eye(4, dtype=bool)], 0.5, atol=0.125)
    other = np.asarray(next(iter(load(tmp_path, binarize_seed=1, **options)))).reshape(4, -1)
    np.testing.assert_allclose((draws == other).mean(axis=-1), 0.5, atol=0.125)


def test_folder_with_splits(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/b/1.jpg", "test/a/x/1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "white").save(path)
    assert describe(tmp_path) == (str(tmp_path), "train", 2, (4, 4, 3), 2, "folder")
    x, y = load_arrays(tmp_path, "validation")
    assert y.tolist() == [1]
    np.testing.assert_array_equal(x, np.ones((1, 4, 4, 3)))
    assert load_arrays(tmp_path, "test", channels=1)[1].tolist() == [0]


def test_flat_folder_has_no_labels(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "a.PNG")
    x, y = load_arrays(tmp_path)
    assert y is None
    assert x.shape == (1, 3, 4, 1)
    assert describe(tmp_path).num_classes is None


def test_a_folder_may_be_named_plainly(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    assert describe("pictures").num_examples == 9
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert describe("pictures").num_examples == 9


def test_unusable_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no .png, .jpg, .jpeg images"):
        load(tmp_path)
    Image.new("I;16", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="must have 8 bits a channel. Received: .*a.png"):
        load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a.png' is not a readable image"):
        load(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (5, 6)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="differ in size: pass `image_size`.*6x5 in .*b.png"):
        load(tmp_path)
    assert load_arrays(tmp_path, image_size=3)[0].shape == (2, 3, 3, 1)
    (tmp_path / "sub").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "sub" / "c.png")
    with pytest.raises(ValueError, match="both in class folders and outside them"):
        load(tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_below_the_crop_are_refused(tmp_path, backend):
    for name, side in (("a", 8), ("b", 4)):
        Image.new("L", (side, side)).save(tmp_path / f"{name}.png")
    dataset = load(tmp_path, crop=6, batch_size=2, shuffle=False, backend=backend)
    with pytest.raises(Exception, match="crop|offset"):
        next(iter(dataset))


def test_an_image_of_too_many_pixels_is_one_sentence(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        pixels = np.random.default_rng(0).integers(0, 256, (30, 30), "uint8")
        image.fromarray(pixels).save(tmp_path / f"{name}.png")
    # As 14,000 x 13,000 are for its own limit.
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ValueError, match="a.png' has more pixels than the 800 that are read"):
        load_arrays(tmp_path, image_size=4)
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:400])
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="a.png' cannot be read as an image|is not a readable"):
        load_arrays(tmp_path, image_size=4)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        # Its end is whole, so that it looks like an image.
        ("1.png", lambda whole: whole[:-40] + bytes(8) + whole[-32:]),
        ("1.jpg", lambda whole: whole[:-120]),
        ("1.png", lambda whole: b""),
        ("1.jpg", lambda whole: b"good food\n"),
    ],
)
def test_a_corrupt_image_is_named_however_it_is_read(tmp_path, name, spoil):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{number}.{name[-3:]}")
    (tmp_path / name).write_bytes(spoil((tmp_path / name).read_bytes()))
    for backend in BACKENDS:
        for in_memory in (False, True):
            options = {"image_size": 8, "backend": backend, "in_memory": in_memory}
            with pytest.raises(ValueError, match=f"^'.*{name}' (cannot be read|is not a readable)"):
                with clear_errors():
                    list(load(tmp_path, batch_size=3, **options))


@pytest.mark.one_backend
def test_an_image_that_was_cut_short_is_named(tmp_path):
    pytest.importorskip("tensorflow")

    for number in range(3):
        Image.fromarray(np.full((8, 8), number, "uint8")).save(tmp_path / f"{number}.png")
        Image.fromarray(np.full((8, 8), number, "uint8")).save(tmp_path / f"{number}.jpg")
    assert len(list(load(tmp_path, batch_size=6, backend="tf"))) == 1
    for name, cut in (("1.png", 20), ("1.jpg", 120)):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-cut])
        with pytest.raises(ValueError, match=f"^'.*{name}' cannot be read as an image: "):
            with clear_errors():
                list(load(tmp_path, batch_size=6, backend="tf"))
        # What stands behind the end of a JPEG does no harm.
        (tmp_path / name).write_bytes(whole + b"\0\0")
        list(load(tmp_path, batch_size=6, backend="tf"))
