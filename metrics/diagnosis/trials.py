"""Tries remedies before they are recommended: the same networks, steps, seeds and split."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from ...core.checkpoints import read_every
from ...core.checks import check_integer, check_real, check_seed
from ...layers import Gaussian, GaussianHead, MeanBatchNorm, VarianceDropout
from ...losses import ELBO, FreeBits, LinearSchedule
from ..estimate import Estimate, mean_estimate, to_json
from ..negative_log_likelihood import negative_log_likelihood
from ..subject import as_subject, check_array, posterior_from
from .diagnose import diagnose
from .remedies import Remedy
from .trainer import BATCH, Changes, Pair, fresh, seeded, train
from .tried import ordered

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...core.types import ArrayLike, Model
    from ...layers.likelihoods import Likelihood
    from .diagnose import Diagnosis

#: Share of the rows that are held out, at most so many of them, and draws for the NLL of each.
HELD_OUT, MOST_HELD_OUT, DRAWS = 0.25, 1000, 64
#: Steps at least and at most, and steps that tell how long one takes.
LEAST_STEPS, MOST_STEPS, TIMED_STEPS = 100, 20_000, 50
#: Standard errors that a difference must exceed.
ERRORS = 3.0
#: What is tried where the doctor has fewer remedies to try.
GENERAL = (
    Remedy(
        "Batch-normalize the means, drop variances",
        "Pinned gains keep the means of a batch apart.",
        "z_mean = layers.MeanBatchNorm(0.5)(z_mean)",
        change={"gamma": 0.5, "keep_prob": 0.9},
    ),
    Remedy(
        "Make the first nats free",
        "Below the floor collapsing a dimension brings no gain.",
        "rate = sum(maximum(mean(kl, axis=0), 0.1))",
        change={"free_bits": 0.1},
    ),
    Remedy(
        "Raise the KL weight from 0",
        "The encoder becomes informative while the KL costs little.",
        "beta = min(1, step / (steps / 3))",
        change={"ramp": 1.0 / 3.0},
    ),
)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training and what came of it on held-out rows.

    Attributes:
        name: What was changed.
        remedy: `Remedy`, or None for the original recipe.
        nll: Negative log-likelihood, an `Estimate`.
        rate: KL, an `Estimate`.
        bound: Evidence lower bound, an `Estimate`.
        active_units: Dimensions with Var(mean) of at least 0.01.
        information: Information about x in z in nats, an `Estimate`, or None.
        difference: NLL less that of the original, example by example: an `Estimate`, or None.
        helped: Whether the NLL fell by more than three standard errors.
        model: What was trained: a `VAE`, or `(encoder, decoder)`, where the encoder ends in what
            the remedy put behind it.
        pictures: Reconstructions and draws, for images.
        losses: Tuple of the mean training loss of each hundred steps.
    """

    name: str
    remedy: Remedy | None
    nll: Estimate
    rate: Estimate
    bound: Estimate
    active_units: int
    information: Any
    difference: Any
    helped: bool
    model: Any = dataclasses.field(repr=False)
    pictures: dict = dataclasses.field(default_factory=dict, repr=False)
    losses: tuple = ()


