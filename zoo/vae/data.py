"""The data of `fit`, `evaluate` and `predict`, from any source: read once and on the host."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from ...core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_integers,
    check_kind,
    check_real,
    is_integer,
    is_real,
)
from ...core.conditions import read_conditions, take_rows
from ...core.replicas import num_devices
from ...core.targets import split_index
from .inputs import LARGEST, Batch, Reader, of_source, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...core.types import Examples, Tensor
    from .model import VAE

#: How many examples of an array `Data.first` and `Data.observed` hold.
FIRST_EXAMPLES = 500
_CALLBACKS = (keras.callbacks.Callback, keras.callbacks.CallbackList)


# -- sources ---------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Checked data.

    Attributes:
        x: As Keras takes it, nothing of it consumed.
        y: What goes with an array, or None.
        sample_weight: Weights that go with an array, or None.
        first: The first inputs, or None where they cannot be looked into.
        held_out: Validation data that were split off, or None.
        observed: The first targets, which are the inputs where there are no others, or None.
        given: The inputs as they were given.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    first: Any = None
    held_out: Any = None
    observed: Any = None
    given: Any = None

    @property
    def packed(self) -> Any:
        """The data as one argument of Keras."""
        return keras.utils.pack_x_y_sample_weight(self.x, self.y, self.sample_weight)


def check_batch(
    model: keras.Model, reader: Any, x: Tensor, y: Tensor = None, sample_weight: Tensor = None
) -> tuple[Any, Any, Any]:
    """Returns a single batch as `(x, y, sample_weight)`, for Keras' steps."""
    batch = reader((x, y, sample_weight))
    _check_batch_sizes(model, len(batch.x), len(batch.x), reader.training)
    return keras.utils.unpack_x_y_sample_weight(batch.pack())


def check_options(
    options: dict[str, Any],
    verbose: int | str = "auto",
    callbacks: Any = None,
    epochs: int | None = None,
) -> None:
    """Checks arguments of `fit`, `evaluate` and `predict` that Keras would take as they are.

    Args:
        options: Keyword arguments, whose numbers become plain integers here.
        verbose: Whether to show progress.
        callbacks: What watches.
        epochs: Positive int, or None where there are none.

    Raises:
        ValueError: If one is out of range.
        TypeError: If something among `callbacks` is no callback.
    """
    for name in ("steps", "steps_per_epoch", "validation_steps", "validation_batch_size"):
        if options.get(name) is not None:
            options[name] = check_integer(name, options[name])
    if "initial_epoch" in options:
        options["initial_epoch"] = check_integer("initial_epoch", options["initial_epoch"], 0)
        if epochs is not None and options["initial_epoch"] > epochs:
            raise ValueError(
                "`initial_epoch` must not exceed `epochs`, which counts from the very first. "
                f"Received: initial_epoch={options['initial_epoch']}, epochs={epochs}"
            )
    if "shuffle" in options:
        options["shuffle"] = check_flag("shuffle", options["shuffle"])
    frequency = options.get("validation_freq", 1)
    check = check_integer if is_integer(frequency) else check_integers
    check("validation_freq", frequency)
    if not isinstance(verbose, bool):
        check_choice("verbose", verbose, ("auto", 0, 1, 2))
    for callback in keras.tree.flatten(callbacks):
        if callback is not None:
            check_kind("callbacks", callback, _CALLBACKS, "Keras callbacks")


def read_validation_data(
    model: VAE, validation_data: Examples, batch_size: int | None = None
) -> Data:
    """Reads the validation data of `fit`; errors name them, those of later batches as well.

    Args:
        model: `VAE`.
        validation_data: What `fit` was given.
        batch_size: Positive int, or None for Keras' default.

    Returns:
        `Data`.
    """
    try:
        return read_data(
            model, *parts_of(validation_data), batch_size=batch_size, source="validation_data"
        )
    except (TypeError, ValueError) as error:
        raise of_source("validation_data", error) from None


