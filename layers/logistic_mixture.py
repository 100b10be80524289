"""The likelihood of 8-bit images: a mixture of discretized logistics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import keras
from keras import ops

from ..core.checks import check_choice, check_integer, check_real
from ..losses import float32
from .likelihoods import UnitInterval

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Shape, Tensor

#: Bins of less mass take their mass from the density, unless `small_bins="exact"`.
_SMALL_MASS = 1e-5
#: Wider components are as good as two edge bins of equal mass.
_MAX_LOG_SCALE = 20.0


class _Components(NamedTuple):
    """A decoder's output in its parts, each `(..., M)`."""

    log_weights: Tensor
    means: list
    log_scales: list
    coefficients: list

    def mean(self, values):
        """Mean of the channel that follows the given ones, `(..., 1)` or `(..., M)` each."""
        channel = len(values)
        mean = self.means[channel]
        for coefficient, value in zip(self.coefficients[channel], values, strict=True):
            mean = mean + coefficient * value
        return mean


@keras.saving.register_keras_serializable(package="vaezoo")
class DiscretizedLogisticMixture(UnitInterval):
    """Pixels of L levels a channel, from a mixture of logistics that ties their channels.

        v          = 2 x - 1,    h = 1 / (L - 1)
        mean_c|k   = m_ck + sum_{j<c} tanh(a_cjk) v_j
        p(v_c | k) = F((v_c + h - mean_c|k) / s_ck) - F((v_c - h - mean_c|k) / s_ck)
        log p(x|z) = sum_pixels log sum_k softmax(l)_k prod_c p(v_c | v_<c, k)    (nats)

    F is the logistic function; the bins of v = -1 and v = 1 are open to their ends. All channels of
    a pixel come from the same component. Images are given in [0, 1] and rounded to the nearest
    level.

    The decoder's last axis holds, each M wide and in this order: the logits l; the means m of the C
    channels; their log-scales log s; the raw coefficients a of the C(C-1)/2 pairs (c, j) in the
    order (2, 1), (3, 1), (3, 2), ... Together M (C+1)(C+2)/2 values a pixel: 100 for ten
    components and three channels.

    Args:
        num_mixtures: Positive int M.
        num_levels: Int L of at least 2; 256 for 8-bit images.
        min_log_scale: Float in [-20, 20], smallest log s; 20 is the largest.
        small_bins: `"density"`: mass of at most 1e-5 is replaced by density times width, as in the
            published codes, and probabilities sum to 1 up to about 1e-5; `"exact"`: never.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Salimans et al. (2017), sections 2.1 and 2.2, arXiv:1701.05517.

    Note: Draws take their component at random and are rounded to levels, so that they follow
    p(x|z); the published code of MAE takes the most probable component.
    """

    def __init__(
        self,
        num_mixtures: int = 10,
        num_levels: int = 256,
        min_log_scale: float = -7.0,
        small_bins: str = "density",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_mixtures = check_integer("num_mixtures", num_mixtures)
        self.num_levels = check_integer("num_levels", num_levels, least=2)
        interval = f"[{-_MAX_LOG_SCALE:g}, {_MAX_LOG_SCALE:g}]"
        self.min_log_scale = check_real("min_log_scale", min_log_scale, interval)
        self.small_bins = check_choice("small_bins", small_bins, ("density", "exact"))
        self.half_bin = 1.0 / (self.num_levels - 1)
        self.built = True

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        parts = self._components(params)
        observed = self._observed(x, parts.log_weights.dtype)[:, None]
        observed = self._rounded(2.0 * observed - 1.0)
        values = ops.split(observed, observed.shape[-1], axis=-1)
        by_component = parts.log_weights
        for channel, value in enumerate(values):
            mean = parts.mean(values[:channel])
            by_component = by_component + self._log_mass(value, mean, parts.log_scales[channel])
        by_pixel = ops.logsumexp(by_component, axis=-1)
        return ops.sum(by_pixel, axis=tuple(range(2, len(by_pixel.shape))))

    def mean(self, params: Tensor) -> Tensor:
        """E[x|z], `(..., *event)`.

        For one channel exact to half a bin. The mean of a later channel takes the channels before
        it at their means, which is exact where no mass lies beyond the ends of the range.
        """
        parts = self._components(params)
        means: list[Tensor] = []
        for channel in range(len(parts.means)):
            means.append(_clipped_mean(parts.mean(means), parts.log_scales[channel]))
        weights = ops.exp(parts.log_weights)
        mean = ops.stack([ops.sum(weights * mean, axis=-1) for mean in means], axis=-1)
        return 0.5 * (mean + 1.0)

    def mode(self, params: Tensor) -> Tensor:
        """The mean of the most probable component, channel by channel, on the nearest levels."""
        parts = self._components(params)
        return self._drawn(parts, ops.argmax(parts.log_weights, axis=-1), None)

    def from_uniform(self, params: Tensor, uniform: Tensor) -> Tensor:
        parts = self._components(params)
        # The components whose cumulated weight the first number exceeds lie below the draw's.
        uniform = ops.cast(uniform, parts.log_weights.dtype)
        below = ops.cumsum(ops.exp(parts.log_weights), axis=-1)[..., :-1]
        component = ops.sum(ops.cast(below < uniform[..., :1], "int32"), axis=-1)
        return self._drawn(parts, component, uniform[..., 1:])

    def num_uniforms(self, channels: int) -> int:
        """One for the component, and one a channel."""
        return channels + 1

    def params_shape(self, event_shape: Shape) -> Shape:
        channels = event_shape[-1]
        return (*event_shape[:-1], self.num_mixtures * ((channels + 1) * (channels + 2) // 2))

    def _channels(self, params):
        size = params.shape[-1]
        # rows = 1 + 2 C + C (C - 1) / 2 = (C + 1) (C + 2) / 2
        channels = (math.isqrt(1 + 8 * (size // self.num_mixtures)) - 3) // 2
        if channels < 1 or self.params_shape((channels,)) != (size,):
            raise ValueError(
                f"`params` must hold {self.num_mixtures} (C+1)(C+2)/2 values a pixel for C "
                f"channels. Received: {size}"
            )
        return channels

    def _components(self, params):
        channels = self._channels(params)
        rows = ops.split(float32(params), params.shape[-1] // self.num_mixtures, axis=-1)
        log_scales = [
            ops.clip(row, self.min_log_scale, _MAX_LOG_SCALE)
            for row in rows[1 + channels : 1 + 2 * channels]
        ]
        pairs = iter(rows[1 + 2 * channels :])
        coefficients = [[ops.tanh(next(pairs)) for _ in range(c)] for c in range(channels)]
        log_weights = ops.log_softmax(rows[0], axis=-1)
        return _Components(log_weights, rows[1 : 1 + channels], log_scales, coefficients)

    def _rounded(self, values):
        """Values v on the nearest level; the ends take what lies beyond them."""
        levels = self.num_levels - 1
        return ops.round(0.5 * (ops.clip(values, -1.0, 1.0) + 1.0) * levels) * (2.0 / levels) - 1.0

    def _log_mass(self, value, mean, log_scale):
        """Log-probability of a level under each component."""
        inverse, centered = ops.exp(-log_scale), value - mean
        log_below = -ops.softplus(-(centered + self.half_bin) * inverse)
        log_above = -ops.softplus((centered - self.half_bin) * inverse)
        # F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)): nothing cancels, however small the bin.
        inside = -ops.expm1(-2.0 * self.half_bin * inverse)
        log_mass = log_below + log_above + ops.log(inside)
        if self.small_bins == "density":
            middle = centered * inverse
            log_density = middle - log_scale - 2.0 * ops.softplus(middle)
            log_flat = log_density + math.log(2.0 * self.half_bin)
            log_mass = ops.where(log_mass > math.log(_SMALL_MASS), log_mass, log_flat)
        log_mass = ops.where(value > 1.0 - self.half_bin, log_above, log_mass)
        return ops.where(value < self.half_bin - 1.0, log_below, log_mass)

    def _drawn(self, parts, component, uniform):
        """The draw of a component in [0, 1]; at its center without uniform numbers."""
        chosen = ops.one_hot(component, self.num_mixtures, dtype=parts.log_weights.dtype)
        values = []
        for channel in range(len(parts.means)):
            value = ops.sum(chosen * parts.mean(values), axis=-1)
            if uniform is not None:
                scale = ops.exp(ops.sum(chosen * parts.log_scales[channel], axis=-1))
                u = uniform[..., channel]
                value = value + scale * (ops.log(u) - ops.log1p(-u))
            values.append(self._rounded(value)[..., None])
        return 0.5 * (ops.concatenate(values, axis=-1) + 1.0)


def _clipped_mean(mean, log_scale):
    """E[clip(v, -1, 1)] of a logistic variable v, the integral of 1 - F over the interval."""
    scale = ops.exp(ops.minimum(log_scale, 4.0))
    rise = ops.softplus((mean + 1.0) / scale) - ops.softplus((mean - 1.0) / scale)
    # The difference cancels for wide components, whose F is flat between the ends.
    flat = ops.tanh(0.5 * mean * ops.exp(-log_scale))
    return ops.where(log_scale < 4.0, scale * rise - 1.0, flat)
