"""Looks for causes in what measurements of the code alone do not tell.

What it finds are facts: about the data, the outputs of the networks, their weights, and what the
bound would be if one thing were otherwise. `causes` judges them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.random import StatelessSeed
from ...layers import MeanBatchNorm
from ...losses import ELBO, DiagonalGaussian, kl_divergence
from ..estimate import mean_estimate
from ..subject import as_subject, posterior_from
from .memory import rows_at_once
from .trainer import Pair, copied, seeded, train

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Array, ArrayLike
    from ..subject import ModelAdapter
    from .measure import Measurements

#: Rows that are looked at for repetitions and compared with training data.
COMPARED = 2000
#: Examples whose outputs are taken in training mode and decoded under other readings.
PROBED = 256
#: Draws of each.
DRAWS = 8
#: Outputs are at a limit if they come so near to the largest or smallest one, of their spread.
AT_LIMIT = 1e-4
_TINY = 1e-12


def probe_data(found: Measurements, data: Array, train_data: ArrayLike) -> None:
    """Facts about the data: how many rows differ, and how near they are to those trained on."""
    rows = np.reshape(data, (len(data), -1))[:COMPARED]
    found.facts["distinct"] = len(np.unique(rows, axis=0))
    found.facts["rows_compared"] = len(rows)
    found.facts["values"] = rows.shape[1]
    found.facts["low"], found.facts["high"] = float(data.min()), float(data.max())
    if train_data is None:
        return
    known = np.reshape(np.asarray(train_data), (len(train_data), -1))
    if known.shape[1] != rows.shape[1]:
        return
    if known.dtype.kind == "f":
        known = known[np.all(np.isfinite(known), axis=1)]
    known = known[np.random.default_rng(0).permutation(len(known))[:COMPARED]]
    if len(known) < 2:
        return
    own = _nearest(known, known, apart=True)
    limit = float(np.quantile(own, 0.99))
    found.facts["strange"] = float(np.mean(_nearest(rows, known) > limit))


def _nearest(rows, known, apart=False):
    """Distance of each row to the nearest one known, of another place if they are the same."""
    if known.dtype.kind in "iub":
        # Of ids a difference is a difference.
        distances = np.stack([np.sum(known != row, axis=1) for row in rows]).astype("float64")
    else:
        a, b = rows.astype("float64"), known.astype("float64")
        distances = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1)[None] - 2.0 * a @ b.T
    if apart:
        np.fill_diagonal(distances, np.inf)
    return np.min(distances, axis=1)


def weights_not_finite(*parts: Any) -> list[str]:
    """Names of the weights of Keras parts that hold NaN or infinity."""
    return [
        variable.path
        for part in parts
        for variable in getattr(part, "weights", ())
        if not np.all(np.isfinite(ops.convert_to_numpy(variable)))
    ]


def probe_weights(found: Measurements, subject: ModelAdapter) -> None:
    """Facts about the weights: those that still have their first values, and not finite ones."""
    parts = {name: getattr(subject, name, None) for name in ("encoder", "decoder")}
    found.facts["untouched"] = [name for name, part in parts.items() if _untouched(part)]
    found.facts["normalized"] = [
        name for name, part in parts.items() if part is not None and _normalizations(part)
    ]


def _untouched(part):
    """Whether all biases of a network are exactly 0, as no step of training leaves them."""
    layers = part._flatten_layers() if isinstance(part, keras.layers.Layer) else ()
    biases = [
        layer.bias
        for layer in layers
        if getattr(layer, "bias", None) is not None
        and isinstance(getattr(layer, "bias_initializer", None), keras.initializers.Zeros)
    ]
    return bool(biases) and all(not np.any(ops.convert_to_numpy(bias)) for bias in biases)


def _normalizations(part):
    if not isinstance(part, keras.layers.Layer):
        return []
    kinds = keras.layers.BatchNormalization
    return [layer for layer in part._flatten_layers() if isinstance(layer, kinds)]


def probe_encoder(found: Measurements, subject: ModelAdapter, posterior: Any, data: Array) -> None:
    """Facts about the encoder's outputs: their limits, spread, and noise in inference."""
    if not isinstance(posterior, DiagonalGaussian):
        return
    for name, values in (("mean", posterior.mean), ("log_var", posterior.log_var)):
        values = np.asarray(values, "float64")
        spread = np.std(values, axis=0)
        low, high = float(np.min(values)), float(np.max(values))
        width = max(high - low, _TINY)
        # A dimension that is not encoded at all may be 0 for every x.
        varying = values[:, spread > 0.0] if np.any(spread > 0.0) else values
        found.facts[name] = {
            "low": low,
            "high": high,
            "zeros": float(np.mean(varying == 0.0)),
            "at_low": float(np.mean(values - low < AT_LIMIT * width)) if width > _TINY else 1.0,
            "at_high": float(np.mean(high - values < AT_LIMIT * width)) if width > _TINY else 1.0,
            "spread": float(np.max(spread)),
            "lows": np.min(values, axis=0),
            "highs": np.max(values, axis=0),
            "spreads": spread,
        }
    # A row's outputs beside those of the same row elsewhere in the batch.
    few = data[: PROBED // 2]
    both = np.concatenate([few, few])
    modes = [subject.encode(both, 2 * len(few))]
    encoder = getattr(subject, "encoder", None)
    if subject.model is None and isinstance(encoder, keras.layers.Layer):
        # As the user calls it: `training=False` reaches layers of a functional model that were
        # given `training=True`, and switches them off (Keras 3.15).
        with keras.StatelessScope():
            modes.append(posterior_from(encoder(ops.convert_to_tensor(both))))
    found.facts["noise_in_encoder"] = found.facts["noise_sd"] = 0.0
    for twice in modes:
        log_var = np.asarray(ops.convert_to_numpy(twice.log_var), "float64")
        mean = np.asarray(ops.convert_to_numpy(twice.mean), "float64")
        sd = np.exp(0.5 * np.clip(log_var[: len(few)], -40.0, 40.0)) + 1e-6
        apart = mean[: len(few)] - mean[len(few) :]
        relative = float(np.sqrt(np.mean(np.square(apart / sd)) / 2.0))
        if relative > found.facts["noise_in_encoder"]:
            found.facts["noise_in_encoder"] = relative
            found.facts["noise_sd"] = float(np.sqrt(np.mean(np.square(apart)) / 2.0))


def probe_decoder(found: Measurements, subject: ModelAdapter, z: Array) -> None:
    """Facts about the decoder's outputs: whether z moves them at all, and what values they have."""
    if subject.autoregressive or not subject.compiles:
        return
    codes = z[:PROBED, :1]
    wide = np.random.default_rng(0).normal(size=codes.shape).astype("float32")

    def outputs(codes):
        return subject.params(codes, None)

    near, far, again = (
        np.asarray(subject.run("decoder_outputs", outputs, c), "float64")
        for c in (codes, wide, wide)
    )
    size = float(np.std(near)) + float(np.abs(np.mean(near))) + _TINY
    found.facts["decoder_moved"] = float(np.max(np.std(far, axis=0))) / size
    found.facts["noise_in_decoder"] = float(np.sqrt(np.mean(np.square(far - again)))) / size


def probe_readings(
    found: Measurements, subject: ModelAdapter, posterior: Any, data: Array, seed: int
) -> None:
    """The bound if the encoder's second output, or the decoder's, meant something else."""
    if not isinstance(posterior, DiagonalGaussian) or subject.autoregressive:
        return
    if not subject.compiles:
        return
    data = data[:PROBED]
    mean, second = (np.asarray(part[: len(data)]) for part in posterior)
    readings = {"log_var": second, "narrow": np.full_like(second, -20.0)}
    if np.min(second) >= 0.0:
        inside = np.log(np.maximum(second, 1e-6))
        readings |= {"deviation": 2.0 * inside, "variance": inside}
    rows = rows_at_once(subject, data, DRAWS, len(data))
    kinds = [False]
    binary = type(subject.likelihood).__name__ in ("Bernoulli", "ContinuousBernoulli")
    probabilities = getattr(subject, "probabilities", None)
    if binary and probabilities is not None:
        kinds.append(True)

    def terms(other, x, mean, log_var, noise, stream):
        q = DiagonalGaussian(mean, log_var)
        z, _ = subject.sample_and_log_qz(q, DRAWS, StatelessSeed(noise, stream))
        if not other:
            return ops.mean(subject.log_px(x, z), axis=1)
        codes = ops.reshape(z, (-1, subject.latent_dim))
        raw = ops.cast(subject.decoder(codes), "float32")
        raw = ops.reshape(raw, (-1, DRAWS, *raw.shape[1:]))
        if not probabilities:
            inside = ops.clip(raw, 1e-7, 1.0 - 1e-7)
            raw = ops.log(inside) - ops.log1p(-inside)
        return ops.mean(subject.likelihood.log_prob(x, raw), axis=1)

    bounds = {}
    for name, log_var in readings.items():
        clipped = np.clip(log_var, -40.0, 20.0).astype("float32")
        values = subject.run(
            "reading", functools.partial(terms, False), data, mean, clipped, seed=seed, **rows
        ).astype("float64")
        if name == "narrow":
            found.estimates["log_px_mean"] = mean_estimate(
                values, estimator="log p(x|z), z = mean", unit="nats"
            )
            bounds["narrow"] = values
            continue
        kl = ops.convert_to_numpy(kl_divergence(DiagonalGaussian(mean, clipped)))
        bounds[name] = values - kl
        if name == "log_var":
            own = values
    lost = bounds.pop("narrow") - own
    found.estimates["lost_to_noise"] = mean_estimate(
        lost, estimator="log p(x|z) at the mean - at draws", unit="nats"
    )
    base = bounds["log_var"]
    for name, values in bounds.items():
        if name != "log_var":
            found.estimates[f"as_{name}"] = mean_estimate(
                np.nan_to_num(values - base, nan=-1e6, neginf=-1e6),
                estimator=f"bound with the second output as a {name} - as a log variance",
                unit="nats",
            )
    if len(kinds) > 1:
        clipped = np.clip(second, -40.0, 20.0).astype("float32")
        values = subject.run(
            "other_reading", functools.partial(terms, True), data, mean, clipped, seed=seed, **rows
        ).astype("float64")
        found.facts["taken_for"] = "probabilities" if probabilities else "logits"
        found.estimates["other_outputs"] = mean_estimate(
            values - own,
            estimator="log p(x|z) with the decoder's outputs taken the other way",
            unit="nats",
        )


def probe_modes(found: Measurements, subject: ModelAdapter, data: Array) -> None:
    """How far moving statistics of batch normalization are from those of a batch."""
    encoder, decoder = (getattr(subject, name, None) for name in ("encoder", "decoder"))
    if not found.facts.get("normalized") or subject.model is not None:
        return
    x = ops.convert_to_tensor(data[:PROBED])
    distances = []
    layers = [*_normalizations(encoder), *_normalizations(decoder)]

    def statistics(layer):
        return layer.moving_mean, layer.moving_variance

    layers = [one for one in layers if float(one.momentum) < 1.0]
    old = [
        [np.asarray(ops.convert_to_numpy(v), "float64") for v in statistics(layer)]
        for layer in layers
    ]
    # Nothing that the networks assign in it is kept.
    with keras.StatelessScope():
        posterior = posterior_from(encoder(x, training=True))
        decoder(posterior.mean, training=True)
        # In it a variable has the value that it was given there.
        new = [
            [np.asarray(ops.convert_to_numpy(v), "float64") for v in statistics(layer)]
            for layer in layers
        ]
    for layer, before, after in zip(layers, old, new, strict=True):
        share = 1.0 - float(layer.momentum)
        mean, var = (b + (a - b) / share for b, a in zip(before, after, strict=True))
        var = np.maximum(var, 1e-8)
        shift = np.median(np.abs(mean - before[0]) / np.sqrt(var))
        ratio = np.median(np.abs(np.log(np.maximum(before[1], 1e-8) / var)))
        distances.append((layer.name, float(shift), float(ratio)))
    if distances:
        found.facts["statistics"] = max(distances, key=lambda one: one[1] + one[2])


def probe_schedule(found: Measurements, subject: ModelAdapter) -> None:
    """The weight of the KL that a model of the zoo is at, and the one that it would end with."""
    objective = getattr(subject.model, "objective", None)
    if objective is None:
        return
    beta = getattr(objective, "beta", None)
    if beta is not None:
        found.facts["beta"] = float(ops.convert_to_numpy(beta))
    norm = getattr(getattr(subject.model, "head", None), "mean_norm", None)
    if isinstance(norm, MeanBatchNorm) and norm.mode != "free":
        found.facts["gain"] = norm.target
    final = getattr(objective, "final_beta", None)
    if final is not None and objective.scheduled:
        found.facts["beta_final"] = final


#: Steps of further training, their learning rate, and the fewest rows for it.
FURTHER_STEPS, FURTHER_RATE, FURTHER_ROWS = 100, 1e-3, 40


def probe_training(found: Measurements, subject: ModelAdapter, data: Array, seed: int) -> None:
    """What some steps of further training on the plain bound change, on rows held out from them.

    A copy is trained: the model stays as it is.
    """
    if subject.autoregressive or not subject.differentiable or len(data) < FURTHER_ROWS:
        return
    if subject.conditional:
        return
    try:
        with seeded(seed):
            model, copy = _copy(subject)
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return
    held = len(data) // 4
    order = np.random.default_rng(seed).permutation(len(data))
    test, rest = data[order[:held]], data[order[held:]]
    rows = rows_at_once(copy, test, DRAWS, PROBED)

    def terms(x, noise, stream):
        q = copy.posterior(x)
        z, log_qz = copy.sample_and_log_qz(q, DRAWS, StatelessSeed(noise, stream))
        rate = copy.prior.kl_divergence(q)
        if rate is None:
            rate = ops.mean(log_qz - copy.log_pz(z), axis=1)
        return ops.mean(copy.log_px(x, z), axis=1) - rate, rate

    def bound():
        parts = copy.run("further", terms, test, seed=seed, **rows)
        return [np.asarray(part, "float64") for part in parts]

    before, rate_before = bound()
    train(model, rest, FURTHER_STEPS, FURTHER_RATE, seed, seconds=10.0)
    after, rate_after = bound()
    if not (np.all(np.isfinite(before)) and np.all(np.isfinite(after))):
        return
    for name, values in {
        "further_gain": after - before,
        "further_rate": rate_after,
        "rate_then": rate_before,
    }.items():
        found.estimates[name] = mean_estimate(
            values, estimator=f"{FURTHER_STEPS} further steps on the bound", unit="nats"
        )


def _copy(subject):
    """A model to train with the subject's weights, and its subject."""
    if subject.model is not None:
        own = subject.model
        if not own.head.has_density or type(own).__name__ != "VAE":
            raise TypeError("The training of this model is its own.")
        config = own.get_config()
        config["objective"] = keras.saving.serialize_keras_object(ELBO())
        model = type(own).from_config(config)
        model.build(own.get_build_config()["input_shape"])
        for part in ("encoder", "head", "decoder", "prior", "likelihood"):
            getattr(model, part).set_weights(getattr(own, part).get_weights())
        return model, as_subject(model)
    encoder, decoder = copied(subject.encoder), copied(subject.decoder)
    model = Pair(encoder, decoder, subject.likelihood, subject.latent_dim, subject.probabilities)
    copy = type(subject)(
        encoder, decoder, subject.likelihood, subject.latent_dim, subject.probabilities, "copy"
    )
    return model, copy
