"""Draws of classes such as tokens, and the filters of their logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import ops

from ..losses import float32

if TYPE_CHECKING:
    from ..core.types import Tensor


def draw_category(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws classes from uniform noise.

    Args:
        logits: `(..., V)`.
        uniform: Float tensor `(..., 1)` of values in (0, 1).

    Returns:
        Int32 tensor `(...)`.
    """
    # The classes whose cumulated probability the uniform number exceeds lie below the draw.
    cumulated = ops.cumsum(ops.softmax(float32(logits), axis=-1), axis=-1)
    # The sum is 1 but for rounding, which must not leave room for a class of no probability.
    below = cumulated[..., :-1] < uniform * cumulated[..., -1:]
    return ops.sum(ops.cast(below, "int32"), axis=-1)


def filter_logits(
    logits: Tensor,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Logits of a sharper distribution over fewer classes, for draws that read better.

        l / temperature, and -infinity outside of the `top_k` most probable classes and of the
        smallest set of most probable classes that holds the share `top_p`

    Classes are left out at the given temperature, first by `top_k`, then by `top_p` of what is
    left; the most probable one always stays. Each option may be a tensor.

    Args:
        logits: `(..., V)`.
        temperature: Positive float, 1 or None for the distribution itself.
        top_k: Positive int; None, 0 or V and more keep all.
        top_p: Float in (0, 1]; None or 1 keeps all.

    Returns:
        Float32 tensor `(..., V)`.

    Reference: Holtzman et al. (2020), section 3.1, arXiv:1904.09751 (`top_p`); Fan et al. (2018),
    section 5.4, arXiv:1805.04833 (`top_k`).
    """
    logits = float32(logits)
    if temperature is not None:
        logits = logits / ops.cast(temperature, "float32")
    if top_k is None and top_p is None:
        return logits
    size = logits.shape[-1]
    top_k = ops.cast(0 if top_k is None else top_k, "int32")
    top_p = ops.cast(1.0 if top_p is None else top_p, "float32")
    top_k = ops.where(top_k > 0, top_k, size)

    def restricted():
        least = _least_kept(logits, lambda kept: ops.sum(ops.cast(kept, "int32"), -1) >= top_k)
        kept = ops.where(logits >= least, logits, -float("inf"))
        share = ops.softmax(kept, axis=-1)
        # Rounding must not cut off the end of a distribution that is to be kept whole.
        part = top_p < 1.0
        least = _least_kept(kept, lambda kept: part & (_total(kept, share) >= top_p))
        return ops.where(kept >= least, kept, -float("inf"))

    # Where the options are tensors, those that keep all cost nothing.
    return ops.cond((top_k < size) | (top_p < 1.0), restricted, lambda: logits)


#: Former name, for one release.
restricted_logits = filter_logits


def _total(kept, share):
    return ops.sum(ops.where(kept, share, 0.0), axis=-1)


def _least_kept(logits, enough):
    """The largest t such that `enough(logits >= t)`, `(..., 1)`, or the least finite logit if none.

    By bisection down to neighboring numbers: XLA's sort takes several times as long on a CPU.
    """
    finite = ops.where(logits > -float("inf"), logits, float("inf"))
    low = ops.min(finite, axis=-1, keepdims=True)
    high = ops.max(logits, axis=-1, keepdims=True)

    def halve(_, ends):
        low, high = ends
        middle = low + 0.5 * (high - low)
        fits = enough(logits >= middle)[..., None]
        return ops.where(fits, middle, low), ops.where(fits, high, middle)

    return ops.fori_loop(0, 32, halve, (low, high))[0]
