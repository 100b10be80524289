"""Interprets what `fit`, `evaluate` and `predict` are given, once and on the host.

Whatever the source, Keras sees batches of `x` alone, or of x with what the model reads: a target,
the index of each example, weights. Labels end here.
"""

import contextlib
import inspect
import itertools
import math
import re
import warnings
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

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
from ...core.replicas import num_devices
from ...layers.likelihoods import Likelihood

#: How many examples of an array `Data.first` and `Data.observed` hold.
FIRST_EXAMPLES = 500
#: What `fit`, `evaluate` and `predict` take.
SOURCES = "an array, a `tf.data.Dataset`, a `PyDataset` or a generator"
#: Largest number that is finite in float32.
LARGEST = float(np.finfo("float32").max)
#: The check of a likelihood that its support tells all of.
_PLAIN_CHECK = Likelihood.check
_CALLBACKS = (keras.callbacks.Callback, keras.callbacks.CallbackList)
_RANGE = "`index` must lie in [0, num_examples). Received: "


# -- batches ---------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Holds the parts of a batch, or of all rows of an array, that a model reads.

    Attributes:
        x: `(batch, *event)`, the input.
        target: What is reconstructed, of the shape of x, or None for x itself.
        index: Numbers of the examples in the training set, int32 `(batch,)`, or None.
        weight: Weights of the examples, `(batch,)`, or None.
    """

    x: object
    target: object = None
    index: object = None
    weight: object = None

    @classmethod
    def unpack(cls, x, y=None, sample_weight=None):
        """Takes apart what a step is handed over; there x stands in for a missing target."""
        y, index = split_index(y)
        is_array = y is not None and not isinstance(y, dict)
        target = y if is_array and is_target(x, y) else x
        return cls(x, target, index, example_weight(sample_weight))

    def pack(self):
        """Returns `x`, `(x, y)` or `(x, y, sample_weight)`, as Keras takes batches."""
        y = self.target
        if self.index is not None:
            y = {"index": self.index} if y is None else {"index": self.index, "y": y}
        elif y is None and self.weight is not None:
            # Keras drops weights that have no y to go with.
            y = {"weight": self.weight}
        return keras.utils.pack_x_y_sample_weight(self.x, y, self.weight)

    def rows(self, part):
        """Returns the rows of a slice."""
        return Batch(*(None if field is None else field[part] for field in self))


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
    """Returns the weights of a step as `(batch,)`, or None.

    Raises:
        ValueError: If they are no single number for each example.
    """
    if isinstance(sample_weight, dict):
        # Keras hands those of arrays over for each entry of a dict `y`.
        sample_weight = next(iter(sample_weight.values()))
    if sample_weight is None:
        return None
    rank = sample_weight.shape.rank if hasattr(sample_weight.shape, "rank") else sample_weight.ndim
    if rank is not None and (rank not in (1, 2) or (rank == 2 and sample_weight.shape[1] != 1)):
        _raise_weight_shape(tuple(sample_weight.shape))
    return sample_weight if rank == 1 else ops.reshape(sample_weight, (-1,))


def is_target(x, y):
    """Returns whether `y` is something to reconstruct: of the shape of `x`, rather than labels."""
    return len(y.shape) == len(x.shape) and tuple(y.shape[1:]) == tuple(x.shape[1:])


def _training_rows(rows, validation_split):
    """Returns how many of the rows of an array are left for training, as Keras splits."""
    return math.floor(rows * (1.0 - validation_split))


# -- one batch -------------------------------------------------------------------------------------


class Reader:
    """Reads batches as a model needs them, and checks each of them.

    Holds no model, so that processes that make batches can have it.

    Args:
        model: `VAE`.
        training: Whether the index of each example is needed, where the model tells them apart.
        observed: Whether x, or a target in its place, is scored; otherwise whatever goes with x is
            left out.
        class_weight: Optional dict of the weights of classes.
        source: Name of the argument that the batches come from, where it is not `x` itself.
    """

    def __init__(self, model, training=False, observed=True, class_weight=None, source=None):
        self.source = source
        shape = getattr(model.encoder, "input_shape", None)
        self.shape = shape if isinstance(shape, tuple) else None
        self.shape_of = "the shape that the encoder takes"
        self.likelihood, self.training = model.likelihood, training
        self.of_text = hasattr(self.likelihood, "num_predicted")
        # A decoder that is trained on sentences without an end never ends one.
        self.end_id = getattr(model.decoder, "end_id", None) if self.of_text and training else None
        # What an autoregressive decoder predicts, it sees.
        self.observed, self.scored = observed, observed or model.autoregressive
        self.num_examples = model.num_examples if training else None
        self.class_weight = class_weight

    def __call__(self, batch):
        """Returns the `Batch` of one batch of a data set, as Keras takes those.

        Raises:
            TypeError: If something in it is no array of numbers.
            ValueError: If it cannot be used.
        """
        try:
            x, y, weight = _parts(batch)
            found = self.read(x, y, weight)
        except (TypeError, ValueError) as error:
            raise _of(self.source, error) from None
        if self.num_examples is not None and found.index is None:
            raise ValueError(
                '`x` must give batches (x, {"index": index}) or (x, {"index": index, "y": y}), '
                "because the objective tells the training examples apart. "
                "`vaezoo.data.load(..., with_index=True)` does so; to a `tf.data.Dataset` of your "
                "own apply `vaezoo.data.with_index` before `shuffle` and `batch`. Received: "
                f"batches without an index, whose y is {type(y).__name__}"
            )
        return found

    def read(self, x, y=None, weight=None):
        """Returns a `Batch` of checked rows; see `__call__`."""
        x = self.inputs(x)
        values, rows = _to_numpy(x), len(x)
        if not self.observed:
            y = weight = None
        y, index = split_index(y)
        labels = target = None
        if y is not None:
            y = _unwrapped(y)
            if isinstance(y, dict) or not is_target(x, y):
                labels = y
                check_labels(values, labels, self.of_text)
            else:
                target = as_rows("y", y)
                _check_rows("y", target, rows)
        if target is None:
            check_values = self.likelihood.check if self.scored else check_finite
            check_values(values)
        else:
            (self.likelihood.check if self.of_text else check_finite)(values)
            _renamed(self.likelihood.check, "y")(_to_numpy(target))
        if self.end_id is not None:
            check_ended(values if target is None else _to_numpy(target), self.end_id)
        if self.num_examples is None:
            index = None
        if index is not None:
            index = check_index(index, rows, self.num_examples)
        if weight is not None:
            if self.class_weight is not None:
                raise ValueError(
                    "`class_weight` must not be given beside weights of examples. Received: both"
                )
            weight = check_weight(weight, rows)
        elif self.class_weight is not None:
            weight = class_weights(labels, self.class_weight)
        return Batch(x, target, index, weight)

    def inputs(self, x):
        """Returns inputs as an array of the shape that the encoder takes; values are not read."""
        x = as_rows("x", self.padded(x), SOURCES)
        if keras.backend.is_keras_tensor(x):
            raise TypeError("`x` must hold values. Received: a symbolic KerasTensor")
        shape = tuple(x.shape)
        if len(shape) == 0 or 0 in shape:
            raise ValueError(f"`x` must hold at least one example. Received: shape={shape}")
        if self.shape is not None and not _fits(shape, self.shape):
            raise ValueError(
                f"`x` must have {self.shape_of}, (batch"
                + "".join(f", {size}" for size in self.shape[1:])
                + f"). Received: shape={shape}"
            )
        return x

    def expect(self, x):
        """Takes the shape of the first inputs for that of all, where the encoder has none."""
        if self.shape is None:
            # Sentences differ in length from batch to batch.
            self.shape = (None, *(None if self.of_text else size for size in x.shape[1:]))
            self.shape_of = "the same shape in all batches"

    def padded(self, x):
        """Returns sentences of several lengths, a RaggedTensor, with padding at their ends."""
        if type(x).__name__ != "RaggedTensor" or not self.of_text:
            return x
        import tensorflow as tf

        x = x.to_tensor(self.likelihood.pad_id)
        length = self.shape[1] if self.shape is not None and len(self.shape) == 2 else None
        if length is not None:
            missing = tf.maximum(length - tf.shape(x)[1], 0)
            x = tf.pad(x, [[0, 0], [0, missing]], constant_values=self.likelihood.pad_id)
        return x.numpy() if tf.executing_eagerly() else x

    def bounds(self, has_target):
        """Returns the intervals of x and of the target, or None where these do not say it all."""
        if type(self.likelihood).check is not _PLAIN_CHECK:
            return None
        largest = self.likelihood.largest
        support = tuple(float(np.clip(end, -largest, largest)) for end in self.likelihood.support)
        anything = (-LARGEST, LARGEST)
        return (anything, support) if has_target else (support if self.scored else anything,)


def read_inputs(model, x, name="x"):
    """Returns what is encoded as an array, checked: nothing of it is scored.

    Values need not lie in the likelihood's support, as those of noisy images do not. Refused are
    the numbers 0 to 255 where they must be a slip: no target went with x in training, and nothing
    in the encoder scales them.

    Args:
        model: `VAE`.
        x: Array, tensor or DataFrame. Tensors of a function under construction pass unread.
        name: Name of the argument.

    Raises:
        TypeError: If it is no array of real numbers.
        ValueError: If it cannot be encoded.
    """
    if is_traced(x):
        return x

    def read(x):
        reader = Reader(model, observed=False)
        x = reader.inputs(as_rows("x", x))
        values = _to_numpy(x)
        (model.likelihood.check if reader.of_text else check_finite)(values)
        if refuses_8bit(model) and values.max() > 1 and holds_8bit(values):
            raise ValueError(
                "`x` must be scaled as in training: divide 8-bit images by 255, or let the encoder "
                f"begin with a `Rescaling`. Received: whole numbers up to {values.max():g}"
            )
        return x

    return _renamed(read, name)(x)


def refuses_8bit(model):
    """Returns whether whole numbers up to 255 cannot be meant for the encoder of a model."""
    unit = model.likelihood.support == (0.0, 1.0)
    return unit and not model.takes_target and _meets_weights(model.encoder)


def _meets_weights(network):
    """Whether the first layers are known that x meets, and none of them can scale it."""
    operations = getattr(network, "operations", None) or getattr(network, "layers", None) or ()
    passing = ("InputLayer", "Flatten", "Reshape", "Dropout", "ZeroPadding", "GaussianNoise")
    for operation in operations:
        if hasattr(operation, "layers"):
            return _meets_weights(operation)
        name = type(operation).__name__
        if not name.startswith(passing):
            return name.startswith(("Dense", "Conv"))
    return False


def holds_8bit(values):
    """Returns whether an array holds whole numbers from 0 to 255."""
    return values.min() >= 0 and values.max() <= 255 and np.array_equal(values, np.round(values))


def read_scored(model, x, target=None):
    """Returns arrays that are scored: `(x,)`, or `(x, target)` with what x is to be turned into.

    Raises:
        TypeError: If one is no array of real numbers.
        ValueError: If x cannot be encoded, or what is scored cannot be observed.
    """
    x = as_rows("x", x)
    if target is None:
        return (Reader(model).read(x).x,)
    target = as_rows("target", target)
    if tuple(target.shape) != tuple(x.shape):
        raise ValueError(
            f"`target` must have the shape of `x`, {tuple(x.shape)}. Received: "
            f"shape={tuple(target.shape)}"
        )
    batch = _renamed(Reader(model).read, "target", "y")(x, target)
    return batch.x, batch.target


def read_codes(model, z):
    """Returns codes as a tensor, checked for shape and finite numbers.

    Tensors of a function under construction pass unread.
    """
    traced = is_traced(z)
    if not traced:
        if hasattr(z, "_fields"):
            # Its fields, stacked, would pass for several codes of each example.
            raise TypeError(
                "`z` must be an array of codes, such as the `mean` of a posterior. Received: a "
                f"{type(z).__name__}"
            )
        if isinstance(z, (list, tuple)):
            # Of one length; others are refused as the lists that they are.
            with contextlib.suppress(ValueError, TypeError):
                z = np.asarray(z, "float32")
        z = as_rows("z", z)
        if not _is_float(z):
            z = _to_numpy(z).astype("float32")
    if len(z.shape) not in (2, 3) or z.shape[-1] != model.latent_dim:
        raise ValueError(
            f"`z` must have shape (batch, {model.latent_dim}) or (batch, K, {model.latent_dim}). "
            f"Received: shape={tuple(z.shape)}"
        )
    if not traced and 0 not in z.shape:
        check_finite(_to_numpy(z), "z")
    return ops.convert_to_tensor(z)


def _is_float(value):
    return (getattr(value.dtype, "name", None) or str(value.dtype)).startswith(("float", "bfloat"))


def is_traced(value):
    """Returns whether a tensor belongs to a function under construction and has no values."""
    if keras.backend.is_keras_tensor(value):
        return True
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(value, jax.core.Tracer)
    # Of TensorFlow's eager tensors the attribute raises an error.
    return type(value).__module__.startswith("tensorflow") and hasattr(value, "graph")


def check_finite(x, name="x"):
    """Raises a `ValueError` unless all values of an array are finite."""
    # A copy less than `isfinite` of all; NaN is passed on.
    if not (np.isfinite(np.min(x)) and np.isfinite(np.max(x))):
        raise ValueError(
            f"`{name}` must hold finite numbers. Received: NaN or infinity among its values"
        )


def check_ended(x, end_id):
    """Raises a `ValueError` unless all sentences `(n, T)` have an end symbol."""
    if x.ndim != 2:
        return
    endless = np.flatnonzero(~(x == end_id).any(axis=1))
    if endless.size:
        raise ValueError(
            f"`x` must hold sentences that end: each with the decoder's end symbol, id {end_id}, "
            f"before any padding. Received: row {endless[0]} without it"
        )


def check_labels(x, y, of_text=False):
    """Raises unless `y`, which is no target, can be labels, whose values nobody reads.

    Labels have one row an example: `(n,)`, `(n, 1)`, or `(n, C)` for C attributes or a one-hot
    class. Refused is what may be a target of a wrong shape: more axes; as many numbers as x has,
    other than one-hot; and ids beside sentences. A dict holds one such array for each attribute.

    Args:
        x: Array of inputs.
        y: What goes with it.
        of_text: Whether x holds sentences.

    Raises:
        TypeError: If it is no array.
        ValueError: If it is neither labels nor a target.
    """
    if isinstance(y, dict):
        for value in y.values():
            check_labels(x, _unwrapped(value), of_text)
        return
    shape = tuple(y.shape)
    if shape[:1] != (len(x),):
        _check_rows("y", y, len(x))
    plausible = len(shape) <= 2
    if plausible and len(shape) == 2 and shape[1] > 1 and _is_numeric(y):
        size = math.prod(x.shape[1:])
        if shape[1] == size or of_text:
            values = _to_numpy(y)
            plausible = bool(np.all((values == 0) | (values == 1)))
            if shape[1] == size:
                plausible = plausible and bool(np.all(values.sum(axis=1) == 1))
    if not plausible:
        raise ValueError(
            "`y` must be a target of the shape of `x`, (batch"
            + "".join(f", {length}" for length in x.shape[1:])
            + "), or labels: (batch,), (batch, 1), one-hot classes or attributes (batch, C). "
            f"Received: shape={shape}"
        )


def check_weight(weight, rows):
    """Returns the weights of examples as floats `(rows,)`.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are of another shape than `(rows,)` or `(rows, 1)`, negative or not
            finite.
    """
    if isinstance(weight, (list, tuple)):
        weight = np.asarray(weight)
    weight = _to_numpy(as_rows("sample_weight", weight))
    if weight.shape not in ((rows,), (rows, 1)):
        _raise_weight_shape(weight.shape, rows)
    if weight.dtype.kind != "f":
        weight = weight.astype("float32")
    smallest, largest = float(np.min(weight)), float(np.max(weight))
    if not (smallest >= 0 and largest <= LARGEST):
        raise ValueError(
            "`sample_weight` must hold finite numbers of at least 0. Received: values from "
            f"{smallest:g} to {largest:g}"
        )
    return weight.reshape(rows)


def class_weights(labels, class_weight):
    """Returns the weights of examples, float32 `(rows,)`, by their labels; 1 for other classes."""
    if labels is None or isinstance(labels, dict):
        raise ValueError(
            "`class_weight` must come with labels of the examples, one array `y`. Received: "
            + ("no labels" if labels is None else "a dict")
        )
    labels = _to_numpy(labels)
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else np.argmax(labels, axis=1)
    keys = [key.decode() if isinstance(key, bytes) else key for key in labels.tolist()]
    return np.asarray([class_weight.get(key, 1.0) for key in keys], "float32")


def check_index(index, rows, num_examples):
    """Returns the index as int32 `(rows,)`.

    Raises:
        ValueError: If it is no integer, of another shape, or outside of `[0, num_examples)`.
    """
    index = np.asarray(index)
    if index.dtype.kind not in "iu":
        raise ValueError(f"`index` must hold integers. Received: dtype={index.dtype}")
    if index.shape != (rows,):
        raise ValueError(
            f"`index` must have shape ({rows},), one number for each example of a batch. "
            f"Received: shape={index.shape}"
        )
    outside = index[(index < 0) | (index >= num_examples)]
    if outside.size:
        raise ValueError(f"{_RANGE}num_examples={num_examples}, index={outside[0]}")
    return index.astype("int32")


def as_rows(name, value, kinds="an array"):
    """Returns rows of numbers as an array.

    Args:
        name: Name of the argument.
        value: Array, tensor, or anything with `to_numpy` such as a DataFrame.
        kinds: What the argument may be, for the error.

    Returns:
        NumPy array, or the tensor of the backend that was given.

    Raises:
        TypeError: If it is no array, or does not hold real numbers.
    """
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if not (hasattr(value, "dtype") and hasattr(value, "shape")) or hasattr(value, "element_spec"):
        raise TypeError(f"`{name}` must be {kinds}. Received: {_described(value)}")
    if type(value).__name__ == "RaggedTensor":
        raise TypeError(
            f"`{name}` must have rows of one length; pad them with `.to_tensor()`. Received: "
            "a RaggedTensor"
        )
    if hasattr(value, "tocsr") or "Sparse" in type(value).__name__:
        raise TypeError(f"`{name}` must be dense. Received: a {type(value).__name__}")
    if isinstance(value, np.ndarray):
        # Not a masked array, whose statistics leave out what training does not.
        value = np.asarray(value)
    dtype = getattr(value.dtype, "name", None) or str(value.dtype)
    if not dtype.startswith(("float", "bfloat", "int", "uint", "bool")):
        # NumPy's own name tells strings of 4 bytes from those of 4 bits.
        dtype = str(value.dtype) if isinstance(value, np.ndarray) else dtype
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype={dtype}")
    return value


def _described(value):
    if isinstance(value, dict):
        keys = ", ".join(repr(key) for key in value)
        return f"dict with the keys {keys}; give one of its values" if value else "dict, empty"
    if hasattr(value, "element_spec") or isinstance(value, keras.utils.PyDataset):
        return f"a data set ({type(value).__name__}); give one batch after the other"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}; make it an array by `np.asarray`"
    if isinstance(value, str):
        return f"str {value[:40]!r}"
    return type(value).__name__


def _unwrapped(y):
    """Returns the companion of x as an array of any kind, or a dict of such arrays."""
    if isinstance(y, dict):
        return y
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()
    if not hasattr(y, "shape") or hasattr(y, "element_spec"):
        raise TypeError(f"`y` must be an array. Received: {_described(y)}")
    return y


def _check_rows(name, value, rows):
    if tuple(value.shape[:1]) != (rows,):
        raise ValueError(
            f"`{name}` must have one row for each of the {rows} examples of `x`. Received: "
            f"shape={tuple(value.shape)}"
        )


def _is_numeric(value):
    dtype = getattr(value.dtype, "name", None) or str(value.dtype)
    return dtype.startswith(("float", "bfloat", "int", "uint", "bool"))


def _to_numpy(value):
    # `convert_to_numpy` would copy the whole data set.
    if isinstance(value, np.ndarray):
        return value
    return value.numpy() if hasattr(value, "numpy") else ops.convert_to_numpy(value)


def _fits(shape, expected):
    return len(expected) == len(shape) and all(
        size in (None, got) for size, got in zip(expected[1:], shape[1:], strict=True)
    )


def _renamed(check, name, usual="x"):
    """A check whose errors speak of `x`, for another argument."""

    def renamed(*values):
        try:
            return check(*values)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace(f"`{usual}`", f"`{name}`", 1)) from None

    return renamed


def _raise_weight_shape(shape, rows="batch"):
    raise ValueError(
        f"`sample_weight` must have shape ({rows},), one weight for each example, or "
        f"({rows}, 1). Received: shape={shape}"
    )


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
    """

    x: object
    y: object = None
    sample_weight: object = None
    first: object = None
    held_out: object = None
    observed: object = None

    @property
    def packed(self):
        """The data as one argument of Keras."""
        return keras.utils.pack_x_y_sample_weight(self.x, self.y, self.sample_weight)