@dataclasses.dataclass(frozen=True)
class Trials:
    """The trials of remedies side by side.

    Attributes:
        trials: Tuple of `Trial`s, the original recipe first.
        steps: Training steps of each.
        held_out: Number of rows that they were scored on.
        diagnosis: `Diagnosis` that the remedies come from.
        seconds: Seconds that all took.
        assumed: Sentence on what the original recipe was taken for; empty where it is known.
    """

    trials: tuple
    steps: int
    held_out: int
    diagnosis: Diagnosis = dataclasses.field(repr=False)
    seconds: float = 0.0
    assumed: str = ""

    @property
    def winner(self) -> Trial | None:
        """The remedy with the lowest NLL among those that helped, or None."""
        helped = [trial for trial in self.trials if trial.helped]
        return min(helped, key=lambda trial: trial.nll.value) if helped else None

    @property
    def outcome(self) -> str:
        """One sentence on what came of it."""
        if self.winner is None:
            return (
                "None of the remedies helped: none lowered the NLL by more than three standard "
                "errors."
            )
        gain = self.winner.difference
        if not math.isfinite(gain.value):
            return (
                f"{self.winner.name}: the NLL is {self.winner.nll.value:.2f} nats, and that of the "
                "original recipe, which diverged, is not finite."
            )
        return (
            f"{self.winner.name}: the NLL falls by {-gain.value:.2f} +- {gain.standard_error:.2f} "
            "nats."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, its heading first."""
        # On a narrow page the first columns are seen.
        heading = ("recipe", "", "NLL", "NLL - original", "bound", "rate", "active", "information")
        found: list[tuple[str, ...]] = [heading]
        for trial in self.trials:
            verdict = "original" if trial.remedy is None else "did not help"
            if trial.helped:
                verdict = "helped" if trial is not self.winner else "winner"
            found.append(
                (
                    trial.name,
                    verdict,
                    _short(trial.nll),
                    "" if trial.difference is None else _short(trial.difference),
                    *(_short(value) for value in (trial.bound, trial.rate)),
                    str(trial.active_units),
                    "-" if trial.information is None else _short(trial.information),
                )
            )
        return found

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(
            [
                f"{self.steps} steps each, scored on {self.held_out} held-out rows, in nats",
                "",
                *lines,
                "",
                self.outcome,
                *([f"Note: {self.assumed}"] if self.assumed else []),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON knows it."""
        names = ("name", "nll", "rate", "bound", "active_units", "information", "difference")
        return to_json(
            {
                "steps": self.steps,
                "held_out": self.held_out,
                "seconds": self.seconds,
                "outcome": self.outcome,
                "assumed": self.assumed,
                "winner": None if self.winner is None else self.winner.name,
                "trials": [
                    {
                        **{name: getattr(trial, name) for name in names},
                        "helped": trial.helped,
                        "change": {} if trial.remedy is None else trial.remedy.change,
                    }
                    for trial in self.trials
                ],
            }
        )

    def to_json(self, path: Any = None) -> str:
        """The table in JSON; written to `path` if given."""
        from pathlib import Path

        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, "utf-8")
        return text

    def to_html(self, path: Any = None) -> str:
        """The page of the diagnosis with what the trials gave; written to `path` if given."""
        from pathlib import Path

        from .page import page

        text = page(self.diagnosis, self)
        if path is not None:
            Path(path).write_text(text, "utf-8")
        return text


def _short(estimate):
    error = estimate.standard_error
    return f"{estimate.value:.2f}" + (f" +- {error:.2f}" if error and math.isfinite(error) else "")


