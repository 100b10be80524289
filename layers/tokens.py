"""The likelihood of sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer
from ..losses import float32, tfd
from .likelihoods import Likelihood
from .token_sampling import draw_category, filter_logits

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class Tokens(Likelihood):
    """Sentences of token ids, each given those before it; decoder outputs are logits of the next.

        log p(x|z) = sum_t log softmax(l_t)[x_{t+1}]    (nats, over all x_{t+1} but padding)

    x is int `(batch, T)`: a start symbol, words, an end symbol, then padding. The start symbol is
    not predicted, the end symbol is. Padding counts nothing, so a sentence has the same likelihood
    however long the batch that it stands in is.

    A sentence without its end is refused: its encoder would read another state than in training,
    its likelihood would be that of a beginning, and a decoder trained on it would never stop.

    Args:
        vocabulary_size: Int V of at least 2, number of ids; None takes over that of the decoder.
        pad_id: Non-negative int, the id of padding.
        end_id: Non-negative int, the id of the end symbol; None takes over that of the decoder, and
            without any, sentences may end in any symbol.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Bowman et al. (2016), section 3, arXiv:1511.06349.
    """

    has_mean = False
    draws_classes = True

    def __init__(
        self,
        vocabulary_size: int | None = None,
        pad_id: int = 0,
        end_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = check_integer(
            "vocabulary_size", vocabulary_size, least=2, optional=True
        )
        self.pad_id = check_integer("pad_id", pad_id, least=0)
        self.end_id = check_integer("end_id", end_id, least=0, optional=True)
        self.built = True

    @property
    def params_per_value(self) -> int:  # type: ignore[override]
        """Logits by position; 1 while the size of the vocabulary is unknown."""
        return self.vocabulary_size or 1

    def distribution(self, params: Tensor) -> Any:
        return tfd().Categorical(logits=params)

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """Log-likelihood of each sentence under each draw.

        Args:
            x: Int `(batch, T)`.
            params: Logits `(batch, K, T - 1, V)`.

        Returns:
            Float32 tensor `(batch, K)`.
        """
        params = float32(params)
        target = ops.cast(x, "int32")[:, None, 1:]
        counted = ops.cast(target != self.pad_id, params.dtype)
        chosen = ops.arange(params.shape[-1], dtype="int32") == target[..., None]
        logit = ops.sum(ops.where(chosen, params, 0.0), axis=-1)
        return ops.sum((logit - ops.logsumexp(params, axis=-1)) * counted, axis=-1)

    def num_predicted(self, x: Tensor) -> Tensor:
        """Number of predicted symbols of each sentence, float32 `(batch,)`."""
        return ops.sum(ops.cast(ops.cast(x, "int32")[:, 1:] != self.pad_id, "float32"), axis=1)

    def mean(self, params: Tensor) -> Tensor:
        """The most probable id at each position, int32; ids have no mean."""
        return ops.cast(ops.argmax(params, axis=-1), "int32")

    def num_uniforms(self, channels: int) -> int:
        return 1

    def from_uniform(
        self,
        params: Tensor,
        uniform: Tensor,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Draws ids from uniform noise.

        Args:
            params: Logits `(..., V)`.
            uniform: Float tensor `(..., 1)` of values in (0, 1).
            temperature: As in `filter_logits`.
            top_k: As in `filter_logits`.
            top_p: As in `filter_logits`.

        Returns:
            Int32 tensor `(...)`.
        """
        return draw_category(filter_logits(params, temperature, top_k, top_p), uniform)

    def params_shape(self, event_shape: Shape) -> Shape:
        (length,) = event_shape
        return (None if length is None else length - 1, self.vocabulary_size)

    def bind_decoder(self, decoder: keras.layers.Layer) -> None:
        """Takes over the size of the vocabulary and the end symbol."""
        for name in ("vocabulary_size", "end_id"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(decoder, name, None))

    def check(self, x: Tensor) -> None:
        """Raises a `ValueError` unless the rows of `x` are sentences."""
        if x.ndim != 2 or x.shape[1] < 2:
            raise ValueError(
                "`x` must hold sentences of ids, (batch, length) with a length of at least 2. "
                f"Received: shape={x.shape}"
            )
        if x.dtype.kind not in "iu" and not np.array_equal(x, np.round(x)):
            raise ValueError("`x` must hold whole numbers, ids of tokens. Received: fractions")
        size = self.vocabulary_size
        if x.min() < 0 or (size is not None and x.max() >= size):
            raise ValueError(
                f"`x` must hold ids in [0, {size or 'vocabulary_size'}). Received: ids from "
                f"{x.min():g} to {x.max():g}"
            )
        words = x != self.pad_id
        empty = np.flatnonzero(~words[:, :2].all(axis=1))
        if empty.size:
            raise ValueError(
                "`x` must hold sentences of a start symbol and at least one more before any "
                f"padding. Received: row {empty[0]} starts with {x[empty[0], :2].tolist()}"
            )
        torn = np.flatnonzero((words[:, 1:] & ~words[:, :-1]).any(axis=1))
        if torn.size:
            raise ValueError(
                f"`x` must have padding (id {self.pad_id}) only at the end of its rows. Received: "
                f"row {torn[0]} goes on behind it"
            )
        if self.end_id is not None:
            last = x[np.arange(len(x)), words.sum(axis=1) - 1]
            endless = np.flatnonzero(last != self.end_id)
            if endless.size:
                raise ValueError(
                    f"`x` must hold sentences that end: the last symbol before any padding is the "
                    f"end symbol, id {self.end_id}; it takes the place of the last word where a "
                    f"sentence was cut off. Received: row {endless[0]} ends in "
                    f"{last[endless[0]]:g}"
                )

    def _channels(self, params):
        return 1

    def _grid_rank(self, params):
        return len(params.shape) - 1
