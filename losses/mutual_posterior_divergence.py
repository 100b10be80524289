"""Mutual posterior divergence: posteriors of different examples should differ, evenly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_choice, check_real
from ..core.masks import num_valid, only_valid_pairs
from ..core.posteriors import DiagonalGaussian, float32
from ..core.replicas import gather_batch
from .objective import Loss, Regularizer

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Tensor
    from .objective import Terms


def pairwise_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL between all pairs of diagonal Gaussians, per dimension.

        P_ijk = 1/2 ( s2_i/s2_j + (mean_i - mean_j)^2/s2_j - log s2_i + log s2_j - 1 )_k

    Args:
        mean: Float tensor `(batch, D)`.
        log_var: Float tensor `(batch, D)`.

    Returns:
        Float tensor `(batch, batch, D)` with P_ij = KL(q_i || q_j) in nats.
    """
    log_ratio = log_var[:, None] - log_var[None]
    squared = ops.square(mean[:, None] - mean[None]) * ops.exp(-log_var)[None]
    return 0.5 * (ops.expm1(log_ratio) - log_ratio + squared)


@keras.saving.register_keras_serializable(package="vaezoo")
class MutualPosteriorDivergence(Regularizer):
    """Rewards distinct posteriors (diversity) at even distances (smoothness).

        L_diversity  = mean_{i != j} sum_k softplus(-P_ijk)
        L_smoothness = std_{i != j} ( sum_k P_ijk )
        added to the loss: diversity * L_diversity + smoothness * L_smoothness

    P is `pairwise_kl` of the (global) batch, that of the base under a flow: bending all posteriors
    alike would not change it. The logs show both terms unweighted.

    Args:
        diversity: Non-negative float (the paper's eta).
        smoothness: Non-negative float (the paper's gamma).
        reduction: `"mean_of_softplus"` as in the paper, or `"softplus_of_mean"`, which takes the
            mean over pairs inside the softplus as the official code does.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a weight is negative or `reduction` unknown.

    Reference: Ma et al. (2019), eqs. 5, 8 and 9, arXiv:1901.01498.
    """

    report_names = ("diversity", "smoothness")
    min_batch_size = 2
    masks_rows = True

    def __init__(
        self,
        diversity: float = 1.0,
        smoothness: float = 0.2,
        reduction: str = "mean_of_softplus",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.diversity = check_real("diversity", diversity, "[0, inf)")
        self.smoothness = check_real("smoothness", smoothness, "[0, inf)")
        self.reduction = check_choice(
            "reduction", reduction, ("mean_of_softplus", "softplus_of_mean")
        )

    def call(self, terms: Terms, training: bool = False) -> Loss:
        """Returns both weighted terms as a batch-level `Loss`."""
        posterior = getattr(terms.posterior, "base", terms.posterior)
        if not isinstance(posterior, DiagonalGaussian):
            raise TypeError(
                "`MutualPosteriorDivergence` needs a diagonal Gaussian posterior, or a flow of "
                f"one. Received: {type(terms.posterior).__name__}"
            )
        diversity, smoothness = self.terms(*map(float32, posterior), valid=terms.valid)
        return Loss(
            ops.zeros_like(terms.kl),
            self.diversity * diversity + self.smoothness * smoothness,
            {"diversity": diversity, "smoothness": smoothness},
        )

    def terms(self, mean: Tensor, log_var: Tensor, valid: Tensor = None) -> tuple[Tensor, Tensor]:
        """Both unweighted terms of a batch of posteriors, scalars.

        Args:
            mean: `(batch, D)`.
            log_var: `(batch, D)`.
            valid: Bool `(batch,)`, whether a posterior counts, or None where all do.
        """
        pairs = pairwise_kl(gather_batch(mean), gather_batch(log_var))
        off_diagonal = 1.0 - ops.eye(ops.shape(pairs)[0], dtype=pairs.dtype)
        off_diagonal = only_valid_pairs(off_diagonal, valid)
        size = ops.cast(num_valid(pairs, valid), pairs.dtype)
        # A batch of one has no pairs; its terms are then 0.
        count = ops.maximum(size * (size - 1.0), 1.0)
        if self.reduction == "mean_of_softplus":
            by_pair = ops.sum(ops.softplus(-pairs), axis=-1)
            diversity = ops.sum(by_pair * off_diagonal) / count
        else:
            mean_pairs = ops.sum(pairs * off_diagonal[:, :, None], axis=(0, 1)) / count
            diversity = ops.sum(ops.softplus(-mean_pairs))
        totals = ops.sum(pairs, axis=-1)
        center = ops.sum(totals * off_diagonal) / count
        squares = ops.sum(ops.square(totals - center) * off_diagonal)
        # The guard keeps the gradient of the root finite when all pairs are alike.
        return diversity, ops.sqrt(squares / ops.maximum(count - 1.0, 1.0) + _STD_GUARD)


_STD_GUARD = 1e-12
