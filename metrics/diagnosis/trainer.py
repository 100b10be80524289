"""Trains an encoder and a decoder of any kind by a bound, as the doctor tries things out."""

from __future__ import annotations

import contextlib
import math
import random
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from ...layers import MeanBatchNorm, VarianceDropout
from ...losses import DiagonalGaussian, kl_divergence, kl_per_dimension
from ..subject import PROBABILITY_MARGIN, posterior_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...core.types import Array
    from ...layers.likelihoods import Likelihood

#: Examples of a training step, and steps in one call of the compiled function.
BATCH, STEPS_AT_ONCE = 64, 10
#: Steps between two looks at the clock.
STEPS_AT_A_TIME = 100


class Changes(NamedTuple):
    """What a training has that another one does not.

    Attributes:
        beta: Weight of the KL.
        ramp: Share of the steps over which that rises from 0.
        free_bits: Floor of the KL of each dimension, in nats.
        gamma: Size that batch normalization gives to the means, or None.
        keep_prob: Of `VarianceDropout` on the log variances, or None.
        sample: Whether codes are drawn.
        scale: `"optimal"` for the maximum-likelihood scale of a Gaussian, None for the given one.
        clip: Norm to which gradients are clipped, or None.
        rate: Factor of the learning rate.
        unlimited: Whether activations of the encoder's outputs are taken off.
    """

    beta: float = 1.0
    ramp: float = 0.0
    free_bits: float = 0.0
    gamma: float | None = None
    keep_prob: float | None = None
    sample: bool = True
    scale: str | None = None
    clip: float | None = None
    rate: float = 1.0
    unlimited: bool = False


