"""Latent clipping: posterior means stay in a ball."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_real
from ..core.serialization import ArgumentsConfig

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class LatentClip(ArgumentsConfig, keras.layers.Layer):
    """Rescales posterior means that leave a ball onto its surface.

        mean <- mean * min(1, factor * sqrt(D) / ||mean||_2)

    Applies in training and inference. Inside the ball it is the identity, to the last bit; outside
    the gradient has no radial component.

    Args:
        factor: Positive float c; the radius is c sqrt(D).
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, D)`.

    Returns:
        Float32 tensor `(batch, D)`.

    Raises:
        ValueError: If `factor` is not positive.

    Reference: mu-VAE, section on latent clipping (c = 3 and c = 6).
    """

    def __init__(self, factor: float = 3.0, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.factor = check_real("factor", factor, "(0, inf)")

    def call(self, inputs: Tensor) -> Tensor:
        squared_radius = self.factor**2 * inputs.shape[-1]
        squared_norm = ops.sum(ops.square(inputs), axis=-1, keepdims=True)
        outside = squared_norm > squared_radius
        # Inside, the radius stands for the norm, whose root has no gradient at zero, and the means
        # are chosen as they are: some processors compute a root of 1 that is not 1.
        squared_norm = ops.where(outside, squared_norm, squared_radius)
        return ops.where(outside, inputs * ops.sqrt(squared_radius / squared_norm), inputs)
