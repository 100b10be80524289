"""A VAE as the instruments see it: ours, anybody's encoder and decoder, or a SavedModel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from ..core.compile import compiled, padded, rows_to_compile
from ..core.conditions import conditions_of, data_of, named, read_conditions, take_rows
from ..core.frames import unframed
from ..core.masks import only_valid
from ..core.random import StatelessSeed
from ..layers import Gaussian, IsotropicNormal, StandardNormal, Tokens, get_likelihood
from ..losses import (
    DiagonalGaussian,
    HierarchicalGaussian,
    PointMass,
    float32,
    log_prob_per_dimension,
    reparameterize,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import Array, ArrayLike, Model, Posterior, Seed, Tensor
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

#: Probabilities are kept this far from 0 and 1 before they are turned into logits.
PROBABILITY_MARGIN = 1e-6
_STANDARD_PRIOR = "The prior was taken to be N(0, I)."


class DrawStatistics(NamedTuple):
    """Estimates posterior statistics from draws, where no closed form exists.

    Attributes:
        mean: Mean of each posterior's draws, `(N, D)`.
        variance: Unbiased, `(N, D)`.
        scatter: Unbiased covariances summed over each batch, `(batches, D, D)`: one for every
            example would fill the memory.
        entropy: Mean of -log q(z_k|x), `(N,)`.
        rate: Mean of log q(z_k|x) - log p(z_k), `(N,)`.
        rate_per_dimension: The same per dimension, `(N, D)`, or None without coordinates.
    """

    mean: Any
    variance: Any
    scatter: Any
    entropy: Any
    rate: Any
    rate_per_dimension: Any


class ModelAdapter:
    """Posterior, prior and likelihood of a model, on tensors and over whole arrays.

    Attributes:
        name: What to call the model.
        latent_dim: D.
        variables: Keras variables that its functions read.
        likelihood: `Likelihood`.
        prior: `Prior`.
        model: The `VAE`, or None.
        notes: Strings: what was assumed about a foreign model.
    """

    def __init__(
        self,
        name: str,
        latent_dim: int,
        variables: Sequence[Any],
        likelihood: Likelihood,
        prior: Prior,
        model: Any = None,
    ) -> None:
        self.name, self.latent_dim, self.variables = name, latent_dim, variables
        self.likelihood, self.prior, self.model = likelihood, prior, model
        self.notes: list[str] = []
        self._functions: dict[str, Callable[..., Any]] = {}

    #: Whether gradients can be taken of its functions.
    differentiable = True
    #: Whether an example holds more than data.
    conditional = False

    # -- on tensors ------------------------------------------------------------------------------

    def posterior(self, x: Tensor) -> Posterior:
        """The posterior value q(z|x) over `(batch, D)`, in inference mode."""
        raise NotImplementedError

    def params(self, z: Tensor, x: Tensor) -> bool:
        """The likelihood's parameters `(batch, K, *event)` of `z (batch, K, D)`.

        An autoregressive decoder is shown `x (batch, *event)`; others do not look at it.
        """
        raise NotImplementedError

    def sample(self, posterior: Posterior, num_samples: int, seed: Seed) -> Tensor:
        """Posterior draws `(batch, K, D)` with a seed generator such as `StatelessSeed`."""
        return self.sample_and_log_prob(posterior, num_samples, seed)[0]

    def sample_and_log_prob(
        self, posterior: Posterior, num_samples: int, seed: Seed
    ) -> tuple[Tensor, Tensor]:
        """Posterior draws and log q(z_k|x), `(batch, K, D)`, or `(batch, K, 1)` for the latter."""
        shape = (ops.shape(posterior.mean)[0], num_samples, self.latent_dim)
        z = reparameterize(posterior, keras.random.normal(shape, dtype="float32", seed=seed))
        return z, log_prob_per_dimension(posterior, z)

    def sample_and_log_qz(
        self, posterior: Posterior, num_samples: int, seed: Seed
    ) -> tuple[Tensor, Tensor]:
        """Posterior draws `(batch, K, D)` and log q(z_k|x), `(batch, K)`.

        A flow knows the density of its own draws; that of others takes its inverse.
        """
        z, per_dimension = self.sample_and_log_prob(posterior, num_samples, seed)
        return z, ops.sum(per_dimension, axis=-1)

    def log_pz(self, z: Tensor) -> Tensor:
        """Log p(z_k), `(batch, K)`."""
        return self.prior.log_prob(z)

    def log_px(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z_k), `(batch, K)`."""
        return self.likelihood.log_prob(x, self.params(z, x))

    def base(self, posterior: Posterior) -> DiagonalGaussian:
        """The Gaussian that a flow bends, per dimension of the code that each descends from."""
        return posterior.base

    @property
    def has_density(self) -> bool:
        """Whether q(z|x) has a density."""
        return True

    @property
    def autoregressive(self) -> bool:
        """Whether the decoder sees x."""
        return False

    @property
    def of_text(self) -> bool:
        """Whether the data are sentences of token ids, possibly padded."""
        return isinstance(self.likelihood, Tokens)

    # -- over whole arrays -----------------------------------------------------------------------

    def encode(self, data: ArrayLike, batch_size: int = 256) -> Any:
        """The posterior value of all examples, in NumPy."""
        return self.run("posterior", self.posterior, data, batch_size=batch_size)

    def run(
        self,
        name: str,
        function: Callable[..., Any],
        *arrays: Any,
        batch_size: int = 256,
        seed: int | None = None,
        most_rows: int | None = None,
        with_rows: bool = False,
    ) -> Any:
        """Applies a function of tensors to arrays, a compiled batch at a time.

        Args:
            name: Key under which the compiled function is kept.
            function: Takes a batch of each array, and with a seed also two uint32 scalars, seed and
                stream, from which `StatelessSeed` makes noise of the batch's own. Returns a
                structure of tensors, batch first; parts may be None. Batches are filled up, so
                that few sizes are compiled for: each example's results must be its own.
            *arrays: Arrays, or structures of arrays, of equal lengths.
            batch_size: Positive int.
            seed: Optional int.
            most_rows: Positive int, rows of a batch that is filled up at most; `batch_size` by
                default.
            with_rows: Whether the function takes one more int32 scalar, the number of examples in
                its batch: what it sums over a batch must leave out the rows behind them.

        Returns:
            The structure, in NumPy, over all examples.
        """
        call = self.compile(name, function)
        length = len(keras.tree.flatten(arrays)[0])
        parts = []
        for start in range(0, length, batch_size):
            rows = min(batch_size, length - start)
            batch: Sequence[Any] = [
                array[start : start + rows] for array in keras.tree.flatten(arrays)
            ]
            if self.compiles:
                full = rows_to_compile(batch_size, most_rows or batch_size, noise=seed is not None)
                size = rows_to_compile(rows, full, noise=seed is not None)
                # A batch of this size has been compiled for by now.
                batch = padded(batch, full if start and size > rows else size)
            numbers: list[Any] = [] if seed is None else [np.uint32(seed), np.uint32(start)]
            numbers += [np.int32(rows)] if with_rows else []
            result = call(*map(ops.convert_to_tensor, batch), *numbers)
            part = keras.tree.map_structure(_to_numpy, result)
            if len(batch[0]) > rows:
                part = keras.tree.map_structure(
                    lambda value, rows=rows: None if value is None else value[:rows], part
                )
            parts.append(part)
        return keras.tree.map_structure(
            lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *parts
        )

    def draw_statistics(
        self, posterior: Posterior, num_samples: int, batch_size: int = 256, seed: int = 0
    ) -> DrawStatistics:
        """`DrawStatistics` of K draws from each posterior, in NumPy.

        All in one function: a metric more is cheaper than a function more to compile.

        Args:
            posterior: Posterior value of all examples.
            num_samples: Positive int K.
            batch_size: Positive int.
            seed: Int.
        """

        def statistics(*arguments):
            *fields, noise, stream, rows = arguments
            value = type(posterior)(*fields)
            z, log_qz = self.sample_and_log_prob(value, num_samples, StatelessSeed(noise, stream))
            mean = ops.mean(z, axis=1)
            centered = z - mean[:, None]
            counted = only_valid(centered, ops.arange(ops.shape(z)[0]) < rows)
            flat = ops.reshape(counted, (-1, self.latent_dim))
            total = ops.sum(log_qz, axis=-1)
            of_prior = self.prior.log_prob_per_dimension(z)
            per_dimension = of_prior is not None and log_qz.shape[-1] == self.latent_dim
            others = max(num_samples - 1, 1)
            return DrawStatistics(
                mean,
                ops.sum(ops.square(centered), axis=1) / others,
                ops.matmul(ops.transpose(flat), flat)[None] / others,
                -ops.mean(total, axis=1),
                ops.mean(total - self.log_pz(z), axis=1),
                ops.mean(log_qz - of_prior, axis=1) if per_dimension else None,
            )

        name = f"draw_statistics_{num_samples}"
        return self.run(
            name, statistics, posterior, batch_size=batch_size, seed=seed, with_rows=True
        )

    def sample_prior(self, num_samples: int, seed: Seed, stream: int = 0) -> Array:
        """Draws from the prior, NumPy float32 `(num_samples, D)`."""
        nested = self.prior.nested_draws
        rows = rows_to_compile(num_samples, noise=True) if nested else num_samples
        draws = self.prior.sample(rows, StatelessSeed(seed, stream))
        return ops.convert_to_numpy(draws)[:num_samples]

    def compile(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function(*tensors)` compiled once, kept under `name`."""
        key = f"metrics/{name}"
        if key not in self._functions:
            self._functions[key] = compiled(self, function)
        return self._functions[key]

    def loop(self, count: Any, body: Callable[..., Any], state: Any) -> Any:
        """`state = body(i, state)` for i from 0 to `count - 1`."""
        return ops.fori_loop(0, count, body, state)

    def observed(self, data: ArrayLike) -> Any:
        """Returns what is scored of data: all of it, or the targets."""
        return data

    def inputs(self, data: ArrayLike) -> Any:
        """Returns what is encoded of data: all of it, or what is to be turned into targets."""
        return data

    def conditions(self, data: Array) -> dict[str, Any]:
        """Returns what rows that were checked are conditioned on, NumPy by name."""
        return {}

    def decode(self, codes: Array) -> Array:
        """Data of codes `(N, D)`, decoded by the model in one batch."""
        return self.model.decode(codes, batch_size=len(codes))

    def values(self, data: ArrayLike) -> Any:
        """Returns what is encoded of data, without what it is conditioned on."""
        return self.inputs(data)

    @property
    def generator(self) -> Any:
        """What generates data by `generate(num, seed, mean)`, or None."""
        return self.model

    #: Whether functions are compiled, each for every new shape.
    compiles = True

    @property
    def of_inputs(self) -> ModelAdapter:
        """The `ModelAdapter` of what is encoded alone."""
        return self

    def check(self, data: ArrayLike) -> Array:
        """Raises an error unless `data` is an array that the likelihood can observe."""
        array = check_shape(getattr(self, "encoder", None), check_array("data", data))
        try:
            self.likelihood.check(array)
        except ValueError as error:
            raise ValueError(str(error).replace("`x`", "`data`", 1)) from None
        return array

    def check_inputs(self, data: ArrayLike) -> Array:
        """Raises an error unless `data` is an array that can be encoded.

        Of a model that was trained to turn its inputs into targets these need not lie in the
        support of the likelihood.
        """
        if not getattr(self.model, "takes_target", False):
            return self.check(data)
        array = check_shape(getattr(self, "encoder", None), check_array("data", data))
        return check_finite("data", array)


class _TargetSubject(ModelAdapter):
    """A model that turns inputs into targets; each of its examples is a pair `(2, *event)`.

    Args:
        subject: `ModelAdapter` of the model.
    """

    def __init__(self, subject: ModelAdapter) -> None:
        super().__init__(
            subject.name,
            subject.latent_dim,
            subject.variables,
            subject.likelihood,
            subject.prior,
            subject.model,
        )
        self.subject, self.notes = subject, subject.notes
        self.decoder = getattr(subject, "decoder", None)

    def posterior(self, x):
        return self.subject.posterior(x[:, 0])

    def params(self, z, x):
        return self.subject.params(z, None if x is None else x[:, 1])

    def log_px(self, x, z):
        return self.likelihood.log_prob(x[:, 1], self.params(z, x))

    def sample_and_log_prob(self, posterior, num_samples, seed):
        return self.subject.sample_and_log_prob(posterior, num_samples, seed)

    def base(self, posterior):
        return self.subject.base(posterior)

    def observed(self, data):
        return data[:, 1]

    def inputs(self, data):
        return data[:, 0]

    @property
    def of_inputs(self):
        return self.subject

    def check(self, data):
        pairs = check_array("data", data)
        if not np.all(np.isfinite(pairs[:, 0])):
            raise ValueError(
                "`data` must hold finite numbers. Received: NaN or infinity among them"
            )
        self.likelihood.check(pairs[:, 1])
        return pairs

    @property
    def has_density(self):
        return self.subject.has_density

    @property
    def autoregressive(self):
        return self.subject.autoregressive


def with_target(
    subject: ModelAdapter, data: ArrayLike, target: ArrayLike = None
) -> tuple[ModelAdapter, Array]:
    """Returns a subject and checked data of it: pairs where `data` are to be turned into `target`.

    Raises:
        TypeError: If one is no array of real numbers, or the model is not of this framework.
        ValueError: If the shapes differ, or what is scored cannot be observed.
    """
    if target is None:
        return subject, subject.check(data)
    if isinstance(subject, _ConditionalSubject):
        raise ValueError("`target` must be None of a conditional model. Received: one")
    if isinstance(subject, _ForeignSubject):
        raise TypeError("`target` must come with a model of this backend. Received: a SavedModel")
    data, target = check_array("data", data), check_array("target", target)
    if data.shape != target.shape:
        raise ValueError(
            f"`target` must have the shape of `data`, {data.shape}. Received: shape={target.shape}"
        )
    paired = _TargetSubject(subject)
    return paired, paired.check(np.stack([data, target], axis=1))


class _OurSubject(ModelAdapter):
    def __init__(self, model: keras.Model) -> None:
        super().__init__(
            model.name, model.latent_dim, model.variables, model.likelihood, model.prior, model
        )
        self.encoder, self.decoder = model.encoder, model.decoder
        # Compiled once for a model, however often it is measured.
        self._functions = model.compiled_functions

    def posterior(self, x):
        return self.model.encode(x)

    def params(self, z, x):
        return self.model.params(z, x)

    def sample_and_log_prob(self, posterior, num_samples, seed):
        return self.model.head.sample_and_log_prob(posterior, num_samples, seed)

    def base(self, posterior):
        return DiagonalGaussian(*map(self.model.head.flow.permute, posterior.base))

    @property
    def has_density(self):
        return self.model.head.has_density

    @property
    def autoregressive(self):
        return self.model.autoregressive


class _ConditionalSubject(_OurSubject):
    """A conditional model; each of its examples is a row `(E + F,)` of data and conditions.

    Whatever is decoded without an example is conditioned as the examples that were checked last,
    one after the other.
    """

    conditional = True

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self.kinds = model.encoder.condition
        self.event: Any = None
        self._conditions: Any = None

    def check(self, data):
        if not isinstance(data, dict):
            packed = self._packed(data)
            if packed is not None:
                return packed
        batch = named(data, tuple(self.kinds), "data")
        x = super().check(data_of(batch))
        readers = {name: kind.reader for name, kind in self.kinds.items()}
        conditions = read_conditions(readers, conditions_of(batch), len(x))
        self.event, self._conditions = x.shape[1:], conditions
        flat = [np.reshape(value, (len(x), -1)) for value in (x, *conditions.values())]
        return np.concatenate(flat, axis=1, dtype="float32", casting="unsafe")

    def check_inputs(self, data):
        return self.check(data)

    def _packed(self, data):
        """The rows that `check` returned before, or None."""
        width = None if self.event is None else math.prod(self.event) + self._width
        if getattr(data, "ndim", 0) != 2 or data.shape[1] != width:
            return None
        self._conditions = self.conditions(data)
        return data

    def conditions(self, data: Array) -> dict[str, Any]:
        batch = keras.tree.map_structure(ops.convert_to_numpy, self.batch(data))
        return {name: batch[name] for name in self.kinds}

    @property
    def _width(self):
        return sum(math.prod(value.shape[1:]) for value in self._conditions.values())

    def batch(self, rows: Tensor) -> dict[str, Any]:
        """Returns rows as the model takes them."""
        start, found = 0, {}
        dtypes = {"x": self.model.event_dtype}
        dtypes |= {name: kind.value_dtype for name, kind in self.kinds.items()}
        shapes = {"x": self.event}
        shapes |= {name: value.shape[1:] for name, value in self._conditions.items()}
        for name, shape in shapes.items():
            size = math.prod(shape)
            part = rows[:, start : start + size]
            found[name] = ops.cast(ops.reshape(part, (-1, *shape)), dtypes[name])
            start += size
        return found

    def posterior(self, x):
        return self.model.encode(self.batch(x))

    def params(self, z, x):
        if x is not None:
            return self.model.params(z, self.batch(x))
        number = ops.shape(z)[0]
        held = next(iter(self._conditions.values()))
        place = ops.arange(number) % len(held)
        given = {name: ops.take(v, place, axis=0) for name, v in self._conditions.items()}
        return self.model.params(z, given)

    def log_px(self, x, z):
        return self.likelihood.log_prob(self.batch(x)["x"], self.params(z, x))

    def decode(self, codes):
        given = self._given(len(codes))
        return self.model.decode(codes, batch_size=len(codes), condition=given)

    def _given(self, number):
        held = next(iter(self._conditions.values()))
        return take_rows(self._conditions, np.arange(number) % len(held))

    def observed(self, data):
        size = math.prod(self.event)
        return np.reshape(data[:, :size], (-1, *self.event)).astype(self.model.event_dtype)

    def values(self, data):
        return self.observed(data)

    @property
    def generator(self):
        return _Conditioned(self.model, self._given)


class _Conditioned:
    """Generates data under the conditions of examples, one after the other."""

    def __init__(self, model: keras.Model, given: Callable[[int], Any]) -> None:
        self._model, self._given = model, given

    def generate(self, num: int, seed: int | None = None, mean: bool = True) -> Array:
        """As `VAE.generate`."""
        return self._model.generate(num, seed=seed, mean=mean, condition=self._given(num))


class _PairSubject(ModelAdapter):
    """An encoder `x -> (mean, log_var)` and a decoder `z -> parameters`, any callables."""

    def __init__(
        self,
        encoder: Callable[..., Any],
        decoder: Callable[..., Any],
        likelihood: Likelihood,
        latent_dim: int,
        probabilities: Any,
        name: str,
    ) -> None:
        variables = [
            variable for part in (encoder, decoder) for variable in getattr(part, "variables", [])
        ]
        prior = StandardNormal()
        prior.build((None, 1, latent_dim))
        super().__init__(name, latent_dim, variables, likelihood, prior)
        self.encoder, self.decoder, self.probabilities = encoder, decoder, probabilities

    def set_prior(self, prior):
        """Takes another prior than N(0, I)."""
        prior.build((None, 1, self.latent_dim))
        self.prior = prior
        self.notes = [note for note in self.notes if note != _STANDARD_PRIOR]

    def posterior(self, x):
        return _outputs("encoder", self.encoder, x, posterior_from)

    def params(self, z, x):
        codes = ops.reshape(z, (-1, self.latent_dim))
        params = _outputs("decoder", self.decoder, codes, float32)
        if self.probabilities:
            inside = ops.clip(params, PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN)
            params = ops.log(inside) - ops.log1p(-inside)
        return ops.reshape(params, (-1, z.shape[1], *params.shape[1:]))


class _ForeignSubject(_PairSubject):
    """Functions of another framework, which nothing here can compile or differentiate."""

    differentiable = compiles = False

    def compile(self, name, function):
        return function

    def loop(self, count, body, state):
        for index in range(int(count)):
            state = body(index, state)
        return state


def as_subject(
    model: Model,
    decoder: Callable[..., Any] | None = None,
    data: ArrayLike = None,
    likelihood: str | Likelihood | None = None,
    latent_dim: int | None = None,
) -> ModelAdapter:
    """The `ModelAdapter` behind what a user hands to an instrument.

    Args:
        model: `VAE`; or an encoder `x -> (mean, log_var)`, given with `decoder`; or the path of a
            SavedModel that `VAE.export` wrote; or a `ModelAdapter`.
        decoder: Callable `z (batch, D) -> (batch, *params)`: logits or probabilities under a
            Bernoulli likelihood, means under a Gaussian.
        data: `(N, *event)`, for a look at what a pair returns.
        likelihood: Name or `Likelihood` of a pair; of a SavedModel only where it cannot tell.
        latent_dim: D of a pair; read off the encoder by default.

    Raises:
        TypeError: If `model` is none of these.
        ValueError: If a pair's outputs do not fit together.
    """
    if isinstance(model, ModelAdapter):
        return model
    if isinstance(model, (str, Path)):
        return _saved_model(Path(model), data, likelihood)
    if decoder is not None:
        return _pair(model, decoder, data, likelihood, latent_dim)
    parts = ("encode", "head", "prior", "likelihood", "decoder")
    if all(hasattr(model, part) for part in parts):
        if likelihood is not None:
            raise ValueError(
                "`likelihood` must be None for a vaezoo VAE, which has its own. Received: "
                f"likelihood={likelihood!r}"
            )
        if not model.built:
            raise ValueError("`model` must be built: fit it, load it, or call it on a batch first.")
        if getattr(model, "conditional", False):
            return _ConditionalSubject(model)
        return _OurSubject(model)
    raise TypeError(
        "`model` must be a vaezoo VAE, the path of a SavedModel that one exported, or an encoder "
        f"given with its `decoder`. Received: {type(model).__name__}"
    )


def posterior_from(outputs: Any) -> Posterior:
    """The posterior value in an encoder's outputs.

    `(mean, log_var)`, with further outputs such as a draw behind; a dict with `mean` and `log_var`,
    also as `z_mean` and `z_log_var`; or a posterior value.

    Raises:
        ValueError: If there is no such pair.
    """
    if isinstance(outputs, (DiagonalGaussian, HierarchicalGaussian, PointMass)):
        return outputs
    if hasattr(outputs, "_asdict"):
        outputs = outputs._asdict()
    if isinstance(outputs, dict):
        if {"mean", "scale_tril", "hyper_mean", "hyper_scale_tril"} <= set(outputs):
            return HierarchicalGaussian(
                *(float32(outputs[name]) for name in HierarchicalGaussian._fields)
            )
        for mean, log_var in (("mean", "log_var"), ("z_mean", "z_log_var"), ("mu", "log_var")):
            if mean in outputs and log_var in outputs:
                return DiagonalGaussian(float32(outputs[mean]), float32(outputs[log_var]))
        if set(outputs) == {"mean"}:
            return PointMass(float32(outputs["mean"]))
        found = f"a dict of {', '.join(outputs)}"
    elif isinstance(outputs, (list, tuple)) and len(outputs) >= 2:
        return DiagonalGaussian(float32(outputs[0]), float32(outputs[1]))
    else:
        found = f"one output of shape {tuple(getattr(outputs, 'shape', ()))}"
    raise ValueError(
        "`encoder` must return (mean, log_var), or a dict with `mean` and `log_var`. Received: "
        + found
    )


def _call(part, values):
    # Inference mode, for callables that know of it.
    if isinstance(part, keras.layers.Layer):
        return part(values, training=False)
    return part(values)


def _outputs(name, part, values, read):
    """Calls a user's encoder or decoder and reads its outputs; errors name it."""
    try:
        made = _call(part, values)
        if made is None:
            raise ValueError(f"`{name}` must return tensors. Received: None")
        return read(made)
    except Exception as error:
        if str(error).startswith("`"):
            raise
        reason = " ".join(str(error).split())[:200]
        kind = getattr(part, "__name__", type(part).__name__)
        raise TypeError(
            f"`{name}` must turn a batch of shape {tuple(values.shape)} into tensors by a Keras "
            "model or functions of `keras.ops`, which can be compiled. Received: "
            f"{name}={kind}, which raises {type(error).__name__}: {reason}"
        ) from error


def _pair(encoder, decoder, data, likelihood, latent_dim):
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        if not callable(part):
            raise TypeError(f"`{name}` must be callable. Received: {type(part).__name__}")
    if data is None or len(data) == 0:
        raise ValueError("`data` must come with an encoder and a decoder. Received: none")
    name = getattr(encoder, "name", type(encoder).__name__)
    return _probed(
        _PairSubject, encoder, decoder, data, likelihood or "bernoulli", latent_dim, name
    )


def _probed(kind, encoder, decoder, data, likelihood, latent_dim, name):
    likelihood = get_likelihood(likelihood)
    sample = ops.convert_to_tensor(np.asarray(data[:64]))
    posterior = _outputs("encoder", encoder, sample, posterior_from)
    if len(posterior.mean.shape) != 2 or len(posterior.mean) != len(sample):
        raise ValueError(
            "`encoder` must return a mean of shape (batch, D). Received: "
            f"shape={tuple(posterior.mean.shape)} for {len(sample)} examples"
        )
    for field in posterior:
        check_finite("encoder", ops.convert_to_numpy(field))
    log_var = getattr(posterior, "log_var", posterior.mean)
    if tuple(log_var.shape) != tuple(posterior.mean.shape):
        raise ValueError(
            "`encoder` must return a mean and a log-variance of one shape. Received: "
            f"{tuple(posterior.mean.shape)} and {tuple(log_var.shape)}"
        )
    size = int(posterior.mean.shape[1])
    if latent_dim not in (None, size):
        raise ValueError(
            f"`latent_dim` must be that of the encoder, {size}. Received: latent_dim={latent_dim}"
        )
    params = ops.convert_to_numpy(_outputs("decoder", decoder, posterior.mean, float32))
    expected = tuple(likelihood.params_shape(tuple(sample.shape[1:])))
    check_finite("decoder", params)
    if params.shape != (len(sample), *expected):
        raise ValueError(
            f"`decoder` must return the parameters of a {type(likelihood).__name__} likelihood for "
            f"such data, (batch, {', '.join(map(str, expected))}). Received: shape={params.shape}"
        )
    binary = type(likelihood).__name__ in ("Bernoulli", "ContinuousBernoulli")
    probabilities = bool(binary and params.min() >= 0.0 and params.max() <= 1.0)
    subject = kind(encoder, decoder, likelihood, size, probabilities, name)
    if binary:
        meaning = "probabilities" if probabilities else "logits"
        subject.notes.append(f"The decoder's outputs were taken for {meaning}.")
    subject.notes.append(_STANDARD_PRIOR)
    return subject


def _saved_model(path, data, likelihood):
    details = path / "assets.extra" / "vaezoo.json"
    if not (path / "saved_model.pb").is_file() or not details.is_file():
        raise ValueError(
            "`model` must be the path of a SavedModel that `VAE.export` wrote. Received: "
            f"{str(path)!r}"
        )
    if data is None or len(data) == 0:
        raise ValueError("`data` must come with a SavedModel. Received: none")
    import tensorflow as tf

    try:
        held = json.loads(details.read_text("utf-8"))
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise ValueError(f"'{details}' is broken: it is no JSON object. Export the model again")
    details = held
    loaded = tf.saved_model.load(str(path))
    encode, decode = loaded.signatures["encode"], loaded.signatures["decode"]
    _check_parts(details, encode.structured_outputs)
    traceable = keras.backend.backend() == "tensorflow"
    convert = (lambda x: x) if traceable else np.asarray

    def encoder(x):
        outputs = encode(x=tf.cast(tf.convert_to_tensor(convert(x)), "float32"))
        return {name: convert(value) for name, value in outputs.items()}

    def decoder(z):
        return convert(decode(z=tf.cast(tf.convert_to_tensor(convert(z)), "float32"))["x"])

    kind = _PairSubject if traceable else _ForeignSubject
    observed = _observed_likelihood(details, likelihood)
    subject = _probed(kind, encoder, decoder, data, observed, None, path.name)
    if details.get("prior") == "IsotropicNormal":
        subject.set_prior(IsotropicNormal(details["prior_scale"]))
    # Keeps the functions' resources alive.
    subject.loaded = loaded
    return subject


def _check_parts(details, posterior):
    """Raises an error for a SavedModel whose signatures do not give its densities."""
    if "base_mean" in posterior:
        what = "the posterior of a flow, whose density only its model knows"
    elif details.get("autoregressive", False):
        what = "an autoregressive decoder, which has to see what it decodes"
    elif details.get("prior", "StandardNormal") not in ("StandardNormal", "IsotropicNormal"):
        what = f"a prior of its own, {details['prior']}"
    else:
        return
    raise ValueError(
        "`model` must be the VAE itself, because its SavedModel lacks a density. "
        f"Received: a SavedModel with {what}"
    )


def _observed_likelihood(details, likelihood):
    """The likelihood whose parameters a SavedModel's `decode` returns: it returns means."""
    if likelihood is not None:
        return likelihood
    name, scale = details.get("likelihood"), details.get("likelihood_scale")
    if name == "Bernoulli":
        return "bernoulli"
    if name == "Gaussian" and scale is not None:
        return Gaussian(scale=scale)
    raise ValueError(
        "`likelihood` must be given for this SavedModel: its `decode` returns means only, which "
        f"do not define its likelihood. Received: likelihood=None, a model of {name}"
    )


def _to_numpy(value):
    return None if value is None else ops.convert_to_numpy(value)


def check_array(name: str, value: Any) -> Array:
    """The array `(N, *event)` of at least two examples that `value` is, in NumPy.

    Raises:
        TypeError: If it is no array of real numbers.
        ValueError: If the shape is another.
    """
    value = unframed(value)
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise TypeError(
            f"`{name}` must be an array of shape (N, *event). Received: {type(value).__name__}"
        )
    array = value if isinstance(value, np.ndarray) else ops.convert_to_numpy(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype={array.dtype}")
    if len(array.shape) < 2 or len(array) < 2:
        raise ValueError(
            f"`{name}` must have shape (N, *event) with at least 2 examples. Received: "
            f"shape={array.shape}"
        )
    return array


def check_finite(name: str, array: Array) -> Array:
    """Returns an array of finite numbers as it is.

    Raises:
        ValueError: If there are others in it.
    """
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"`{name}` must hold finite numbers. Received: NaN or infinity among its values"
        )
    return array


def check_shape(encoder: Any, data: ArrayLike) -> Array:
    """Returns an array as it is.

    Raises:
        ValueError: If the encoder says which shape it takes, and that is another.
    """
    expected = getattr(encoder, "input_shape", None)
    if isinstance(expected, tuple):
        sizes = zip(expected[1:], data.shape[1:], strict=False)
        if len(expected) != data.ndim or any(size not in (None, got) for size, got in sizes):
            raise ValueError(
                "`data` must have the shape that the encoder takes, (N"
                + "".join(f", {size}" for size in expected[1:])
                + f"). Received: shape={data.shape}"
            )
    return data


def event_size(data: ArrayLike) -> int:
    """Returns the number of values of an example."""
    return math.prod(data.shape[1:])
