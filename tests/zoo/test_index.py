"""Each training example comes with its index, or with an error before it does harm."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.zoo._index import example_weight, indexed, split_index

N = 6
INDEX = np.array([4, 0, 5, 2, 1, 3])
# Every row is its own index, and says so in its label, too.
X = INDEX[:, None].astype("float32")
Y = 10 * INDEX
WEIGHT = 1.0 + np.arange(N, dtype="float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, batches, length=None, **kwargs):
        super().__init__(**kwargs)
        self.batches, self.length = batches, length or len(batches)
        self.events = []

    def __len__(self):
        return len(self.batches)

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, i):
        return self.batches[i]

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")


def as_dataset(batches):
    tf = pytest.importorskip("tensorflow")
    rows = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
    return tf.data.Dataset.from_tensor_slices(rows).batch(len(batches[0][0]))


STREAMS = {
    "tf.data": as_dataset,
    "PyDataset": Batches,
    "generator": lambda batches: (batch for batch in batches),
}


def batches(y, *sample_weight, x=X):
    """Two batches of 3."""
    parts = [slice(0, 3), slice(3, 6)]
    return [
        keras.tree.map_structure(lambda array, rows=rows: array[rows], (x, y, *sample_weight))
        for rows in parts
    ]


def consume(dataset):
    """All batches in numpy."""
    return [keras.tree.map_structure(np.asarray, batch) for batch in dataset]


class Reader(keras.Model):
    """Adds the weight of each example up under its index, and how far its x is from that."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.seen = self.add_weight(shape=(N,), initializer="zeros", trainable=False)
        self.apart = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        return self.scale * x

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y, index = split_index(y)
        weight = example_weight(sample_weight)
        if training:
            weight = ops.ones(ops.shape(index)) if weight is None else weight
            self.seen.assign_add(ops.sum(ops.one_hot(index, N) * weight[:, None], axis=0))
            distance = ops.abs(x[:, 0] - ops.cast(index, "float32"))
            if y is not None:
                distance = distance + ops.abs(ops.cast(y, "float32") - 10 * x[:, 0])
            self.apart.assign_add(ops.sum(distance))
        return ops.mean(y_pred)


@pytest.mark.parametrize("source", ["array", *STREAMS])
@pytest.mark.parametrize("weighted", [False, True])
def test_keras_hands_over_each_example_once(source, weighted):
    model = Reader()
    model.compile("sgd", jit_compile=True)
    weights = [WEIGHT] if weighted else []
    options = {"shuffle": source in ("array", "PyDataset"), "verbose": 0}
    if source == "array":
        # The last quarter of 8 rows is held out.
        x = np.arange(8, dtype="float32")[:, None]
        x, y = indexed(x, 10 * x[:, 0], N, held_out=0.25)
        if weighted:
            options["sample_weight"] = np.append(WEIGHT[INDEX.argsort()], [9, 9])
        model.fit(x, y, batch_size=3, validation_split=0.25, **options)
    else:
        y = {"index": INDEX, **({"y": Y} if weighted else {})}
        x, y = indexed(STREAMS[source](batches(y, *weights)), None, N)
        assert y is None
        model.fit(x, steps_per_epoch=2 if source == "generator" else None, **options)
    expected = WEIGHT[INDEX.argsort()] if weighted else np.ones(N)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.seen), expected)
    assert ops.convert_to_numpy(model.apart) == 0


@pytest.mark.parametrize(
    ("y", "parts"),
    [
        (None, (None, None)),
        (3, (3, None)),
        ({"y": 3}, ({"y": 3}, None)),
        ({"index": 1}, (None, 1)),
        ({"index": 1, "y": 3}, (3, 1)),
    ],
)
def test_what_goes_with_x_is_taken_apart(y, parts):
    assert split_index(y) == parts


def test_other_keys_are_named():
    message = '`y` must hold no keys but "index" and "y". Received: "label", "weight"'
    with pytest.raises(ValueError, match=message):
        split_index({"index": 1, "weight": 1, "y": 2, "label": 3})


