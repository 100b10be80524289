"""A training step of one's own, written once for both backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ...core.compile import stateless
from ...core.gradients import value_and_gradients
from .model import VAE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ...core.types import Tensor


class CustomStepVAE(VAE):
    """Base of the models whose training step is not one gradient step on all weights.

    Subclasses implement `custom_train_step`, in which Keras variables are read and assigned as in
    eager code, and call `value_and_gradients` and `while_loop` for what needs differentiation and
    loops.
    """

    def custom_train_step(self, x: Tensor, y: Tensor, sample_weight: Tensor) -> Any:
        """One training step.

        Args:
            x: Batch of inputs, `(batch, *event)` or whatever `fit` was made to hand over.
            y: What goes with it, as in `compute_loss`.
            sample_weight: Optional `(batch,)`.

        Returns:
            Dict of logs.
        """
        raise NotImplementedError

    def train_step(self, *arguments: Any) -> Any:
        """Keras' training step: of the data on TensorFlow, of state and data on JAX."""
        *state, data = arguments
        batch = keras.utils.unpack_x_y_sample_weight(data)
        if not state:
            return self.custom_train_step(*batch)
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        logs, new, _ = stateless(lambda: self.custom_train_step(*batch), groups, state[0])
        return logs, new

    def gradients_of(self, function: Callable[..., Any], variables: Sequence[Any]) -> Any:
        """`value_and_gradients` with all other variables of the model at hand.

        Args:
            function: Function of nothing that returns `(scalar, aux)`.
            variables: List of the model's variables.

        Returns:
            `((scalar, aux), gradients)`.
        """
        chosen = {id(variable) for variable in variables}
        others = [variable for variable in self.all_variables if id(variable) not in chosen]
        return value_and_gradients(function, variables, others)

    def update_weights(self, gradients: list[Tensor], variables: Sequence[Any]) -> None:
        """A step of the optimizer, scaling of the loss included, on some of the weights.

        Args:
            gradients: List of tensors, of the loss as `optimizer.scale_loss` scales it.
            variables: List of trainable variables of the model, one a gradient.
        """
        scales = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if not scales or keras.backend.backend() == "tensorflow":
            self.optimizer.apply(gradients, variables)
            return
        # It takes a step under a condition, which on JAX hands all values on.
        given = {id(v): gradient for v, gradient in zip(variables, gradients, strict=True)}
        weights, state = self.trainable_variables, self.optimizer.variables
        new = self.optimizer.stateless_apply(
            [variable.value for variable in state],
            [given.get(id(variable)) for variable in weights],
            [variable.value for variable in weights],
        )
        for variables, values in zip((weights, state), new, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    @property
    def all_variables(self) -> list[Any]:
        """Variables of the model, its metrics and its optimizer."""
        groups = (*self.variables, *self.metrics_variables, *self.optimizer.variables)
        return list({id(variable): variable for variable in groups}.values())
