"""Whether a code would pay at all: an ordinary small VAE on the same data."""

from __future__ import annotations

import hashlib
import math
import time
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from ...layers import Bernoulli, Categorical, ContinuousBernoulli, Gaussian
from ...losses import kl_divergence
from .trainer import Pair, seeded, train

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Array
    from ..subject import ModelAdapter
    from .measure import Measurements

#: Rows that it is trained and scored on at most, steps and seconds at most.
ROWS, STEPS, SECONDS = 2000, 1000, 15.0
#: Steps between two looks at the held-out rows.
LOOK = 100
#: D and units of its two hidden layers.
LATENT_DIM, UNITS = 8, 128
#: Share of the rows that are held out, and draws of each.
HELD_OUT, DRAWS = 0.25, 8

#: Nats below which a code is taken for empty here, and dimensions that may be too few.
EMPTY, FEW = 0.5, 3

_known: dict[tuple[str, str], Reference | None] = {}


class Reference(NamedTuple):
    """What an ordinary VAE reaches on held-out rows of the same data, in nats per example.

    Attributes:
        rate: Of its code.
        bound: Its evidence lower bound.
        gain: The bound less that of the best model without a code, example by example.
        error: Standard error of the gain.
        seconds: Seconds that it took.
    """

    rate: float
    bound: float
    gain: float
    error: float
    seconds: float


def reference(subject: ModelAdapter, data: Array, seed: int = 0) -> Reference | None:
    """Trains the reference model once for the same data; None where there is none for them."""
    likelihood = _likelihood(subject)
    data = np.asarray(subject.values(data))
    if likelihood is None or len(data) < 40 or np.prod(data.shape[1:]) > 50_000:
        return None
    data = data[:ROWS]
    digest = hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()
    key = (digest, f"{type(likelihood).__name__}{data.shape}{data.dtype}")
    if key not in _known:
        _known[key] = _trained(likelihood, data, seed)
    return _known[key]


def wants_reference(found: Measurements) -> bool:
    """Whether a code is so empty, or so small, that a reference model says more of it."""
    if found.facts.get("distinct") == 1 or not math.isfinite(found.value("rate")):
        return False
    information = found.value("mutual_information")
    empty = found.value("rate") < EMPTY or (math.isfinite(information) and information < EMPTY)
    unread = found.value("sensitivity") < EMPTY
    return empty or unread or len(found.arrays["capacity"]) <= FEW


def _likelihood(subject: ModelAdapter) -> Any:
    """The likelihood of the reference: the subject's, with a scale that suits any data."""
    if subject.autoregressive or subject.likelihood is None:
        return None
    own = subject.likelihood
    if isinstance(own, Gaussian):
        return Gaussian("optimal")
    kinds = (Bernoulli, ContinuousBernoulli, Categorical)
    return type(own).from_config(own.get_config()) if isinstance(own, kinds) else None


def _trained(likelihood, data, seed):
    start = time.monotonic()
    order = np.random.default_rng(seed).permutation(len(data))
    held = max(10, round(HELD_OUT * len(data)))
    train_x, test_x = data[order[held:]], data[order[:held]]
    with seeded(seed):
        encoder, decoder = _networks(likelihood, data)
        model = Pair(encoder, decoder, likelihood, LATENT_DIM, steps=STEPS)
    train(model, train_x, LOOK, 2e-3, seed)
    alone, best = _without_code(likelihood, train_x, test_x), None
    while True:
        found = _scored(model, likelihood, test_x, alone)
        if best is None or found[2] > best[2]:
            best, since = found, 0
        else:
            since += 1
        taken = int(model.optimizer.iterations)
        # Few rows are soon known by heart.
        if since >= 2 or taken >= STEPS or time.monotonic() - start > SECONDS:
            return Reference(*best, time.monotonic() - start)
        train(model, train_x, LOOK, 2e-3, seed + taken)


def _scored(model, likelihood, test_x, alone):
    """Rate, bound, gain and its error on held-out rows."""
    q = model.posterior(ops.convert_to_tensor(test_x))
    rate = ops.convert_to_numpy(kl_divergence(q)).astype("float64")
    draws = [
        ops.convert_to_numpy(likelihood.log_prob(test_x, model.params(_draw(q, k))))[:, 0]
        for k in range(DRAWS)
    ]
    bound = np.mean(draws, axis=0) - rate
    gains = bound - alone
    error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    return float(rate.mean()), float(bound.mean()), float(gains.mean()), error


def _draw(q, number):
    noise = keras.random.normal(ops.shape(q.mean), seed=number + 1)
    return q.mean + ops.exp(0.5 * q.log_var) * noise


def _networks(likelihood, data):
    shape = data.shape[1:]
    inputs = keras.Input(shape, dtype=data.dtype.name if data.dtype.kind in "iu" else "float32")
    classes = getattr(likelihood, "num_classes", None)
    h = layers.Embedding(classes, 16)(inputs) if classes else inputs
    h = layers.Flatten()(h)
    if not classes:
        # Of any size and offset.
        h = (h - float(data.mean())) / (float(data.std()) + 1e-6)
    for _ in range(2):
        h = layers.Dense(UNITS, "relu")(h)
    encoder = keras.Model(inputs, [layers.Dense(LATENT_DIM)(h), layers.Dense(LATENT_DIM)(h)])
    z = keras.Input((LATENT_DIM,))
    h = z
    for _ in range(2):
        h = layers.Dense(UNITS, "relu")(h)
    params = likelihood.params_shape(shape)
    h = layers.Dense(int(np.prod(params)))(h)
    if not classes and isinstance(likelihood, Gaussian):
        h = float(data.mean()) + (float(data.std()) + 1e-6) * h
    return encoder, keras.Model(z, layers.Reshape(params)(h))


def _without_code(likelihood, train_x, test_x):
    """Log p(x) of held-out rows if all values were independent, each as often as in training."""
    flat, test = (np.reshape(x, (len(x), -1)) for x in (train_x, test_x))
    if isinstance(likelihood, Categorical):
        counts = np.stack([np.mean(flat == c, axis=0) for c in range(likelihood.num_classes)], -1)
        share = (counts * len(flat) + 0.5) / (len(flat) + 0.5 * likelihood.num_classes)
        return np.sum(np.log(share[np.arange(test.shape[1]), test]), axis=1)
    mean = flat.mean(axis=0, dtype="float64")
    if isinstance(likelihood, Gaussian):
        # One scale for all values, as the reference has.
        variance = max(float(np.mean((flat - mean) ** 2)), 1e-6)
        squares = np.sum((test - mean) ** 2, axis=1) / variance
        return -0.5 * (squares + test.shape[1] * np.log(2 * np.pi * variance))
    shape = test_x.shape[1:]
    inside = np.clip(mean, 0.5 / len(flat), 1.0 - 0.5 / len(flat))
    logits = np.log(inside / (1.0 - inside)).reshape(1, 1, *shape).astype("float32")
    params = np.repeat(logits, len(test_x), axis=0)
    return ops.convert_to_numpy(likelihood.log_prob(test_x, params))[:, 0].astype("float64")
