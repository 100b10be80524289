"""Options of decoding, and the checks of those that a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from ...core.checks import check_integer, check_real

if TYPE_CHECKING:
    from typing import Any

    import keras

    from ...core.types import Tensor
    from ...layers.likelihoods import Likelihood


def draw_options(
    likelihood: Likelihood,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    drawn: bool = True,
) -> tuple[Any, ...]:
    """Returns the options of `likelihood.from_uniform` as scalars of fixed dtypes.

    Args:
        likelihood: `Likelihood`.
        temperature: Positive float or None.
        top_k: Non-negative int or None.
        top_p: Float in (0, 1], or None.
        drawn: Whether x is to be drawn.

    Returns:
        `(temperature, top_k, top_p)`, NumPy scalars of which 1, 0 and 1 change nothing; `()` for
        likelihoods that take none.

    Raises:
        ValueError: If an option is out of range, or has nothing to act on.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if not likelihood.draws_classes:
            raise ValueError(
                f"`{name}` needs a likelihood of classes, Tokens or Categorical. Received: "
                f"{name}={value} with {type(likelihood).__name__}"
            )
        if not drawn:
            raise ValueError(
                f"`{name}` needs mean=False, which draws x. Received: {name}={value}, mean=True"
            )
    temperature = check_real("temperature", temperature, "(0, inf)", optional=True)
    top_k = check_integer("top_k", top_k, least=0, most=2**31 - 1, optional=True)
    top_p = check_real("top_p", top_p, "(0, 1]", optional=True)
    if not likelihood.draws_classes:
        return ()
    return (
        np.float32(1.0 if temperature is None else temperature),
        np.int32(top_k or 0),
        np.float32(1.0 if top_p is None else top_p),
    )


def check_beam(decoder: keras.layers.Layer, beam_size: int, length_penalty: float) -> None:
    """Raises a `ValueError` unless a decoder can search with these options."""
    check_integer("beam_size", beam_size)
    check_real("length_penalty", length_penalty, "[0, inf)")
    if not hasattr(decoder, "beam_search"):
        raise ValueError(
            "`beam_size` needs a decoder with a `beam_search`, such as LSTMDecoder. Received: "
            f"beam_size={beam_size} with {type(decoder).__name__}"
        )


def interpolate_latents(
    first: Tensor, second: Tensor, steps: Tensor, path: str = "linear"
) -> Tensor:
    """Points from one code to another, the two included.

        z_t = (1 - t) a + t b    or, on the sphere,    (sin((1 - t) w) a + sin(t w) b) / sin w

    with w the angle between a and b.

    Args:
        first: Float tensor `(batch, D)`, a.
        second: Float tensor `(batch, D)`, b.
        steps: Int of at least 2, or a scalar tensor.
        path: `"linear"` or `"spherical"`.

    Returns:
        Float32 tensor `(batch, steps, D)`.
    """
    first, second = (ops.cast(code, "float32")[:, None] for code in (first, second))
    steps = ops.cast(steps, "int32")
    part = ops.cast(ops.arange(steps), "float32") / ops.cast(steps - 1, "float32")
    part = part[None, :, None]
    rest = 1.0 - part
    if path == "linear":
        return rest * first + part * second
    cosine = ops.sum(ops.normalize(first) * ops.normalize(second), axis=-1, keepdims=True)
    angle = ops.arccos(ops.clip(cosine, -1.0, 1.0))
    sine = ops.sin(angle)
    # Codes on one line through the origin have no arc of their own between them.
    straight = sine < 1e-3
    sine = ops.where(straight, 1.0, sine)
    rest = ops.where(straight, rest, ops.sin(rest * angle) / sine)
    part = ops.where(straight, part, ops.sin(part * angle) / sine)
    return rest * first + part * second
