"""A run with one thing changed, as the doctor's trials change it."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import keras

from .. import layers, losses, zoo
from ..core.precision import dtype_policy
from .run import Run
from .spec import build

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from .spec import RunSpec

#: Of runs whose data do not say.
BATCH_SIZE = 128


class Cures:
    """Makes the models that `metrics.try_remedies` tries as runs, and keeps one of them.

        cures = Cures(runs.Run.open("runs/vae").spec, len(x))
        found = metrics.try_remedies(model, x, build=cures, batch_size=cures.batch_size)
        run = cures.keep("runs/cured", found.winner, found.steps)

    Args:
        spec: `RunSpec` with all settings spelt out.
        rows: Number of examples that an epoch of the run has.
    """

    def __init__(self, spec: RunSpec, rows: int) -> None:
        self.spec, self.rows = spec, rows
        held: Any = spec.data
        data = held if isinstance(held, dict) else held.given()
        self.batch_size = data.get("batch_size", BATCH_SIZE)

    def epochs(self, steps: int) -> int:
        """Epochs of the run that so many steps are, a begun one for a whole one."""
        return max(1, math.ceil(steps * self.batch_size / self.rows))

    def __call__(self, change: dict[str, Any], steps: int) -> keras.Model:
        """The compiled model of a change, with new weights."""
        spec = cured(self.spec, change, steps, self.epochs(steps)) if change else self.spec
        rate = spec.training.get("learning_rate")
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            # A trial is too short for it, and its epochs are no epochs of the run.
            rate = float(keras.ops.convert_to_numpy(getattr(rate, "initial", rate(0))))
            spec = spec.replace(training={**spec.training, "learning_rate": rate})
        with dtype_policy(spec.precision):
            made = build(spec)
            # Nothing is compiled by XLA: that takes longer than such a training.
            jit = False if keras.backend.backend() == "tensorflow" else "auto"
            made.model.compile(**{**made.compile_args, "jit_compile": jit}, steps_per_execution=10)
        return made.model

    def keep(
        self, directory: str | Path, trial: Any, steps: int, *, overwrite: bool = False
    ) -> Run:
        """Writes the model that a trial has trained as a run that can go on.

        Args:
            directory: Folder of the run.
            trial: `metrics.Trial` of a remedy.
            steps: Steps of the trial.
            overwrite: Whether a run that is already there is replaced.

        Returns:
            The `Run`.
        """
        epochs = self.epochs(steps)
        spec = cured(self.spec, trial.remedy.change, steps, epochs)
        run = Run.create(directory, spec, overwrite=overwrite)
        # An epoch has the loss of its last steps.
        last = [min(len(trial.losses), math.ceil((e + 1) * len(trial.losses) / epochs)) - 1
                for e in range(epochs)]  # fmt: skip
        run.adopt(trial.model, [{"loss": trial.losses[i]} for i in last])
        return run


def cured(spec: RunSpec, change: dict[str, Any], steps: int, epochs: int) -> RunSpec:
    """Returns the spec of a run that a remedy changes.

    Args:
        spec: `RunSpec` with all settings spelt out.
        change: What `metrics.try_remedies` changed; empty for the run as it is.
        steps: Steps of its trial, over which a ramp was laid.
        epochs: Epochs that the run is to have.
    """
    model, name = dict(spec.model), spec.constructor
    beta = model.get("beta", 1.0)
    if change and (losses.final_value(beta) if callable(beta) else beta) != 1.0:
        # What says nothing of the weight is tried at the bound's own.
        del model["beta"]
    if change.get("gamma"):
        name = "DUVAE" if change.get("keep_prob") else "BNVAE"
        model["gamma"] = change["gamma"]
        if change.get("keep_prob"):
            model["keep_prob"] = change["keep_prob"]
    if change.get("free_bits"):
        name, model["free_bits"] = "FreeBitsVAE", change["free_bits"]
    if "beta" in change or change.get("ramp"):
        model["beta"] = change.get("beta", 1.0)
    if change.get("ramp"):
        model["beta"] = losses.LinearSchedule(max(1, int(change["ramp"] * steps)))
    if change.get("scale") == "optimal":
        model["likelihood"] = layers.Gaussian("optimal")
    known = inspect.signature(getattr(zoo, str(name))).parameters
    if "beta" in model and "beta" not in known:
        name, known = "BetaVAE", inspect.signature(zoo.BetaVAE).parameters
    training = {**spec.training, "epochs": epochs}
    if "rate" in change and "learning_rate" in training:
        training["learning_rate"] = change["rate"] * training["learning_rate"]
    if "clip" in change:
        training["clipnorm"] = change["clip"]
    return spec.replace(
        preset=_preset(spec, name),
        constructor=name,
        model={key: value for key, value in model.items() if key in known},
        training=training,
    )


def _preset(spec, name):
    """The preset of another model for the same data, or None."""
    presets = zoo.presets()
    if spec.preset is None or name == spec.constructor:
        return spec.preset
    own, other = (_file(getattr(zoo, constructor)) for constructor in (spec.constructor, name))
    found = f"{other}_{spec.preset.removeprefix(own + '_')}"
    return found if found in presets else None


def _file(constructor):
    """The first part of the names of a constructor's presets."""
    return constructor.__module__.split(".zoo.")[1].split(".")[0]