@keras.saving.register_keras_serializable(package="vaezoo")
class Pair(keras.Model):
    """A VAE of an encoder `x -> (mean, log_var)` and a decoder `z -> parameters`.

    Args:
        encoder: Keras model.
        decoder: Keras model.
        likelihood: `Likelihood`.
        latent_dim: D.
        probabilities: Whether the decoder gives probabilities.
        changes: `Changes`.
        steps: Steps that it will be trained for.
    """

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        likelihood: Likelihood,
        latent_dim: int,
        probabilities: bool = False,
        changes: Changes | None = None,
        steps: int = 1,
    ) -> None:
        super().__init__(name="trial")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim, self.probabilities = latent_dim, probabilities
        self.changes, self.steps = changes or Changes(), steps
        self.noise = keras.random.SeedGenerator(0)
        self.taken = self.add_weight(shape=(), name="taken", initializer="zeros", trainable=False)
        self.mean_norm = self.variance_dropout = None
        if self.changes.gamma is not None:
            self.mean_norm = MeanBatchNorm(self.changes.gamma)
            self.mean_norm.build((None, latent_dim))
        if self.changes.keep_prob is not None:
            self.variance_dropout = VarianceDropout(self.changes.keep_prob, seed=0)
            self.variance_dropout.build((None, latent_dim))
        if likelihood is not None and not likelihood.built:
            likelihood.build(None)
        self.built = True

    def posterior(self, x: Any, training: bool = False) -> DiagonalGaussian:
        """The posterior of a batch."""
        mean, log_var = posterior_from(self.encoder(x, training=training))[:2]
        if self.mean_norm is not None:
            mean = self.mean_norm(mean, training=training)
        if self.variance_dropout is not None:
            log_var = self.variance_dropout(log_var, training=training)
        return DiagonalGaussian(mean, log_var)

    def params(self, z: Any, training: bool = False) -> Any:
        """The likelihood's parameters `(batch, 1, *event)` of `z (batch, D)`."""
        params = ops.cast(self.decoder(z, training=training), "float32")
        if self.probabilities:
            inside = ops.clip(params, PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN)
            params = ops.log(inside) - ops.log1p(-inside)
        return params[:, None]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Distortion and KL, as `changes` has them."""
        changes = self.changes
        q = self.posterior(x, training)
        z = q.mean
        if changes.sample:
            noise = keras.random.normal(ops.shape(z), seed=self.noise)
            z = z + ops.exp(0.5 * ops.clip(q.log_var, -60.0, 40.0)) * noise
        params = self.params(z, training)
        distortion = -ops.mean(self.likelihood.training_log_prob(x, params))
        if changes.free_bits > 0.0:
            by_dimension = ops.mean(kl_per_dimension(q), axis=0)
            rate = ops.sum(ops.maximum(by_dimension, changes.free_bits))
        else:
            rate = ops.mean(kl_divergence(q))
        beta = changes.beta
        if changes.ramp > 0.0:
            share = self.taken / (changes.ramp * self.steps)
            beta = beta * ops.minimum(1.0, share)
        self.taken.assign_add(1.0)
        return distortion + beta * rate + sum(self.losses)

    def call(self, x: Any, training: bool = False) -> Any:
        """The parameters of the likelihood at the mean."""
        return self.params(self.posterior(x, training).mean, training)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[Any]:
    """Within it new weights are those of a seed; the state of other draws is left as it was."""
    state = random.getstate()
    # Where Keras takes the seeds of initializers and layers from that are given none.
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def fresh(network: Any) -> Any:
    """A network of the same form with new weights.

    Raises:
        TypeError: If it is no Keras model that can be made anew.
    """
    if not isinstance(network, keras.layers.Layer):
        raise TypeError(
            "`model` must consist of Keras models, which can be made anew. Received: "
            f"{type(network).__name__}"
        )
    try:
        if isinstance(network, keras.Model):
            return keras.models.clone_model(network)
        return type(network).from_config(network.get_config())
    except Exception as error:
        raise TypeError(
            "`model` must consist of Keras models that `get_config` can tell. Received: "
            f"{type(network).__name__}, which raises {type(error).__name__}: {error}"
        ) from error


def copied(network: Any) -> Any:
    """A network of the same form and weights."""
    copy = fresh(network)
    copy.set_weights(network.get_weights())
    return copy


def train(
    model: keras.Model,
    x: Array,
    steps: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    seconds: float | None = None,
    batch_size: int = BATCH,
    clip: float | None = None,
    losses: list[float] | None = None,
) -> int:
    """Trains a model for so many steps, or so many seconds of time if those are over first.

    Args:
        model: Keras model; trained as it was compiled, if it was.
        x: Rows; those of a model that was compiled with a loss are its targets, too.
        steps: Steps.
        learning_rate: Of Adam, for a model that was not compiled.
        seed: Of the order of the rows.
        seconds: Time after which it ends, or None.
        batch_size: Rows of a step.
        clip: Norm to which gradients are clipped, or None; for a model that was not compiled.
        losses: Optional list that takes the mean loss of each hundred steps.

    Returns:
        Steps that were taken.
    """
    # Nothing is compiled by XLA: that takes longer than such a training.
    if not model.compiled:
        model.compile(
            keras.optimizers.Adam(learning_rate, clipnorm=clip),
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
            steps_per_execution=STEPS_AT_ONCE,
        )
    rows, rng = min(batch_size, len(x)), np.random.default_rng(seed)
    # All batches are whole: nothing is traced twice.
    passes = -(-steps * rows // len(x))
    order = np.concatenate([rng.permutation(len(x)) for _ in range(passes)])[: steps * rows]
    start, taken = time.monotonic(), 0
    while taken < steps and (seconds is None or time.monotonic() - start < seconds):
        chosen = order[taken * rows : (taken + STEPS_AT_A_TIME) * rows]
        given = {"x": x[chosen]}
        if getattr(model, "loss", None) is not None:
            given["y"] = given["x"]
        with warnings.catch_warnings():
            # The training goes on with the next rows, in which a schedule may end.
            warnings.filterwarnings("ignore", message="`beta` reaches")
            found = model.fit(**given, batch_size=rows, shuffle=False, verbose=0)
        if losses is not None:
            # A training step of its user may report it under another name, or not at all.
            values = found.history.get("loss") or next(iter(found.history.values()), [math.nan])
            losses.append(float(values[-1]))
        taken += len(chosen) // rows
    return taken
