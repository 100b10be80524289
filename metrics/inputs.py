"""Inputs of every metric: precomputed values, or a model and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from keras import ops

from ..core.checks import check_integer
from ..core.frames import unframed
from ..losses import FlowGaussian
from .subject import as_subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.posteriors import DiagonalGaussian
    from ..core.types import Array, ArrayLike, Posterior
    from ..layers.likelihoods import Likelihood
    from .subject import ModelAdapter

#: Draws per example where a quantity of a flow, or of a learned prior, has no closed form.
NUM_SAMPLES = 16


class NotMeasurable(TypeError):
    """A quantity that a model does not have, or not at a bearable cost.

    Attributes:
        reason: The reason in few words.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Encoded(NamedTuple):
    """A posterior value with the `ModelAdapter` that it is of."""

    posterior: Any
    subject: Any


def encoded(
    source: Any,
    data: ArrayLike = None,
    batch_size: int = 256,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
) -> tuple[Any, Any]:
    """The posterior value given, or the one that a model encodes `data` to, and the model.

    Args:
        source: A value computed already, or `Encoded`; or a model: anything that `as_subject`
            takes, or an object with a method `encode(data, batch_size)`.
        data: `(N, *event)` for a model; nothing otherwise.
        batch_size: Examples that a model encodes at once.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.

    Returns:
        `(value, subject)`; the `ModelAdapter` is None without a model that has more than `encode`.

    Raises:
        ValueError: If a model comes without data, or data without a model.
    """
    batch_size = check_integer("batch_size", batch_size)
    if isinstance(source, Encoded):
        return source
    source = unframed(source)
    encodes = callable(getattr(source, "encode", None)) and not isinstance(source, str)
    if decoder is None and not encodes and not _is_path(source):
        if data is not None:
            raise ValueError(
                "`data` must come with a model that encodes it. Received: "
                f"{type(source).__name__} and data={type(data).__name__}"
            )
        return source, None
    if data is None:
        raise ValueError("`data` must be given along with a model. Received: data=None")
    if encodes and decoder is None and not hasattr(source, "prior"):
        return source.encode(data, batch_size=batch_size), None
    subject = as_subject(source, decoder, data, likelihood)
    return subject.encode(subject.check_inputs(data), batch_size), subject


def _is_path(source):
    return isinstance(source, str) or hasattr(source, "__fspath__")


def flow_subject(posterior: Posterior, subject: ModelAdapter | None, name: str) -> ModelAdapter:
    """The `ModelAdapter` of a flow's posterior.

    Raises:
        NotMeasurable: If there is none, as of a posterior value alone.
    """
    if subject is None:
        raise NotMeasurable(
            f"`{name}` must be the model, with `data`: drawing from a flow's posterior takes the "
            "flow. Received: "
            f"{type(posterior).__name__}",
            "only its model knows the density of a flow",
        )
    return subject


def base_of(posterior: Posterior, subject: ModelAdapter | None = None) -> DiagonalGaussian:
    """The Gaussian below a flow's posterior, in the order of the code if the subject is known."""
    return posterior.base if subject is None else subject.base(posterior)


def means_of(
    means: Any,
    data: ArrayLike = None,
    batch_size: int = 256,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
) -> Array:
    """Posterior means, float64 `(N, D)`, of an array or of a model and data; a flow's base means.

    Raises:
        TypeError: If there are no numbers in an array.
        ValueError: If the shape is another, or values are not finite.
    """
    source, subject = encoded(means, data, batch_size, decoder, likelihood)
    if isinstance(source, FlowGaussian):
        source = base_of(source, subject)
    if hasattr(source, "_fields") and "mean" in source._fields:
        source = source.mean
    if not hasattr(source, "dtype"):
        raise TypeError(
            f"`means` must be an array or a model that encodes. Received: {type(source).__name__}"
        )
    array = ops.convert_to_numpy(source).astype("float64")
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(
            "`means` must have shape (N, D) with at least 2 examples. Received: "
            f"shape={array.shape}"
        )
    if not np.all(np.isfinite(array)):
        raise ValueError("`means` must be finite. Received: NaN or infinity among them")
    return array
