"""`vaezoo train`: trains a preset into the directory of a run."""

from __future__ import annotations

import enum
import inspect
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.checkpoints import position_of, read_every
from ..core.checks import SEEDS
from ..core.files import check_writable
from ..core.locks import check_unlocked
from ..runs import directory as folder
from ..runs import settings
from . import catalog
from .console import open_console, say_error
from .signals import Ended, signals_first
from .source import asking_by_options


class Precision(enum.StrEnum):
    """Dtype policies of Keras."""

    FLOAT32 = "float32"
    BFLOAT16 = "mixed_bfloat16"
    FLOAT16 = "mixed_float16"


class OnNan(enum.StrEnum):
    """What is done about a loss that is not finite."""

    STOP = "stop"
    REWIND = "rewind"


def train(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET", help="What to train: a name from `vaezoo list`.", show_default=False
        ),
    ],
    data_name: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|PATH",
            help="Other data than the preset's: 'digits', a set of tensorflow-datasets, an .npz "
            "or .npy file, or a folder of images. The networks are built for its image size. For "
            "presets of text a folder with train.txt, valid.txt and test.txt, or a .txt file.",
            rich_help_panel="Data",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of prepared tensorflow-datasets; --set data.download=true prepares a "
            "missing set in it.",
            show_default="TFDS_DATA_DIR",
            rich_help_panel="Data",
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="What to evaluate after each epoch: a split such as 'test', 'none', or 'auto': "
            "the validation split, or a twelfth of the training split where there is none, which "
            "is then not trained on. With 'none' the latent code is watched on training data.",
            show_default="the preset's training.validation, else auto",
            rich_help_panel="Data",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Use only the first N examples of each split.",
            rich_help_panel="Data",
        ),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Condition the model on the labels of the data: 'label', or the name of another "
            "feature of a set of tensorflow-datasets. `vaezoo sample --condition 3` then draws "
            "one class.",
            show_default="none",
            rich_help_panel="Data",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Passes over the training data, those before a --resume included.",
            rich_help_panel="Training",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Examples in a batch.", rich_help_panel="Training"),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting that `vaezoo list PRESET` shows, as often as needed: an argument of "
            "the model, or networks.KEY, training.KEY, data.KEY.",
            rich_help_panel="Training",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=SEEDS - 1,
            help="Fixes initial weights, noise, order and binarization of the training data.",
            show_default="0",
            rich_help_panel="Training",
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Arithmetic of the networks; losses are always float32. The mixed policies save "
            "time and memory on accelerators.",
            metavar="POLICY",
            show_default="float32",
            rich_help_panel="Training",
        ),
    ] = None,
    steps_per_execution: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Training steps in one call of the compiled function: more are faster where a "
            "step is short. By default up to 32 for dense networks on TensorFlow's CPU, else 1.",
            show_default="chosen",
            rich_help_panel="Training",
        ),
    ] = None,
    xla: Annotated[
        bool | None,
        typer.Option(
            "--xla/--no-xla",
            help="Whether XLA compiles the training step; without it, JAX runs step by step in "
            "Python.",
            show_default="xla",
            rich_help_panel="Training",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the run.",
            show_default="runs/PRESET-TIMESTAMP",
            rich_help_panel="Run",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out where it was stopped, with its settings. It ends with "
            "the bits of a run that never stopped.",
            rich_help_panel="Run",
        ),
    ] = False,
    on_nan: Annotated[
        OnNan | None,
        typer.Option(
            "--on-nan",
            metavar="ACTION",
            help="When the loss is not finite: 'stop', or 'rewind' to go back to the last "
            "checkpoint with half the learning rate, at most --max-rewinds times. Either tells "
            "what was not finite first, and keeps the batch for `vaezoo diagnose`.",
            show_default="stop",
            rich_help_panel="Run",
        ),
    ] = None,
    max_rewinds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="How often --on-nan rewind goes back at most.",
            show_default="3",
            rich_help_panel="Run",
        ),
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            "--checkpoint-every",
            metavar="TIME|STEPS",
            help="How often to save within an epoch, beside after each one: 30s, 10m, 2h, or a "
            "number of steps. What a kill can cost is at most that.",
            show_default="after each epoch alone",
            rich_help_panel="Run",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run in --out.", rich_help_panel="Run"),
    ] = False,
    monitor: Annotated[
        bool | None,
        typer.Option(
            "--monitor/--no-monitor",
            help="Whether to watch the latent variables during training.",
            show_default="monitor",
            rich_help_panel="Run",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel="Run")
    ] = False,
) -> None:
    """Train a preset and keep all there is to know about the run in one directory.

    config.json and versions.json say what was run, history.jsonl has a line
    an epoch, checkpoints/ the last and the best model, tensorboard/ the curves
    and model.keras the result; vocabulary.txt has the words of a run on text.
    Ctrl-C and SIGTERM save after the present batch and say how to go on; kill -9
    costs what came after the last epoch, or after --checkpoint-every.

    Examples:
      vaezoo train du_vae_digits_mlp --out runs/du
      vaezoo train du_vae_digits_mlp --out runs/du --resume --epochs 120
      vaezoo train du_vae_mnist_mlp --out runs/mnist --checkpoint-every 10m
      vaezoo train du_vae_mnist_mlp --data my_images.npz --epochs 20
      vaezoo train beta_vae_digits_mlp --set beta=2 --set training.learning_rate=3e-4
      vaezoo train vae_digits_mlp --set networks.hidden_units=[64,64]
      vaezoo train beta_vae_digits_mlp --set "beta=LinearSchedule(1000)"
      vaezoo train vae_digits_mlp --condition label --out runs/digits
      vaezoo train text_vae_text_tiny --data my_sentences --out runs/text
    """
    # The backend takes seconds to import: what can fail before that does.
    if resume and overwrite:
        raise ValueError("`--resume` and `--overwrite` exclude each other")
    if resume and out is None:
        raise ValueError("`--resume` needs `--out`, the directory of the run to continue")
    read_every("--checkpoint-every", checkpoint_every)
    directory = out or folder.default_directory(preset)
    catalog.check(preset)
    if resume and folder.is_unbegun(directory):
        say_error(
            f"'{directory}' holds no run yet: it was stopped before it had begun, and begins now, "
            "with the settings given",
            "",
        )
        resume = False
    if resume:
        folder.read_config(directory)
    else:
        folder.check_free(directory, overwrite)
        check_writable(directory / folder.CONFIG)
    check_unlocked(directory)

    from ..runs import Run, RunSpec

    given = _given(
        preset,
        Run.open(directory).spec if resume else None,
        assignments or [],
        data={
            "name_or_path": data_name,
            "data_dir": data_dir and str(data_dir.resolve()),
            "batch_size": batch_size,
            "limit": limit,
        },
        training={"epochs": epochs},
        networks={"condition": condition},
        options={
            "seed": seed,
            "precision": precision and precision.value,
            "validation": validation,
            "steps_per_execution": steps_per_execution,
            "xla": xla,
            "monitor": monitor,
            "checkpoint_every": checkpoint_every,
            "on_nan": on_nan and on_nan.value,
            "max_rewinds": max_rewinds,
        },
    )
    command = shlex.join(["vaezoo", *sys.argv[1:]])
    with asking_by_options():
        if resume:
            run = Run.open(directory, preset=preset, command=command, **given)
        else:
            spec = RunSpec(preset, **given)
            run = Run.create(directory, spec, overwrite=overwrite, command=command)
        ready = run.prepare()
    console = open_console()
    if not quiet:
        console.print(_announced(run, ready), highlight=False)
    resumption = _resumption(preset, run, given["data"])
    last, best = directory / folder.LAST, folder.BEST
    try:
        with signals_first():
            run.fit(verbose=0 if quiet else 1 if console.is_terminal else 2)
    except KeyboardInterrupt as error:
        if not last.exists():
            raise
        by = f" by {error}" if isinstance(error, Ended) else ""
        say_error(
            f"Interrupted{by} after {_standing(run, ready)}. The model as it was then: {last}. To "
            f"continue: {resumption}",
            "",
        )
        raise typer.Exit(getattr(error, "code", 130)) from None
    except (OSError, FloatingPointError) as error:
        if not run.history:
            raise
        if isinstance(error, OSError):
            raise OSError(f"{error}. To continue then: {resumption}") from error
        raise FloatingPointError(
            f"{error} The model after {len(run.history)} epochs: {last}. To continue from it: "
            f"{resumption}; to start anew with other settings, --overwrite"
        ) from error
    _print_summary(console, directory, run.history)
    # Sentences have no length of their own, so that a rise alone tells of them.
    sizes = (size or math.inf for size in run.spec.networks["input_shape"])
    told = folder.divergence(run.history, math.prod(sizes))
    if told:
        say_error(
            f"Training has diverged: {told}. {best} is the best model. A smaller "
            "--set training.learning_rate may help, or data that are scaled; start anew with "
            "--overwrite."
        )
        raise typer.Exit(1)


