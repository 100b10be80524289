"""Base class of all flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.serialization import ArgumentsConfig

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Shape, Tensor


class Flow(ArgumentsConfig, keras.layers.Layer):
    """Base of the flows: invertible maps from noise to latent codes whose Jacobian is triangular.

        z = f(eps; context),   log_det = log |det df/d eps| = sum_d log_scale_d

    As with the bijectors of TensorFlow Probability, the call runs from the noise of a base density
    to the code, and `inverse` from the code to the noise. Either may be the fast direction.

    Subclasses implement `forward_and_log_det` and `inverse_and_log_det`. Flows compute in float32
    under every precision policy.

    Args:
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.
        context: Optional float tensor `(batch, C)`.

    Returns:
        `(z, log_det)`: float32 `(batch, K, D)` and `(batch, K)` in nats.
    """

    #: Integer array `(D,)`, known once built: coordinate d of the code descends from coordinate
    #: `coordinates[d]` of the noise. None where no order changes.
    coordinates: Any = None

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def forward_and_log_det(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        """The call's map with its log-determinant per dimension.

        Args:
            z: Float tensor `(batch, K, D)`.
            context: As in the call.

        Returns:
            `(z, log_scale)`, both float32 `(batch, K, D)`: the logarithms of the Jacobian's
            diagonal, each with the coordinate that it belongs to after all changes of order.
        """
        raise NotImplementedError

    def inverse_and_log_det(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        """Returns the point mapped to `z`, and the log-determinant per dimension."""
        raise NotImplementedError

    def permute(self, values: Any) -> Tensor:
        """Values per dimension of the noise, `(..., D)`, put in the order of the code."""
        return values if self.coordinates is None else ops.take(values, self.coordinates, axis=-1)

    def follow(self, values: Any) -> Tensor:
        """`permute` by its former name, for one release."""
        return self.permute(values)

    def transform(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        """`forward_and_log_det` by its former name, for one release."""
        return self.forward_and_log_det(z, context)

    def inverse_transform(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        """`inverse_and_log_det` by its former name, for one release."""
        return self.inverse_and_log_det(z, context)

    def call(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        z, log_scale = self.forward_and_log_det(z, context)
        return z, ops.sum(log_scale, axis=-1)

    def inverse(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        """Returns the point that the flow maps to `z`, and the log-determinant of this direction.

        Args:
            z: Float tensor `(batch, K, D)`.
            context: As in the call.

        Returns:
            `(z, log_det)`, float32 `(batch, K, D)` and `(batch, K)`: minus that of the call.
        """
        z, log_scale = self.inverse_and_log_det(z, context)
        return z, ops.sum(log_scale, axis=-1)

    def compute_output_shape(self, z_shape: Shape, context_shape: Shape | None = None) -> Any:
        return z_shape, z_shape[:2]
