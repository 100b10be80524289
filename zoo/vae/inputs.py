"""One batch, or all rows of an array, as a model reads it: checked, and held as a `Batch`.

Holds x alone, or x with what the model reads: conditions, a target, the index of each example,
weights. Labels end here, unless they are conditions.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from ...core.compile import padded
from ...core.conditions import (
    conditions_of,
    data_of,
    named,
    num_rows,
    read_conditions,
    take_rows,
    with_data,
)
from ...core.frames import unframed
from ...core.targets import split_index, target_of
from ...layers import ConditionalEncoder
from ...layers.likelihoods import Likelihood

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...core.types import Array, ArrayLike, Tensor
    from .model import VAE

#: What `fit`, `evaluate` and `predict` take.
SOURCES = "an array, a `tf.data.Dataset`, a `PyDataset` or a generator"
#: Largest number that is finite in float32.
LARGEST = float(np.finfo("float32").max)
#: The check of a likelihood that its support tells all of.
_PLAIN_CHECK = Likelihood.check
#: Key of what is handed to a step beside y; no label of anybody's has this name.
_VALID = "vaezoo/valid"
_RANGE = "`index` must lie in [0, num_examples). Received: "


# -- batches ---------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Holds the parts of a batch, or of all rows of an array, that a model reads.

    Attributes:
        x: `(batch, *event)`, the input.
        target: What is reconstructed, of the shape of x, or None for x itself.
        index: Numbers of the examples in the training set, int32 `(batch,)`, or None.
        weight: Weights of the examples, `(batch,)`, or None.
        valid: Whether each row is an example, bool `(batch,)`, rather than one of those that
            `fill_up` adds; None where all are.
        condition: Dict of what the examples are conditioned on, numbers `(batch, ...)` by name, or
            None.
    """

    x: Any
    target: Any = None
    index: Any = None
    weight: Any = None
    valid: Any = None
    condition: Any = None

    @classmethod
    def unpack(cls, x: Any, y: Tensor = None, sample_weight: Tensor = None) -> Batch:
        """Takes apart what a step is handed over; there x stands in for a missing target."""
        valid, condition, x = None, conditions_of(x), data_of(x)
        if isinstance(y, dict) and _VALID in y:
            y, valid = y["y"], y[_VALID]
        y, index = split_index(y)
        target = target_of(x, y)
        target = x if target is None else target
        return cls(x, target, index, example_weight(sample_weight), valid, condition)

    @property
    def inputs(self) -> Any:
        """What the model is called on: x, or a dict of x and its conditions."""
        return self.x if self.condition is None else {"x": self.x, **self.condition}

    @property
    def observed(self) -> Any:
        """As `inputs`, with what is reconstructed in place of x."""
        return self.inputs if self.target is None else with_data(self.inputs, self.target)

    def pack(self) -> Any:
        """Returns `x`, `(x, y)` or `(x, y, sample_weight)`, as Keras takes batches."""
        y = self.target
        if self.index is not None:
            y = {"index": self.index} if y is None else {"index": self.index, "y": y}
        elif y is None and self.weight is not None:
            # Keras drops weights that have no y to go with.
            y = {"weight": self.weight}
        return keras.utils.pack_x_y_sample_weight(self.inputs, y, self.weight)

    def rows(self, part: Any) -> Batch:
        """Returns the rows of a slice."""
        return Batch(*(take_rows(field, part) for field in self))