def try_remedies(
    model: Model | tuple[Any, Any],
    x: ArrayLike,
    likelihood: str | Likelihood | None = None,
    *,
    budget: str | float = "2m",
    remedies: int = 3,
    steps: int | None = None,
    beta: float | None = None,
    recipe: Callable[[Any, Any], Any] | None = None,
    build: Callable[[dict, int], Any] | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = BATCH,
    diagnosis: Diagnosis | None = None,
    seed: int = 0,
) -> Trials:
    """Trains the original recipe and the doctor's first remedies, and says which one helps.

    The networks are made anew, with new weights. All are trained for the same number of steps from
    the same seeds on the same rows, and scored on the others.

    A pair of networks does not tell the loss that it was trained on. Give that as `recipe`:

        def recipe(encoder, decoder):
            vae = MyVAE(encoder, decoder)  # your class, with your loss
            vae.compile(keras.optimizers.Adam(1e-3))
            return vae

    Without one, `assumed` of what is returned says what the original was taken for.

    Args:
        model: `VAE`, or a pair `(encoder, decoder)` of Keras models.
        x: `(N, *event)`, an array of the data.
        likelihood: Name or `Likelihood` of a pair; `"bernoulli"` by default.
        budget: Time for all trainings: seconds, or a text such as `"30s"` or `"2m"`.
        remedies: Positive int, how many are tried.
        steps: Optional positive int: steps of each training, whatever time that takes.
        beta: Optional non-negative float: the KL's weight in the loss of a pair, which its
            networks do not tell; by default the one that the diagnosis reads off them.
        recipe: Optional function `(encoder, decoder)` of a Keras model that trains a pair as it
            was trained: `fit(x)`, or `fit(x, x)` if it is compiled with a loss. It is given
            networks with new weights.
        build: Optional function `(change, steps)` of a `VAE` with new weights, in place of `model`
            with other parts: `change` is that of a `Remedy`, empty for the original, and `steps`
            are those that it will be trained for. It is trained as it is compiled, if it is.
        learning_rate: Positive float, of Adam.
        batch_size: Positive int, examples of a step.
        diagnosis: Optional `Diagnosis` of the same model; made if it is not given.
        seed: Int in [0, 2^31).

    Returns:
        `Trials`. Print it, or call its `to_html`.

    Raises:
        TypeError: If the networks cannot be made anew, or `recipe` or `build` give something else.
        ValueError: If an argument is out of range, or does not go with the model.
    """
    begun = time.monotonic()
    remedies = check_integer("remedies", remedies)
    steps = check_integer("steps", steps, optional=True)
    seed = check_seed("seed", seed, optional=False)
    batch_size = check_integer("batch_size", batch_size)
    learning_rate = check_real("learning_rate", learning_rate, "(0, inf)")
    if beta is not None:
        beta = check_real("beta", beta, "[0, inf)")
    seconds = _seconds(budget)
    array = check_array("x", x)
    if array.dtype.kind == "f":
        array = array[np.isfinite(array).reshape(len(array), -1).all(axis=1)]
    pair = model if isinstance(model, (tuple, list)) else None
    if pair is not None and len(pair) != 2:
        raise ValueError(
            f"`model` must be a VAE or a pair (encoder, decoder). Received: {len(pair)} parts"
        )
    for name, value, wanted in (
        ("beta", beta, pair is not None and recipe is None),
        ("recipe", recipe, pair is not None),
        ("build", build, pair is None),
    ):
        if value is not None and not wanted:
            other = "a pair without `recipe`" if name == "beta" else "a pair"
            other = "a VAE" if name == "build" else other
            raise ValueError(f"`{name}` goes with {other}. Received: {name}={value!r}")
    for name, function in (("recipe", recipe), ("build", build)):
        # A Keras model can be called, too, and makes no other one.
        if function is not None and (
            not callable(function) or isinstance(function, keras.layers.Layer)
        ):
            raise TypeError(f"`{name}` must be a function. Received: {name}={function!r}")
    if diagnosis is None:
        given = (*pair, array, likelihood) if pair else (model, array)
        diagnosis = diagnose(*given, seed=seed)
    subject = as_subject(pair[0], pair[1], array, likelihood) if pair else as_subject(model)
    array = subject.check(array)
    order = np.random.default_rng(seed).permutation(len(array))
    held = min(MOST_HELD_OUT, max(2, round(HELD_OUT * len(array))))
    test, rest = array[order[:held]], array[order[held:]]
    if pair:
        make: Any = _Pairs(subject, diagnosis, beta, recipe)
    else:
        make = _Models(subject.model) if build is None else _Builder(build, subject.model)
    plan = [None, *_chosen(diagnosis, remedies)]
    if steps is None:
        steps = _affordable(make, rest, seconds / (len(plan) + 1), learning_rate, batch_size, seed)
    trials: list[Trial] = []
    for remedy in plan:
        with seeded(seed):
            trained = make(remedy, steps)
        settings: dict[str, Any] = dict(remedy.change) if remedy else {}
        losses: list[float] = []
        train(
            trained.model,
            rest,
            steps,
            learning_rate * settings.get("rate", 1.0),
            seed,
            batch_size=batch_size,
            clip=settings.get("clip"),
            losses=losses,
        )
        found = _scored(trained, remedy, test, seed, trials[0] if trials else None)
        trials.append(dataclasses.replace(found, losses=tuple(losses)))
    assumed = _assumed(make, learning_rate, batch_size)
    return Trials(tuple(trials), steps, held, diagnosis, time.monotonic() - begun, assumed)


def _assumed(make, learning_rate, batch_size):
    """A sentence on what the original recipe of a pair was taken for, or an empty one."""
    if not isinstance(make, _Pairs) or make.recipe is not None:
        return ""
    beta = make.original.get("beta", 1.0)
    codes = "draws" if make.original.get("sample", True) else "means, without draws"
    return (
        "The networks do not tell the loss that they were trained on. The original recipe was "
        f"taken for a summed reconstruction of {codes} and a KL of weight {beta:.3g} "
        f"({make.origin}), by Adam at {learning_rate:g} in batches of {batch_size}; `recipe=` "
        "takes your own."
    )


def _seconds(budget):
    if isinstance(budget, str):
        every = read_every("budget", budget)
        if every is not None and math.isfinite(every.seconds):
            return every.seconds
        raise ValueError(f"`budget` must be a time such as '90s' or '2m'. Received: {budget!r}")
    return check_real("budget", budget, "(0, inf)")