def read_data(
    model: VAE,
    x: Tensor,
    y: Tensor = None,
    sample_weight: Tensor = None,
    *,
    batch_size: int | None = None,
    training: bool = False,
    observed: bool = True,
    class_weight: dict[Any, float] | None = None,
    validation_split: float | None = 0.0,
    split: bool = True,
    source: str | None = None,
) -> Data:
    """Reads what `fit`, `evaluate` or `predict` was given.

    Arrays are checked here, batches of other sources while they are made.

    Args:
        model: `VAE`.
        x: Array, `tf.data.Dataset`, `PyDataset` or generator.
        y: What goes with an array, or None.
        sample_weight: Weights that go with an array, or None.
        batch_size: Positive int, or None for Keras' default.
        training: Whether batch statistics will be taken, and examples be told apart.
        observed: See `Reader`.
        class_weight: See `Reader`.
        validation_split: Part of an array to hold out.
        split: Whether it is.
        source: See `Reader`.

    Returns:
        `Data`.

    Raises:
        TypeError: If the data are not numbers.
        ValueError: If they are empty, of another shape than the encoder takes, outside of the
            likelihood's support, not finite, without an index that is needed, or in batches too
            small for a batch statistic or not to be split over the devices.
    """
    if x is None:
        raise ValueError("`x` must be given. Received: x=None")
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size)
    validation_split = check_real("validation_split", validation_split, "[0, 1)") * split
    if class_weight is not None:
        _check_class_weight(class_weight)
    reader = Reader(model, training, observed, class_weight, source)
    x = reader.padded(x)
    is_stream = (
        inspect.isgenerator(x) or isinstance(x, keras.utils.PyDataset) or hasattr(x, "element_spec")
    )
    if not is_stream:
        return _read_array(model, reader, x, y, sample_weight, batch_size, validation_split)
    for name, value in {"y": y, "sample_weight": sample_weight}.items():
        if value is not None:
            raise ValueError(
                f"`{name}` must be part of the batches where `x` is a data set: (x, y) or "
                f"(x, y, sample_weight). Received: `{name}` beside a {type(x).__name__}"
            )
    if validation_split:
        raise ValueError(
            "`validation_split` must be 0 where `x` is a data set; give `validation_data`. "
            f"Received: validation_split={validation_split}"
        )
    return _read_stream(model, reader, x)


def _training_rows(rows, validation_split):
    """Returns how many of the rows of an array are left for training, as Keras splits."""
    return math.floor(rows * (1.0 - validation_split))


def _read_array(model, reader, x, y, sample_weight, batch_size, validation_split):
    data, held_out = reader.read(x, y, sample_weight), None
    rows = total = len(data.x)
    if validation_split:
        rows = _training_rows(total, validation_split)
        if not 0 < rows < total:
            raise ValueError(
                "`validation_split` must leave examples on either side. Received: "
                f"validation_split={validation_split}, {total} examples"
            )
        # Classes weigh in training only.
        rest = data if reader.class_weight is None else data._replace(weight=None)
        held_out = rest.rows(slice(rows, None))._replace(index=None).pack()
        data = data.rows(slice(rows))
    if reader.num_examples is not None and data.index is None:
        if rows != reader.num_examples:
            raise ValueError(
                "`num_examples` must be the number of rows of `x` to train on. Received: "
                f"num_examples={reader.num_examples}, {rows} rows (of {total}, "
                f"validation_split={validation_split})"
            )
        data = data._replace(index=np.arange(rows, dtype="int32"))
    _check_batch_sizes(model, batch_size or 32, rows, reader.training)
    packed = keras.utils.unpack_x_y_sample_weight(data.pack())
    first = slice(FIRST_EXAMPLES)
    return Data(*packed, take_rows(data.inputs, first), held_out, _observed(data)[first])


