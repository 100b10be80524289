"""Networks whose steps XLA makes slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ...layers.masked_conv import MaskedConv2D
from ...layers.weight_normalization import WeightNormalized

if TYPE_CHECKING:
    from .model import VAE


def slower_with_xla(model: VAE) -> bool:
    """Whether training steps of a model take longer with XLA.

    On TensorFlow's CPU they do for recurrent layers, PixelCNNs, and plain convolutions. Other
    networks gain by XLA, or were not measured; on JAX there is no choice, and on GPUs and TPUs XLA
    is always taken. benchmarks/README.md has the figures under "XLA on a CPU".

    Args:
        model: `VAE`.
    """
    # Steps that hold loops of many steps were not measured.
    if keras.backend.backend() != "tensorflow" or hasattr(model, "custom_train_step"):
        return False
    if accelerators():
        return False
    found = [layer for part in (model.encoder, model.decoder) for layer in part._flatten_layers()]
    if any(isinstance(layer, (keras.layers.RNN, MaskedConv2D)) for layer in found):
        return True
    convolves = any(isinstance(layer, _CONVOLUTIONS) for layer in found)
    return convolves and not any(isinstance(layer, _NORMALIZATIONS) for layer in found)


def accelerators() -> int:
    """Number of GPUs and TPUs that TensorFlow sees."""
    import tensorflow as tf

    return sum(len(tf.config.list_physical_devices(kind)) for kind in ("GPU", "TPU"))


_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
#: Between such convolutions XLA joins more operations.
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    WeightNormalized,
)
