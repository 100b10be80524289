import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from vaezoo.data import Vocabulary, describe, load, load_arrays, load_text

BACKENDS = [
    pytest.param(
        "tf",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow"
        ),
    ),
    "numpy",
]
pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.filterwarnings("ignore:.*has no validation split"),
]


def epoch(dataset):
    """Returns one epoch as lists of numpy x and y (y empty without labels)."""
    xs, ys = [], []
    for batch in dataset:
        x, *y = batch if isinstance(batch, tuple) else (batch,)
        xs.append(np.asarray(x))
        ys.extend(np.asarray(label) for label in y)
    return xs, ys


def rows(x):
    """Returns a multiset of examples, to compare regardless of order."""
    return sorted(np.reshape(x, (len(x), -1)).tolist())


@pytest.mark.both_backends
@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_hold_pixels_over_16_and_labels(backend):
    from sklearn.datasets import load_digits

    xs, ys = epoch(load("digits", "test", batch_size=100, backend=backend))
    assert [x.shape for x in xs] == [(100, 8, 8, 1)] * 3 + [(60, 8, 8, 1)]
    assert {x.dtype for x in xs} == {np.dtype("float32")}
    assert {y.dtype for y in ys} == {np.dtype("int32")}
    x, y = np.concatenate(xs), np.concatenate(ys)
    known = {
        tuple(image): label for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    assert [known[tuple(image)] for image in 16 * x.reshape(-1, 64)] == y.tolist()


def test_digits_splits_are_disjoint_stratified_and_whole():
    parts = {split: load_arrays("digits", split) for split in ("train", "validation", "test")}
    assert {split: len(x) for split, (x, _) in parts.items()} == {
        "train": 1257, "validation": 180, "test": 360,
    }  # fmt: skip
    together = np.concatenate([x for x, _ in parts.values()]).reshape(-1, 64)
    assert len(np.unique(together, axis=0)) == 1797
    for _, y in parts.values():
        share = np.bincount(y) / len(y)
        np.testing.assert_allclose(share, 0.1, atol=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_depends_on_seed_and_epoch_only(backend):
    first = load("digits", batch_size=200, backend=backend)
    keras.utils.set_random_seed(123)
    again = load("digits", batch_size=200, backend=backend)
    other = load("digits", batch_size=200, seed=1, backend=backend)
    one, two = epoch(first), epoch(first)
    for mine, theirs in zip(one + two, epoch(again) + epoch(again), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(one[0], two[0])
    assert not np.array_equal(one[0], epoch(other)[0])


@pytest.mark.skipif(len(BACKENDS) < 2 or BACKENDS[0].marks[0].args[0], reason="needs tensorflow")
def test_both_backends_have_the_same_order():
    datasets = [load("digits", batch_size=200, backend=name) for name in ("tf", "numpy")]
    for _ in range(2):
        (x_tf, y_tf), (x_np, y_np) = map(epoch, datasets)
        np.testing.assert_array_equal(x_tf, x_np)
        np.testing.assert_array_equal(y_tf, y_np)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_epoch_is_a_permutation(backend):
    dataset = load("digits", batch_size=100, drop_remainder=False, backend=backend)
    x, _ = epoch(dataset)
    stored, _ = load_arrays("digits")
    assert len(dataset) == 13
    assert rows(np.concatenate(x)) == rows(stored)
    assert not np.array_equal(np.concatenate(x), stored)


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_drops_the_remainder_and_evaluation_keeps_it(backend):
    train = load("digits", batch_size=100, backend=backend)
    test = load("digits", "test", batch_size=100, backend=backend)
    assert (len(train), len(epoch(train)[0])) == (12, 12)
    assert (len(test), len(epoch(test)[0])) == (4, 4)
    np.testing.assert_array_equal(np.concatenate(epoch(test)[0]), load_arrays("digits", "test")[0])


def test_tf_shapes_are_static_where_batches_are_whole():
    pytest.importorskip("tensorflow")
    train = load("digits", batch_size=100, backend="tf").element_spec
    test = load("digits", "test", batch_size=100, labels=False, backend="tf").element_spec
    assert train[0].shape.as_list() == [100, 8, 8, 1]
    assert train[1].shape.as_list() == [100]
    assert test.shape.as_list() == [None, 8, 8, 1]


@pytest.mark.large
@pytest.mark.parametrize("backend", BACKENDS)
def test_dynamic_draws_have_the_pixels_as_mean_and_differ_each_epoch(backend):
    options = {"batch_size": 60, "shuffle": False, "backend": backend, "labels": False}
    dataset = load("digits", "test", binarize="dynamic", **options)
    # An epoch of tf.data takes a tenth of a second to begin.
    count = 40 if backend == "tf" else 100
    draws = np.stack([np.concatenate(epoch(dataset)[0]) for _ in range(count)])
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert not np.array_equal(draws[0], draws[1])
    p = load_arrays("digits", "test")[0]
    np.testing.assert_array_equal(draws[:, p == 1], 1)
    np.testing.assert_array_equal(draws[:, p == 0], 0)
    # 23,040 pixels: 6 standard errors for the worst pixel.
    error = np.abs(draws.mean(axis=0) - p)
    np.testing.assert_array_less(error, 6 * np.sqrt(p * (1 - p) / count) + 1e-6)
    # Neighboring examples, batches and epochs must not share noise.
    noise = (draws - p).reshape(count, 360, 64)
    scale = np.mean(noise**2)
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 0.01 * scale
    assert abs(np.mean(noise[:, 60:] * noise[:, :-60])) < 0.01 * scale
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.01 * scale
    again = load("digits", "test", binarize="dynamic", **options)
    np.testing.assert_array_equal(epoch(again)[0][0], draws[0, :60])
    np.testing.assert_array_equal(epoch(again)[0][0], draws[1, :60])
    other = load("digits", "test", binarize="dynamic", seed=1, **options)
    assert not np.array_equal(epoch(other)[0][0], draws[0, :60])


@pytest.mark.parametrize("backend", BACKENDS)
def test_fixed_draw_belongs_to_the_example(backend):
    x, _ = load_arrays("digits", binarize="fixed")
    p, _ = load_arrays("digits")
    assert set(np.unique(x)) == {0.0, 1.0}
    assert abs(np.mean(x - p)) < 5 * np.sqrt(np.mean(p * (1 - p)) / p.size)
    shuffled = load(
        "digits", binarize="fixed", batch_size=50, seed=3, drop_remainder=False, backend=backend
    )
    for _ in range(2):
        assert rows(np.concatenate(epoch(shuffled)[0])) == rows(x)
    part = load("digits", "train[700:1000]", binarize="fixed", batch_size=7, shuffle=False,
                backend=backend)  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(epoch(part)[0]), x[700:1000])
    other, _ = load_arrays("digits", binarize="fixed", binarize_seed=1)
    assert not np.array_equal(x, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_are_draws_of_their_own(backend):
    options = {"labels": True, "binarize": "fixed", "limit": 200}
    x, y = load_arrays("digits", "test", copies=5, **options)
    one, labels = load_arrays("digits", "test", **options)
    p, _ = load_arrays("digits", "test", limit=200)
    np.testing.assert_array_equal(x[:200], one)
    np.testing.assert_array_equal(y, np.tile(labels, 5))
    draws = x.reshape(5, *p.shape)
    scale = np.mean(p * (1 - p))
    noise = (draws - p).reshape(5, -1)
    # Independent draws correlate by chance only; no pixel's variance is above 1/4.
    correlation = noise @ noise.T / noise.shape[1] / scale
    off = correlation[~np.eye(5, dtype=bool)]
    assert np.abs(off).max() < 5 / np.sqrt(noise.shape[1] * 4 * scale)
    batches = load("digits", "test", batch_size=300, copies=5, backend=backend, **options)
    xs, ys = epoch(batches)
    assert [len(x) for x in xs] == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.concatenate(xs), x)
    np.testing.assert_array_equal(np.concatenate(ys), y)
    # A draw at each presentation needs no copies.
    dynamic = load("digits", batch_size=100, binarize="dynamic", copies=5, backend=backend)
    assert len(dynamic) == 12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("labels", [True, False])
def test_the_index_is_the_place_among_the_selected(assert_indexed, backend, labels):
    options = {"labels": labels, "limit": 150}
    batches = {"batch_size": 40, "drop_remainder": False, "backend": backend}
    dataset = load("digits", "train[100:300]", with_index=True, **batches, **options)
    stored = load_arrays("digits", "train[100:300]", **options)
    # Of both backends the same, and not the same in both epochs.
    for number, order in enumerate(assert_indexed(dataset, stored)):
        np.testing.assert_array_equal(order, np.random.default_rng([0, number]).permutation(150))


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_share_the_index(backend):
    options = {"binarize": "fixed", "limit": 20, "copies": 3}
    dataset = load("digits", "test", with_index=True, batch_size=60, backend=backend, **options)
    ((x, y),) = dataset
    np.testing.assert_array_equal(y["index"], np.tile(np.arange(20), 3))
    np.testing.assert_array_equal(x, load_arrays("digits", "test", **options)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_value_range_maps_black_and_white(backend):
    x = load("digits", "test", value_range=(-1, 1), labels=False, batch_size=360, backend=backend)
    np.testing.assert_allclose(epoch(x)[0][0], 2 * load_arrays("digits", "test")[0] - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("split", "places"),
    [
        ("train[:100]", slice(100)),
        ("train[10%:]", slice(126, None)),
        ("train[25%:50%]", slice(314, 628)),
        ("train[-7:]", slice(-7, None)),
        ("train[:-1250]", slice(7)),
        ("train[1200:9999]", slice(1200, None)),
    ],
)
def test_slices_are_those_of_the_whole_split(split, places):
    x, y = load_arrays("digits")
    part_x, part_y = load_arrays("digits", split)
    np.testing.assert_array_equal(part_x, x[places])
    np.testing.assert_array_equal(part_y, y[places])
    assert describe("digits", split).num_examples == len(y[places])


def test_limit_takes_the_first_examples():
    np.testing.assert_array_equal(
        load_arrays("digits", "train[5:]", limit=3)[0], load_arrays("digits")[0][5:8]
    )


def test_validation_is_held_out_evenly_from_train(grays):
    path, x = grays
    x = x[..., None] / np.float32(255)
    with pytest.warns(
        UserWarning, match="taking 3 examples that split='train' also contains"
    ) as caught:
        held, y = load_arrays(path, "validation")
    assert caught[0].filename == __file__
    assert y.tolist() == [0, 1, 2]
    assert len(load_arrays(path)[0]) == 36
    train, _ = load_arrays(path, "train", validation_split=0.25)
    held, y = load_arrays(path, "validation", validation_split=9)
    assert y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert rows(np.concatenate([train, held])) == rows(x)
    np.testing.assert_array_equal(load_arrays(path, "validation[:2]", validation_split=9)[0],
                                  held[:2])  # fmt: skip


@pytest.mark.both_backends
@pytest.mark.parametrize("backend", BACKENDS)
def test_fit_runs_on_the_batches(backend):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    train = load("digits", "train[:256]", binarize="dynamic", batch_size=64, backend=backend)
    history = model.fit(train, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    assert len(history.epoch) == 2


def test_describe_digits():
    info = describe("digits", "test")
    assert info == ("digits", "test", 360, (8, 8, 1), 10, "embedded")
    assert describe("digits", image_size=(16, 12), channels=3).shape == (16, 12, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a positive integer. .*batch_size=0"),
        ({"binarize": "random"}, r"`binarize` must be one of .* Received: binarize='random'"),
        ({"backend": "torch"}, "`backend` must be one of .* Received: backend='torch'"),
        ({"channels": 2}, "`channels` must be one of .* Received: channels=2"),
        ({"seed": -1}, "`seed` must be an integer in .0, 2.31.. Received: seed=-1"),
        ({"binarize_seed": -1}, "`binarize_seed` must be an integer in .0, 2.31."),
        ({"copies": 0}, "`copies` must be a positive integer. Received: copies=0"),
        (
            {"copies": 2, "binarize": "fixed", "in_memory": False},
            "`copies` above 1 needs the images in memory. Received: copies=2, in_memory=False",
        ),
        ({"limit": 0}, "`limit` must be a positive integer or None. Received: limit=0"),
        (
            {"image_size": (0, 3)},
            r"`image_size` must be a positive integer or a pair .*image_size=\(0, 3\)",
        ),
        ({"crop": 9}, r"`crop` must not exceed the image. Received: crop=\(9, 9\)"),
        (
            {"value_range": (1, 0)},
            r"`value_range` must be two finite numbers.*value_range=\(1, 0\)",
        ),
        ({"value_range": 3}, "`value_range` must be two finite numbers.*value_range=3"),
        (
            {"binarize": "dynamic", "value_range": (-1, 1)},
            r"`binarize` needs `value_range=\(0.0, 1.0\)`.*value_range=\(-1, 1\)",
        ),
        ({"batch_size": 1258}, "`batch_size` must not exceed.*batch_size=1258, 1257 examples"),
        ({"split": "dev"}, "no split 'dev'. Available: train, validation, test. Rec"),
        ({"split": "train[1-2]"}, r"`split` must be a name .* Received: split='train\[1-2\]'"),
        ({"split": None}, "`split` must be a name .* Received: split=None"),
        ({"split": "train[9:9]"}, r"`split` selects no examples of 'digits'. Rec.*\[9:9\]"),
        ({"validation_split": 0.1}, "`validation_split` holds out.*validation_split=0.1"),
        ({"labels": "alphabet"}, "`labels` names a feature for TFDS sets only.*'alphabet'"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        load("digits", **options)


def test_errors_of_kind():
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer.*=2.5"):
        load("digits", batch_size=2.5)
    with pytest.raises(ValueError, match="`labels` must be True, False or .* labels=3"):
        load("digits", labels=3)
    with pytest.raises(TypeError, match="`name_or_path` must be a name or a path. Rec.*=7"):
        load(7)
    with pytest.raises(ValueError, match="`binarize` must be one of .*binarize='dynamic'"):
        load_arrays("digits", binarize="dynamic")


@pytest.mark.parametrize("size", [0.0, 1.5, 36, -1, True, "half"])
def test_validation_split_must_leave_both_sides(grays, size):
    with pytest.raises(ValueError, match="`validation_split` must be a fraction .* Received"):
        load_arrays(grays[0], validation_split=size)


def test_numpy_batches_have_bounds():
    dataset = load("digits", "test", batch_size=100, backend="numpy")
    assert dataset[3][0].shape == (60, 8, 8, 1)
    with pytest.raises(IndexError, match="Batch 4 of 4"):
        dataset[4]


@pytest.mark.large
def test_without_tensorflow_data_are_keras_batches(tmp_path):
    pytest.importorskip("jax")
    code = """
import sys
sys.modules["tensorflow"] = None
import keras
from vaezoo.data import load
assert "tensorflow_datasets" not in sys.modules
train = load("digits", batch_size=32)
assert isinstance(train, keras.utils.PyDataset)
print(train[0][0].shape)
try:
    load("digits", backend="tf")
except ImportError as error:
    print(error)
"""
    path = tmp_path / "jax_only.py"
    path.write_text(code)
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(32, 8, 8, 1)" in done.stdout
    assert "backend='tf' needs tensorflow" in done.stdout


# -- text --------------------------------------------------------------------------------------


@pytest.fixture
def sentences(tmp_path):
    """A folder of sentences with labels."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    for split, count in (("train", 40), ("valid", 8), ("test", 6)):
        lines = [
            f"{i % 2}\t{'good' if i % 2 else 'bad'} {'word ' * (i % 5)}\n" for i in range(count)
        ]
        (folder / f"{split}.txt").write_text("".join(lines), "utf-8")
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_text_goes_to_load_text(sentences, backend):
    options = {"max_size": 6, "seed": 3, "with_index": True, "backend": backend}
    found = [
        (np.asarray(x), np.asarray(y["index"]), np.asarray(y["y"]))
        for x, y in load(sentences, batch_size=4, **options)
    ]
    expected = [
        (np.asarray(x), np.asarray(y["index"]), np.asarray(y["y"]))
        for x, y in load_text(sentences, batch_size=4, **options)
    ]
    assert len(found) == 10
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_text_has_batches_of_32_and_labels_where_there_are_any(sentences):
    x, y = next(iter(load(str(sentences), backend="numpy")))
    assert (len(x), y.dtype) == (32, np.dtype("int32"))
    x = next(iter(load(sentences, labels=False, backend="numpy")))
    assert x.dtype == np.dtype("int32")


def test_text_comes_as_arrays_and_descriptions(sentences):
    x, y = load_arrays(sentences, "test", length=9)
    assert (x.shape, y.tolist()) == ((6, 9), [0, 1] * 3)
    info = describe(sentences, "validation", max_size=6)
    assert (info.num_examples, info.vocabulary_size, info.shape) == (8, 6, (None,))
    assert info.label_counts == (4, 4)
    assert describe(sentences, "train[:2]").num_examples == 2


def test_text_is_found_by_its_name(sentences, monkeypatch):
    assert len(load_arrays("reviews", "test", data_dir=sentences.parent)[0]) == 6
    monkeypatch.setenv("TFDS_DATA_DIR", str(sentences.parent))
    assert describe("reviews", "test").num_examples == 6
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.chdir(sentences.parent)
    assert describe("reviews").num_examples == 40


@pytest.mark.parametrize("suffix", ["txt", "tsv"])
def test_a_file_of_text_is_told_by_its_name(sentences, suffix):
    path = (sentences / "test.txt").rename(sentences.parent / f"own.{suffix}")
    assert len(load_arrays(path)[0]) == 6
    with pytest.raises(FileNotFoundError, match=f"No file or folder '.*missing.{suffix}'"):
        load(sentences.parent / f"missing.{suffix}")


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (load, {"binarize": "dynamic"}, r"`binarize` is of images, but '.*reviews' holds text"),
        (load_arrays, {"image_size": 28}, r"`image_size` is of images.*Received: image_size=28"),
        (load, {"value_range": (-1.0, 1.0)}, r"`value_range` is of images"),
        (describe, {"channels": 1}, r"`channels` is of images"),
        (load, {"labels": "stars"}, r"`labels` must be True or False.*'stars'"),
        (load, {"batch_size": 0}, r"`batch_size` must be a positive integer"),
        (load, {"vocabulary": Vocabulary(["word"]), "max_size": 9}, r"`max_size` and `min_count`"),
    ],
)
def test_options_that_text_has_no_use_for(sentences, function, options, message):
    with pytest.raises(ValueError, match=message):
        function(sentences, **options)


@pytest.mark.parametrize("function", [load, load_arrays, describe])
def test_options_that_images_have_no_use_for(function):
    with pytest.raises(ValueError, match=r"`max_length` is of text, but 'digits' holds images"):
        function("digits", max_length=5)
