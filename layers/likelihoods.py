"""Likelihoods p(x|z): what the decoder's output means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_real
from ..core.replicas import gather_batch
from ..core.serialization import ArgumentsConfig
from ..losses import float32, tfd
from .token_sampling import draw_category, filter_logits

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Seed, Shape, Tensor


class Likelihood(ArgumentsConfig, keras.layers.Layer):
    """Base of the likelihoods; `call` is the mean of x.

    Subclasses implement `distribution(params)`, a `tfp` distribution by element of x, and state
    their `support`.
    """

    #: Decoder outputs per element of x, side by side on the last axis.
    params_per_value: int = 1
    #: Closed interval in which x must lie, and its wording for errors.
    support = (-np.inf, np.inf)
    #: Largest size of a value that float32 can still compute a density of.
    largest = float(np.finfo("float32").max)
    #: Whether x has a mean.
    has_mean = True
    #: Whether x is drawn among classes: `from_uniform` takes a temperature, `top_k` and `top_p`.
    draws_classes = False

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def distribution(self, params: Tensor) -> Any:
        """`tfp` distribution by element of x."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """Log-likelihood of each example under each draw.

            log p(x | z_k)    (nats, summed over event axes)

        Args:
            x: `(batch, *event)`.
            params: Decoder output, `(batch, K, *event')`.

        Returns:
            Float32 tensor `(batch, K)`.
        """
        params = float32(params)
        observed = self._observed(x, params.dtype)[:, None]
        by_element = self.distribution(params).log_prob(observed)
        return ops.sum(by_element, axis=tuple(range(2, by_element.ndim)))

    def training_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """`log_prob` in a training step, in which a likelihood may collect statistics of x."""
        return self.log_prob(x, params)

    def call(self, params: Tensor) -> Tensor:
        return self.mean(params)

    def mean(self, params: Tensor) -> Tensor:
        """E[x|z], `(..., *event)`."""
        return self.distribution(float32(params)).mean()

    def sample(self, params: Tensor, seed: Seed, *options: Any) -> Tensor:
        """Draws x, `(..., *event)`, with a `keras.random.SeedGenerator`; see `from_uniform`."""
        channels = self._channels(params)
        shape = (*ops.shape(params)[: self._grid_rank(params)], self.num_uniforms(channels))
        # Away from the ends, where quantiles are infinite.
        uniform = keras.random.uniform(shape, 1e-6, 1.0 - 1e-6, dtype="float32", seed=seed)
        return self.from_uniform(params, uniform, *options)

    def from_uniform(self, params: Tensor, uniform: Tensor) -> Tensor:
        """Draws x from uniform noise: the same noise gives the same draw, however it is computed.

        Args:
            params: Decoder output, `(..., P)`.
            uniform: Float tensor `(..., num_uniforms(channels))` of values in (0, 1).

        Returns:
            Tensor `(..., channels)`.
        """
        return self.distribution(float32(params)).quantile(uniform)

    def num_uniforms(self, channels: int) -> int:
        """Returns the number of uniform numbers that a draw of `channels` values takes."""
        return channels

    def mode(self, params: Tensor) -> Tensor:
        """A most likely x, `(..., *event)`; the mean by default."""
        return self.mean(params)

    def params_shape(self, event_shape: Shape) -> Shape:
        """Shape of the decoder's output for one draw of shape `event_shape`."""
        return (*event_shape[:-1], event_shape[-1] * self.params_per_value)

    def bind_decoder(self, decoder: keras.layers.Layer) -> None:
        """Takes over from a decoder what the likelihood has not been told."""

    def adopt(self, decoder: keras.layers.Layer) -> None:
        """`bind_decoder` by its former name, for one release."""
        self.bind_decoder(decoder)

    def check(self, x: Tensor) -> None:
        """Raises a `ValueError` unless the values of the array `x` can be observed."""
        low, high = self.support
        smallest, largest = float(np.min(x)), float(np.max(x))
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            raise ValueError(
                "`x` must hold finite numbers. Received: NaN or infinity among its values"
            )
        if max(-smallest, largest) > self.largest:
            raise ValueError(
                f"`x` must hold absolute values of at most {self.largest:g} under a "
                f"{type(self).__name__} likelihood: float32 cannot square larger ones. Received: "
                f"values from {smallest:g} to {largest:g}"
            )
        if smallest < low or largest > high:
            raise ValueError(
                f"`x` must lie in [{low:g}, {high:g}] under a {type(self).__name__} likelihood"
                f"{self._hint(largest)}. Received: values from {smallest:g} to {largest:g}"
            )

    def _channels(self, params):
        return params.shape[-1] // self.params_per_value

    def _grid_rank(self, params):
        return len(params.shape) - 1

    def _observed(self, x, dtype):
        return ops.cast(x, dtype)

    def _hint(self, largest):
        return ""


