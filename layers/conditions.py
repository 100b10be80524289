"""What data are conditioned on, and the encoder that sees it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_kind, shown, wrong
from ..core.conditions import (
    DATA,
    RESERVED,
    as_values,
    described_classes,
    named,
    read_labels,
    read_numbers,
)
from ..core.frames import unframed
from ..core.serialization import ArgumentsConfig
from .priors import StandardNormal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import Array, ArrayLike, Config, Shape, Tensor

_INTEGERS = 2**31


class Condition(ArgumentsConfig, keras.layers.Layer):
    """Base of the kinds of conditions: the call turns checked values into features.

    Subclasses implement `call` and the properties below.
    """

    def __init__(self, **kwargs: Any) -> None:
        # As codes.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    @property
    def value_dtype(self) -> str:
        """Name of the dtype of the checked values."""
        return "float32"

    @property
    def value_shape(self) -> tuple[Any, ...]:
        """Shape of the checked value of one example."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of features F of one example."""
        raise NotImplementedError

    @property
    def reader(self) -> Callable[[str, Array], Array]:
        """Function of a name and given values that checks them; it can be sent to a process."""
        raise NotImplementedError

    @property
    def described(self) -> str:
        """What one value may be, in words."""
        raise NotImplementedError

    def call(self, values: Tensor, training: bool = False) -> Tensor:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return (input_shape[0], self.size)


