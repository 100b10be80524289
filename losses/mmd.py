"""Maximum mean discrepancy between the aggregate posterior and the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_choice, check_real, check_reals, check_seed
from ..core.masks import num_valid, only_valid_pairs
from ..core.posteriors import float32
from ..core.random import SavesNoise, SeedGenerator
from ..core.replicas import gather_batch
from .objective import Loss, Regularizer, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Tensor, Weighting
    from .objective import Terms

_SCALES = {"imq": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "rbf": (1.0,)}


def maximum_mean_discrepancy(
    x: Tensor,
    y: Tensor,
    kernel: str = "imq",
    scales: Sequence[float] | None = None,
    prior_variance: float = 1.0,
) -> Tensor:
    """Unbiased squared maximum mean discrepancy between two samples.

        MMD = sum_C [ mean_{i != j} k_C(x_i, x_j) + mean_{i != j} k_C(y_i, y_j)
                      - 2 mean_ij k_C(x_i, y_j) ]
        C   = 2 * D * prior_variance * scale
        imq:  k_C(a, b) = C / (C + ||a - b||^2)
        rbf:  k_C(a, b) = exp(-||a - b||^2 / C)

    Args:
        x: Float tensor `(n, D)`.
        y: Float tensor `(m, D)`.
        kernel: `"imq"` (inverse multiquadratic) or `"rbf"` (Gaussian).
        scales: Sequence of positive floats, summed over; by default the seven of the paper for
            `"imq"` and `(1,)` for `"rbf"`.
        prior_variance: Positive float, variance of the prior per dimension.

    Returns:
        Scalar float tensor; about 0 for equal distributions, slightly negative at times.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Tolstikhin et al. (2018), algorithm 2, arXiv:1711.01558; Zhao et al. (2017),
    arXiv:1706.02262.
    """
    kernel, scales, prior_variance = _checked_kernel(kernel, scales, prior_variance)
    return _discrepancy(x, y, kernel, scales, prior_variance)


def _discrepancy(x, y, kernel, scales, prior_variance, valid=None):
    """The discrepancy between samples, of whose rows those count which are `valid` in both."""
    dim = x.shape[-1]
    distances = _squared_distances(x, x), _squared_distances(y, y), _squared_distances(x, y)
    total = 0.0
    for scale in scales or _SCALES[kernel]:
        base = 2.0 * dim * prior_variance * scale
        xx, yy, xy = (_kernel(squared, kernel, base) for squared in distances)
        same = _mean_off_diagonal(xx, valid) + _mean_off_diagonal(yy, valid)
        total += same - 2.0 * _mean(xy, valid)
    return total


def _squared_distances(a, b):
    # Explicit differences: the expanded square loses all digits for near-equal points.
    return ops.sum(ops.square(a[:, None] - b[None]), axis=-1)


def _kernel(squared, kernel, base):
    return base / (base + squared) if kernel == "imq" else ops.exp(-squared / base)


def _mean(gram, valid):
    if valid is None:
        return ops.mean(gram)
    return ops.sum(only_valid_pairs(gram, valid)) / num_valid(gram, valid) ** 2


def _mean_off_diagonal(gram, valid):
    gram = only_valid_pairs(gram, valid)
    size = ops.cast(num_valid(gram, valid), gram.dtype)
    off_diagonal = ops.sum(gram) - ops.sum(ops.diagonal(gram))
    # A batch of one has no pairs; its mean is then 0.
    return off_diagonal / ops.maximum(size * (size - 1.0), 1.0)


def _checked_kernel(kernel, scales, prior_variance):
    return (
        check_choice("kernel", kernel, tuple(_SCALES)),
        check_reals("scales", scales, "(0, inf)", optional=True),
        check_real("prior_variance", prior_variance, "(0, inf)"),
    )


@keras.saving.register_keras_serializable(package="vaezoo")
class MaximumMeanDiscrepancy(SavesNoise, Regularizer):
    """Adds `weight * MMD` between one posterior draw per example and as many prior draws.

    The logs show the unweighted value as `mmd`; see `maximum_mean_discrepancy` for the equation.

    Args:
        weight: Non-negative float or schedule.
        kernel: `"imq"` or `"rbf"`.
        scales: Sequence of positive floats, or None for the kernel's own.
        prior_variance: Positive float; prior draws come from N(0, prior_variance I). The model's
            prior must be the same, `layers.IsotropicNormal(prior_variance**0.5)`, which it is
            unless another one is given.
        seed: Optional int that fixes the prior draws.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Tolstikhin et al. (2018), algorithm 2, arXiv:1711.01558.
    """

    report_names = ("mmd",)
    min_batch_size = 2
    masks_rows = True

    def __init__(
        self,
        weight: Weighting = 1.0,
        kernel: str = "imq",
        scales: Sequence[float] | None = None,
        prior_variance: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel, self.scales, self.prior_variance = _checked_kernel(
            kernel, scales, prior_variance
        )
        self.seed = check_seed("seed", seed)
        self._weight = Weight(weight, "weight")
        self.noise = SeedGenerator(self.seed)

    def _argument(self, name):
        return self._weight.initial if name == "weight" else super()._argument(name)

    @property
    def weight(self) -> Tensor:
        """The current weight, a non-trainable variable."""
        return self._weight.variable

    def call(self, terms: Terms, training: bool = False) -> Loss:
        """Returns the weighted discrepancy as a batch-level `Loss`."""
        z = float32(terms.z[:, 0])
        prior = self.prior_variance**0.5 * keras.random.normal(
            ops.shape(z), dtype="float32", seed=self.noise
        )
        value = _discrepancy(
            gather_batch(z),
            gather_batch(prior),
            self.kernel,
            self.scales,
            self.prior_variance,
            terms.valid,
        )
        weight = self._weight(training=training)
        return Loss(ops.zeros_like(terms.kl), weight * value, {"mmd": value})