@pytest.mark.parametrize("held_out", [0.0, 0.25])
@pytest.mark.parametrize("labels", [None, np.arange(8)])
def test_arrays_are_numbered(held_out, labels):
    x, y = indexed(np.zeros((8, 2)), labels, 6 if held_out else 8, held_out)
    assert x.shape == (8, 2)
    assert y["index"].dtype == np.int32
    assert y.pop("index").tolist() == list(range(8))
    assert (y == {}) if labels is None else (y["y"] is labels)


def test_a_given_index_is_kept():
    given = ops.convert_to_tensor(INDEX[:4])
    _, y = indexed(X[:4], {"index": given, "y": Y[:4]}, N)
    assert (y["index"].dtype, y["index"].tolist()) == (np.int32, INDEX[:4].tolist())
    np.testing.assert_array_equal(y["y"], Y[:4])


@pytest.mark.parametrize(
    ("held_out", "received"),
    [(0.0, r"8 rows \(of 8, validation_split=0.0"), (0.4, r"4 rows \(of 8, validation_split=0.4")],
)
def test_arrays_of_another_length(held_out, received):
    message = (
        "`num_examples` must be the number of rows of `x` to train on. Received: num_examples=6, "
    )
    with pytest.raises(ValueError, match=message + received):
        indexed(np.zeros((8, 2)), None, N, held_out)


def replaced(value):
    index = INDEX.copy()
    index[4] = value
    return index


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (INDEX.astype("float32"), "`index` must hold integers. Received: dtype=float32"),
        (INDEX % 2 == 0, "`index` must hold integers. Received: dtype=bool"),
        (INDEX[:, None], r"`index` must have shape \(.*\), one number .* Received: shape=\(.*, 1"),
        (replaced(-1), r"`index` must lie in \[0, num_examples\).*num_examples=6, index=.*-1"),
        (replaced(N), r"`index` must lie in \[0, num_examples\).*num_examples=6, index=.*6"),
        (
            replaced(100).astype("int8"),
            r"`index` must lie in \[0, num_examples\).*num_examples=6, index=.*100",
        ),
    ],
    ids=["float", "bool", "column", "negative", "N", "int8"],
)
@pytest.mark.parametrize("source", ["array", *STREAMS])
def test_bad_indices(source, index, message):
    errors = [ValueError]
    if source == "tf.data":
        errors.append(pytest.importorskip("tensorflow").errors.InvalidArgumentError)
    if source == "array":
        pairs = (X, {"index": index})
    else:
        pairs = (STREAMS[source](batches({"index": index})), None)
    with pytest.raises(tuple(errors), match=message):
        consume(indexed(*pairs, N)[0])


def test_an_index_of_another_length():
    with pytest.raises(ValueError, match=r"`index` must have shape \(6,\), .*shape=\(5,\)"):
        indexed(X, {"index": INDEX[:5]}, N)


@pytest.mark.parametrize(("y", "kind"), [(Y, ".*"), ({"y": Y}, "dict")], ids=["labels", "dict"])
@pytest.mark.parametrize("source", STREAMS)
def test_streams_without_an_index(source, y, kind):
    message = (
        r"`x` must give batches \(x, .*`vaezoo.data.load\(..., with_index=True\)`.*"
        f"`vaezoo.data.with_index` before `shuffle` and `batch`.*whose y is {kind}"
    )
    with pytest.raises(ValueError, match=message):
        consume(indexed(STREAMS[source](batches(y)), None, N)[0])


def test_batches_are_delegated():
    options = {"workers": 3, "use_multiprocessing": True, "max_queue_size": 7}
    dataset = Batches(batches({"index": INDEX}), **options)
    checked, _ = indexed(dataset, None, N)
    assert {name: getattr(checked, name) for name in options} == options
    assert checked.num_batches == 2
    checked.on_epoch_begin()
    checked.on_epoch_end()
    assert dataset.events == ["begin", "end"]
    assert len(checked) == 2
    dataset.length = None
    assert checked.num_batches is None


def test_tf_data_keep_their_cardinality_and_what_is_distributed_its_kind():
    dataset = as_dataset(batches({"index": INDEX}))
    assert indexed(dataset, None, N)[0].cardinality() == 2
    distributed = SimpleNamespace(element_spec=dataset.element_spec)
    assert indexed(distributed, None, N)[0] is distributed