def _given(preset, spec, assignments, data, training, networks, options):
    """The fields of a `RunSpec` that the command line has.

    Args:
        preset: Name of the preset.
        spec: `RunSpec` of the run that goes on, or None.
        assignments: Values of `--set`.
        data: Settings that options give, None where they do not; the same of `training`.
        training: As `data`.
        networks: As `data`.
        options: Dict of further fields.
    """
    constructor, base = catalog.preset_of(preset)
    parts = base
    if spec is not None:
        parts = {section: getattr(spec, section) for section in settings.SECTIONS}
    given = settings.parse_overrides(assignments, parts)
    for section, values in (("data", data), ("training", training), ("networks", networks)):
        given[section].update(_without_none(values))
    for key, value in given["model"].items():
        homes = [section for section in settings.SECTIONS[1:] if key in base[section]]
        if key not in inspect.signature(constructor).parameters and homes:
            raise ValueError(
                f"`{key}` is no argument of {constructor.__name__}: did you mean "
                f"--set {homes[0]}.{key}={settings.as_text(value)}?"
            )
    return {**given, **_without_none(options)}


def _without_none(values):
    return {name: value for name, value in values.items() if value is not None}


def _announced(run, ready):
    """What is about to be trained, in a sentence."""
    import keras

    size = " x ".join(map(str, run.spec.networks["input_shape"]))
    if run.vocabulary is not None:
        size = f"sentences of {len(run.vocabulary):,} ids{_lengths(ready.train)}"
    compiler = "with XLA" if ready.model.jit_compile else "without XLA"
    cudnn = ", LSTMs by cuDNN" if ready.model.uses_cudnn else ""
    return (
        f"{run.spec.constructor} with {ready.model.count_params():,} parameters on "
        f"{run.spec.data.name_or_path} ({size}), {keras.backend.backend()} {compiler}{cudnn}, "
        f"{run.spec.precision}, epochs {ready.trained_epochs + 1} to {ready.epochs}. "
        f"Run: {run.directory}"
    )