def fill_up(
    x: Tensor, y: Any, sample_weight: Tensor, rows: int
) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Fills a batch up, as steps are handed it, by repeating its first row.

    Args:
        x: NumPy array or tensor.
        y: What goes with it, in any structure, or None.
        sample_weight: Weights of the examples, or None.
        rows: Int of at least the rows that there are.

    Returns:
        `(x, y, sample_weight)`, where y also says which rows are examples.
    """
    valid = np.arange(rows) < num_rows(x)
    given = keras.tree.flatten((x, y, sample_weight))
    filled = iter(padded([v for v in given if v is not None], rows))
    x, y, sample_weight = keras.tree.pack_sequence_as(
        (x, y, sample_weight), [None if v is None else next(filled) for v in given]
    )
    return x, {_VALID: valid, "y": y}, sample_weight


def example_weight(sample_weight: Tensor) -> Tensor:
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


class Values(NamedTuple):
    """Holds dtype and shape of the values of a condition."""

    dtype: str
    shape: tuple[Any, ...]


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

    def __init__(
        self,
        model: VAE,
        training: bool = False,
        observed: bool = True,
        class_weight: dict[Any, float] | None = None,
        source: str | None = None,
    ) -> None:
        self.source = source
        shape = getattr(model.encoder, "input_shape", None)
        self.shape = shape if isinstance(shape, tuple) else None
        self.shape_of = "the shape that the encoder takes"
        self.likelihood, self.training = model.likelihood, training
        self.of_text = hasattr(self.likelihood, "num_predicted")
        # What an autoregressive decoder predicts, it sees.
        self.observed, self.scored = observed, observed or model.autoregressive
        self.num_examples = model.num_examples if training else None
        self.conditional = isinstance(model.encoder, ConditionalEncoder)
        kinds = model.encoder.condition if self.conditional else {}
        self.readers = {name: kind.reader for name, kind in kinds.items()}
        self.kinds = {name: Values(k.value_dtype, k.value_shape) for name, k in kinds.items()}
        self.class_weight = class_weight

    def __call__(self, batch: Any) -> Batch:
        """Returns the `Batch` of one batch of a data set, as Keras takes those.

        Raises:
            TypeError: If something in it is no array of numbers.
            ValueError: If it cannot be used.
        """
        try:
            x, y, weight = parts_of(batch)
            found = self.read(x, y, weight)
        except (TypeError, ValueError) as error:
            raise of_source(self.source, error) from None
        if self.num_examples is not None and found.index is None:
            raise ValueError(
                '`x` must give batches (x, {"index": index}) or (x, {"index": index, "y": y}), '
                "because the objective tells the training examples apart. "
                "`vaezoo.data.load(..., with_index=True)` does so; to a `tf.data.Dataset` of your "
                "own apply `vaezoo.data.with_index` before `shuffle` and `batch`. Received: "
                f"batches without an index, whose y is {type(y).__name__}"
            )
        return found

    def read(self, x: Tensor, y: Tensor = None, weight: Any = None) -> Batch:
        """Returns a `Batch` of checked rows; see `__call__`."""
        x, given = self.split(x)
        x = self.inputs(x)
        values, rows = _to_numpy(x), len(x)
        condition = None if given is None else read_conditions(self.readers, given, rows)
        if not self.observed:
            y = weight = None
        y, index = split_index(y)
        labels = target = None
        if y is not None:
            y = _unwrapped(y)
            target = target_of(x, y)
            if target is None:
                labels = y
                check_labels(values, labels, self.of_text)
            else:
                target = as_rows("y", target)
                _check_rows("y", target, rows)
        if target is None:
            check_values = self.likelihood.check if self.scored else check_finite
            check_values(values)
        else:
            (self.likelihood.check if self.of_text else check_finite)(values)
            _renamed(self.likelihood.check, "y")(_to_numpy(target))
        if self.num_examples is None:
            index = None
        elif index is not None:
            index = check_index(index, rows, self.num_examples)
        if weight is not None:
            if self.class_weight is not None:
                raise ValueError(
                    "`class_weight` must not be given beside weights of examples. Received: both"
                )
            weight = check_weight(weight, rows)
        elif self.class_weight is not None:
            weight = class_weights(labels, self.class_weight)
        return Batch(x, target, index, weight, condition=condition)

    def without_conditions(self) -> Reader:
        """Returns a reader of the data alone."""
        reader = copy.copy(self)
        reader.conditional = False
        return reader

    def split(self, x: Any) -> tuple[Any, dict[str, Any] | None]:
        """Takes data apart from what they are conditioned on, None where there is no condition."""
        if not self.conditional:
            return x, None
        batch = named(x, tuple(self.readers))
        return data_of(batch), conditions_of(batch)

    def inputs(self, x: Tensor) -> Array:
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

    def expect(self, x: Tensor) -> None:
        """Takes the shape of the first inputs for that of all, where the encoder has none."""
        if self.shape is None:
            # Sentences differ in length from batch to batch.
            self.shape = (None, *(None if self.of_text else size for size in x.shape[1:]))
            self.shape_of = "the same shape in all batches"

    def padded(self, x: Tensor) -> Sequence[Any]:
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

    def bounds(self, has_target: bool) -> Any:
        """Returns the intervals of x and of the target, or None where these do not say it all."""
        if type(self.likelihood).check is not _PLAIN_CHECK:
            return None
        largest = self.likelihood.largest
        support = tuple(float(np.clip(end, -largest, largest)) for end in self.likelihood.support)
        anything = (-LARGEST, LARGEST)
        return (anything, support) if has_target else (support if self.scored else anything,)


def read_inputs(model: VAE, x: Tensor, name: str = "x") -> Array:
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

    def read(batch):
        reader = Reader(model, observed=False)
        x, given = reader.split(batch)
        x = reader.inputs(as_rows("x", x))
        values = _to_numpy(x)
        (model.likelihood.check if reader.of_text else check_finite)(values)
        if refuses_8bit(model) and values.max() > 1 and holds_8bit(values):
            raise ValueError(
                "`x` must be scaled as in training: divide 8-bit images by 255, or let the encoder "
                f"begin with a `Rescaling`. Received: whole numbers up to {values.max():g}"
            )
        if given is None:
            return x
        return {"x": x, **read_conditions(reader.readers, given, len(x))}

    return _renamed(read, name)(x)


def refuses_8bit(model: keras.Model) -> bool:
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


def holds_8bit(values: Any) -> bool:
    """Returns whether an array holds whole numbers from 0 to 255."""
    return values.min() >= 0 and values.max() <= 255 and np.array_equal(values, np.round(values))


def read_scored(model: keras.Model, x: Tensor, target: ArrayLike = None) -> tuple[Array, ...]:
    """Returns arrays that are scored: `(x,)`, or `(x, target)` with what x is to be turned into.

    Raises:
        TypeError: If one is no array of real numbers.
        ValueError: If x cannot be encoded, or what is scored cannot be observed.
    """
    reader = Reader(model)
    values = as_rows("x", reader.split(x)[0])
    if target is None:
        return (reader.read(x if reader.conditional else values).inputs,)
    target = as_rows("target", target)
    if tuple(target.shape) != tuple(values.shape):
        raise ValueError(
            f"`target` must have the shape of `x`, {tuple(values.shape)}. Received: "
            f"shape={tuple(target.shape)}"
        )
    batch = _renamed(reader.read, "target", "y")(x if reader.conditional else values, target)
    return batch.inputs, batch.target


def read_codes(model: keras.Model, z: Tensor) -> Tensor:
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


def is_traced(value: Any) -> bool:
    """Returns whether a tensor belongs to a function under construction and has no values."""
    if isinstance(value, dict):
        return any(map(is_traced, value.values()))
    if keras.backend.is_keras_tensor(value):
        return True
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(value, jax.core.Tracer)
    # Of TensorFlow's eager tensors the attribute raises an error.
    return type(value).__module__.startswith("tensorflow") and hasattr(value, "graph")


def check_finite(x: Tensor, name: str = "x") -> None:
    """Raises a `ValueError` unless all values of an array are finite."""
    # A copy less than `isfinite` of all; NaN is passed on.
    if not (np.isfinite(np.min(x)) and np.isfinite(np.max(x))):
        raise ValueError(
            f"`{name}` must hold finite numbers. Received: NaN or infinity among its values"
        )


def check_labels(x: Tensor, y: Tensor, of_text: bool = False) -> None:
    """Raises unless `y`, which is no target, can be labels. Their values are not used.

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


