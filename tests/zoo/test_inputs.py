"""What `fit` is given is read once: into batches that a model can use, or one clear sentence."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches, Frame
from vaezoo import metrics, zoo
from vaezoo.core.targets import split_index
from vaezoo.layers import Gaussian, PointHead
from vaezoo.losses import ELBO
from vaezoo.zoo.vae.data import clear_errors, read_data
from vaezoo.zoo.vae.inputs import Batch, as_rows, check_labels

N = 6
INDEX = np.array([4, 0, 5, 2, 1, 3])
# Every row is its own index, and says so in its target, too.
X = INDEX[:, None].astype("float32")
Y = 10 * X
WEIGHT = 1.0 + np.arange(N, dtype="float32")


def indexed(x, y=None, num_examples=N, validation_split=0.0):
    """What a model that tells its examples apart hands to Keras."""
    part = SimpleNamespace(min_batch_size=1, advised_batch_size=1)
    model = SimpleNamespace(
        encoder=None,
        likelihood=Gaussian(),
        autoregressive=False,
        num_examples=num_examples,
        head=part,
        objective=part,
        distribute_strategy=SimpleNamespace(num_replicas_in_sync=1),
    )
    return read_data(model, x, y, training=True, validation_split=validation_split)


class Told(Batches):
    """Keeps when epochs began and ended, and may not know its length."""

    def __init__(self, batches, **kwargs):
        super().__init__(batches, **kwargs)
        self.length, self.events = len(batches), []

    @property
    def num_batches(self):
        return self.length

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
        _, y, index, weight, *_ = Batch.unpack(x, y, sample_weight)
        if training:
            weight = ops.ones(ops.shape(index)) if weight is None else weight
            self.seen.assign_add(ops.sum(ops.one_hot(index, N) * weight[:, None], axis=0))
            distance = ops.abs(x[:, 0] - ops.cast(index, "float32"))
            if y is not x:
                distance = distance + ops.abs(ops.cast(y, "float32") - 10 * x)[:, 0]
            self.apart.assign_add(ops.sum(distance))
        return ops.mean(y_pred)


@pytest.mark.large_on_jax
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
        data = indexed(x, 10 * x, N, 0.25)
        np.testing.assert_array_equal(data.held_out[0], x[6:])
        if weighted:
            options["sample_weight"] = WEIGHT[INDEX.argsort()]
        model.fit(data.x, data.y, batch_size=3, **options)
    else:
        y = {"index": INDEX, **({"y": Y} if weighted else {})}
        data = indexed(STREAMS[source](batches(y, *weights)))
        assert data.y is None
        model.fit(data.x, steps_per_epoch=2 if source == "generator" else None, **options)
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
@pytest.mark.parametrize("labels", [None, np.arange(8), np.zeros((8, 2))])
def test_arrays_are_numbered(held_out, labels):
    rows = 6 if held_out else 8
    data = indexed(np.zeros((8, 2)), labels, rows, held_out)
    assert data.x.shape == (rows, 2)
    assert data.y["index"].dtype == np.int32
    assert data.y.pop("index").tolist() == list(range(rows))
    # Of what stands beside it a target is kept, labels are not.
    assert list(data.y) == (["y"] if np.ndim(labels) == 2 else [])


def test_a_given_index_is_kept():
    given = ops.convert_to_tensor(INDEX[:4])
    y = indexed(X[:4], {"index": given, "y": Y[:4]}).y
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
    if source == "array":
        given = (X, {"index": index})
    else:
        given = (STREAMS[source](batches({"index": index})),)
    with pytest.raises(ValueError, match=message), clear_errors():
        consume(indexed(*given).x)


def test_an_index_of_another_length():
    with pytest.raises(ValueError, match=r"`index` must have shape \(6,\), .*shape=\(5,\)"):
        indexed(X, {"index": INDEX[:5]})


@pytest.mark.parametrize(
    ("y", "kind"), [(INDEX, ".*"), ({"y": INDEX}, "dict")], ids=["labels", "dict"]
)
@pytest.mark.parametrize("source", STREAMS)
def test_streams_without_an_index(source, y, kind):
    message = (
        r"`x` must give batches \(x, .*`vaezoo.data.load\(..., with_index=True\)`.*"
        f"`vaezoo.data.with_index` before `shuffle` and `batch`.*whose y is {kind}"
    )
    with pytest.raises(ValueError, match=message):
        consume(indexed(STREAMS[source](batches(y))).x)


def test_batches_are_delegated():
    options = {"workers": 3, "use_multiprocessing": True, "max_queue_size": 7}
    dataset = Told(batches({"index": INDEX}), **options)
    checked = indexed(dataset).x
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
    assert indexed(dataset).x.cardinality() == 2
    distributed = SimpleNamespace(element_spec=dataset.element_spec)
    assert indexed(distributed).x is distributed


# -- what any model is given ---------------------------------------------------------------------

ROWS = np.random.default_rng(0).integers(0, 2, (24, 6)).astype("float32")
CLASSES = np.arange(24) % 3


@pytest.fixture(scope="module")
def make(dense_networks):
    def build(constructor=zoo.VAE, **options):
        keras.utils.set_random_seed(0)
        model = constructor(*dense_networks(), **{"latent_dim": 3, "seed": 1, **options})
        # JAX is slow without its compiler, TensorFlow is slow to start with one.
        model.compile("sgd", jit_compile=keras.backend.backend() == "jax")
        return model

    return build


@pytest.fixture(scope="module")
def vae(make):
    """For whatever does not mind that others trained it."""
    return make()


@pytest.fixture(scope="module")
def point(make):
    """Without noise: equal data give equal losses."""
    model = make(head=PointHead(3), objective=ELBO(beta=0.0))
    model.build((None, 6))
    return model


def parts_of(*arrays, size=8):
    """Batches of 8."""
    take = keras.tree.map_structure
    return [
        tuple(take(lambda array, i=i: array[i : i + size], array) for array in arrays)
        for i in range(0, len(arrays[0]), size)
    ]


def source(name, *arrays):
    if name == "tf.data":
        tf = pytest.importorskip("tensorflow")
        return tf.data.Dataset.from_tensor_slices(arrays).batch(8)
    return STREAMS[name](parts_of(*arrays))


def evaluated(model, *args, **options):
    return model.evaluate(*args, verbose=0, return_dict=True, **options)["loss"]


LABELS = {
    "strings": np.array(["cat", "dog"])[CLASSES % 2],
    "objects": np.array([None, "dog"], object)[CLASSES % 2],
    "dates": np.array(["2020-01-01", "2021-01-01"], "M8[D]")[CLASSES % 2],
    "series": Frame(np.array(["cat", "dog"], object)[CLASSES % 2]),
    "numbers": CLASSES,
    "column": CLASSES[:, None],
    "one-hot": np.eye(6)[CLASSES][:, :5],
    "attributes": {"kind": np.array(["cat", "dog"])[CLASSES % 2], "number": CLASSES},
}


@pytest.mark.large
@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_left_out(point, kind):
    y = LABELS[kind]
    expected = evaluated(point, ROWS, batch_size=8)
    assert evaluated(point, ROWS, y, batch_size=8) == pytest.approx(expected, rel=1e-6)
    log = point.fit(ROWS, y, batch_size=24, verbose=0, validation_data=(ROWS, y)).history
    assert np.isfinite([*log["loss"], *log["val_loss"]]).all()
    y = y.to_numpy() if kind == "series" else y
    names = list(STREAMS) if kind not in ("objects", "dates", "series") else ["PyDataset"]
    for name in names:
        found = evaluated(point, source(name, ROWS, y))
        assert found == pytest.approx(evaluated(point, ROWS, batch_size=8), rel=1e-6)
        predicted = point.predict(source(name, ROWS, y), verbose=0)
        assert predicted.z.shape == (24, 1, 3)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        # A flattened target, a squeezed one, and one with an axis more.
        (np.zeros((4, 2, 3, 1)), np.full((4, 6), 0.5)),
        (np.zeros((4, 2, 3, 1)), np.ones((4, 6), int)),
        (np.zeros((4, 2, 3, 1)), np.zeros((4, 2, 3))),
        (np.zeros((4, 6)), np.zeros((4, 2, 3, 1))),
        (np.zeros((4, 6)), {"y": np.zeros((4, 2, 3))}),
    ],
)
def test_what_may_be_a_target_of_another_shape_is_refused(x, y):
    with pytest.raises(ValueError, match=r"`y` must be a target of the shape of `x`, \(batch, .*"):
        check_labels(x, y)


def test_plausible_labels():
    x = np.zeros((4, 2, 3, 1))
    for y in (np.zeros(4), np.zeros((4, 1)), np.zeros((4, 5)), np.eye(6)[:4], np.full((4, 6), "a")):
        check_labels(x, y)
    with pytest.raises(ValueError, match="`y` must have one row for each of the 4 examples"):
        check_labels(x, np.zeros(3))
    # Ids beside sentences are no attributes, however many.
    check_labels(np.zeros((4, 6), int), np.eye(5)[:4], of_text=True)
    with pytest.raises(ValueError, match="`y` must be a target"):
        check_labels(np.zeros((4, 6), int), np.full((4, 5), 3), of_text=True)


@pytest.mark.one_backend
def test_a_wrong_target_is_refused_by_fit_in_each_source(vae):
    y = ROWS.reshape(24, 2, 3)
    for x, more in [(ROWS, [y]), *((source(name, ROWS, y), []) for name in STREAMS)]:
        with pytest.raises(ValueError, match="`y` must be a target of the shape"):
            vae.fit(x, *more, verbose=0)


WEIGHTS = np.linspace(0.0, 3.0, 24).astype("float32")


@pytest.mark.large
@pytest.mark.parametrize("constructor", [zoo.VAE, zoo.IWAE, zoo.SAVAE, zoo.AggVAE])
@pytest.mark.filterwarnings("ignore:The aggressive phase")
def test_weights_of_one_column_count_as_those_of_none(make, small_parts, constructor):
    losses = []
    for weight in (WEIGHTS, WEIGHTS[:, None]):
        model = make(constructor, **small_parts(constructor.__name__))
        # TensorFlow is slow to start with a graph; others have theirs above.
        model.run_eagerly = keras.backend.backend() == "tensorflow"
        log = model.fit(ROWS, batch_size=24, sample_weight=weight, verbose=0).history
        losses.append([*log["loss"], evaluated(model, ROWS, sample_weight=weight)])
        losses[-1].append(
            model.train_on_batch(ROWS, sample_weight=weight, return_dict=True)["loss"]
        )
        # In a process that has compiled for `(n,)`, too.
        for bad in (np.ones((24, 2)), np.ones((24, 1, 1)), np.ones(1), np.float32(1)):
            for entry in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
                with pytest.raises(ValueError, match=r"`sample_weight` must have shape \(24,\)"):
                    entry(ROWS, sample_weight=bad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.large
@pytest.mark.parametrize("name", STREAMS)
def test_weights_in_batches(point, name):
    expected = evaluated(point, ROWS, sample_weight=WEIGHTS, batch_size=8)
    single = [evaluated(point, ROWS[i : i + 1]) for i in range(24)]
    assert expected == pytest.approx(np.mean(WEIGHTS * single), rel=1e-5)
    for weight in (WEIGHTS, WEIGHTS[:, None], WEIGHTS.astype("float64")):
        for y in (CLASSES, ROWS):
            assert evaluated(point, source(name, ROWS, y, weight)) == pytest.approx(
                expected, rel=1e-5
            )
    for bad in ((24, 2), (24, 1, 1)):
        with pytest.raises(ValueError, match=r"`sample_weight` must have shape \(8,\)"):
            point.evaluate(source(name, ROWS, ROWS, np.ones(bad)), verbose=0)
    for value in (-1.0, np.nan, np.inf):
        weight = WEIGHTS.copy()
        weight[20] = value
        for call in (
            lambda w=weight: point.fit(source(name, ROWS, CLASSES, w), verbose=0),
            lambda w=weight: point.evaluate(ROWS, sample_weight=w, verbose=0),
        ):
            with pytest.raises(ValueError, match="`sample_weight` must hold finite numbers of at"):
                call()


@pytest.mark.large_on_jax
def test_a_step_refuses_weights_of_another_shape(vae):
    output = vae(ops.convert_to_tensor(ROWS))
    with pytest.raises(ValueError, match=r"`sample_weight` must have shape \(batch,\)"):
        vae.loss_and_terms(ROWS, None, output, ops.ones((24, 2)))
    with pytest.raises(Exception, match="reshape|shape"):
        vae.loss_and_terms(ROWS, None, output, ops.ones((1,)))


@pytest.mark.large
def test_class_weights(point):
    y = np.array(["cat", "dog"])[CLASSES % 2]
    weights = np.where(y == "cat", 3.0, 1.0)
    options = {"batch_size": 24, "verbose": 0, "shuffle": False}

    def loss(*args, **more):
        state = point.get_weights()
        log = point.fit(*args, **{**options, **more}).history
        point.set_weights(state)
        return log["loss"][0]

    expected = loss(ROWS, sample_weight=weights)
    assert expected > 1.5 * loss(ROWS)
    assert loss(ROWS, y, class_weight={"cat": 3}) == pytest.approx(expected, rel=1e-5)
    number = (y == "cat").astype(int)
    one_hot = np.eye(2)[number]
    for labels in (number, number[:, None], one_hot):
        assert loss(ROWS, labels, class_weight={1: 3}) == pytest.approx(expected, rel=1e-5)
    for name in STREAMS:
        dataset = STREAMS[name]([(ROWS, y)]) if name != "tf.data" else as_dataset([(ROWS, y)])
        assert loss(dataset, class_weight={"cat": 3}) == pytest.approx(expected, rel=1e-5)
    for args, more, message in (
        ((ROWS,), {"class_weight": {1: 3}}, "must come with labels.*Received: no labels"),
        ((ROWS, {"a": y}), {"class_weight": {1: 3}}, "must come with labels.*Received: a dict"),
        ((ROWS, y), {"class_weight": {"cat": -1}}, "must be a dict of non-negative numbers"),
        ((ROWS, y), {"class_weight": 2.0}, "must be a dict of non-negative numbers"),
        (
            (ROWS, y),
            {"class_weight": {"cat": 3}, "sample_weight": weights},
            "must not be given beside weights",
        ),
    ):
        with pytest.raises(ValueError, match="`class_weight` " + message):
            point.fit(*args, **options, **more)


@pytest.mark.large
def test_frames_are_arrays(point):
    x, y, weight = Frame(ROWS.astype("float64")), Frame(CLASSES), Frame(WEIGHTS)
    expected = evaluated(point, ROWS, sample_weight=WEIGHTS)
    assert evaluated(point, x, y, sample_weight=weight) == pytest.approx(expected, rel=1e-6)
    assert point.predict(x, verbose=0).z.shape == (24, 1, 3)
    point.fit(x, y, sample_weight=weight, validation_split=0.5, verbose=0)
    point.fit(Batches([(x, y)]), validation_data=(x, y, weight), verbose=0)
    point.train_on_batch(x)
    assert point.predict_on_batch(x).z.shape == (24, 1, 3)


# -- every batch ---------------------------------------------------------------------------------


def spoilt(value):
    x = ROWS.copy()
    x[20, 2] = value
    return x


ENTRIES = {
    "fit": lambda model, x: model.fit(x, verbose=0),
    "evaluate": lambda model, x: model.evaluate(x, verbose=0),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "validation": lambda model, x: model.fit(ROWS, validation_data=x, verbose=0),
}


@pytest.mark.large
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_the_last_batch_is_checked_as_the_first(vae, name, entry):
    for value, message in {
        np.nan: "`x` must hold finite numbers",
        np.inf: "`x` must hold finite numbers",
        255.0: r"`x` must lie in \[0, 1\] under a Bernoulli.*divide 8-bit images by 255.*to 255$",
        -1.0: r"`x` must lie in \[0, 1\] under a Bernoulli.*values from -1 to 1$",
    }.items():
        if entry == "predict" and np.isfinite(value):
            # Inputs are not observed.
            ENTRIES[entry](vae, source(name, spoilt(value)))
            continue
        if entry == "validation":
            message = message.replace("`x`", "`x` of `validation_data`")
        with pytest.raises(ValueError, match=message):
            ENTRIES[entry](vae, source(name, spoilt(value)))


@pytest.mark.parametrize("name", STREAMS)
def test_only_what_is_observed_needs_the_support(vae, name):
    noisy = ROWS - 1.5
    vae.fit(source(name, noisy, ROWS), verbose=0)
    with pytest.raises(ValueError, match=r"`y` must lie in \[0, 1\].*values from 0 to 7"):
        vae.fit(source(name, noisy, spoilt(7)), verbose=0)
    with pytest.raises(ValueError, match="`x` must hold finite numbers"):
        vae.fit(source(name, spoilt(np.nan), ROWS), verbose=0)


def test_batches_of_another_shape(vae):
    for bad, error, message in (
        (ROWS[:, :5], ValueError, r"`x` must have the shape that the encoder takes.*\(24, 5\)"),
        (ROWS[:, :, None], ValueError, r"`x` must have the shape that the encoder takes"),
        (ROWS[:0], ValueError, "`x` must hold at least one example"),
        (ROWS.astype("S3"), TypeError, "`x` must hold real numbers"),
        (ROWS.tolist(), TypeError, "`x` must be an array.*make it an array by `np.asarray`"),
        ([ROWS, ROWS], TypeError, "`x` must be an array.*make it an array by `np.asarray`"),
        ((ROWS, ROWS), TypeError, "tuple of 2 items; give the array of the examples"),
        ([ROWS, ROWS[:, 0]], TypeError, "list of 2 items; give the array of the examples"),
        ({"image": ROWS}, TypeError, "`x` must be an array.*dict with the keys 'image'; give one"),
    ):
        for batches in ([ROWS, ROWS, bad], [bad]):
            with pytest.raises(error, match=message):
                vae.fit(Batches([(x,) for x in batches]), verbose=0)
    with pytest.raises(ValueError, match="`y` must have one row for each of the 24 examples"):
        vae.fit(Batches([(ROWS, ROWS[:3])]), verbose=0)


@pytest.mark.large
@pytest.mark.parametrize("processes", [False, True])
def test_workers_check_what_they_make(vae, processes):
    options = {"workers": 2, "use_multiprocessing": processes}
    dataset = Told(parts_of(ROWS), **options)
    vae.fit(dataset, epochs=2, verbose=0)
    assert dataset.events.count("begin") == 2
    with pytest.raises(ValueError, match="`x` must hold finite numbers"):
        vae.fit(Batches(parts_of(spoilt(np.nan)), **options), verbose=0)


def test_endless_sources(vae):
    history = vae.fit((ROWS for _ in iter(int, 1)), steps_per_epoch=2, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    history = vae.fit(
        source("tf.data", ROWS).repeat(), steps_per_epoch=4, epochs=2, verbose=0
    ).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.one_backend
def test_datasets_that_are_no_batches_of_arrays(vae):
    tf = pytest.importorskip("tensorflow")
    dicts = tf.data.Dataset.from_tensor_slices({"image": ROWS, "label": CLASSES}).batch(8)
    batches = r"must give batches x, \(x, y\).*`dataset.map.*keys 'image', 'label'"
    message = rf"`x`(?: of `validation_data`)? {batches}"
    for entry in ENTRIES.values():
        with pytest.raises(TypeError, match=message):
            entry(vae, dicts)
    dataset = source("tf.data", ROWS)
    for name, value in {"y": CLASSES, "sample_weight": WEIGHTS}.items():
        with pytest.raises(ValueError, match=f"`{name}` must be part of the batches"):
            vae.fit(dataset, verbose=0, **{name: value})
    with pytest.raises(ValueError, match="`validation_split` must be 0 where `x` is a data set"):
        vae.fit(dataset, validation_split=0.5, verbose=0)
    with pytest.raises(TypeError, match="`x` must be an array. Received: a data set"):
        as_rows("x", dataset)
    with pytest.raises(TypeError, match="`x` must be dense. Received: a SparseTensor"):
        as_rows("x", tf.sparse.from_dense(ROWS))


def test_errors_of_others_are_left_alone():
    class Broken(Batches):
        def __getitem__(self, i):
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"), clear_errors():
        Broken([0])[0]


@pytest.mark.large
def test_ragged_sentences(text_networks, sentences):
    tf = pytest.importorskip("tensorflow")
    model = zoo.TextVAE(*text_networks(), latent_dim=3)
    model.compile(jit_compile=keras.backend.backend() == "jax")
    x = sentences(8)
    ragged = tf.ragged.constant([[int(i) for i in row if i] for row in x])
    expected = model.evaluate(x, verbose=0, return_dict=True)["rate"]
    for data in (ragged, tf.data.Dataset.from_tensors(ragged)):
        found = model.evaluate(data, verbose=0, return_dict=True)["rate"]
        assert found == pytest.approx(expected, rel=1e-4)
    with pytest.raises(TypeError, match="`x` must have rows of one length"):
        zoo.VAE(*[keras.layers.Dense(3)] * 2, latent_dim=3).predict(ragged)


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *(("epochs", value, "a positive integer") for value in (0, -1, "3", None, 1.5, True)),
        *(("batch_size", value, "a positive integer") for value in (0, "3", 1.5)),
        *(("validation_split", value, "a number in") for value in (1.5, -0.5, 1.0, "a", np.nan)),
        ("validation_split", 0.99, None),
        ("initial_epoch", -1, "a non-negative integer"),
        ("steps_per_epoch", 0, "a positive integer"),
        ("validation_steps", "3", "a positive integer"),
        ("validation_batch_size", 0, "a positive integer"),
    ],
)
def test_arguments_of_fit(vae, name, value, rule):
    message = f"`{name}` must be {rule}" if rule else f"`{name}` must leave examples on either side"
    with pytest.raises(ValueError, match=message + f".*Received: {name}="):
        vae.fit(ROWS, verbose=0, **{name: value})


@pytest.mark.one_backend
def test_numbers_of_numpy_are_numbers(vae):
    numbers = {"epochs": np.int64(1), "batch_size": np.int32(8)}
    log = vae.fit(ROWS, verbose=0, validation_split=np.float32(0.5), **numbers).history
    assert len(log["loss"]) == len(log["val_loss"]) == 1


@pytest.mark.one_backend
def test_sentences_must_end():
    encoder, decoder = zoo.networks.make(
        "lstm", (6,), 2, vocabulary_size=8, embedding_dim=4, units=4
    )
    model = zoo.TextVAE(encoder, decoder, latent_dim=2)
    model.compile()
    good = np.array([[1, 5, 6, 2, 0, 0], [1, 5, 2, 0, 0, 0]])
    endless = np.array([[1, 5, 6, 2, 0, 0], [1, 5, 6, 7, 4, 3]])
    assert read_data(model, good, training=True).x is good
    message = r"must hold sentences that end: .*symbol, id 2;.*Received: row 1 ends in 3$"
    uses = {
        "fit": lambda x: model.fit(x, verbose=0),
        "a generator": lambda x: model.fit((batch for batch in [x]), verbose=0),
        "validation data": lambda x: model.fit(good, validation_data=x, verbose=0),
        "a target": lambda x: model.fit(good, x, verbose=0),
        "evaluate": lambda x: model.evaluate(x, verbose=0),
        "predict": lambda x: model.predict(x, verbose=0),
        "train_on_batch": model.train_on_batch,
        "test_on_batch": model.test_on_batch,
        "predict_on_batch": model.predict_on_batch,
        "encode": model.encode,
        "reconstruct": model.reconstruct,
        "interpolate": lambda x: model.interpolate(x, good),
        "log_prob": model.log_prob,
        "log_terms": lambda x: model.log_terms(x, batch_size=2),
        "diagnose": lambda x: metrics.diagnose(model, x),
        "perplexity": lambda x: metrics.perplexity(model, x),
        "active units": lambda x: metrics.active_units(model, x),
        "metrics.evaluate": lambda x: metrics.evaluate(model, x),
    }
    model.build((None, 6))
    for use in uses.values():
        with pytest.raises(ValueError, match=message):
            use(endless)
    # Words behind the end are no part of a sentence.
    with pytest.raises(ValueError, match="row 0 ends in 5"):
        model.encode(np.array([[1, 5, 2, 5, 0, 0]]))
    for bad, told in (
        (endless * 0, "before any padding"),
        (-endless, "ids in"),
        (endless + 3, "ids in"),
    ):
        for use in (model.encode, model.fit, model.log_prob):
            with pytest.raises(ValueError, match=told):
                use(bad)
