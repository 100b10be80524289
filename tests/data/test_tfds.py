import os
import sys

import numpy as np
import pytest

from vaezoo.core.arrays import epochs_of
from vaezoo.data import describe, load, load_arrays, with_index

if os.environ["KERAS_BACKEND"] != "tensorflow":
    # Before TensorFlow is imported, which takes seconds.
    pytest.skip("the same on either backend: runs on TensorFlow", allow_module_level=True)
tfds = pytest.importorskip("tensorflow_datasets")
tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def tfds_dir(mnist_dir):
    return str(mnist_dir)


def joined(dataset):
    batches = [[np.asarray(part) for part in batch] for batch in dataset]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


class TinyFaces(tfds.core.GeneratorBasedBuilder):
    """Portraits without a label, whose 140x140 middle is white on black."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(218, 178, 3))})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        image = np.zeros((218, 178, 3), np.uint8)
        image[39:179, 19:159] = 255
        yield from ((i, {"image": image}) for i in range(3))


class TinyBits(tfds.core.GeneratorBasedBuilder):
    """Images of 0 and 1, and a label."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(5):
            yield i, {"image": np.eye(4, dtype=np.uint8)[..., None], "label": i}


class TinyShards(tfds.core.GeneratorBasedBuilder):
    """60 images, gray as their number, which is also their label."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(60):
            yield i, {"image": np.full((4, 4, 1), i + 2, np.uint8), "label": i}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The `data_dir` of `tiny_shards` in 3 files."""
    folder = tmp_path_factory.mktemp("shards")
    builder = TinyShards(data_dir=folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    assert builder.info.splits["train"].shard_lengths == [20, 20, 20]
    return str(folder)


@pytest.mark.both_backends
def test_mnist_is_what_tfds_reads(tfds_dir):
    x, y = load_arrays("mnist", "train[1000:1300]", data_dir=tfds_dir)
    theirs = tfds.load(
        "mnist", split="train[1000:1300]", data_dir=tfds_dir, download=False, batch_size=-1
    )
    np.testing.assert_array_equal(x, theirs["image"].numpy() / np.float32(255))
    np.testing.assert_array_equal(y, theirs["label"].numpy())
    info = describe("mnist", data_dir=tfds_dir)
    assert info == ("mnist", "train", 60000, (28, 28, 1), 10, "tfds")


def test_environment_names_the_folder(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", tfds_dir)
    assert describe("mnist").num_examples == 60000


def test_validation_is_the_end_of_train(tfds_dir):
    held, _ = load_arrays("mnist", "validation", validation_split=59_900 / 60_000, limit=50,
                          data_dir=tfds_dir)  # fmt: skip
    np.testing.assert_array_equal(
        held, load_arrays("mnist", "train[100:150]", data_dir=tfds_dir)[0]
    )
    for split, count in (("train", 55000), ("validation", 5000)):
        info = describe("mnist", split, tfds_dir, validation_split=5000)
        assert info.num_examples == count
    with pytest.warns(UserWarning, match="'mnist' has no validation split: taking 5000 examples"):
        assert describe("mnist", "validation", tfds_dir).num_examples == 5000


@pytest.mark.large
def test_memory_and_disk_hold_the_same(tfds_dir):
    options = {"batch_size": 64, "data_dir": tfds_dir, "shuffle": False}
    held = joined(load("mnist", "test[:300]", **options))
    streamed = joined(load("mnist", "test[:300]", in_memory=False, **options))
    for mine, theirs in zip(held, streamed, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert load("mnist", "test[:300]", in_memory=False, **options).cardinality() == 5


@pytest.mark.large
def test_streams_are_reproducible_by_seed(tfds_dir):
    def stream(seed=0, **options):
        return load("mnist", "train[:320]", batch_size=32, seed=seed, in_memory=False,
                    data_dir=tfds_dir, **options)  # fmt: skip

    one, two = stream(binarize="dynamic"), stream(binarize="dynamic")
    first, second = joined(one), joined(one)
    for mine, theirs in zip(first + second, joined(two) + joined(two), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(first[1], second[1])
    assert sorted(first[1]) == sorted(load_arrays("mnist", "train[:320]", data_dir=tfds_dir)[1])
    assert not np.array_equal(first[1], joined(stream(seed=1))[1])
    # A run that goes on at its second epoch meets it as it is, whatever the process's seed.
    tf.random.set_seed(7)
    resumed = stream(binarize="dynamic")
    epochs_of(resumed).on_epoch_begin(1)
    for mine, theirs in zip(second, joined(resumed), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    fixed = joined(stream(binarize="fixed"))[0].reshape(320, -1)
    ordered = joined(stream(seed=5, binarize="fixed", shuffle=False))[0].reshape(320, -1)
    assert sorted(fixed.tolist()) == sorted(ordered.tolist())
    p = load_arrays("mnist", "train[:320]", data_dir=tfds_dir)[0]
    assert abs(ordered.mean() - p.mean()) < 5 * np.sqrt(np.mean(p * (1 - p)) / p.size)


def test_stored_order_is_that_of_the_files(shards):
    x, y = load_arrays("tiny_shards", data_dir=shards)
    np.testing.assert_array_equal(x[:, 0, 0, 0] * 255, y + 2)
    part, labels = load_arrays("tiny_shards", "train[15:50]", data_dir=shards)
    np.testing.assert_array_equal(part, x[15:50])
    np.testing.assert_array_equal(labels, y[15:50])


@pytest.mark.large
@pytest.mark.parametrize(("backend", "in_memory"), [("tf", False), ("tf", True), ("numpy", True)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_shuffled_files_know_the_index(shards, assert_indexed, backend, in_memory, shuffle):
    selected = {"data_dir": shards, "validation_split": 5}
    for split in ("train[15:50]", "validation"):
        dataset = load(
            "tiny_shards", split, with_index=True, batch_size=4, drop_remainder=False,
            shuffle=shuffle, backend=backend, in_memory=in_memory, **selected,
        )  # fmt: skip
        orders = assert_indexed(dataset, load_arrays("tiny_shards", split, **selected))
        assert np.array_equal(*orders) != shuffle


def test_shuffled_files_come_as_the_epoch_has_them(shards):
    def stream():
        return load("tiny_shards", batch_size=20, in_memory=False, data_dir=shards)

    one = stream()
    first, second = joined(one)[1].tolist(), joined(one)[1].tolist()
    assert first != second
    resumed = stream()
    epochs_of(resumed).on_epoch_begin(1)
    assert joined(resumed)[1].tolist() == second


@pytest.mark.large
def test_a_streamed_draw_belongs_to_the_example(shards):
    def draws(split, first, shuffle):
        dataset = load(
            "tiny_shards", split, with_index=True, batch_size=5, shuffle=shuffle,
            binarize="fixed", in_memory=False, data_dir=shards,
        )  # fmt: skip
        return {
            first + index: image.tolist()
            for x, y in dataset.as_numpy_iterator()
            for image, index in zip(x, y["index"], strict=True)
        }

    whole = draws("train", 0, True)
    assert len(whole) == 60
    part = draws("train[15:50]", 15, False)
    assert part == {place: whole[place] for place in range(15, 50)}


def test_a_set_of_tfds_is_numbered_in_one_line(tfds_dir, assert_indexed):
    def scaled(x, y):
        return tf.cast(x, tf.float32) / 255, tf.cast(y, tf.int32)

    theirs = tfds.load("mnist", split="test[:50]", data_dir=tfds_dir, as_supervised=True)
    dataset = with_index(theirs.map(scaled)).shuffle(50).batch(8)
    stored = load_arrays("mnist", "test[:50]", data_dir=tfds_dir)
    first, second = assert_indexed(dataset, stored)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_omniglot_becomes_gray_ink_of_28(tfds_dir, backend):
    options = {"image_size": 28, "channels": 1, "labels": "alphabet", "data_dir": tfds_dir}
    x, y = joined(load("omniglot", "test[:100]", batch_size=50, backend=backend, **options))
    assert x.shape == (100, 28, 28, 1)
    assert set(y) <= set(range(50))
    # Strokes cover less than a fifth of the page: ink is 1, paper 0.
    assert 0.03 < x.mean() < 0.2
    assert np.median(x) == 0
    raw = tfds.load("omniglot", split="test[:100]", data_dir=tfds_dir, batch_size=-1)["image"]
    coverage = 1 - raw.numpy().mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), coverage, atol=0.01)
    plain, _ = load_arrays("omniglot", "test[:2]", invert=False, data_dir=tfds_dir)
    assert plain.shape == (2, 105, 105, 3)
    np.testing.assert_array_equal(plain, raw[:2].numpy() / np.float32(255))


def test_omniglot_is_upright(tfds_dir):
    x, _ = load_arrays("omniglot", "test[:40]", image_size=28, channels=1, data_dir=tfds_dir)
    raw, _ = load_arrays("omniglot", "test[:40]", channels=1, data_dir=tfds_dir)
    # Means of 15x15 against means of 4x4: 7 rows and columns of both.
    coarse = raw.reshape(40, 7, 15, 7, 15).mean(axis=(2, 4))
    fine = x.reshape(40, 7, 4, 7, 4).mean(axis=(2, 4))

    def agreement(other):
        return np.corrcoef(coarse.ravel(), other.ravel())[0, 1]

    assert agreement(fine) > 0.95
    assert agreement(fine.swapaxes(1, 2)) < 0.8


@pytest.mark.large
@pytest.mark.parametrize("name", ["omniglot", "mnist"])
def test_the_papers_splits_and_draws(tfds_dir, name):
    options = {"validation_split": 2000, "data_dir": tfds_dir}
    whole = describe(name, data_dir=tfds_dir).num_examples
    assert describe(name, "train", **options).num_examples == whole - 2000
    assert describe(name, "validation", **options).num_examples == 2000
    options |= {"image_size": 28, "channels": 1, "labels": False}
    p, _ = load_arrays(name, "validation[:50]", **options)
    held, _ = load_arrays(name, "validation[:50]", binarize="fixed", **options)
    assert set(np.unique(held)) == {0.0, 1.0}
    assert abs(np.mean(held - p)) < 5 * np.sqrt(np.mean(p * (1 - p)) / p.size)
    train = load(name, "train[:100]", batch_size=100, binarize="dynamic", shuffle=False, **options)
    first, second = (np.asarray(next(iter(train))) for _ in range(2))
    assert first.shape == (100, 28, 28, 1)
    assert 0.001 < np.mean(first != second) < 0.2


def test_cifar_lies_between_0_and_1(tfds_dir):
    x, _ = load_arrays("cifar10", "train[:20]", data_dir=tfds_dir)
    assert (x.min(), x.max()) == (0.0, 1.0)


def test_cifar_in_gray_and_centered(tfds_dir):
    rgb, y = load_arrays("cifar10", "train[:20]", data_dir=tfds_dir)
    gray, _ = load_arrays(
        "cifar10", "train[:20]", channels=1, value_range=(-1, 1), data_dir=tfds_dir
    )
    assert rgb.shape == (20, 32, 32, 3)
    np.testing.assert_allclose(gray[..., 0], 2 * (rgb @ [0.299, 0.587, 0.114]) - 1, atol=2.1 / 255)
    assert load_arrays("cifar10", "train[:20]", labels=False, data_dir=tfds_dir)[1] is None


def test_numpy_cannot_stream_a_set_beyond_memory(tfds_dir, monkeypatch):
    monkeypatch.setattr(sys.modules["vaezoo.data.load"], "MEMORY_LIMIT", 1000)
    with pytest.raises(ValueError, match="'mnist' does not fit in memory .* backend='numpy'"):
        load("mnist", "test", backend="numpy", data_dir=tfds_dir)
    dataset = load("mnist", "test[:20]", backend="numpy", in_memory=True, data_dir=tfds_dir)
    assert len(dataset) == 1


@pytest.mark.large
def test_celeb_a_is_its_middle_without_labels(tmp_path, monkeypatch):
    faces = TinyFaces(data_dir=tmp_path)
    faces.download_and_prepare()
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: faces)
    for in_memory in (True, False):
        dataset = load("celeb_a", image_size=64, batch_size=3, in_memory=in_memory)
        np.testing.assert_array_equal(next(iter(dataset)), np.ones((3, 64, 64, 3)))
    assert describe("celeb_a") == ("celeb_a", "train", 3, (140, 140, 3), None, "tfds")
    assert load_arrays("celeb_a", crop=(218, 178), limit=1)[0].mean() < 0.6


@pytest.mark.parametrize("in_memory", [True, False])
def test_sets_of_zero_and_one_are_black_and_white(tmp_path, in_memory):
    TinyBits(data_dir=tmp_path).download_and_prepare()
    options = {"data_dir": str(tmp_path), "in_memory": in_memory, "shuffle": False}
    x, y = joined(load("tiny_bits", batch_size=2, **options))
    np.testing.assert_array_equal(x, np.tile(np.eye(4)[..., None], (5, 1, 1, 1)))
    assert sorted(y) == [0, 1, 2, 3, 4]


def test_errors_say_what_there_is(tfds_dir, tmp_path):
    with pytest.raises(ValueError, match="'mnis'. Did you mean 'mnist'"):
        load("mnis", data_dir=tfds_dir)
    with pytest.raises(ValueError, match="No data set, file or folder is called 'my data'"):
        load("my data", data_dir=tfds_dir)
    with pytest.raises(FileNotFoundError, match="'cifar100' is not prepared: .*download=True"):
        load("cifar100", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="needs a feature `image`. Received: 'imdb_reviews'"):
        load("imdb_reviews", data_dir=tfds_dir)
    with pytest.raises(ValueError, match="'mnist' has no split 'dev'. Available: train, test, val"):
        load("mnist", "dev", data_dir=tfds_dir)
    with pytest.raises(ValueError, match="numeric feature of 'cifar10': .'label'.. Rec.*'id'"):
        load("cifar10", labels="id", data_dir=tfds_dir)


def test_a_missing_tfds_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="'mnist' is no file.*pip install tensorflow-datasets"):
        load("mnist")


def test_a_missing_tensorflow_is_named(tfds_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="reading 'mnist' needs tensorflow: pip install"):
        load_arrays("mnist", data_dir=tfds_dir)