def _lengths(batches):
    """What is to be said of the lengths of batches of text."""
    plan = getattr(batches, "plan", None)
    if plan is None:
        return ""
    lengths = ", ".join(map(str, plan.buckets))
    return f"; batches of length {lengths}, with {plan.padding_share:.0%} padding"


def _standing(run, ready):
    """What the last checkpoint has behind it."""
    epoch, batch = position_of(run.directory / folder.LAST) or (len(run.history), 0)
    told = f"{epoch} of {ready.epochs} epochs"
    if not batch:
        return told
    try:
        whole = f" of {len(ready.train)}"
    except TypeError:
        whole = ""
    return f"{told} and {batch}{whole} batches of the next"


def _resumption(preset, run, data):
    """The command that goes on with a run, with what its file may not ask for."""
    words = ["vaezoo", "train", preset, "--out", str(run.directory), "--resume"]
    for name in folder.ASKED:
        if name in data:
            value = str(data[name])
            words += (
                ["--data-dir", value] if name == "data_dir" else ["--set", f"data.{name}={value}"]
            )
    return shlex.join(words)


def _print_summary(console, directory, history):
    from rich.table import Table

    last, best = history[-1], min(history, key=lambda record: folder.score(record)[0])
    score, key = folder.score(last)
    (lowest, _) = folder.score(best)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in {
        "model": f"{directory / folder.MODEL} (epoch {last['epoch']}, {key} {score:.2f} nats)",
        "best": f"{directory / folder.BEST} (epoch {best['epoch']}, {key} {lowest:.2f} nats)",
        "history": str(directory / folder.HISTORY),
        "next": f"vaezoo sample {shlex.quote(str(directory))}",
        "": f"vaezoo export {shlex.quote(str(directory))} DIRECTORY",
        " ": f"tensorboard --logdir {shlex.quote(str(directory))}",
    }.items():
        table.add_row(name, text)
    console.print(table)
