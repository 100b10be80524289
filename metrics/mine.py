"""An estimate of the mutual information that needs no density: a critic is trained to find it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_integers, check_real, check_seed
from ..core.compile import compiled
from ..core.frames import unframed
from ..core.serialization import ArgumentsConfig
from ..losses import FlowGaussian
from .estimate import Estimate
from .gaussians import gaussians_of, generator
from .inputs import encoded, flow_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import Tensor
    from ..layers.likelihoods import Likelihood

#: Cyclic shifts of the held-out codes, for pairs that do not belong together.
_SHIFTS = 32
#: Pairs scored at once.
_ROWS = 4096


def mine(
    model_or_x: Any,
    data_or_z: Any,
    *,
    decoder: Callable[..., Any] | None = None,
    likelihood: str | Likelihood | None = None,
    hidden_units: Sequence[int] = (64, 64),
    epochs: int = 20,
    learning_rate: float = 1e-3,
    decay: float = 0.99,
    held_out: float = 0.25,
    batch_size: int = 256,
    seed: int = 0,
    verbose: int = 0,
) -> Estimate:
    """Lower bound of the mutual information of x and z by a trained critic T (MINE).

        I >= E_{p(x, z)} T(x, z) - log E_{p(x) p(z)} exp T(x, z)    (nats)

    A check of `mutual_information` that shares nothing with it but the draws: T is a small network
    on (x, z), trained on one part of the pairs and evaluated on the rest, so that what it learned
    by heart does not count. Codes are shuffled against the data for pairs that do not belong
    together. The bound is loose for high information: the log of a mean of n exponentials cannot be
    trusted beyond about log n, and a critic of few examples stays well below.

    Args:
        model_or_x: Samples of x `(N, ...)`; or `VAE`, path of an exported SavedModel, or encoder
            `x -> (mean, log_var)`, whose codes are drawn once per example.
        data_or_z: Samples of z `(N, ...)`, one for each x; or data `(N, *event)` of a model.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.
        hidden_units: Positive ints, widths of the critic's hidden layers.
        epochs: Positive int.
        learning_rate: Positive float, of Adam.
        decay: Float in [0, 1), of the moving average of E exp T that takes the place of the batch's
            own in the gradient, which is biased in small batches.
        held_out: Float in (0, 1), part of the pairs that the bound is evaluated on.
        batch_size: Int of at least 2, pairs per step.
        seed: Int in [0, 2^31) that fixes draws, split, initial weights and order.
        verbose: As in `keras.Model.fit`.

    Returns:
        `Estimate` in nats, over the `count` held-out pairs; the standard error is over those, for
        the critic at hand. `extra`: `training_bound`, the same on pairs trained with.

    Raises:
        TypeError: If samples are not arrays, or the model or data of another kind.
        ValueError: If samples differ in number or are too few, values are not finite, or an
            argument is out of range.

    Reference: Belghazi et al. (2018), eq. 10 and section 3.2, arXiv:1801.04062.
    """
    hidden_units = check_integers("hidden_units", hidden_units)
    epochs = check_integer("epochs", epochs)
    batch_size = check_integer("batch_size", batch_size, 2)
    seed = check_seed("seed", seed, optional=False)
    learning_rate = check_real("learning_rate", learning_rate, "(0, inf)")
    decay = check_real("decay", decay, "[0, 1)")
    held_out = check_real("held_out", held_out, "(0, 1)")
    rng = generator(seed, "mine")
    x, z = _samples(model_or_x, data_or_z, decoder, likelihood, batch_size, rng)
    order = rng.permutation(len(x))
    split = int(round(len(x) * held_out))
    if min(split, len(x) - split) < 2:
        raise ValueError(
            "`held_out` must leave at least 2 pairs on either side. Received: "
            f"held_out={held_out} of {len(x)} pairs"
        )
    test, train = order[:split], order[split:]
    # The information does not depend on the scale, the critic's training does.
    x, z = (_standardized(values, train) for values in (x, z))
    critic = MutualInformationCritic(x.shape[1], z.shape[1], hidden_units, decay, seed)
    critic.compile(optimizer=keras.optimizers.Adam(learning_rate), jit_compile=True)
    pairs = np.concatenate([x, z], axis=1)[train]
    critic.fit(_Batches(pairs, batch_size, rng), epochs=epochs, shuffle=False, verbose=verbose)
    score = compiled(critic, critic.score)
    value, error = _bound(score, x[test], z[test], rng)
    some = rng.permutation(train)[: len(test)]
    return Estimate(
        value=value,
        standard_error=error,
        count=len(test),
        estimator="mine",
        unit="nats",
        settings={
            "hidden_units": list(hidden_units),
            "epochs": epochs,
            "learning_rate": learning_rate,
            "decay": decay,
            "held_out": held_out,
            "batch_size": batch_size,
            "seed": seed,
        },
        extra={"training_bound": _bound(score, x[some], z[some], rng)[0]},
    )


@keras.saving.register_keras_serializable(package="vaezoo")
class MutualInformationCritic(ArgumentsConfig, keras.Model):
    """T(x, z), trained on batches of pairs; each x also meets the z of the row before.

    Args:
        x_size: Positive int F.
        z_size: Positive int D.
        hidden_units: Positive ints, widths of the hidden layers.
        decay: Float in [0, 1), of the moving average of E exp T.
        seed: Int that fixes the initial weights.
        **kwargs: Keyword arguments of `keras.Model`.

    Call arguments:
        inputs: Float tensor `(batch, F + D)`.

    Returns:
        T of the pairs as they are and of those that do not belong together, `(batch, 2)`.
    """

    def __init__(
        self,
        x_size: int,
        z_size: int,
        hidden_units: Sequence[int] = (64, 64),
        decay: float = 0.99,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.x_size, self.z_size, self.hidden_units = x_size, z_size, hidden_units
        self.decay, self.seed = decay, seed
        layers = [
            keras.layers.Dense(
                width,
                activation=activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed + number),
                dtype="float32",
            )
            for number, (width, activation) in enumerate(
                [*((width, "relu") for width in hidden_units), (1, None)]
            )
        ]
        self.network = keras.Sequential([keras.Input((x_size + z_size,)), *layers])
        # Log of the moving average of exp T; an untrained critic is near 0.
        self.log_average = self.add_weight(
            shape=(), initializer="zeros", trainable=False, dtype="float32", name="log_average"
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        x, z = inputs[:, : self.x_size], inputs[:, self.x_size :]
        apart = ops.concatenate([x, ops.roll(z, 1, axis=0)], axis=1)
        return ops.concatenate([self.network(inputs), self.network(apart)], axis=1)

    def score(self, pairs: Any) -> Tensor:
        """T of pairs `(n, F + D)`, `(n, 1)`."""
        return self.network(pairs)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The negative bound's surrogate: its gradient has the moving average below it."""
        together, apart = y_pred[:, 0], y_pred[:, 1]
        size = ops.cast(ops.shape(apart)[0], "float32")
        log_mean = ops.logsumexp(apart) - ops.log(size)
        if training:
            old, new = math.log(self.decay) if self.decay else -math.inf, math.log1p(-self.decay)
            average = ops.logaddexp(old + self.log_average, new + ops.stop_gradient(log_mean))
            self.log_average.assign(average)
        ratio = ops.exp(log_mean - ops.stop_gradient(ops.convert_to_tensor(self.log_average)))
        return ratio - ops.mean(together)