def _read_stream(model, reader, x):
    if inspect.isgenerator(x):
        given = next(x, None)
        read = _read_generator(itertools.chain([given], x), reader)
    elif isinstance(x, keras.utils.PyDataset):
        given = x[0] if _length(x) != 0 else None
        read = _ReadDataset(x, reader)
    elif hasattr(x, "take"):
        if not reader.conditional:
            _check_elements(x)
        with clear_errors():
            given = next(iter(x.take(1)), None)
        read = None
    else:
        # What is distributed already cannot be looked into.
        return Data(x)
    if given is None:
        raise ValueError("`x` must hold at least one batch. Received: an empty data set")
    first = reader(given)
    _check_batch_sizes(model, len(first.x), len(first.x), reader.training)
    reader.expect(first.x)
    read = _mapped(x, reader, first) if read is None else read
    return Data(read, first=first.inputs, observed=_observed(first))


def _observed(batch):
    return batch.x if batch.target is None else batch.target


def _length(dataset):
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return dataset.num_batches


def _packed(batch):
    # Keras wants tuples from generators.
    batch = batch.pack()
    return batch if isinstance(batch, tuple) else (batch,)


def _read_generator(batches, reader):
    for batch in batches:
        yield _packed(reader(batch))


class _ReadDataset(keras.utils.PyDataset):
    """The batches of another data set, each of them read."""

    def __init__(self, dataset: Any, reader: Any) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset, self._reader = dataset, reader

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> Any:
        return _packed(self._reader(self._dataset[i]))

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()


def _check_elements(dataset):
    spec = dataset.element_spec
    if isinstance(spec, dict):
        keys = ", ".join(repr(key) for key in spec)
        raise TypeError(
            "`x` must give batches x, (x, y) or (x, y, sample_weight); choose with "
            f"`dataset.map(lambda batch: batch[key])`. Received: dicts with the keys {keys}"
        )


def _mapped(dataset, reader, first):
    """Reads a `tf.data.Dataset` batch by batch, in its own graph.

    A few comparisons tell a good batch; of another one, and where they cannot tell, the reader
    decides in NumPy.
    """
    import tensorflow as tf

    has_target, bounds = first.target is not None, reader.bounds(first.target is not None)
    unconditional = reader.without_conditions()

    @tf.autograph.experimental.do_not_convert
    def read(*elements):
        x, y, weight = parts_of(elements[0] if len(elements) == 1 else elements)
        if not reader.observed:
            y = weight = None
        y, index = split_index(y)
        x, given = reader.split(x)
        x = reader.padded(x)
        labels = y if reader.class_weight is not None else None
        found = Batch(
            x,
            y if has_target else None,
            None if reader.num_examples is None else index,
            weight,
        )
        fields = {name: value for name, value in found._asdict().items() if value is not None}
        if labels is not None:
            fields["labels"] = labels

        def decide(*values):
            given = dict(zip(fields, values, strict=True))
            y = given.get("target", given.get("labels"))
            if "index" in given:
                y = {"index": given["index"], "y": y}
            weight = unconditional((given["x"], y, given.get("weight"))).weight
            return np.zeros((), "float32") if weight is None else weight.astype("float32")

        def asked():
            return tf.numpy_function(decide, list(fields.values()), tf.float32)

        if labels is not None:
            weight = tf.ensure_shape(asked(), (None,))
            certain = tf.constant(True)
        else:
            good = _surely_good(found, reader, bounds)
            certain = tf.cond(good, lambda: tf.constant(0.0), asked)
        with tf.control_dependencies([certain]):
            x = tf.ensure_shape(x, reader.shape)
            target = None if not has_target else tf.ensure_shape(y, x.shape)
            index = None if found.index is None else tf.cast(tf.reshape(index, (-1,)), tf.int32)
            weight = None if weight is None else tf.reshape(weight, (-1,))
            condition = None if given is None else _conditions_in_graph(reader, given, tf.shape(x))
        return Batch(x, target, index, weight, condition=condition).pack()

    return dataset.map(read)


def _conditions_in_graph(reader, given, shape):
    """Checked conditions of a batch: NumPy reads them, strings among them."""
    import tensorflow as tf

    def read(rows, *values):
        values = dict(zip(reader.readers, values, strict=True))
        return list(read_conditions(reader.readers, values, int(rows)).values())

    found = tf.numpy_function(
        read,
        [shape[0], *(given[name] for name in reader.readers)],
        [kind.dtype for kind in reader.kinds.values()],
    )
    return {
        name: tf.ensure_shape(value, (None, *reader.kinds[name].shape))
        for name, value in zip(reader.readers, found, strict=True)
    }