class UnitInterval(Likelihood):
    """Base of the likelihoods of values in [0, 1]."""

    support = (0.0, 1.0)

    def _hint(self, largest):
        return " (divide 8-bit images by 255)" if 1.0 < largest <= 255.0 else ""


@keras.saving.register_keras_serializable(package="vaezoo")
class Bernoulli(UnitInterval):
    """Independent binary elements; decoder outputs are logits.

        log p(x|z) = sum_i x_i l_i - softplus(l_i)    (nats)

    Gray values in [0, 1] are accepted as in much of the field; the cross-entropy is then no
    normalized density: `ContinuousBernoulli` is.

    Args:
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    def distribution(self, params: Tensor) -> Any:
        return tfd().Bernoulli(logits=params)

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        # `tfd.Bernoulli` takes a softplus for either value of x and picks: twice the time.
        params = float32(params)
        observed = self._observed(x, params.dtype)[:, None]
        by_element = observed * params - ops.softplus(params)
        return ops.sum(by_element, axis=tuple(range(2, by_element.ndim)))

    def mean(self, params: Tensor) -> Tensor:
        return ops.sigmoid(float32(params))

    def mode(self, params: Tensor) -> Tensor:
        return ops.cast(float32(params) > 0.0, "float32")

    def from_uniform(self, params: Tensor, uniform: Tensor) -> Tensor:
        return ops.cast(uniform < self.mean(params), "float32")


@keras.saving.register_keras_serializable(package="vaezoo")
class ContinuousBernoulli(UnitInterval):
    """Independent elements on [0, 1] with density C(l) exp(x l); decoder outputs are logits.

        log p(x|z) = sum_i x_i l_i - softplus(l_i) + log C(sigmoid(l_i))    (nats)

    Args:
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Reference: Loaiza-Ganem & Cunningham (2019), eqs. 5-7, arXiv:1907.06845.
    """

    def distribution(self, params: Tensor) -> Any:
        return tfd().ContinuousBernoulli(logits=params)


@keras.saving.register_keras_serializable(package="vaezoo")
class Gaussian(Likelihood):
    """Independent real elements; decoder outputs are means, and scales where asked.

        log p(x|z) = sum_i -1/2 ((x_i - mean_i) / scale)^2 - log scale - 1/2 log(2 pi)    (nats)

    The scale is the size of the errors that count as noise, and the reconstruction cannot be better
    than it says. The default of 1 suits standardized data; on data in [0, 1] it hides nearly all
    there is to see, and the posterior collapses. `"optimal"` is safe on any data. A fixed scale of
    sqrt(1/2) makes the negative log-likelihood the sum of squared errors up to a constant.

    `"optimal"` is the maximum-likelihood scale of each training batch, with all draws and elements:

        scale^2 = max( mean_bki (x_bi - mean_bki)^2, min_scale^2 )

    Args:
        scale: Positive float, standard deviation; `"optimal"` for that of the residuals, which all
            elements share; `"learned"` for one trained value that all elements share; `"decoder"`
            for one per element, the softplus of the second half of the decoder's channels.
        min_scale: Positive float, added to trained scales, and the least optimal one.
        momentum: Float in [0, 1), decay of the running mean square of `"optimal"`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Rybkin et al. (2021), section 3, arXiv:2006.13202 (`"learned"`, `"optimal"`).

    Note: Outside of training, where a likelihood may not depend on a batch, the optimal scale is
    the root of a running mean of the batches' mean squares (bias-corrected, over about
    `1 / (1 - momentum)` steps; 1 before the first), a weight that is saved with the model. No
    gradient is taken through the optimal scale: the bound is stationary there, so it would be zero.
    Importance-weighted bounds are given the scale that is optimal for the plain one; they are
    bounds at any scale. Sample weights do not enter it.
    """

    #: Whose square, by small scales and summed over an image, is finite.
    largest = 1e15

    def __init__(
        self,
        scale: float | str = 1.0,
        min_scale: float = 1e-3,
        momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        named = ("optimal", "learned", "decoder")
        if not (isinstance(scale, str) and scale in named):
            scale = check_real("scale", scale, "(0, inf)", also="'optimal', 'learned' or 'decoder'")
        self.scale = scale
        self.min_scale = check_real("min_scale", min_scale, "(0, inf)")
        self.momentum = check_real("momentum", momentum, "[0, 1)")
        self.params_per_value = 2 if scale == "decoder" else 1
        if scale == "optimal":
            self.moving_mean_square = self.add_weight(
                name="moving_mean_square", initializer="ones", trainable=False, aggregation="mean"
            )
            self.updates = self.add_weight(
                name="updates",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )
        if scale == "learned":
            # softplus(0.5413) = 1: learning starts from the unit scale.
            self.raw_scale = self.add_weight(
                name="raw_scale", initializer=keras.initializers.Constant(0.5413248546)
            )
        self.built = True

    @property
    def fixed_scale(self) -> float | None:
        """The scale where it is a given number, else None."""
        return None if isinstance(self.scale, str) else float(self.scale)

    def distribution(self, params: Tensor) -> Any:
        if self.scale == "decoder":
            mean, raw_scale = ops.split(params, 2, axis=-1)
            return tfd().Normal(mean, ops.softplus(raw_scale) + self.min_scale)
        if self.scale == "learned":
            scale = ops.softplus(ops.convert_to_tensor(self.raw_scale)) + self.min_scale
        elif self.scale == "optimal":
            scale = self._optimal(ops.convert_to_tensor(self.moving_mean_square))
        else:
            scale = float(self.scale)
        return tfd().Normal(params, scale)

    def training_log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        if self.scale != "optimal":
            return self.log_prob(x, params)
        params = float32(params)
        observed = self._observed(x, params.dtype)[:, None]
        squares = ops.square(ops.stop_gradient(observed - params))
        # Of the global batch, however replicas share it.
        rows = ops.mean(squares, axis=tuple(range(1, len(squares.shape))))
        mean_square = ops.mean(gather_batch(rows))
        self._collect(mean_square)
        by_element = tfd().Normal(params, self._optimal(mean_square)).log_prob(observed)
        return ops.sum(by_element, axis=tuple(range(2, by_element.ndim)))

    def _optimal(self, mean_square):
        return ops.sqrt(ops.maximum(mean_square, self.min_scale**2))

    def _collect(self, mean_square):
        # This rate makes the plain recursion equal to a bias-corrected exponential average.
        updates = self.updates + 1.0
        rate = (1.0 - self.momentum) / (1.0 - ops.power(self.momentum, updates))
        running = ops.convert_to_tensor(self.moving_mean_square)
        self.moving_mean_square.assign(running + rate * (mean_square - running))
        self.updates.assign(updates)


@keras.saving.register_keras_serializable(package="vaezoo")
class Categorical(Likelihood):
    """Independent class numbers; the decoder's last axis holds the logits of the classes.

        log p(x|z) = sum_i log softmax(l_i)[x_i]    (nats)

    Args:
        num_classes: Int of at least 2; x holds integers in [0, num_classes).
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `num_classes` is below 2.
    """

    draws_classes = True

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = check_integer("num_classes", num_classes, least=2)
        self.support = (0, self.num_classes - 1)

    def distribution(self, params: Tensor) -> Any:
        return tfd().Categorical(logits=params)

    def mean(self, params: Tensor) -> Tensor:
        """The most probable class, int32; class numbers have no mean."""
        return ops.cast(ops.argmax(params, axis=-1), "int32")

    def from_uniform(
        self,
        params: Tensor,
        uniform: Tensor,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Draws classes from uniform noise.

        Args:
            params: Logits `(..., V)`.
            uniform: Float tensor `(...)` of values in (0, 1).
            temperature: As in `filter_logits`.
            top_k: As in `filter_logits`.
            top_p: As in `filter_logits`.

        Returns:
            Int32 tensor `(...)`.
        """
        logits = filter_logits(params, temperature, top_k, top_p)
        return draw_category(logits, uniform[..., None])

    def _channels(self, params):
        return params.shape[-2]

    def _grid_rank(self, params):
        return len(params.shape) - 2

    def params_shape(self, event_shape: Shape) -> Shape:
        return (*event_shape, self.num_classes)

    def check(self, x: Tensor) -> None:
        super().check(x)
        fractional = x[x != np.round(x)]
        if fractional.size:
            raise ValueError(
                "`x` must hold whole numbers under a Categorical likelihood. Received: "
                f"{fractional[0]:g} among its values"
            )

    def _observed(self, x, dtype):
        return ops.cast(x, "int32")