def check_batch(model, reader, x, y=None, sample_weight=None):
    """Returns a single batch as `(x, y, sample_weight)`, for Keras' steps."""
    batch = reader((x, y, sample_weight))
    _check_batch_sizes(model, len(batch.x), len(batch.x), reader.training)
    return keras.utils.unpack_x_y_sample_weight(batch.pack())


def check_options(options, verbose="auto", callbacks=None, epochs=None):
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


def read_validation_data(model, validation_data, batch_size=None):
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
            model, *_parts(validation_data), batch_size=batch_size, source="validation_data"
        )
    except (TypeError, ValueError) as error:
        raise _of("validation_data", error) from None


def _parts(batch):
    """Takes `(x, y, sample_weight)` apart, as Keras does."""
    if isinstance(batch, (tuple, list)) and not 1 <= len(batch) <= 3:
        raise ValueError(
            "`x` must come as x, (x, y) or (x, y, sample_weight). Received: a "
            f"{type(batch).__name__} of {len(batch)} parts"
        )
    return keras.utils.unpack_x_y_sample_weight(batch)


def _of(source, error):
    """An error that says which argument the x, y or weights of its message belong to."""
    text = str(error)
    if source is None or f"`{source}`" in text or type(error) not in (TypeError, ValueError):
        return error
    return type(error)(re.sub(r"^(`\w+`)", rf"\1 of `{source}`", text))


def read_data(
    model,
    x,
    y=None,
    sample_weight=None,
    *,
    batch_size=None,
    training=False,
    observed=True,
    class_weight=None,
    validation_split=0.0,
    split=True,
    source=None,
):
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
    return Data(*packed, data.x[first], held_out, _observed(data)[first])


def _read_stream(model, reader, x):
    if inspect.isgenerator(x):
        given = next(x, None)
        read = _read_generator(itertools.chain([given], x), reader)
    elif isinstance(x, keras.utils.PyDataset):
        given = x[0] if _length(x) != 0 else None
        read = _ReadDataset(x, reader)
    elif hasattr(x, "take"):
        _check_elements(x)
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
    return Data(read, first=first.x, observed=_observed(first))


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

    def __init__(self, dataset, reader):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset, self._reader = dataset, reader

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, i):
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

    @tf.autograph.experimental.do_not_convert
    def read(*elements):
        x, y, weight = _parts(elements[0] if len(elements) == 1 else elements)
        if not reader.observed:
            y = weight = None
        y, index = split_index(y)
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
            weight = reader((given["x"], y, given.get("weight"))).weight
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
        return Batch(x, target, index, weight).pack()

    return dataset.map(read)


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
def clear_errors(model=None):
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