@keras.saving.register_keras_serializable(package="vaezoo")
class LabelCondition(Condition):
    """Class of an example, one-hot.

    Args:
        classes: Number of classes C, which are 0 to C - 1; or the classes themselves, integers or
            strings, in a sequence.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        values: Int tensor `(batch,)`: the class, or of classes that are strings its place.

    Returns:
        Float tensor `(batch, C)`.

    Raises:
        ValueError: If there are no classes, or one appears twice.
        TypeError: If they are neither integers nor strings.
    """

    def __init__(self, classes: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = _checked_classes(classes)

    @property
    def value_dtype(self) -> str:
        return "int32"

    @property
    def value_shape(self) -> tuple[Any, ...]:
        return ()

    @property
    def size(self) -> int:
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def reader(self) -> Callable[[str, Array], Array]:
        classes = self.classes if isinstance(self.classes, int) else list(self.classes)
        return functools.partial(read_labels, classes)

    @property
    def described(self) -> str:
        return f"one of {described_classes(self.classes)}"

    def call(self, values: Tensor, training: bool = False) -> Tensor:
        named_by_numbers = not isinstance(self.classes, int) and isinstance(self.classes[0], int)
        known = np.asarray(self.classes if named_by_numbers else range(self.size), "int32")
        values = ops.reshape(ops.cast(values, "int32"), (-1, 1))
        return ops.cast(ops.equal(values, known[None]), self.compute_dtype)


@keras.saving.register_keras_serializable(package="vaezoo")
class VectorCondition(Condition):
    """Numbers that go with an example, taken as they are: scale them to order 1.

    Args:
        size: Positive int, how many.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        values: Float tensor `(batch, size)`.

    Returns:
        The same.

    Raises:
        ValueError: If `size` is below 1.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size = check_integer("size", size)

    @property
    def value_shape(self) -> tuple[Any, ...]:
        return (self._size,)

    @property
    def size(self) -> int:
        return self._size

    @property
    def reader(self) -> Callable[[str, Array], Array]:
        return functools.partial(read_numbers, self.value_shape, "float32")

    @property
    def described(self) -> str:
        return f"{self._size} numbers"

    def call(self, values: Tensor, training: bool = False) -> Tensor:
        return ops.cast(values, self.compute_dtype)


@keras.saving.register_keras_serializable(package="vaezoo")
class NetworkCondition(Condition):
    """Images, or anything else that a network turns into features; the network is trained, too.

    Args:
        network: Functional or sequential Keras model `(batch, ...) -> (batch, F)`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        values: Tensor that the network takes.

    Returns:
        Float tensor `(batch, F)`.

    Raises:
        TypeError: If it is no Keras model with an input and an output.
        ValueError: If its output has other axes.
    """

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        inputs, outputs = (getattr(network, name, None) for name in ("inputs", "outputs"))
        if not inputs or len(inputs) != 1 or not outputs or len(outputs) != 1:
            raise TypeError(
                "`network` must be a functional or sequential Keras model of one input and one "
                f"output, with a `keras.Input`. Received: network={shown(network)}"
            )
        if len(outputs[0].shape) != 2 or outputs[0].shape[1] is None:
            raise ValueError(
                "`network` must return features of shape (batch, F). Received: "
                f"shape={tuple(outputs[0].shape)}"
            )
        self.network = network

    @property
    def value_dtype(self) -> str:
        return self.network.inputs[0].dtype

    @property
    def value_shape(self) -> tuple[Any, ...]:
        return tuple(self.network.inputs[0].shape[1:])

    @property
    def size(self) -> int:
        return self.network.outputs[0].shape[1]

    @property
    def reader(self) -> Callable[[str, Array], Array]:
        return functools.partial(read_numbers, self.value_shape, self.value_dtype)

    @property
    def described(self) -> str:
        return f"an array of shape {self.value_shape}"

    def call(self, values: Tensor, training: bool = False) -> Tensor:
        return self.network(values, training=training)


@keras.saving.register_keras_serializable(package="vaezoo")
class ConditionalEncoder(ArgumentsConfig, keras.layers.Layer):
    """Encoder that sees what its data are conditioned on: it makes any model conditional.

        h = encoder(x),   h <- (1 + W_1 c) * h + W_2 c        q(z|x, c)

    with c the features of all conditions. A `VAE` with such an encoder decodes the code beside c,
    p(x|z, c): its decoder takes codes of size D + `size`. `zoo.networks.make(..., condition=)`
    makes both. Its data are dicts, such as `{"x": images, "digit": labels}`; the data may also have
    a name of their own, as the only key that is no condition.

    W_1 and W_2 start at 0. An encoder of several inputs gets each condition's features under the
    name of the input, and the data in the one that is left; h is then what it returns. Several
    outputs are joined.

    Args:
        encoder: Layer `(batch, *event) -> (batch, F)`, or a functional model of several inputs.
        condition: Dict of conditions by name, each a number of classes, a sequence of classes, a
            Keras model that takes it, or a `Condition`; or a single one, named `"condition"`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Attributes:
        condition: Dict of `Condition` by name.

    Call arguments:
        inputs: Dict of tensors `"x"` and one for each condition.

    Returns:
        Float tensor `(batch, F)`.

    Raises:
        TypeError: If a part is of the wrong kind.
        ValueError: If a condition has no usable name, or the encoder has other inputs.

    Reference: Perez et al. (2018), FiLM, arXiv:1709.07871; Sohn et al. (2015), "Learning structured
    output representation using deep conditional generative models".
    """

    def __init__(self, encoder: keras.layers.Layer, condition: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_kind("encoder", encoder, keras.layers.Layer, "a Keras layer or model")
        if isinstance(encoder, ConditionalEncoder):
            raise TypeError("`encoder` must not be conditional already. Received: one that is")
        self.encoder, self.condition = encoder, as_conditions(condition)
        names = [tensor.name for tensor in getattr(encoder, "inputs", None) or ()]
        self._mixes = len(names) > 1
        if self._mixes:
            others = [name for name in names if name not in self.condition]
            if len(others) != 1 or len(names) != len(self.condition) + 1:
                raise ValueError(
                    "`encoder` must have one input for the data and one for each condition, by "
                    f"name, {', '.join(map(repr, self.condition))}. Received: inputs "
                    f"{', '.join(map(repr, names))}"
                )
            self._data_input = others[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the conditions."""
        return tuple(self.condition)

    @property
    def size(self) -> int:
        """Number of features of all conditions."""
        return sum(kind.size for kind in self.condition.values())

    @property
    def inputs(self) -> list[Any] | None:
        """The encoder's input of data in a list, or None where it tells none."""
        inputs: Any = getattr(self.encoder, "inputs", None)
        if self._mixes:
            inputs = [tensor for tensor in inputs if tensor.name == self._data_input]
        return inputs

    @property
    def input_shape(self) -> Any:
        """Shape of a batch of data, or None where the encoder tells none."""
        inputs = self.inputs
        return tuple(inputs[0].shape) if inputs else None

    @property
    def operations(self) -> Any:
        """What the data pass through first, where the encoder tells."""
        return () if self._mixes else getattr(self.encoder, "operations", None) or [self.encoder]

    @property
    def readers(self) -> dict[str, Callable[[str, Any], Array]]:
        """Functions that check what is given for each condition."""
        return {name: kind.reader for name, kind in self.condition.items()}

    def embed(self, values: dict[str, Tensor], training: bool = False) -> Tensor:
        """Returns the features of all conditions, `(batch, size)`."""
        found = [kind(values[name], training=training) for name, kind in self.condition.items()]
        return found[0] if len(found) == 1 else ops.concatenate(found, axis=-1)

    def symbolic(self, event_shape: Shape, dtype: str) -> dict[str, Any]:
        """Returns a batch of placeholders, from which a model is built."""
        return {
            DATA: keras.KerasTensor((None, *event_shape), dtype),
            **{
                name: keras.KerasTensor((None, *kind.value_shape), kind.value_dtype)
                for name, kind in self.condition.items()
            },
        }

    def build(self, input_shape: Shape) -> None:
        if self._mixes:
            return
        dtype = self.inputs[0].dtype if self.inputs else self.input_dtype
        batch = self.symbolic(tuple(input_shape[DATA][1:]), dtype)
        features = joined(self.encoder(batch[DATA]))
        shape = (self.size, 2 * features.shape[-1])
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        condition = self.embed(inputs, training)
        if self._mixes:
            columns = dict(zip(self.condition, self._columns(condition), strict=True))
            given = {self._data_input: inputs[DATA], **columns}
            nested = keras.tree.map_structure(lambda tensor: given[tensor.name], self.encoder.input)
            return joined(self.encoder(nested, training=training))
        features = joined(self.encoder(inputs[DATA], training=training))
        both = ops.matmul(condition, ops.cast(self.kernel, condition.dtype))
        scale, shift = ops.split(ops.cast(both, features.dtype), 2, axis=1)
        return features + scale * features + shift

    def _columns(self, features):
        start = 0
        for kind in self.condition.values():
            yield features[:, start : start + kind.size]
            start += kind.size

    def read_given(self, condition: Any, rows: int) -> dict[str, Array]:
        """Returns checked conditions for new data, one for each.

        Args:
            condition: Dict by name, or what belongs to the only condition: one value for all, or
                one for each of the rows.
            rows: Positive int.

        Raises:
            TypeError: If something is of the wrong kind.
            ValueError: If a condition is missing or unknown, or there are other numbers of them.
        """
        wanted = ", ".join(map(repr, self.condition))
        if condition is None:
            raise ValueError(
                f"`condition` must be given: the model is conditioned on {wanted}. Received: "
                "condition=None"
            )
        if not isinstance(condition, dict):
            if len(self.condition) > 1:
                raise ValueError(
                    f"`condition` must be a dict of {wanted}. Received: {type(condition).__name__}"
                )
            condition = {self.names[0]: condition}
        if set(condition) != set(self.condition):
            raise ValueError(
                f"`condition` must have the keys {wanted}. Received: the keys "
                + (", ".join(map(repr, condition)) or "none")
            )
        found = {}
        for name, kind in self.condition.items():
            values = as_values(name, condition[name])
            if values.ndim == len(kind.value_shape):
                values = values[None]
            values = kind.reader(name, values)
            if len(values) not in (1, rows):
                raise ValueError(
                    f"`condition` must have one {name!r}, or one for each of the {rows} examples. "
                    f"Received: {len(values)}"
                )
            found[name] = np.repeat(values, rows, axis=0) if len(values) == 1 else values
        return found

    def canonical(self, inputs: Any, argument: str = "x") -> dict[str, Any]:
        """Returns a batch as its user wrote it with the data under `"x"`, see `named`."""
        return named(inputs, self.names, argument)

    def get_config(self) -> Config:
        """Returns the constructor's arguments."""
        config = super().get_config()
        kinds = self.condition.items()
        config["condition"] = {
            name: keras.saving.serialize_keras_object(kind) for name, kind in kinds
        }
        return config

    @classmethod
    def from_config(cls, config: Config) -> Any:
        """Builds the layer from what `get_config` returned."""
        kinds = config["condition"].items()
        revived = {name: keras.saving.deserialize_keras_object(kind) for name, kind in kinds}
        return super().from_config({**config, "condition": revived})


def joined(outputs: Any) -> Tensor:
    """Returns what an encoder returned as features: several tensors side by side, flattened."""
    if not isinstance(outputs, (list, tuple, dict)):
        return outputs
    parts = keras.tree.flatten(outputs)
    parts = [part if len(part.shape) == 2 else _flat(part) for part in parts]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _flat(part):
    size = int(np.prod(part.shape[1:]))
    return ops.reshape(part, (-1, size))


def as_conditions(condition: Any) -> dict[str, Condition]:
    """Returns conditions by name from any of the forms that `ConditionalEncoder` takes.

    Raises:
        TypeError: If one is of no known kind.
        ValueError: If there is none, or one has no usable name.
    """
    given = condition if isinstance(condition, dict) else {"condition": condition}
    if not given:
        raise wrong("condition", "a dict of at least one condition", condition)
    for name in given:
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise ValueError(
                "`condition` must name its conditions by words other than "
                f"{', '.join(map(repr, RESERVED))}. Received: condition={shown(condition)}"
            )
    return {name: _kind(value) for name, value in given.items()}


def _kind(value):
    if isinstance(value, Condition):
        return value
    if isinstance(value, keras.Model):
        return NetworkCondition(value)
    if isinstance(value, keras.layers.Layer) or value is None:
        raise TypeError(
            "`condition` must be a number of classes, a sequence of classes, a Keras model or a "
            f"vaezoo Condition. Received: {shown(value)}"
        )
    return LabelCondition(value)


def _checked_classes(classes: ArrayLike) -> Any:
    if not hasattr(classes, "__len__") or isinstance(classes, (str, bytes, dict)):
        return check_integer("classes", classes)
    classes = unframed(classes)
    found = classes.tolist() if hasattr(classes, "tolist") else list(classes)
    found = [value.item() if isinstance(value, np.generic) else value for value in found]
    texts = bool(found) and all(isinstance(value, str) for value in found)
    whole = [isinstance(v, int) and not isinstance(v, bool) and abs(v) < _INTEGERS for v in found]
    if not texts and not (found and all(whole)):
        raise TypeError(
            "`classes` must be a number of classes, or a sequence of integers or of strings. "
            f"Received: classes={shown(classes)}"
        )
    if len(set(found)) != len(found):
        raise wrong("classes", "different from each other", classes)
    return found


@keras.saving.register_keras_serializable(package="vaezoo")
class ConditionalNormal(StandardNormal):
    """p(z|c) = N(m(c), diag(s(c)^2)) with a learned mean and variance, of a conditional model.

        z = m(c) + s(c) * u,   u ~ N(0, I),   m = W_1 c + b_1,   log s = W_2 c + b_2

    Starts as N(0, I).

    Note:
        Codes of the model are u, whose prior is N(0, I) under every condition: posteriors, rates
        and metrics are of u, and the decoder gets z. KL divergences and likelihoods do not depend
        on such a choice of coordinates, so all objectives stay as they are. `place` gives z.

    Args:
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`, u.

    Returns:
        log p(u), `(batch, K)` in nats.

    Raises:
        ValueError: If the model that it belongs to is not conditional.

    Reference: Sohn et al. (2015), "Learning structured output representation using deep conditional
    generative models", of which it is the Gaussian p(z|x) with a linear network.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._features: int | None = None

    def bind_model(self, model: keras.Model) -> None:
        if not isinstance(model.encoder, ConditionalEncoder):
            raise ValueError(
                "`prior` must not be a ConditionalNormal of a model without conditions: give it a "
                f"`ConditionalEncoder`. Received: encoder={type(model.encoder).__name__}"
            )
        self._features = model.encoder.size

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self._features is None:
            raise ValueError("`prior` must belong to a model. Received: a ConditionalNormal alone")
        size = 2 * input_shape[-1]
        self.kernel = self.add_weight(
            shape=(self._features, size), initializer="zeros", name="kernel"
        )
        self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")

    def get_build_config(self) -> Config:
        """Returns the shape of codes and the number of features of the conditions."""
        config = super().get_build_config()
        return config and {**config, "features": self._features}

    def build_from_config(self, config: Config) -> None:
        """Builds the prior as it was when it was saved, before it knows its model."""
        config = dict(config)
        self._features = config.pop("features")
        super().build_from_config(config)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns m(c) and log s(c), `(batch, D)` each, of the features of conditions."""
        features = ops.cast(features, "float32")
        return tuple(ops.split(ops.matmul(features, self.kernel) + self.bias, 2, axis=-1))

    def place(self, u: Tensor, features: Tensor) -> Tensor:
        """Returns z, of the shape of u, `(batch, D)` or `(batch, K, D)`."""
        mean, log_scale = self.moments(features)
        if len(u.shape) == 3:
            mean, log_scale = mean[:, None], log_scale[:, None]
        return ops.cast(mean, u.dtype) + ops.exp(ops.cast(log_scale, u.dtype)) * u