def _chosen(diagnosis, number):
    """The first remedies that can be tried, each change once."""
    found = {}
    for remedy in (*diagnosis.remedies, *ordered(diagnosis.verdict, GENERAL)):
        if remedy.change:
            found.setdefault(json.dumps(remedy.change, sort_keys=True), remedy)
    return list(found.values())[:number]


def _affordable(make, x, seconds, learning_rate, batch_size, seed):
    """Steps that a training of so many seconds has."""
    with seeded(seed):
        model = make(None, 1).model
    train(model, x, TIMED_STEPS, learning_rate, seed, batch_size=batch_size)
    start = time.monotonic()
    train(model, x, TIMED_STEPS, learning_rate, seed, batch_size=batch_size)
    each = (time.monotonic() - start) / TIMED_STEPS
    return int(np.clip(seconds / each, LEAST_STEPS, MOST_STEPS) // 10 * 10)


class _Made(NamedTuple):
    """A model to train, and how it is scored."""

    model: Any
    subject: Any
    parts: Any


class _Pairs:
    """Makes encoder and decoder anew, with the original recipe or a remedy."""

    def __init__(self, subject: Any, diagnosis: Any, beta: Any, recipe: Any) -> None:
        self.subject, self.recipe = subject, recipe
        self.original = {} if recipe is not None else _as_written(diagnosis, beta)
        self.origin = "as given" if beta is not None else "as far as the diagnosis tells"

    def __call__(self, remedy: Any, steps: int) -> _Made:
        encoder, decoder = fresh(self.subject.encoder), fresh(self.subject.decoder)
        if remedy is None and self.recipe is not None:
            return self._as_given(encoder, decoder)
        # A remedy that says nothing of the weight or of draws is tried at the bound's own.
        changes = Changes(**(self.original if remedy is None else remedy.change))
        if changes.unlimited:
            _take_off(encoder)
        likelihood = self.subject.likelihood
        likelihood = type(likelihood).from_config(likelihood.get_config())
        if changes.scale == "optimal" and isinstance(likelihood, Gaussian):
            likelihood = Gaussian("optimal")
        size, probabilities = self.subject.latent_dim, self.subject.probabilities
        model = Pair(encoder, decoder, likelihood, size, probabilities, changes, steps)
        scored = type(self.subject)(
            _Encoder(model), decoder, likelihood, size, probabilities, self.subject.name
        )
        return _Made(model, scored, (_whole(model), decoder))

    def _as_given(self, encoder, decoder):
        """The original as its user trains it."""
        model = self.recipe(encoder, decoder)
        if not isinstance(model, keras.Model):
            raise TypeError(f"`recipe` must return a keras.Model. Received: {type(model).__name__}")
        trained = {id(variable) for variable in model.variables}
        if not any(id(v) in trained for v in (*encoder.variables, *decoder.variables)):
            raise ValueError(
                "`recipe` must return a model of the networks that it is given. Received: one "
                f"without their weights, {model.name!r}"
            )
        own = self.subject
        parts = (own.likelihood, own.latent_dim, own.probabilities, own.name)
        return _Made(model, type(own)(encoder, decoder, *parts), (encoder, decoder))


class _Encoder:
    """The encoder of a `Pair`, with what was put behind it."""

    def __init__(self, pair: Any) -> None:
        self.pair = pair
        self.variables = pair.variables

    def __call__(self, x: Any) -> Any:
        return self.pair.posterior(x)


def _whole(pair):
    """The encoder of a `Pair` together with what was put behind it."""
    encoder = pair.encoder
    if pair.mean_norm is None and pair.variance_dropout is None:
        return encoder
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype), encoder.inputs
    )
    mean, log_var = posterior_from(encoder(inputs[0] if len(inputs) == 1 else inputs))[:2]
    if pair.mean_norm is not None:
        mean = pair.mean_norm(mean)
    if pair.variance_dropout is not None:
        log_var = pair.variance_dropout(log_var)
    return keras.Model(inputs, [mean, log_var], name=encoder.name)


def _take_off(encoder):
    """Takes the activations off the last layers of an encoder."""
    for tensor in keras.tree.flatten(encoder.outputs)[:2]:
        layer = tensor._keras_history.operation
        if hasattr(layer, "activation"):
            layer.activation = keras.activations.linear


