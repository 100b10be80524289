"""Inference with the model class: codes, reconstructions, new data and densities."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.checks import check_choice, check_flag, check_integer, check_seed
from ...core.compile import compiled, padded, rows_to_compile
from ...core.conditions import conditions_of, num_rows, with_data
from ...core.progress import tracked
from ...core.random import StatelessSeed
from ...losses.importance_weighting import CHUNK, weigh_draws
from .decoding import check_beam, draw_options, interpolate_latents
from .inputs import is_traced, read_codes, read_inputs, read_scored
from .memory import explains_memory

if TYPE_CHECKING:
    from typing import Any

    # What it uses of `VAE`.
    from keras import Model as _Model

    from ...core.types import Array, ArrayLike, FilePath, Posterior, Seed, Tensor
    from ...losses.objective import Terms
else:
    _Model = object


class Inference(_Model):
    """Base class of `VAE` for inference: encodes, decodes, draws data, estimates densities.

    `VAE` defines the parts, `params` and `terms`. Training is elsewhere, in `Training`.
    """

    @explains_memory
    def encode(self, x: Tensor, batch_size: int | None = None) -> Posterior:
        """The posterior q(z|x) in inference mode; takes no random draw.

        Args:
            x: `(batch, *event)`.
            batch_size: If given, arrays are worked through in compiled batches of this size and
                NumPy comes back; otherwise the whole of `x` is encoded at once, differentiably.

        Returns:
            Posterior value: `.mean (batch, D)` and its other parameters.
        """
        x = read_inputs(self, x)
        self._build_for(x)
        if batch_size is not None:
            return self._in_batches("encode", self.encode, x, batch_size)
        return self.head.posterior(self.features(x))

    @explains_memory
    def decode(
        self,
        z: Tensor,
        batch_size: int | None = None,
        beam_size: int | None = None,
        length_penalty: float = 0.0,
        return_log_prob: bool = False,
        condition: Any = None,
    ) -> Any:
        """The likelihood's mean E[x|z]; `model.decoder` gives its parameters.

        An autoregressive decoder has no such mean at hand: it decodes greedily, every value being
        the likelihood's mode given those before it. One of text can look for a more probable
        sentence among several at once.

        Args:
            z: `(batch, D)` or `(batch, K, D)`.
            batch_size: As in `encode`.
            beam_size: Positive int, sentences under consideration; None decodes greedily.
            length_penalty: Non-negative float, how much a longer sentence may be less probable:
                see `LSTMDecoder.beam_search`.
            return_log_prob: Whether a search returns log p(x|z), too.
            condition: Of a conditional model, what to decode under, as in `generate`.

        Returns:
            `(batch, *event)` or `(batch, K, *event)`; `(x, log_prob)` under `return_log_prob`, in
            nats, `(batch,)` or `(batch, K)`.

        Raises:
            ValueError: If the last axis of `z` is not `latent_dim`, an option of the search is out
                of range, or the decoder has no search.
        """
        z = read_codes(self, z)
        self._build_for()
        z = self._codes(z, condition)
        return self.decode_codes(z, batch_size, beam_size, length_penalty, return_log_prob)

    def _codes(self, z, condition):
        """Codes as the decoder takes them, of conditions as the user gives them."""
        if not self.conditional and condition is None:
            return z
        if not is_traced(condition):
            condition = self._read_condition(condition, len(z))
        return self.codes(ops.convert_to_tensor(z), condition)

    def _read_condition(self, condition, rows):
        if self.conditional:
            return self.encoder.read_given(condition, rows)
        if condition is not None:
            raise ValueError(
                "`condition` must be None: the model is not conditional; give it a "
                f"`layers.ConditionalEncoder`. Received: a {type(condition).__name__}"
            )
        return None

    def decode_codes(
        self,
        z: Tensor,
        batch_size: int | None = None,
        beam_size: int | None = None,
        length_penalty: float = 0.0,
        return_log_prob: bool = False,
    ) -> Any:
        """As `decode`, of what `codes` returns."""
        if beam_size is not None or return_log_prob:
            found = self._searched(z, batch_size, beam_size, length_penalty)
            return found if return_log_prob else found[0]
        if batch_size is not None:
            return self._in_batches("decode", self.decode_codes, z, batch_size)
        if self.autoregressive:
            x = self._greedy(ops.reshape(z, (-1, self.code_size)))
            return x if len(z.shape) == 2 else ops.reshape(x, (-1, *z.shape[1:2], *x.shape[1:]))
        if len(z.shape) == 2:
            return self.likelihood.mean(self.decoder(z, training=False))
        return self.likelihood.mean(self.params_of_codes(z))

    def _searched(self, z, batch_size, beam_size, length_penalty):
        if beam_size is None:
            raise ValueError("`return_log_prob` needs a `beam_size`. Received: beam_size=None")
        check_beam(self.decoder, beam_size, length_penalty)
        codes = ops.reshape(z, (-1, self.code_size))

        def search(codes, length_penalty):
            return self.decoder.beam_search(codes, beam_size, length_penalty)

        length_penalty = np.float32(length_penalty)
        if batch_size is None:
            x, log_prob = search(codes, length_penalty)
        else:
            name, options = f"beam_{beam_size}", (length_penalty,)
            x, log_prob = self._in_batches(name, search, codes, batch_size, options=options)
        if len(z.shape) == 2:
            return x, log_prob
        reshape = ops.reshape if batch_size is None else np.reshape
        return tuple(reshape(v, (-1, *z.shape[1:2], *v.shape[1:])) for v in (x, log_prob))

    def _greedy(self, z):
        nothing = ops.zeros((ops.shape(z)[0], *self.decoder.grid, 1), "float32")
        return self.decoder.generate(z, lambda params, _: self.likelihood.mode(params), nothing)

    @explains_memory
    def reconstruct(self, x: Any, batch_size: int = 256, condition: Any = None) -> Array:
        """Decodes the posterior mean: NumPy `(batch, *event)`.

        Args:
            x: `(batch, *event)`.
            batch_size: Examples at once.
            condition: Of a conditional model, what to decode under in place of the conditions in
                `x`, as in `generate`.
        """
        x = read_inputs(self, x)
        self._build_for(x)
        if condition is None:
            return self._in_batches("reconstruct", self._reconstruct, x, batch_size)
        condition = self._read_condition(condition, num_rows(x))
        pair = {"x": x, "condition": condition}
        return self._in_batches("reconstruct_other", self._reconstruct_other, pair, batch_size)

    def _reconstruct(self, x):
        return self.decode_codes(self.codes(self.encode(x).mean, x))

    def _reconstruct_other(self, pair):
        return self.decode_codes(self.codes(self.encode(pair["x"]).mean, pair["condition"]))

    @explains_memory
    def interpolate(
        self,
        a: ArrayLike,
        b: ArrayLike,
        steps: int = 8,
        batch_size: int = 256,
        path: str = "linear",
        condition: Any = None,
    ) -> Array:
        """Decodes codes between the posterior means of two examples.

            z_t = (1 - t) E[z|a] + t E[z|b],   t = 0, 1 / (steps - 1), ..., 1

        The first and the last are the reconstructions of a and b.

        Args:
            a: `(batch, *event)`.
            b: `(batch, *event)`, their counterparts; sentences may have another length.
            steps: Int of at least 2, points on each way, both ends included.
            batch_size: Examples at once.
            path: `"linear"`, or `"spherical"`: along the arc of the angle between the two codes,
                where the codes of N(0, I) lie.
            condition: Of a conditional model, what to decode under all the way, as in `generate`.
                By default the features of the conditions go from those of a to those of b.

        Returns:
            NumPy `(batch, steps, *event)`.

        Raises:
            ValueError: If an argument is out of range, or the data do not fit.

        Reference: White (2016), section 2.1, arXiv:1609.04468 (`"spherical"`).
        """
        steps = check_integer("steps", steps)
        if steps < 2:
            raise ValueError(f"`steps` must be at least 2. Received: steps={steps}")
        check_choice("path", path, ("linear", "spherical"))
        batch_size = check_integer("batch_size", batch_size)
        a, b = read_inputs(self, a, "a"), read_inputs(self, b, "b")
        rows = num_rows(a)
        if rows != num_rows(b):
            raise ValueError(
                "`a` and `b` must hold as many examples as each other. Received: "
                f"{rows} and {num_rows(b)}"
            )
        if condition is not None or not self.conditional:
            given = self._read_condition(condition, rows)
            conditions = [given, given]
        else:
            conditions = [conditions_of(x) for x in (a, b)]
        ends = [self.encode(x, batch_size).mean for x in (a, b)]
        codes = _path(ends, steps, path)
        if self.conditional:
            # Features of conditions lie on no sphere.
            features = [
                self._in_batches("embed", self.encoder.embed, values, batch_size)
                for values in conditions
            ]
            codes, features = (
                values.reshape(rows * steps, -1)
                for values in (codes, _path(features, steps, "linear"))
            )
            codes = self._beside(codes, features, batch_size)
        x = self.decode_codes(codes.reshape(-1, self.code_size), batch_size)
        return x.reshape(rows, steps, *x.shape[1:])

    @explains_memory
    def generate(
        self,
        num: int,
        seed: int | None = None,
        mean: bool = True,
        batch_size: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        progress: bool = False,
        condition: Any = None,
    ) -> Any:
        """New data from the prior.

            z ~ p(z),   x = E[x|z]   or   x ~ p(x|z)

        An autoregressive decoder draws x, value by value, in one compiled loop; its mean is that of
        each value given the drawn ones before it. Text has no mean and is always drawn.

        Args:
            num: Positive int, how many.
            seed: Optional int; equal seeds give equal data, here and in the exported `sample`.
            mean: Whether to return the likelihood's mean or a draw from it.
            batch_size: Codes decoded at once.
            temperature: Positive float: classes (tokens, gray levels of `Categorical`) are drawn
                with logits divided by it; below 1 the probable ones more often.
            top_k: Positive int: each class is drawn among the `top_k` most probable ones; None or
                0 keeps all.
            top_p: Float in (0, 1]: each class is drawn among the most probable ones that together
                hold the probability `top_p`.
            progress: Whether to show a progress bar with the time left, on a terminal.
            condition: Of a conditional model, what to draw under: one condition for all, or `num`
                of them, such as a label or an array of labels. Of several conditions a dict.

        Returns:
            NumPy `(num, *event)`.

        Raises:
            ValueError: If `num` or `batch_size` is below 1, `seed` or another option out of range,
                one is given where no classes are drawn, or the model not built.
        """
        num = check_integer("num", num)
        batch_size, mean = check_integer("batch_size", batch_size), check_flag("mean", mean)
        label = f"{num:,} samples" if check_flag("progress", progress) else None
        self._require_built("generate")
        seed = _seed(seed)
        mean = mean and self.likelihood.has_mean
        options = draw_options(self.likelihood, temperature, top_k, top_p, drawn=not mean)
        rows = rows_to_compile(int(num), noise=True) if self.prior.nested_draws else int(num)
        condition = self._read_condition(condition, num)
        z = ops.convert_to_numpy(self.prior.sample(rows, StatelessSeed(seed)))[:num]
        if condition is not None:
            features = self._in_batches("embed", self.encoder.embed, condition, batch_size)
            z = self._beside(z, features, batch_size)
        if mean and not self.autoregressive:
            return self._in_batches("decode", self.decode_codes, z, batch_size, label=label)
        values = self._drawn(z, seed, batch_size, options, label)
        if mean:
            means = self._compiled("means", self._means)
            return self._over_batches(
                lambda z, values, start: means(z, values), (z, values), batch_size, label=label
            )
        return values

    def _beside(self, z, features, batch_size):
        """Codes as the decoder takes them, of features of conditions, in NumPy."""

        def place(pair):
            return self.codes_of_features(pair["z"], pair["features"])

        return self._in_batches("place", place, {"z": z, "features": features}, batch_size)

    def _drawn(self, z, seed, batch_size, options=(), label=None):
        """Draws from p(x|z), in NumPy."""
        # Tensors, so that no value of an option needs another function.
        options = [ops.convert_to_tensor(option) for option in options]
        if not self.autoregressive:
            draw = self._compiled("draw", self._draw)
            return self._over_batches(
                lambda batch, start: draw(batch, np.uint32(seed), np.uint32(1 + start), *options),
                (z,),
                batch_size,
                noise=True,
                label=label,
            )
        # Outside of XLA, whose random numbers differ from a SavedModel's.
        (codes,) = padded((z,), rows_to_compile(len(z), noise=True))
        uniform = self._compiled("noise", self.draw_noise)(codes, np.uint32(seed))
        uniform = ops.convert_to_numpy(uniform)[: len(z)]
        draw = self._compiled("ancestral", self.draw_from_noise, xla=True)
        return self._over_batches(
            lambda z, uniform, start: draw(z, uniform, *options),
            (z, uniform),
            batch_size,
            xla=True,
            label=label,
        )

    def _draw(self, z, seed, stream, *options):
        params = self.decoder(z, training=False)
        return self.likelihood.sample(params, StatelessSeed(seed, stream), *options)

    def draw_noise(self, z: Tensor, seed: Seed) -> Tensor:
        """The noise of `draw_from_noise` for codes `z (batch, ...)`, `(batch, *grid, N)`."""
        numbers = self.likelihood.num_uniforms(self.decoder.channels)
        shape = (ops.shape(z)[0], *self.decoder.grid, numbers)
        # Away from the ends, where quantiles are infinite.
        return keras.random.uniform(
            shape, 1e-6, 1.0 - 1e-6, dtype="float32", seed=StatelessSeed(seed, 1)
        )

    def draw_from_noise(self, z: Tensor, uniform: Tensor, *options: Any) -> Tensor:
        """An autoregressive decoder's draw from p(x|z) as a function of uniform noise.

        Args:
            z: What `codes` returns, `(batch, D)` without conditions.
            uniform: `draw_noise`.
            *options: What `likelihood.from_uniform` takes beside noise.
        """

        def draw(params, uniform):
            return self.likelihood.from_uniform(params, uniform, *options)

        return self.decoder.generate(z, draw, uniform)

    def _means(self, z, x):
        return self.likelihood.mean(self.params_of_codes(z[:, None], x)[:, 0])

    @explains_memory
    def log_terms(
        self,
        x: Tensor,
        num_samples: int = 1,
        seed: int | None = None,
        batch_size: int | None = None,
        target: ArrayLike = None,
    ) -> Terms:
        """The densities of `x` under K posterior draws in inference mode.

        Args:
            x: `(batch, *event)`.
            num_samples: Positive int K.
            seed: Optional int.
            batch_size: As in `encode`; the data are then checked, too.
            target: As in `log_prob`.

        Returns:
            `Terms`, in nats.

        Raises:
            ValueError: If `num_samples` is below 1 or `seed` out of range.
        """
        num_samples = check_integer("num_samples", num_samples)
        seed = _seed(seed)
        if batch_size is None:
            tensors = (x,) if target is None else (x, target)
            return self._log_terms(*tensors, seed, 0, num_samples=num_samples)
        batch_size = check_integer("batch_size", batch_size)
        arrays = read_scored(self, x, target)
        self._build_for(arrays[0])
        function = functools.partial(self._log_terms, num_samples=num_samples)
        terms = self._compiled(f"log_terms_{num_samples}_{len(arrays)}", function)
        return self._over_batches(
            lambda *inputs: terms(*inputs[:-1], np.uint32(seed), np.uint32(inputs[-1])),
            arrays,
            batch_size,
            noise=True,
        )

    def _log_terms(self, x, *arguments, num_samples):
        *target, seed, stream = arguments
        observed = with_data(x, target[0]) if target else x
        posterior = self.encode(x)
        noise = StatelessSeed(seed, stream)
        return self.terms(observed, self._sampled(observed, posterior, num_samples, noise))

    @explains_memory
    def log_prob(
        self,
        x: Tensor,
        num_samples: int = 100,
        seed: int = 0,
        batch_size: int = 64,
        target: ArrayLike = None,
    ) -> Array:
        """Importance-weighted estimate of the log-likelihood of each example.

            log p(x) ~ logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ] - log K    (nats)

        In expectation a lower bound that rises with K. Examples are encoded once; draws are taken
        a few at a time, so memory does not depend on K.

        Args:
            x: `(batch, *event)`.
            num_samples: Positive int K.
            seed: Int that fixes the draws.
            batch_size: Examples at once.
            target: Optional array of the shape of `x`: what x is to be turned into, such as clean
                images from noisy ones. Its likelihood is estimated then, with q(z|x) of `x`.

        Returns:
            NumPy float32 `(batch,)`.

        Raises:
            ValueError: If `num_samples` is below 1, `seed` out of range, the data do not fit, or
                the posterior is deterministic.

        Reference: Burda et al. (2016), eq. 8, arXiv:1509.00519.
        """
        num_samples = check_integer("num_samples", num_samples)
        batch_size = check_integer("batch_size", batch_size)
        seed = _seed(seed)
        self.check_density()
        arrays = read_scored(self, x, target)
        self._build_for(arrays[0])

        def of_target(x, target, *numbers):
            return self.score(x, *numbers, target=target)

        function = self.score if target is None else of_target
        score = self._compiled(f"score_{len(arrays)}", function)
        numbers = np.int32(num_samples), np.int32(seed)
        return self._over_batches(
            lambda *inputs: score(*inputs[:-1], *numbers, np.int32(inputs[-1])),
            arrays,
            batch_size,
            noise=True,
        )

    def check_density(self) -> None:
        """Raises a `ValueError` if the posterior is deterministic and x has no estimate."""
        if not self.head.has_density:
            raise ValueError(
                "`log_prob` needs a posterior with a density; a deterministic encoder has none. "
                f"Received: head={type(self.head).__name__}"
            )

    def score(
        self,
        x: Tensor,
        num_samples: Tensor,
        seed: Tensor,
        offset: Tensor = 0,
        target: ArrayLike = None,
    ) -> Array:
        """The computation behind `log_prob`, on tensors, for one batch.

        Args:
            x: `(batch, *event)`.
            num_samples: Int scalar K.
            seed: Int scalar.
            offset: Int scalar, number of the first example; separates the noise of batches.
            target: As in `log_prob`.

        Returns:
            Float32 tensor `(batch,)`.
        """
        posterior = self.encode(x)
        x = x if target is None else with_data(x, target)

        def densities(noise):
            terms = self.terms(x, self._sampled(x, posterior, CHUNK, noise))
            return terms.log_px, terms.log_pz, terms.log_qz

        return weigh_draws(densities, posterior.mean[:, 0], num_samples, seed, offset).log_prob

    def export(self, filepath: FilePath, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes a SavedModel that serves without vaezoo; see `export_saved_model`."""
        from .export import export_saved_model

        export_saved_model(self, filepath, format, **kwargs)

    def _compiled(self, name, function, xla=False):
        if name not in self.compiled_functions:
            self.compiled_functions[name] = compiled(self, function, xla)
        return self.compiled_functions[name]

    def _in_batches(self, name, function, values, batch_size, seed=None, options=(), label=None):
        batch_size = check_integer("batch_size", batch_size)
        if num_rows(values) == 0:
            raise ValueError("There must be at least one example. Received: none")
        # Pixel by pixel in one loop, whose caches XLA updates in place.
        xla = self.autoregressive and name.startswith(("decode", "reconstruct", "beam"))
        run = self._compiled(name, function, xla)
        options = [ops.convert_to_tensor(option) for option in options]

        def call(batch, start):
            noise = () if seed is None else (np.uint32(seed), np.uint32(start))
            return run(batch, *noise, *options)

        return self._over_batches(call, (values,), batch_size, xla, seed is not None, label)

    def _over_batches(self, function, arrays, batch_size, xla=False, noise=False, label=None):
        """Applies a compiled function to arrays in batches of few sizes, and returns NumPy.

        Args:
            function: Function of a tensor of each array and of the number of the batch's first
                row, which keeps the noise of batches apart. Returns a structure of tensors, batch
                first, or of None.
            arrays: Arrays, tensors or dicts of them, of equal lengths.
            batch_size: Positive int.
            xla: As in `rows_to_compile`.
            noise: As in `rows_to_compile`.
            label: As in `tracked`.
        """
        length, parts = num_rows(arrays), []
        for start in tracked(range(0, length, batch_size), label):
            flat = keras.tree.flatten(arrays)
            batch = [array[start : start + batch_size] for array in flat]
            rows = len(batch[0])
            size = rows_to_compile(rows, batch_size, xla, noise)
            # A batch of this size has been compiled for by now.
            batch = padded(batch, batch_size if start and size > rows else size)
            batch = list(map(ops.convert_to_tensor, batch))
            result = function(*keras.tree.pack_sequence_as(arrays, batch), start)
            parts.append(keras.tree.map_structure(lambda v, n=rows: _to_numpy(v, n), result))
        return keras.tree.map_structure(
            lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *parts
        )

    def _require_built(self, method):
        if not self.built:
            raise ValueError(
                f"`{method}` needs a built model: fit it, load it, or call it on a batch first."
            )


def _path(ends, steps, path):
    rows = len(ends[0])
    first, last = padded(ends, rows_to_compile(rows))
    return ops.convert_to_numpy(interpolate_latents(first, last, steps, path))[:rows]


def _to_numpy(value, rows):
    # Terms without a closed form are None.
    return None if value is None else ops.convert_to_numpy(value)[:rows]


def _seed(seed):
    """The user's seed, or one at random."""
    seed = check_seed("seed", seed)
    return np.random.randint(2**31) if seed is None else seed
