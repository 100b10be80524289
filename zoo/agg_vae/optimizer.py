"""One optimizer for the encoder's weights and one for all others, which a model takes for one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import keras
from keras import ops

from ...core.serialization import ArgumentsConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ...core.types import KerasObject

ENCODER, DECODER = "encoder", "decoder"


def mark(variables: Sequence[Any], part: Any) -> None:
    """Notes which part of a model weights belong to: a new optimizer has to find out again."""
    for variable in variables:
        variable.vaezoo_part = part


@keras.saving.register_keras_serializable(package="vaezoo")
class PartsOptimizer(ArgumentsConfig, keras.optimizers.Optimizer):
    """Steps of the encoder and of the rest of a model, each with moments and a count of its own.

    The encoder's optimizer is a copy of the one given, which takes the other weights. Its learning
    rate follows that one's, schedules included, whose steps `iterations` counts. `global_clipnorm`
    is that of all gradients handed over, whichever part moves.

    Args:
        optimizer: Keras optimizer.
        name: Name.

    Raises:
        ValueError: If the optimizer averages weights or accumulates gradients, which would count
            the steps of one part for those of the other.
    """

    def __init__(self, optimizer: KerasObject, name: str = "parts") -> None:
        for option in ("use_ema", "gradient_accumulation_steps"):
            if getattr(optimizer, option):
                raise ValueError(
                    f"`{option}` must not be set for a model whose encoder takes steps of its own. "
                    f"Received: {option}={getattr(optimizer, option)}"
                )
        super().__init__(learning_rate=0.0, name=name)
        config = {**optimizer.get_config(), "name": f"{optimizer.name}_encoder"}
        # A number to be assigned to, also where a schedule sets it.
        config["learning_rate"] = float(ops.convert_to_numpy(optimizer.learning_rate))
        self.optimizer = optimizer
        self.encoder_optimizer = type(optimizer).from_config(config)
        self._moving: tuple[str, ...] = (ENCODER, DECODER)

    def _base_config(self):
        return {}

    @property
    def loss_scale_factor(self) -> float | None:
        """Loss scale of the optimizer; Keras removes it where it scales by itself."""
        return self.optimizer.loss_scale_factor if hasattr(self, "optimizer") else None

    @loss_scale_factor.setter
    def loss_scale_factor(self, value: Any) -> None:
        if hasattr(self, "encoder_optimizer"):
            self.optimizer.loss_scale_factor = value
            self.encoder_optimizer.loss_scale_factor = value

    @property
    def variables(self) -> list[Any]:
        """Own variables and those of both parts."""
        return [
            *self._variables,
            *self.optimizer.variables,
            *self.encoder_optimizer.variables,
        ]

    @property
    def learning_rate(self) -> Any:
        """Learning rate of both parts."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizer.learning_rate = value

    @property
    def iterations(self) -> Any:
        """Steps of the weights other than the encoder's."""
        return self.optimizer.iterations

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the state of both parts."""
        for part, optimizer in self._parts():
            if not optimizer.built:
                optimizer.build([v for v in variables if _part_of(v) == part])
        super().build(variables)

    @contextlib.contextmanager
    def only(self, part: Any) -> Iterator[Any]:
        """Within it `apply` moves `"encoder"` or `"decoder"` alone. Entered while tracing."""
        before, self._moving = self._moving, (part,)
        try:
            yield
        finally:
            self._moving = before

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One step of the parts that move, on those of the weights given that are theirs."""
        variables = trainable_variables
        if variables is None:
            variables = self._trainable_variables
        if not self.built:
            self.build(list(variables))
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        if self.optimizer.global_clipnorm is not None and pairs:
            factor = self._clip_factor([gradient for gradient, _ in pairs])
            pairs = [(g * ops.cast(factor, g.dtype), v) for g, v in pairs]
        if ENCODER in self._moving:
            rate = ops.convert_to_tensor(self.optimizer.learning_rate)
            self.encoder_optimizer.learning_rate.assign(rate)
        for part, optimizer in self._parts():
            own = [pair for pair in pairs if _part_of(pair[1]) == part]
            if part in self._moving and own:
                optimizer.apply(*map(list, zip(*own, strict=True)))

    def _clip_factor(self, gradients):
        squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
        norm = ops.sqrt(sum(squares)) / (self.loss_scale_factor or 1.0)
        limit = self.optimizer.global_clipnorm
        return ops.where(norm > limit, limit / norm, 1.0)

    def _parts(self):
        # The encoder first: its learning rate is read before the other's count goes on.
        return (ENCODER, self.encoder_optimizer), (DECODER, self.optimizer)

    def save_own_variables(self, store: Any) -> None:
        """Saves nothing: both parts save themselves."""

    def load_own_variables(self, store: Any) -> None:
        """Loads nothing."""


def in_parts(optimizer: KerasObject) -> KerasObject:
    """The optimizer that a user gave, in two parts, below the scaling of the loss if any."""
    optimizer = keras.optimizers.get(optimizer)
    if isinstance(optimizer, PartsOptimizer):
        return optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        config = optimizer.get_config()
        config["inner_optimizer"] = keras.saving.serialize_keras_object(
            in_parts(optimizer.inner_optimizer)
        )
        return keras.optimizers.LossScaleOptimizer.from_config(config)
    return PartsOptimizer(optimizer)


def _part_of(variable):
    return getattr(variable, "vaezoo_part", DECODER)