def _surely_good(batch, reader, bounds):
    """Whether a batch in a graph is good by shape and range; False where that does not tell."""
    import tensorflow as tf

    ranks = [value.shape.rank for value in batch if value is not None]
    if bounds is None or None in ranks:
        return tf.constant(False)
    shape = tf.shape(batch.x)
    good = shape[0] > 0
    for axis, size in enumerate(reader.shape or ()):
        if axis and size is not None and batch.x.shape[axis] != size:
            good &= shape[axis] == size
    if batch.target is not None:
        good &= tf.reduce_all(tf.shape(batch.target) == shape)
    limits = list(zip((batch.x, batch.target), bounds, strict=False))
    if batch.weight is not None:
        good &= tf.size(batch.weight) == shape[0]
        limits.append((batch.weight, (0.0, LARGEST)))
    if batch.index is not None:
        if not batch.index.dtype.is_integer or batch.index.shape.rank != 1:
            return tf.constant(False)
        good &= tf.size(batch.index) == shape[0]
        limits.append((tf.cast(batch.index, tf.float64), (0, reader.num_examples - 1)))
    for values, (low, high) in limits:
        if values.dtype not in (tf.float32, tf.float64):
            values = tf.cast(values, tf.float32)
        # Both are NaN where one value is, of which neither holds.
        good &= (tf.reduce_min(values) >= low) & (tf.reduce_max(values) <= high)
    return good


@contextlib.contextmanager
def clear_errors(model: VAE | None = None) -> Iterator[Any]:
    """Raises what a reader found wrong with a batch in its own words, not in those of tf.data.

    Args:
        model: `VAE` that works on the batches; whatever ends its work early, it stays usable.
    """
    try:
        yield
    except BaseException as error:
        if keras.backend.backend() == "jax" and model is not None:
            # Keras does so after `fit` alone.
            model.jax_state_sync()
        told = (
            r"`\w+`(?: of `\w+`)? must .*"
            r"|'.+' (?:is not a readable|cannot be read as an|has more pixels).*"
        )
        found = re.search(rf"\b(ValueError|TypeError): ({told})", str(error))
        if found is None or isinstance(error, (TypeError, ValueError)):
            raise
        kind = {"ValueError": ValueError, "TypeError": TypeError}[found[1]]
        raise kind(found[2].strip()) from error


# -- batches and devices ---------------------------------------------------------------------------


def _check_class_weight(class_weight):
    good = isinstance(class_weight, dict) and class_weight
    good = good and all(is_real(v) and 0 <= v <= LARGEST for v in class_weight.values())
    if not good:
        raise ValueError(
            "`class_weight` must be a dict of non-negative numbers by class. Received: "
            f"class_weight={class_weight!r}"
        )


def _check_batch_sizes(model, size, rows, training):
    size = min(size, rows)
    if training:
        _check_batch_statistics(model, size)
    devices = num_devices(model)
    # TensorFlow splits later batches as it can; JAX leaves no device without its share.
    sizes = {size} if keras.backend.backend() == "tensorflow" else {size, rows % size or size}
    for received in sizes:
        if received % devices:
            raise ValueError(
                f"`batch_size` must split the data into batches that divide by the {devices} "
                f"devices. Received: a batch of {received}"
            )


def _check_batch_statistics(model, size):
    demanding = {
        "the posterior head": model.head.min_batch_size,
        "the objective": model.objective.min_batch_size,
    }
    for part, smallest in demanding.items():
        if size < smallest:
            raise ValueError(
                f"`batch_size` must be at least {smallest}, because {part} takes statistics of the "
                f"batch (latent_dim={model.latent_dim}). Received: batch_size={size}"
            )
    if size < model.head.advised_batch_size:
        warnings.warn(
            f"batch_size={size} is below {model.head.advised_batch_size}, twice the latent "
            "dimension: the batch covariance will be noisy. Enlarge the batch or use `shrinkage`.",
            stacklevel=7,
        )
