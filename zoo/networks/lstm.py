"""Recurrent encoder and decoder of sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ...core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_real,
    check_seed,
    is_integer,
    wrong,
)
from ...core.gradients import product
from ...core.random import SavesNoise, SeedGenerator
from ...layers import LSTM, AutoregressiveDecoder
from ...losses import float32
from .common import fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ...core.types import Shape, Tensor


def lstm_encoder(
    input_shape: Shape,
    vocabulary_size: int,
    embedding_dim: int = 512,
    units: int = 1024,
    scale: float | None = None,
    embedding_scale: float | None = None,
    pad_id: int = 0,
    use_cudnn: bool | str = False,
    bias_scale: float | None = None,
    num_biases: int = 1,
    name: str = "encoder",
) -> keras.Model:
    """The last state of an LSTM that reads a sentence with its start and end.

        e_t    = E[x_t],   h_t, c_t = LSTM(e_t, h_{t-1}, c_{t-1})
        output = h at the end symbol

    Padding is passed over, so a sentence has the same features in a batch of any length.

    Args:
        input_shape: `(None,)` for sentences of any length, or `(T,)`.
        vocabulary_size: Int V of at least 2, number of ids.
        embedding_dim: Positive int, size of the embeddings.
        units: Positive int H, size of the state.
        scale: Positive float s: the LSTM's weights start from U(-s, s); None is 1 / sqrt(H).
        embedding_scale: Positive float s: embeddings start from U(-s, s); None is N(0, 1).
        pad_id: 0, the id of padding.
        use_cudnn: Whether the LSTM is cuDNN's, which needs a GPU and cannot be compiled by XLA; a
            loop of XLA's otherwise.
        bias_scale: Non-negative float s: the LSTM's biases start from U(-s, s), at 0 from zeros;
            None is the scale of its other weights.
        num_biases: 1, or 2 as in PyTorch, whose optimizers then move their sum by twice as much;
            see `LSTM`.
        name: Model name.

    Returns:
        Functional model: int32 `(batch, T)` to `(batch, H)`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Shen et al. (2021), section 4.1, arXiv:2110.12381; He et al. (2019), appendix B,
    arXiv:1901.05534. The defaults are PyTorch's, those of the official code's encoder under batch
    normalization of the means. Its plain encoder has `scale=0.01` and `embedding_scale=0.1`, that
    of the flows `bias_scale=0` besides, and all have `num_biases=2`; the presets say so.
    """
    length = _check_text("input_shape", input_shape)
    vocabulary_size = check_integer("vocabulary_size", vocabulary_size, least=2)
    embedding_dim = check_integer("embedding_dim", embedding_dim)
    units = check_integer("units", units)
    scale = check_real("scale", scale, "(0, inf)", optional=True)
    embedding_scale = check_real("embedding_scale", embedding_scale, "(0, inf)", optional=True)
    bias_scale = check_real("bias_scale", bias_scale, "[0, inf)", optional=True)
    check_integer("pad_id", pad_id, least=0, most=0)
    x = keras.Input((length,), dtype="int32", name="x")
    embedded = keras.layers.Embedding(
        vocabulary_size,
        embedding_dim,
        embeddings_initializer=_embeddings(embedding_scale),
        mask_zero=True,
        name="embedding",
    )(x)
    h = _lstm(units, scale, use_cudnn, num_biases, bias_scale, return_sequences=False)(embedded)
    return keras.Model(x, h, name=name)


@keras.saving.register_keras_serializable(package="vaezoo")
class LSTMDecoder(SavesNoise, AutoregressiveDecoder):
    """Logits of each next token from an LSTM that sees the code at its start and at every step.

        e_t      = dropout(E[x_t])
        h_t, c_t = LSTM([e_t, z], h_{t-1}, c_{t-1})
        l_t      = W dropout(h_t)
        c_0 = V z, h_0 = tanh(c_0)   (`"cell"`)    or    h_0 = V z, c_0 = 0   (`"hidden"`)

    No map but the LSTM has a bias. `generate` writes sentences of `max_length` symbols at most.

    Args:
        latent_dim: Positive int D.
        output_shape: `(None,)` for sentences of any length, or `(T,)`.
        vocabulary_size: Int V of at least 2, number of ids.
        embedding_dim: Positive int, size of the embeddings.
        units: Positive int H, size of the state.
        initial_state: `"cell"`, `"hidden"` or None: how the code enters the first state.
        every_step: Whether the code is part of every input.
        embedding_dropout: Float in [0, 1), share of the embeddings' entries dropped in training.
        output_dropout: Float in [0, 1), share of the outputs' entries dropped in training.
        word_dropout: Float in [0, 1), share of the words that the decoder reads as unknown in
            training. The start symbol stays.
        tie_embeddings: Whether W is the transpose of E, behind a linear map where H is not
            `embedding_dim`.
        scale: Positive float s: all weights but embeddings start from U(-s, s).
        embedding_scale: Positive float s: embeddings start from U(-s, s).
        max_length: Int of at least 2, length of generated sentences, start and end included;
            by default T, or 64.
        pad_id: Non-negative int.
        start_id: Non-negative int.
        end_id: Non-negative int.
        unknown_id: Non-negative int.
        use_cudnn: As for `lstm_encoder`.
        num_biases: As for `lstm_encoder`.
        seed: Optional int that fixes the dropout.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, D)`.
        x: Int `(batch, T)`, with start and end.
        training: Whether there is dropout.

    Returns:
        Logits `(batch, T - 1, V)`, those at t of the symbol x_{t+1}.

    Raises:
        ValueError: If an argument is out of range, or the code enters nowhere.

    Reference: Shen et al. (2021), section 4.1, arXiv:2110.12381 (`"cell"`, and `every_step`, which
    is only in its code); Kim et al. (2018), appendix B, arXiv:1802.02550 (`"hidden"`); Bowman et
    al. (2016), section 3.1, arXiv:1511.06349 (word dropout).
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: Sequence[int],
        vocabulary_size: int,
        embedding_dim: int = 512,
        units: int = 1024,
        initial_state: str | None = "cell",
        every_step: bool = True,
        embedding_dropout: float = 0.5,
        output_dropout: float = 0.5,
        word_dropout: float = 0.0,
        tie_embeddings: bool = False,
        scale: float = 0.01,
        embedding_scale: float = 0.1,
        max_length: int | None = None,
        pad_id: int = 0,
        start_id: int = 1,
        end_id: int = 2,
        unknown_id: int = 3,
        use_cudnn: bool | str = False,
        num_biases: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_dim, **kwargs)
        latent_dim = check_integer("latent_dim", latent_dim)
        self._length = _check_text("output_shape", output_shape)
        vocabulary_size = check_integer("vocabulary_size", vocabulary_size, least=2)
        embedding_dim = check_integer("embedding_dim", embedding_dim)
        units = check_integer("units", units)
        scale = check_real("scale", scale, "(0, inf)", optional=True)
        embedding_scale = check_real("embedding_scale", embedding_scale, "(0, inf)", optional=True)
        embedding_dropout = check_real("embedding_dropout", embedding_dropout, "[0, 1)")
        output_dropout = check_real("output_dropout", output_dropout, "[0, 1)")
        word_dropout = check_real("word_dropout", word_dropout, "[0, 1)")
        every_step = check_flag("every_step", every_step)
        tie_embeddings = check_flag("tie_embeddings", tie_embeddings)
        num_biases = check_integer("num_biases", num_biases, 1, 2)
        seed = check_seed("seed", seed)
        if initial_state is not None:
            check_choice("initial_state", initial_state, ("cell", "hidden"))
        elif not every_step:
            raise ValueError(
                "`every_step` must be True when `initial_state` is None: the code enters nowhere "
                "else. Received: every_step=False, initial_state=None"
            )
        largest = vocabulary_size - 1
        pad_id = check_integer("pad_id", pad_id, 0, largest)
        start_id = check_integer("start_id", start_id, 0, largest)
        end_id = check_integer("end_id", end_id, 0, largest)
        unknown_id = check_integer("unknown_id", unknown_id, 0, largest)
        max_length = check_integer("max_length", max_length, least=2, optional=True)
        self.vocabulary_size, self.embedding_dim, self.units = vocabulary_size, embedding_dim, units
        self.initial_state, self.every_step = initial_state, every_step
        self.embedding_dropout, self.output_dropout = embedding_dropout, output_dropout
        self.word_dropout, self.tie_embeddings = word_dropout, tie_embeddings
        self.scale, self.embedding_scale = scale, embedding_scale
        self.max_length = max_length
        self.pad_id, self.start_id, self.end_id, self.unknown_id = (
            pad_id,
            start_id,
            end_id,
            unknown_id,
        )
        self.num_biases, self.seed = num_biases, seed
        self.noise = SeedGenerator(seed)
        policy = self.dtype_policy
        self.embedding = keras.layers.Embedding(
            vocabulary_size,
            embedding_dim,
            embeddings_initializer=_embeddings(embedding_scale),
            dtype=policy,
            name="embedding",
        )
        self.lstm = _lstm(units, scale, use_cudnn, num_biases, return_sequences=True, dtype=policy)
        self.use_cudnn = self.lstm.use_cudnn
        self.state = None
        if initial_state is not None:
            self.state = _linear(units, scale, policy, "state")
        self.readout = None
        if not tie_embeddings:
            self.readout = _linear(vocabulary_size, scale, policy, "readout", Readout)
        elif units != embedding_dim:
            self.readout = _linear(embedding_dim, scale, policy, "readout", Readout)

    def _argument(self, name):
        return [self._length] if name == "output_shape" else super()._argument(name)

    def build(self, z_shape: Shape, x_shape: Shape) -> None:
        if tuple(z_shape[1:]) != (self.latent_dim,):
            raise ValueError(
                f"`z` must have shape (batch, {self.latent_dim}). Received: shape={tuple(z_shape)}"
            )
        self.embedding.build((None, None))
        width = self.embedding_dim + self.latent_dim * self.every_step
        self.lstm.build((None, None, width))
        if self.state is not None:
            self.state.build((None, self.latent_dim))
        if self.readout is not None:
            self.readout.build((None, None, self.units))

    @property
    def grid(self) -> tuple[int, ...]:
        return ((self.max_length or self._length or 64) - 1,)

    @property
    def channels(self) -> int:
        return 1

    def check_event(self, event_shape: Shape) -> None:
        if len(event_shape) != 1 or self._length not in (None, event_shape[0]):
            raise ValueError(
                f"`decoder` must be made for data of shape {tuple(event_shape)}, the encoder's. "
                f"Received: a decoder of sentences of shape ({self._length},)"
            )

    def call(self, z: Tensor, x: Tensor, training: bool = False) -> Tensor:
        x = ops.cast(x, "int32")[:, :-1]
        if training and self.word_dropout:
            dropped = keras.random.uniform(ops.shape(x), seed=self.noise) < self.word_dropout
            dropped = ops.logical_and(dropped, ops.arange(ops.shape(x)[1], dtype="int32") > 0)
            x = ops.where(dropped, self.unknown_id, x)
        h = self._dropout(self.embedding(x), self.embedding_dropout, training)
        if self.every_step:
            code = ops.cast(z, h.dtype)[:, None]
            code = ops.broadcast_to(code, (*ops.shape(h)[:2], self.latent_dim))
            h = ops.concatenate([h, code], axis=-1)
        h = self.lstm(h, initial_state=self._first(z), training=training)
        return self._logits(self._dropout(h, self.output_dropout, training))

    def _dropout(self, values, rate, training):
        if not training or not rate:
            return values
        return keras.random.dropout(values, rate, seed=self.noise)

    def _first(self, z):
        """The state before the first step, `[h_0, c_0]`."""
        if self.state is None:
            nothing = ops.zeros((ops.shape(z)[0], self.units), self.compute_dtype)
            return [nothing, nothing]
        start = self.state(z)
        if self.initial_state == "hidden":
            return [start, ops.zeros_like(start)]
        # Keras gives the tangent of float64 in float32 on JAX.
        return [ops.cast(ops.tanh(start), start.dtype), start]

    def _logits(self, h):
        if self.readout is not None:
            h = self.readout(h)
        if not self.tie_embeddings:
            return h
        return ops.matmul(h, ops.transpose(ops.cast(self.embedding.embeddings, h.dtype)))

    def start(self, z: Tensor) -> Any:
        """Returns the first state of `step`.

        Args:
            z: Float tensor `(batch, D)`.

        Returns:
            List of tensors `(batch, H)`.
        """
        if not self.built:
            self.build((None, self.latent_dim), (None, None))
        return self._first(ops.cast(z, self.compute_dtype))

    def step(self, token: Tensor, z: Tensor, state: Any) -> Tensor:
        """One step of inference.

        Args:
            token: Int `(batch,)`, the symbol read.
            z: Float tensor `(batch, D)`.
            state: What `start` or the last step returned.

        Returns:
            `(logits, state)`: float32 `(batch, V)`, -infinity for padding and the start symbol,
            which no sentence goes on with.
        """
        logits, state = self._advance(token, z, state)
        return ops.where(self._never(), -float("inf"), logits), state

    def _never(self):
        """Returns which ids cannot follow in a sentence, bool `(V,)`."""
        number = ops.arange(self.vocabulary_size, dtype="int32")
        return ops.logical_or(number == self.pad_id, number == self.start_id)

    def _advance(self, token, z, state):
        h = self.embedding(token)
        if self.every_step:
            h = ops.concatenate([h, ops.cast(z, h.dtype)], axis=-1)
        h, state = self.lstm.cell(h, state, training=False)
        return float32(self._logits(h)), state

    def generate(self, z: Tensor, draw: Callable[..., Tensor], noise: Tensor) -> Any:
        """Writes sentences symbol by symbol, in one loop to be compiled.

        The loop ends when all sentences have ended. Those that would be longer than `max_length`
        are cut off and have no end symbol.

        Args:
            z: Float tensor `(batch, D)`.
            draw: Function of the logits `(batch, V)` and the noise `(batch, N)` of a step that
                returns ids `(batch,)`.
            noise: Float tensor `(batch, max_length - 1, N)`.

        Returns:
            Int32 tensor `(batch, max_length)`: start, words, end, padding.
        """
        steps = self.grid[0]
        state = self.start(z)
        rows = ops.shape(z)[0]
        token = ops.zeros((rows,), "int32") + self.start_id
        place = ops.arange(steps + 1, dtype="int32")
        sentences = ops.where(place == 0, self.start_id, self.pad_id)
        sentences = ops.cast(ops.broadcast_to(sentences, (rows, steps + 1)), "int32")

        def unfinished(i, token, *_):
            going = ops.logical_and(token != self.end_id, token != self.pad_id)
            return ops.logical_and(i < steps, ops.any(going))

        def write(i, token, sentences, *state):
            logits, state = self.step(token, z, list(state))
            here = ops.take(noise, ops.reshape(i, (1,)), axis=1)[:, 0]
            ended = ops.logical_or(token == self.end_id, token == self.pad_id)
            token = ops.where(ended, self.pad_id, ops.cast(draw(logits, here), "int32"))
            sentences = ops.where(place == i + 1, token[:, None], sentences)
            return i + 1, token, sentences, *state

        loop = (ops.zeros((), "int32"), token, sentences, *state)
        return ops.while_loop(unfinished, write, loop)[2]

    def beam_search(
        self, z: Tensor, beam_size: int, length_penalty: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Looks for the sentence of the highest score, in one loop to be compiled.

            score(x) = log p(x|z) / ((5 + n) / 6)^length_penalty,   n = number of predicted symbols

        At each step the most probable ways to go on fill the beam. A sentence that ends keeps its
        place, and the search goes on with fewer, until no other can reach the best score. Without
        any that ends within `max_length` symbols, the most probable one of that length is
        returned, which has no end symbol. A beam of 1 is greedy.

        Args:
            z: Float tensor `(batch, D)`.
            beam_size: Positive int, hypotheses of a sentence.
            length_penalty: Non-negative float scalar; 0 compares log-likelihoods, which favor
                short sentences, and larger values favor longer ones.

        Returns:
            `(sentences, log_prob)`: int32 `(batch, max_length)` as those of `generate`, and their
            log p(x|z) in nats as `Tokens` has it, float32 `(batch,)`.

        Reference: Sutskever et al. (2014), section 3.2, arXiv:1409.3215; Wu et al. (2016), eq. 14,
        arXiv:1609.08144 (length penalty, without coverage).
        """
        steps, size, minus_infinity = self.grid[0], self.vocabulary_size, -float("inf")
        rows = ops.shape(z)[0]
        z = ops.repeat(z, beam_size, axis=0)
        state = self.start(z)
        place, number = ops.arange(steps + 1, dtype="int32"), ops.arange(size, dtype="int32")
        first_of_row = ops.arange(rows, dtype="int32")[:, None] * beam_size
        length_penalty = ops.cast(length_penalty, "float32")

        def normalized(log_prob, length):
            length = ops.cast(length, "float32")
            return log_prob / ops.power((5.0 + length) / 6.0, length_penalty)

        def by_row(values):
            return ops.reshape(values, (rows, beam_size, *values.shape[1:]))

        def unfinished(i, token, sentences, log_prob, score, *_):
            live = ops.max(
                by_row(ops.where(score > minus_infinity, minus_infinity, log_prob)), axis=1
            )
            # Log-likelihoods only fall from here, and no sentence is longer.
            reachable = normalized(live, steps)
            return ops.logical_and(i < steps, ops.any(ops.max(by_row(score), axis=1) < reachable))

        def extend(i, token, sentences, log_prob, score, *state):
            logits, state = self._advance(token, z, list(state))
            log_next = ops.where(self._never(), minus_infinity, ops.log_softmax(logits, axis=-1))
            # What has ended goes on with padding, before all others.
            stays = ops.where(number == self.pad_id, float("inf"), minus_infinity)
            ended = score > minus_infinity
            value = ops.where(ended[:, None], stays, log_prob[:, None] + log_next)
            value, chosen = ops.top_k(ops.reshape(value, (rows, beam_size * size)), beam_size)
            source = ops.reshape(first_of_row + chosen // size, (-1,))
            token = ops.cast(ops.reshape(chosen % size, (-1,)), "int32")
            value = ops.reshape(value, (-1,))
            sentences, log_prob, score, *state = (
                ops.take(values, source, axis=0) for values in (sentences, log_prob, score, *state)
            )
            # A place that nothing is left for is empty again, whatever it was taken from.
            score = ops.where(value > minus_infinity, score, minus_infinity)
            log_prob = ops.where(score > minus_infinity, log_prob, value)
            score = ops.where(token == self.end_id, normalized(log_prob, i + 1), score)
            sentences = ops.where(place == i + 1, token[:, None], sentences)
            return i + 1, token, sentences, log_prob, score, *state

        nothing = ops.zeros_like(z[:, 0], dtype="float32")
        token = ops.cast(nothing, "int32") + self.start_id
        sentences = ops.where(place == 0, token[:, None], self.pad_id)
        # One hypothesis at first: the other places are empty, which is to have no probability.
        empty = ops.arange(rows * beam_size, dtype="int32") % beam_size > 0
        log_prob = ops.where(empty, minus_infinity, nothing)
        score = nothing + minus_infinity
        loop = (ops.zeros((), "int32"), token, sentences, log_prob, score, *state)
        _, _, sentences, log_prob, score, *_ = ops.while_loop(unfinished, extend, loop)
        score, log_prob = by_row(score), by_row(log_prob)
        found = ops.any(score > minus_infinity, axis=1, keepdims=True)
        best = ops.argmax(ops.where(found, score, log_prob), axis=1)
        best = ops.cast(best, "int32") + first_of_row[:, 0]
        return ops.take(sentences, best, axis=0), ops.take(ops.reshape(log_prob, (-1,)), best)


def _lstm(units, scale, use_cudnn, num_biases, bias_scale=None, return_sequences=False, dtype=None):
    scale = units**-0.5 if scale is None else scale
    uniform = keras.initializers.RandomUniform(-scale, scale)
    bias = fresh(uniform)
    if bias_scale is not None:
        bias = keras.initializers.RandomUniform(-bias_scale, bias_scale) if bias_scale else "zeros"
    return LSTM(
        units,
        kernel_initializer=uniform,
        recurrent_initializer=fresh(uniform),
        bias_initializer=bias,
        unit_forget_bias=False,
        num_biases=num_biases,
        return_sequences=return_sequences,
        use_cudnn=use_cudnn,
        dtype=dtype,
        name="lstm",
    )


@keras.saving.register_keras_serializable(package="vaezoo")
class Readout(keras.layers.Dense):
    """A layer without bias and activation whose gradient is that of `product`."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the product of inputs and kernel."""
        return product(inputs, ops.copy(self.kernel))


def _linear(units, scale, dtype, name, layer=keras.layers.Dense):
    uniform = keras.initializers.RandomUniform(-scale, scale)
    return layer(units, use_bias=False, kernel_initializer=uniform, dtype=dtype, name=name)


def _embeddings(scale):
    if scale is None:
        return keras.initializers.RandomNormal(stddev=1.0)
    return keras.initializers.RandomUniform(-scale, scale)


def _check_text(name, shape):
    listed = shape.tolist() if hasattr(shape, "tolist") else shape
    good = isinstance(listed, (tuple, list)) and len(listed) == 1
    if not good or not (listed[0] is None or (is_integer(listed[0]) and listed[0] >= 2)):
        raise wrong(name, "(None,), or (T,) with T of at least 2", shape)
    return None if listed[0] is None else int(listed[0])
