"""Constraints on weights, which Keras applies inside the compiled step after each update."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_real
from ..core.serialization import ArgumentsConfig

if TYPE_CHECKING:
    from ..core.types import Tensor

#: Relative error of a mean of squares in float32: four units in the last place.
_ROUNDING = 2.0**-21


@keras.saving.register_keras_serializable(package="vaezoo")
class RootMeanSquare(ArgumentsConfig, keras.constraints.Constraint):
    """Constraint that rescales a weight to a given root mean square.

        w <- w * target / sqrt( mean_d w_d^2 )

    Keras applies constraints inside the compiled step, after each optimizer update. A weight whose
    mean square is the target's but for rounding stays as it is.

    Args:
        target: Positive float.

    Raises:
        ValueError: If `target` is not positive.

    Reference: Shen et al. (2021), DU-VAE, algorithm 1, line 9, arXiv:2110.12381.
    """

    def __init__(self, target: float) -> None:
        self.target = check_real("target", target, "(0, inf)")

    def __call__(self, w: Tensor) -> Tensor:
        w = ops.convert_to_tensor(w)
        mean_square, wanted = ops.mean(ops.square(w)), self.target**2
        rescaled = w * (self.target / ops.sqrt(ops.maximum(mean_square, 1e-24)))
        # Chosen, not multiplied: some processors compute a root of 1 that is not 1.
        there = ops.abs(mean_square - wanted) <= _ROUNDING * wanted
        return ops.where(there, w, rescaled)