def _as_written(diagnosis, beta):
    """How the loss of a pair was written, as far as the diagnosis tells."""
    causes = {cause.name for cause in diagnosis.causes}
    weight = diagnosis.measurements.get("implied_weight")
    values = diagnosis.settings.get("values", 1)
    found: dict[str, Any] = {}
    if beta is not None:
        found["beta"] = beta
    elif diagnosis.causes and diagnosis.causes[0].name == "mean_instead_of_sum":
        found["beta"] = float(values)
    elif weight is not None and causes & {"kl_weight_heavy", "kl_weight_light"}:
        heavy = "kl_weight_heavy" in causes
        # Of an empty code the posteriors do not tell by how much.
        hidden = diagnosis.measurements["rate"].value <= 0.01 or (heavy and weight.value < 1.0)
        found["beta"] = float(values) if hidden else max(0.0, weight.value)
    if "trained_without_sampling" in causes:
        found["sample"] = False
    return found


class _Models:
    """Makes a `VAE` of the zoo anew, with the original recipe or a remedy."""

    def __init__(self, model: Any) -> None:
        self.own = model

    def __call__(self, remedy: Any, steps: int) -> _Made:
        config = self.own.get_config()
        for name, part in self.parts(remedy.change if remedy else {}, steps).items():
            config[name] = keras.saving.serialize_keras_object(part)
        model = type(self.own).from_config(config)
        model.build(self.own.get_build_config()["input_shape"])
        return _Made(model, as_subject(model), model)

    def parts(self, change: dict[str, Any], steps: int) -> dict[str, Any]:
        """The parts that a change puts in place of others."""
        found: dict[str, Any] = {}
        own = self.own.objective
        regularizers = getattr(own, "regularizers", ())
        if {"beta", "ramp", "free_bits"} & set(change):
            beta = change.get("beta", 1.0)
            if change.get("ramp"):
                beta = LinearSchedule(max(1, int(change["ramp"] * steps)))
            floor = change.get("free_bits", 0.0)
            found["objective"] = (
                FreeBits(floor, beta=beta, regularizers=regularizers)
                if floor
                else ELBO(beta, regularizers)
            )
        elif change and type(own) is ELBO and own.final_beta != 1.0:
            # What says nothing of the weight is tried at the bound's own.
            found["objective"] = ELBO(regularizers=regularizers)
        if change.get("scale") == "optimal" and isinstance(self.own.likelihood, Gaussian):
            found["likelihood"] = Gaussian("optimal")
        if change.get("gamma") and isinstance(self.own.head, GaussianHead):
            keep = change.get("keep_prob")
            found["head"] = GaussianHead(
                self.own.latent_dim,
                self.own.head.num_samples,
                mean_norm=MeanBatchNorm(change["gamma"]),
                variance_dropout=VarianceDropout(keep, seed=0) if keep else None,
                seed=0,
            )
        return found


class _Builder:
    """Makes a `VAE` anew by a function of its user."""

    def __init__(self, build: Callable[[dict, int], Any], own: Any) -> None:
        self.build, self.own = build, own

    def __call__(self, remedy: Any, steps: int) -> _Made:
        model = self.build(dict(remedy.change) if remedy else {}, steps)
        if not isinstance(model, keras.Model) or not hasattr(model, "head"):
            raise TypeError(f"`build` must return a VAE. Received: {type(model).__name__}")
        if not model.built:
            model.build(self.own.get_build_config()["input_shape"])
        return _Made(model, as_subject(model), model)


def _scored(made, remedy, test, seed, original):
    subject = made.subject
    nll = negative_log_likelihood(subject, test, DRAWS, seed=seed)
    short = _shortly(subject, test, seed)
    difference, helped = None, False
    if original is not None:
        difference = mean_estimate(
            nll.per_example - original.nll.per_example, estimator="NLL - original", unit="nats"
        )
        if math.isfinite(difference.value):
            helped = difference.value < -ERRORS * difference.standard_error
        else:
            # Of an original that diverged nothing can be told but that.
            helped = math.isfinite(nll.value) and not math.isfinite(original.nll.value)
    name = "original recipe" if remedy is None else remedy.what
    return Trial(name, remedy, nll, *short[:4], difference, helped, made.parts, short[4])


def _shortly(subject, x, seed):
    """Rate, bound, active units, information and pictures of a subject on rows."""
    found = diagnose(subject, x, refinement_steps=0, trials=False, seed=seed)
    values = found.measurements
    information = values.get("mutual_information")
    missing = mean_estimate(np.full(2, np.nan))
    return (
        values.get("rate", missing),
        values.get("elbo", missing),
        int(values["active_units_0.01"].value) if "active_units_0.01" in values else 0,
        information,
        found.pictures,
    )