class _Batches(keras.utils.PyDataset):
    """Full batches in an order that follows from the seed: Keras' own is of a global generator."""

    def __init__(self, pairs: Any, batch_size: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.pairs, self.batch_size, self.rng = pairs, min(batch_size, len(pairs)), rng
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.pairs) // self.batch_size

    def __getitem__(self, index: Tensor) -> Any:
        first = index * self.batch_size
        return (self.pairs[self.order[first : first + self.batch_size]],)

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.pairs))


def _bound(score, x, z, rng):
    """The bound over these pairs, and its standard error."""
    size = len(x)

    def scores(z):
        pairs = np.concatenate([x, z], axis=1)
        parts = [score(pairs[first : first + _ROWS]) for first in range(0, size, _ROWS)]
        return np.concatenate([ops.convert_to_numpy(part)[:, 0] for part in parts])

    together = scores(z).astype("float64")
    shifts = rng.choice(np.arange(1, size), min(_SHIFTS, size - 1), replace=False)
    apart = np.stack([scores(np.roll(z, shift, axis=0)) for shift in shifts]).astype("float64")
    peak = np.max(apart)
    weights = np.exp(apart - peak)
    mean = np.mean(weights)
    value = float(np.mean(together) - peak - math.log(mean))
    # Each pair's share in the bound: its own score, and those that its x and its z enter apart.
    of_x = np.mean(weights, axis=0)
    of_z = np.mean([np.roll(w, -s) for w, s in zip(weights, shifts, strict=True)], axis=0)
    share = together - (of_x + of_z) / mean
    return value, float(np.std(share, ddof=1) / math.sqrt(size))


def _samples(source, other, decoder, likelihood, batch_size, rng):
    """Arrays x `(N, F)` and z `(N, D)`."""
    source, other = unframed(source), unframed(other)
    if decoder is None and hasattr(source, "dtype") and hasattr(source, "shape"):
        arrays = {"model_or_x": source, "data_or_z": other}
    else:
        posterior, subject = encoded(source, other, batch_size, decoder, likelihood)
        codes = _codes(posterior, subject, batch_size, rng)
        arrays = {"data_or_z": other, "codes": codes}
    rows = []
    for name, array in arrays.items():
        if not hasattr(array, "dtype") or not hasattr(array, "shape"):
            raise TypeError(f"`{name}` must be an array. Received: {type(array).__name__}")
        array = ops.convert_to_numpy(array)
        if array.ndim < 1 or len(array) < 4:
            raise ValueError(
                f"`{name}` must have shape (N, ...) with at least 4 samples. Received: "
                f"shape={array.shape}"
            )
        if not np.all(np.isfinite(array)):
            raise ValueError(f"`{name}` must be finite. Received: NaN or infinity among them")
        rows.append(array.reshape(len(array), -1).astype("float64"))
    if len(rows[0]) != len(rows[1]):
        raise ValueError(
            "`data_or_z` must have as many samples as `model_or_x`. Received: "
            f"{len(rows[1])} and {len(rows[0])}"
        )
    return rows


def _codes(posterior, subject, batch_size, rng):
    """One draw from each posterior, `(N, D)`."""
    if not isinstance(posterior, FlowGaussian):
        return gaussians_of(posterior, "model_or_x").sample(1, rng)[:, 0]
    subject = flow_subject(posterior, subject, "model_or_x")
    # The mean of one draw is the draw.
    return subject.draw_statistics(posterior, 1, batch_size, int(rng.integers(2**31))).mean


def _standardized(values, train):
    center, scale = values[train].mean(axis=0), values[train].std(axis=0)
    return ((values - center) / np.where(scale > 0.0, scale, 1.0)).astype("float32")
