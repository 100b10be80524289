"""Constraints on weights, which Keras applies inside the compiled step after each update."""

import keras
from keras import ops

from ._serialization import ArgumentsConfig


@keras.saving.register_keras_serializable(package="vaezoo")
class RootMeanSquare(ArgumentsConfig, keras.constraints.Constraint):
    """Constraint that rescales a weight to a given root mean square.

        w <- w * target / sqrt( mean_d w_d^2 )

    Keras applies constraints inside the compiled step, after each optimiser update.

    Args:
        target: Positive float.

    Raises:
        ValueError: If `target` is not positive.

    Reference: Shen et al. (2021), DU-VAE, algorithm 1, line 9, arXiv:2110.12381.
    """

    def __init__(self, target):
        if not target > 0:
            raise ValueError(f"`target` must be positive. Received: target={target}")
        self.target = target

    def __call__(self, w):
        mean_square = ops.mean(ops.square(w))
        return w * self.target * ops.rsqrt(ops.maximum(mean_square, 1e-24))