def check_weight(weight: Any, rows: Any) -> Array:
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


def class_weights(labels: ArrayLike, class_weight: dict[Any, float]) -> Array:
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


def check_index(index: Tensor, rows: Any, num_examples: int) -> Array:
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


def as_rows(name: str, value: Any, kinds: str = "an array") -> Array:
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
    value = unframed(value)
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
        shapes = {getattr(part, "shape", ()) for part in value}
        if isinstance(value, tuple) and all(shapes) or len(shapes) > 1:
            # Such as examples with their labels.
            return f"{type(value).__name__} of {len(value)} items; give the array of the examples"
        return f"{type(value).__name__}; make it an array by `np.asarray`"
    if isinstance(value, str):
        return f"str {value[:40]!r}"
    return type(value).__name__


def _unwrapped(y):
    """Returns the companion of x as an array of any kind, or a dict of such arrays."""
    if isinstance(y, dict):
        return y
    y = unframed(y)
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


def parts_of(batch: Any) -> tuple[Any, Any, Any]:
    """Takes `(x, y, sample_weight)` apart, as Keras does."""
    if isinstance(batch, (tuple, list)) and not 1 <= len(batch) <= 3:
        raise ValueError(
            "`x` must come as x, (x, y) or (x, y, sample_weight). Received: a "
            f"{type(batch).__name__} of {len(batch)} parts"
        )
    return keras.utils.unpack_x_y_sample_weight(batch)


def of_source(source: str | None, error: Exception) -> Exception:
    """An error that says which argument the x, y or weights of its message belong to."""
    text = str(error)
    if source is None or f"`{source}`" in text or type(error) not in (TypeError, ValueError):
        return error
    return type(error)(re.sub(r"^(`\w+`)", rf"\1 of `{source}`", text))


def _raise_weight_shape(shape, rows="batch"):
    raise ValueError(
        f"`sample_weight` must have shape ({rows},), one weight for each example, or "
        f"({rows}, 1). Received: shape={shape}"
    )
