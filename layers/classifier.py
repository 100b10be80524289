"""The dense classifier of latent codes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.types import KerasObject


def dense_classifier(
    latent_dim: int,
    num_classes: int,
    hidden_units: Sequence[int] = (1024, 1024, 1024),
    output_activation: KerasObject = None,
    seed: int | None = None,
    name: str = "classifier",
) -> keras.Model:
    """Leaky ReLUs of slope 0.2 and a linear map, kernels from N(0, 2 / fan_in).

    Args:
        latent_dim: Positive int D.
        num_classes: Positive int.
        hidden_units: Widths of the hidden layers, positive ints.
        output_activation: Keras activation of the classes; None for logits.
        seed: Optional int that fixes the initial weights.
        name: Model name.

    Returns:
        Functional model `(batch, D) -> (batch, num_classes)`.

    Reference: mu-VAE, table 4.
    """
    z = h = keras.Input((latent_dim,), name="z")
    for number, units in enumerate((*hidden_units, num_classes)):
        last = number == len(hidden_units)
        # Not truncated, as `HeNormal` would be.
        kernel = keras.initializers.RandomNormal(
            0.0, math.sqrt(2.0 / h.shape[-1]), None if seed is None else seed * 64 + number
        )
        h = keras.layers.Dense(
            units,
            # As an activation its slope is 0.2, the paper's; as a layer 0.3.
            activation=output_activation if last else "leaky_relu",
            kernel_initializer=kernel,
            name="classes" if last else f"dense_{number + 1}",
        )(h)
    return keras.Model(z, h, name=name)
