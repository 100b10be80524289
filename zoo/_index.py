"""The index of each training example: where `fit` finds it, and that it is one."""

import inspect
import math

import keras
import numpy as np

_RANGE = "`index` must lie in [0, num_examples). Received: "


def split_index(y):
    """Takes apart what goes with x.

    Args:
        y: `{"index": index}`, `{"index": index, "y": y}`, or anything else, None included.

    Returns:
        `(y, index)`, each of them None where it is missing.

    Raises:
        ValueError: If other keys stand beside the index.
    """
    if not isinstance(y, dict) or "index" not in y:
        return y, None
    foreign = sorted(str(key) for key in y if key not in ("index", "y"))
    if foreign:
        raise ValueError(
            '`y` must hold no keys but "index" and "y". Received: '
            + ", ".join(f'"{key}"' for key in foreign)
        )
    return y.get("y"), y["index"]


def example_weight(sample_weight):
    """The weights `(batch,)`: Keras hands those of arrays over for each entry of a dict `y`."""
    return sample_weight["index"] if isinstance(sample_weight, dict) else sample_weight


def indexed(x, y, num_examples, held_out=0.0):
    """Makes sure that each training example comes with its index.

    The rows of an array are numbered, unless `y` has an index already. Other sources have to bring
    it; their batches are checked one by one as they are used, on the host.

    Args:
        x: Array, `tf.data.Dataset`, `PyDataset` or generator.
        y: Labels, targets or a dict with an index beside an array, or None.
        num_examples: Positive int N, the number of examples that the model tells apart.
        held_out: Part of an array that Keras splits off for validation.

    Returns:
        `(x, y)` for Keras' `fit`, in which `(x, {"index": index})` or
        `(x, {"index": index, "y": y})` come together, index int32 `(batch,)` in `[0, N)`.

    Raises:
        ValueError: If an array has not N training rows, or an index is missing, no integer, of
            another shape than `(batch,)` or out of range.
    """
    if inspect.isgenerator(x):
        return _checked_batches(x, num_examples), y
    if isinstance(x, keras.utils.PyDataset):
        return _CheckedDataset(x, num_examples), y
    if hasattr(x, "element_spec"):
        # A distributed data set cannot be looked into.
        return (_checked_stream(x, num_examples) if hasattr(x, "take") else x), y
    y, index = split_index(y)
    if index is None:
        # As Keras splits.
        rows = math.floor(len(x) * (1.0 - held_out))
        if rows != num_examples:
            raise ValueError(
                "`num_examples` must be the number of rows of `x` to train on. Received: "
                f"num_examples={num_examples}, {rows} rows (of {len(x)}, "
                f"validation_split={held_out})"
            )
        index = np.arange(len(x), dtype="int32")
    else:
        index = _checked(index, len(x), num_examples)
    return x, _joined(y, index)


class _CheckedDataset(keras.utils.PyDataset):
    """The batches of another data set, each of them checked."""

    def __init__(self, dataset, num_examples):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset, self._num_examples = dataset, num_examples

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, i):
        return _checked_batch(self._dataset[i], self._num_examples)

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()


def _checked_batches(batches, num_examples):
    for batch in batches:
        yield _checked_batch(batch, num_examples)


def _checked_batch(batch, num_examples):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    y, index = _require_index(y)
    index = _checked(index, len(x), num_examples)
    return keras.utils.pack_x_y_sample_weight(x, _joined(y, index), sample_weight)


def _checked_stream(dataset, num_examples):
    import tensorflow as tf

    _, y, _ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
    _, index = _require_index(y)
    if not index.dtype.is_integer:
        _raise_dtype(index.dtype.name)
    if index.shape.rank not in (None, 1):
        _raise_shape(index.shape, "(batch,)")

    def check(x, y, *sample_weight):
        index = tf.ensure_shape(tf.cast(y["index"], tf.int64), (None,))
        outside = (index < 0) | (index >= num_examples)
        inside = tf.debugging.Assert(
            tf.logical_not(tf.reduce_any(outside)),
            [f"{_RANGE}num_examples={num_examples}, index=", tf.boolean_mask(index, outside)],
        )
        with tf.control_dependencies([inside]):
            return (x, {**y, "index": tf.cast(index, tf.int32)}, *sample_weight)

    return dataset.map(check)


def _require_index(y):
    y, index = split_index(y)
    if index is None:
        raise ValueError(
            '`x` must give batches (x, {"index": index}) or (x, {"index": index, "y": y}), because '
            "the objective tells the training examples apart. `vaezoo.data.load(..., "
            "with_index=True)` does so; to a `tf.data.Dataset` of your own apply "
            "`vaezoo.data.with_index` before `shuffle` and `batch`. Received: batches without an "
            f"index, whose y is {type(y).__name__}"
        )
    return y, index


def _checked(index, rows, num_examples):
    """Returns the index as int32 `(rows,)`."""
    index = np.asarray(index)
    if index.dtype.kind not in "iu":
        _raise_dtype(index.dtype)
    if index.shape != (rows,):
        _raise_shape(index.shape, f"({rows},)")
    outside = index[(index < 0) | (index >= num_examples)]
    if outside.size:
        raise ValueError(f"{_RANGE}num_examples={num_examples}, index={outside[0]}")
    return index.astype("int32")


def _joined(y, index):
    return {"index": index} if y is None else {"index": index, "y": y}


def _raise_dtype(dtype):
    raise ValueError(f"`index` must hold integers. Received: dtype={dtype}")


def _raise_shape(shape, expected):
    raise ValueError(
        f"`index` must have shape {expected}, one number for each example of a batch. "
        f"Received: shape={tuple(shape)}"
    )
