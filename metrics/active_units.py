"""Active units: the latent dimensions that respond to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_real
from ..core.serialization import ArgumentsConfig
from ..losses import FlowGaussian
from .estimate import Estimate
from .inputs import Encoded, encoded, means_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import Array, ArrayLike, Tensor
    from ..layers.likelihoods import Likelihood


def active_dimensions(
    means: Any,
    data: ArrayLike = None,
    threshold: float = 0.01,
    batch_size: int = 256,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
) -> Array:
    """Counts the latent dimensions whose posterior mean depends on x.

        active_d = Var_x( mean_d(x) ) >= threshold

    The variance is unbiased (divisor N - 1), and taken in float64 around the mean. Of a
    flow it is that of the means of the Gaussian which it bends.

    Args:
        means: Posterior means `(N, D)`, a posterior value, or a model: a `VAE`, the path of an
            exported SavedModel, or an encoder given with its `decoder`.
        data: `(N, *event)` for a model; nothing otherwise.
        threshold: Non-negative float.
        batch_size: Examples that a model encodes at once.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.

    Returns:
        NumPy bool `(D,)`.

    Raises:
        TypeError: If `means` is neither an array nor a model.
        ValueError: If the shape is another, fewer than 2 examples are given, values are not finite,
            or `threshold` is negative.

    Reference: Burda et al. (2016), section 5.2, arXiv:1509.00519; with the "at least" of the
    official codes of Zhu et al. (2020) and Shen et al. (2021), where the paper says "more than".
    """
    threshold = check_real("threshold", threshold, "[0, inf)")
    array = means_of(means, data, batch_size, decoder, likelihood)
    return np.var(array, axis=0, ddof=1) >= threshold


def active_units(
    means: Any,
    data: ArrayLike = None,
    threshold: float = 0.01,
    batch_size: int = 256,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
) -> Estimate:
    """Number of latent dimensions that carry information about x.

        AU = #{ d : Var_x( mean_d(x) ) >= threshold }

    Of a flow the means are those of the Gaussian which it bends.

    Args:
        means: Posterior means `(N, D)`, a posterior value, or a model: a `VAE`, the path of an
            exported SavedModel, or an encoder given with its `decoder`.
        data: `(N, *event)` for a model; nothing otherwise.
        threshold: Non-negative float.
        batch_size: Examples that a model encodes at once.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.

    Returns:
        `Estimate` from 0 to D. Its standard error is that of counting units of which each is
        active with the probability that its variance, a normal estimate of standard error
        sqrt((m4 - v^2) / N), is above the threshold; in `extra` are the `variances` and which
        `dimensions` are active.

    Raises:
        TypeError: If `means` is neither an array nor a model.
        ValueError: As `active_dimensions` does.

    Reference: Burda et al. (2016), section 5.2, arXiv:1509.00519.
    """
    threshold = check_real("threshold", threshold, "[0, inf)")
    value = Encoded(*encoded(means, data, batch_size, decoder, likelihood))
    flow = isinstance(value.posterior, FlowGaussian)
    array = means_of(value)
    variances = np.var(array, axis=0, ddof=1)
    active = variances >= threshold
    fourth = np.mean((array - array.mean(axis=0)) ** 4, axis=0)
    spread = np.sqrt(np.maximum(fourth - variances**2, 0.0) / len(array))
    distance = (variances - threshold) / np.where(spread > 0.0, spread, np.inf)
    # Without spread there is no doubt, either way.
    above = 0.5 * (1.0 + ops.convert_to_numpy(ops.erf(distance / np.sqrt(2.0))))
    chance = np.where(spread > 0.0, above, active)
    return Estimate(
        value=float(np.sum(active)),
        standard_error=float(np.sqrt(np.sum(chance * (1.0 - chance)))),
        count=len(array),
        estimator="variance_of_means" + (" of the flow's base" if flow else ""),
        unit=f"of {array.shape[1]}",
        settings={"threshold": threshold},
        extra={
            "variances": variances.tolist(),
            "dimensions": np.flatnonzero(active).tolist(),
        },
    )


@keras.saving.register_keras_serializable(package="vaezoo")
class ActiveUnits(ArgumentsConfig, keras.metrics.Metric):
    """Number of active units over a stream of batches.

        AU = #{ d : Var_x( mean_d(x) ) >= threshold }

    The variance is unbiased and that of all examples since the last reset, however they were split
    into batches: each batch's centered sum of squares is merged into the running one, so that means
    far from 0 lose no digits. Fewer than 2 examples have no active unit.

    Args:
        latent_dim: Positive int D.
        threshold: Non-negative float.
        name: Name of the metric.
        **kwargs: Keyword arguments of `keras.metrics.Metric`.

    Raises:
        ValueError: If an argument is out of range, or means are of another shape.

    Reference: Burda et al. (2016), section 5.2, arXiv:1509.00519; the merge is Chan et al.'s
    (1983), "Algorithms for computing the sample variance", eq. 2.1.
    """

    def __init__(
        self, latent_dim: int, threshold: float = 0.01, name: str = "active_units", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        latent_dim = check_integer("latent_dim", latent_dim)
        threshold = check_real("threshold", threshold, "[0, inf)")
        self.latent_dim, self.threshold = latent_dim, threshold
        self.count = self.add_variable((), "zeros", name="count")
        self.center = self.add_variable((latent_dim,), "zeros", name="center")
        self.squares = self.add_variable((latent_dim,), "zeros", name="squares")

    def update_state(self, mean: Tensor) -> None:
        """Adds the posterior means `(batch, D)` of a batch."""
        mean = ops.cast(ops.convert_to_tensor(mean), self.dtype)
        if len(mean.shape) != 2 or mean.shape[1] != self.latent_dim:
            raise ValueError(
                f"`mean` must have shape (batch, {self.latent_dim}). Received: "
                f"shape={tuple(mean.shape)}"
            )
        size = ops.cast(ops.shape(mean)[0], self.dtype)
        center = ops.sum(mean, axis=0) / ops.maximum(size, 1.0)
        squares = ops.sum(ops.square(mean - center), axis=0)
        count = self.count + size
        share = size / ops.maximum(count, 1.0)
        shift = center - self.center
        self.squares.assign(self.squares + squares + ops.square(shift) * self.count * share)
        self.center.assign(self.center + shift * share)
        self.count.assign(count)

    def variance(self) -> Tensor:
        """Unbiased variance of each dimension's posterior means so far, `(D,)`."""
        return self.squares / ops.maximum(self.count - 1.0, 1.0)

    def result(self) -> Tensor:
        active = ops.logical_and(self.variance() >= self.threshold, self.count >= 2.0)
        return ops.sum(ops.cast(active, self.dtype))
