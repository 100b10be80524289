"""The command line: `vaezoo`, or `python -m vaezoo`."""

import contextlib
import enum
import errno
import functools
import importlib.util
import inspect
import math
import os
import shlex
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from .. import __version__
from ..core.checks import SEEDS, check_name
from ..core.files import check_writable, naming, written
from . import catalog, grids, judge, logs, runs, sentences, settings
from . import list as listing
from .judge import check_target

#: Largest number of held-out examples on which the latent code is watched in training.
MONITORED = 1000
#: Options of `train` beside the settings of a preset.
OPTIONS = {
    "seed": 0,
    "precision": "float32",
    "validation": "auto",
    "steps_per_execution": 1,
    "xla": True,
    "monitor": True,
}


#: Seconds after which a signal that had no effect is sent again.
AGAIN = 5.0
#: Signals that have come while this command runs.
_HEARD = []


class Precision(enum.StrEnum):
    """Dtype policies of Keras."""

    FLOAT32 = "float32"
    BFLOAT16 = "mixed_bfloat16"
    FLOAT16 = "mixed_float16"


class Ended(KeyboardInterrupt):
    """A signal by which others end a process: a batch queue, a terminal that is closed."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        # As a shell reports it.
        self.code = 128 + number


@contextlib.contextmanager
def _noticed_signals():
    """Turns SIGTERM and SIGHUP into `Ended`, so that a command can say how to go on."""
    timers, before = [], {}
    _HEARD.clear()

    def interrupt(number, frame):
        _HEARD.append(number)
        raise KeyboardInterrupt

    def end(number, frame):
        _HEARD.append(number)
        # An exception is lost where it meets the clean-up of an object: the signal comes again,
        # until the context is left.
        timers.append(threading.Timer(AGAIN, os.kill, (os.getpid(), number)))
        timers[-1].daemon = True
        timers[-1].start()
        raise Ended(number)

    for name, usual, handler in (
        ("SIGTERM", signal.SIG_DFL, end),
        ("SIGHUP", signal.SIG_DFL, end),
        ("SIGINT", signal.default_int_handler, interrupt),
    ):
        number = getattr(signal, name, None)
        # What is ignored, as under `nohup`, stays ignored. Only the main thread has handlers.
        if number is not None and signal.getsignal(number) == usual:
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()


@contextlib.contextmanager
def _signals_first():
    """Lets a signal end the work where an error took its place.

    TensorFlow turns what is raised while it traces a function into errors of its own.
    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if not _HEARD:
            raise
        number = _HEARD[0]
        raise (KeyboardInterrupt() if number == signal.SIGINT else Ended(number)) from error


class _Group(TyperGroup):
    """Commands whose errors are one line and exit code 2."""

    def invoke(self, ctx):
        with warnings.catch_warnings(), _noticed_signals():
            warnings.showwarning = _show_warning
            try:
                with _signals_first():
                    return super().invoke(ctx)
            except BrokenPipeError:
                raise
            except Ended as error:
                _say_error(f"Ended by {error}", "")
                raise typer.Exit(error.code) from None
            except MemoryError as error:
                if ctx.params.get("debug"):
                    raise
                _say_error(f"There is not enough memory for this. {error}")
                raise typer.Exit(2) from error
            except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
                if ctx.params.get("debug"):
                    raise
                _say_error(error)
                raise typer.Exit(2) from error
            except Exception as error:
                # What the backend says of data that it reads itself, with its graph behind it.
                backend = type(error).__module__.split(".")[0] in ("tensorflow", "jax", "jaxlib")
                if ctx.params.get("debug") or not backend:
                    raise
                said = [line.strip() for line in str(error).splitlines()]
                said = [line for line in said if line and line[0] not in "[<"]
                reason = said[-1] if said else "no reason given"
                _say_error(f"{type(error).__name__}: {reason} (--debug shows where)")
                raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    # Each completion of a word would wait for the backend to be imported.
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def main():
    """Runs the command line."""
    logs.hush()
    app(prog_name="vaezoo")


def _show_version(wanted):
    if wanted:
        import keras

        backend = keras.backend.backend()
        found = runs.versions()
        typer.echo(
            f"vaezoo {__version__} (keras {found['keras']}, backend {backend} "
            f"{found.get(backend, 'unknown')}, python {found['python']})"
        )
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions and the backend.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback behind an error.")
    ] = False,
):
    """Train, sample and export variational auto-encoders that do not collapse.

    From a published model to a served one:

      [bold]vaezoo list[/]                                    the presets there are
      [bold]vaezoo train du_vae_digits_mlp --out runs/du[/]   a minute on two cores
      [bold]vaezoo diagnose runs/du[/]                        is its latent code healthy?
      [bold]vaezoo evaluate runs/du[/]                        likelihood, information, rates
      [bold]vaezoo sample runs/du[/]                          new digits: runs/du/samples.png
      [bold]vaezoo export runs/du served/du[/]                a SavedModel that serves alone

    Each command has examples: [bold]vaezoo train --help[/].

    The backend is chosen by an environment variable, before Keras starts:
    [bold]KERAS_BACKEND=jax vaezoo train ...[/]; TensorFlow is the default.
    """


@app.command("list")
def list_presets(
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET", help="Show everything about this preset.", show_default=False
        ),
    ] = None,
):
    """Show the presets, or everything that one of them sets and takes.

    A preset is a published model with its networks, training and data settings.

    Examples:
      vaezoo list
      vaezoo list du_vae_digits_mlp
    """
    console = _console()
    if preset is None:
        console.print(listing.presets_table(with_source=console.width >= 100))
        console.print("\nEverything about one of them: vaezoo list PRESET", highlight=False)
        return
    for part in listing.preset_view(preset, *_known_preset(preset)):
        console.print(part, highlight=False)


@app.command()
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
            help="Fixes initial weights, noise, order and binarisation of the training data.",
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
            "step is short.",
            show_default="1",
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
            help="Continue the run in --out after its last complete epoch, with its settings.",
            rich_help_panel="Run",
        ),
    ] = False,
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
):
    """Train a preset and keep all there is to know about the run in one directory.

    config.json and versions.json say what was run, history.jsonl has a line
    an epoch, checkpoints/ the last and the best model, tensorboard/ the curves
    and model.keras the result; vocabulary.txt has the words of a run on text.
    Ctrl-C loses at most one epoch.

    Examples:
      vaezoo train du_vae_digits_mlp --out runs/du
      vaezoo train du_vae_digits_mlp --out runs/du --resume --epochs 120
      vaezoo train du_vae_mnist_mlp --data my_images.npz --epochs 20
      vaezoo train beta_vae_digits_mlp --set beta=2 --set training.learning_rate=3e-4
      vaezoo train vae_digits_mlp --set networks.hidden_units=[64,64]
      vaezoo train beta_vae_digits_mlp --set "beta=LinearSchedule(1000)"
      vaezoo train text_vae_text_tiny --data my_sentences --out runs/text
    """
    # The backend takes seconds to import: what can fail before that does.
    if resume and overwrite:
        raise ValueError("`--resume` and `--overwrite` exclude each other")
    if resume and out is None:
        raise ValueError("`--resume` needs `--out`, the directory of the run to continue")
    directory = out or runs.default_directory(preset)
    _check_preset(preset)
    stored, progress = None, None
    if resume:
        stored = runs.read_config(directory)
    else:
        runs.check_free(directory, overwrite)
        check_writable(directory / runs.CONFIG)
    import keras

    from .. import data
    from .recorder import RunRecorder, load_weights, save_model

    constructor, base = _known_preset(preset)
    if resume:
        base = _read_settings(directory, stored)
    given = settings.parse_overrides(assignments or [], base)
    _add(given, "data", name_or_path=data_name, data_dir=data_dir and str(data_dir.resolve()))
    _find_data(given["data"], base["data"])
    _add(given, "data", batch_size=batch_size, limit=limit)
    _add(given, "training", epochs=epochs)
    options = {
        "seed": seed,
        "precision": precision and precision.value,
        "validation": validation,
        "steps_per_execution": steps_per_execution,
        "xla": xla,
        "monitor": monitor,
    }
    options = {name: value for name, value in options.items() if value is not None}

    if resume:
        _check_same_run(directory, stored, preset, given, options)
        options = {**OPTIONS, **stored["options"], **options}
        given = {section: {**base[section], **given[section]} for section in settings.SECTIONS}
        progress = runs.read_progress(directory)
    else:
        wanted = {**base["training"], **given["training"]}.get("validation", "auto")
        wanted = "none" if wanted is None else wanted
        if not isinstance(wanted, str):
            raise ValueError(
                f"training.validation must be a split, 'auto' or 'none'. Received: {wanted!r}"
            )
        options = {**OPTIONS, "validation": wanted, **options}

    keras.utils.set_random_seed(options["seed"])
    keras.config.set_dtype_policy(options["precision"])
    known = runs.read_vocabulary(directory) if "vocabulary_sha256" in (stored or {}) else None
    with runs.asking_again(stored, given["data"]):
        if "num_examples" in base["model"]:
            trained_on, _ = _data_args(_merged(base["data"], given["data"]), options, 0)
            given["model"].setdefault("num_examples", _described(trained_on).num_examples)
        run = _build(preset, given, known)
    vocabulary = _vocabulary_in(run.data_args)
    config = {
        "preset": preset,
        "model": constructor.__name__,
        "options": options,
        "settings": settings.to_json(run.settings),
        "command": shlex.join(["vaezoo", *sys.argv[1:]]),
        "resumed": [],
    }
    if vocabulary is not None:
        config["vocabulary_sha256"] = runs.fingerprint(vocabulary)
    epochs, trained = run.fit_args["epochs"], len(progress.history) if progress else 0
    if resume:
        last = {"epoch": trained, "command": config["command"], "versions": runs.versions()}
        config.update(command=stored["command"], resumed=[*stored.get("resumed", ()), last])
        for name in runs.ASKED:
            if name in stored["settings"]["data"]:
                config["settings"]["data"].setdefault(name, stored["settings"]["data"][name])
    finished = (directory / runs.MODEL).exists()
    if resume and progress.ended and trained < epochs:
        if finished:
            raise ValueError(
                f"'{directory}' has ended after {trained} epochs, with the last of its plateaus: "
                "more epochs would not change it"
            )
        epochs = trained
    if trained >= epochs and finished:
        raise ValueError(
            f"'{directory}' has all of its {epochs} epochs: ask for more with --epochs"
        )
    recorder = RunRecorder(directory, config, progress, overwrite, vocabulary)
    with runs.asking_again(stored, given["data"]):
        train_args, validation_args = _data_args(run.data_args, options, trained)
        train_data = data.load(**train_args)
        if validation_args is None and run.settings["training"].get("plateau"):
            raise ValueError(
                "`--validation none` leaves the preset's learning rate without the bound that it "
                "follows: give --set training.plateau=none along with it"
            )
        validation_data = validation_args and data.load(**validation_args)

    compile_args = {**run.compile_args, "steps_per_execution": options["steps_per_execution"]}
    if not options["xla"]:
        compile_args["jit_compile"] = False
    run.model.compile(**compile_args)
    # Checkpoints have the same variables from the first one on.
    run.model.optimizer.build(run.model.trainable_variables)
    if resume and (directory / runs.LAST).exists():
        load_weights(run.model, directory / runs.LAST)
        if not trained and int(run.model.optimizer.iterations):
            raise ValueError(
                f"'{directory / runs.HISTORY}' has no epoch, and {runs.LAST} is of a later one: "
                "nobody can tell where to go on. Start anew with --overwrite"
            )

    console = _console()
    if not quiet:
        size = " x ".join(map(str, run.settings["networks"]["input_shape"]))
        if vocabulary is not None:
            size = f"sentences of {len(vocabulary):,} ids"
        console.print(
            f"{constructor.__name__} with {run.model.count_params():,} parameters on "
            f"{train_args['name_or_path']} ({size}), {keras.backend.backend()} "
            f"{_compiler(run.model)}, {options['precision']}, epochs {trained + 1} to {epochs}. "
            f"Run: {directory}",
            highlight=False,
        )
    resumption = shlex.join(["vaezoo", "train", preset, "--out", str(directory), "--resume"])
    for name in runs.ASKED:
        if name in given["data"]:
            flag = "--data-dir" if name == "data_dir" else f"--set data.{name}="
            value = str(given["data"][name])
            resumption += f" {flag}{' ' if name == 'data_dir' else ''}{shlex.quote(value)}"
    try:
        with _signals_first():
            run.model.fit(
                train_data,
                validation_data=validation_data,
                epochs=epochs,
                initial_epoch=trained,
                callbacks=[
                    *recorder.around(run.fit_args.get("callbacks", ())),
                    # They change nothing, and draw while the checkpoint is already safe.
                    *_observers(directory, options, train_args, validation_args),
                ],
                verbose=0 if quiet else 1 if console.is_terminal else 2,
            )
        last = recorder.history[-1]
        if last["loss"] is not None:
            save_model(run.model, directory / runs.MODEL)
    except KeyboardInterrupt as error:
        if not (directory / runs.LAST).exists():
            raise
        by = f" by {error}" if isinstance(error, Ended) else ""
        _say_error(
            f"Interrupted{by} after {len(recorder.history)} of {epochs} epochs. The model as it "
            f"was then: {directory / runs.LAST}. To continue: {resumption}",
            "",
        )
        raise typer.Exit(getattr(error, "code", 130)) from None
    except Exception as error:
        recorder.withdraw()
        if isinstance(error, OSError) and recorder.history:
            raise OSError(f"{error}. To continue then: {resumption}") from error
        if isinstance(error, FloatingPointError) and recorder.history:
            recorder.fail(str(error))
            raise FloatingPointError(
                f"{error} The model after {len(recorder.history)} epochs: "
                f"{directory / runs.LAST}. To continue from it: {resumption}; to start anew with "
                "other settings, --overwrite"
            ) from error
        raise
    if last["loss"] is None:
        _say_error(
            f"The loss was no finite number in epoch {last['epoch']}, so training stopped. The "
            f"model as it was before: {directory / runs.LAST}. A smaller "
            "--set training.learning_rate may help."
        )
        raise typer.Exit(1)
    _print_summary(console, directory, recorder.history)
    told = runs.divergence(recorder.history, math.prod(run.settings["networks"]["input_shape"]))
    if told:
        _say_error(
            f"Training has diverged: {told}. {runs.BEST} is the best model. A smaller "
            "--set training.learning_rate may help, or data that are scaled; start anew with "
            "--overwrite."
        )
        raise typer.Exit(1)


@app.command()
def sample(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
        ),
    ],
    num: Annotated[
        int, typer.Option("-n", "--num", metavar="N", min=1, help="How many samples.")
    ] = 64,
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=SEEDS - 1, help="Equal seeds give equal samples."),
    ] = 0,
    draw: Annotated[
        bool,
        typer.Option(
            "--draw/--mean",
            help="Draw x from the likelihood p(x|z), or take its mean; text is always drawn.",
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", help="Of drawn words: less than 1 takes the probable ones."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="K", help="Draw each word among the K most probable ones."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Draw each word among the most probable ones of probability P."
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Pixels of the grid for one pixel of an image.",
            show_default=f"what enlarges small images to {grids.TILE} pixels",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png for a grid of images, a .txt for sentences, an .npz for the array x as "
            "the model returns it.",
            show_default="samples.png beside the model; sentences are shown",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
):
    """Generate new data from the prior: a grid of images, sentences, or an array.

    Of a run, the model after its last epoch is used, or else its last checkpoint.

    Examples:
      vaezoo sample runs/du
      vaezoo sample runs/du/checkpoints/best.keras -n 100 --seed 1 --out grid.png
      vaezoo sample runs/du -n 10000 --draw --out generated.npz
      vaezoo sample runs/text -n 10 --temperature 0.7 --top-k 50
    """
    file = runs.find_model(source)
    import numpy as np

    from .. import data

    model = runs.load_model(file)
    text = sentences.writes_text(model)
    out = out if out or text else file.with_name("samples.png")
    suffixes = (".txt" if text else ".png", ".npz")
    if out and out.suffix not in suffixes:
        raise ValueError(f"`--out` must end in {' or '.join(suffixes)}. Received: {out}")
    if out:
        check_target(out, overwrite)
    as_words = text and not (out and out.suffix == ".npz")
    vocabulary = sentences.vocabulary_of(model, file) if as_words else None
    image = out and out.suffix == ".png"
    if image:
        config = runs.run_of(file) or {"settings": {"data": {}}}
        value_range = config["settings"]["data"].get("value_range", (0.0, 1.0))
        shape = model.prior.event_shape
        scale = scale or grids.enlarging(shape)
        grids.check_size(num, shape[:2], scale)
    x = model.generate(
        num, seed=seed, mean=not draw, temperature=temperature, top_k=top_k, top_p=top_p
    )
    if as_words:
        lines = "".join(f"{line}\n" for line in data.to_text(x, vocabulary))
        if out is None:
            typer.echo(lines, nl=False)
            return
    if as_words:
        with written(out) as partial:
            partial.write_text(lines, "utf-8")
    elif image:
        grids.save(out, grids.grid(x, value_range, scale))
    else:
        with written(out) as partial:
            np.savez_compressed(partial, x=x)
    _console().print(f"{num} samples of {model.name} ({file}): {out}", highlight=False)


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder to write, new or empty.", show_default=False),
    ],
    beam: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Adds the signature decode_beam to a model of text, a search among N sentences.",
            show_default=False,
        ),
    ] = None,
):
    """Export a SavedModel that serves without vaezoo, for TF Serving or `tf.saved_model.load`.

    Its signatures are encode (serving_default, too), decode, sample,
    reconstruct, interpolate and score. A model of text carries its words in
    assets.extra/vocabulary.txt. What exists is never overwritten.

    Example:
      vaezoo export runs/du served/du/1
      saved_model_cli show --dir served/du/1 --all
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"'{out}' exists and is never overwritten: name another folder")
    check_writable(out)
    file = runs.find_model(source)
    model = runs.load_model(file)
    vocabulary = sentences.vocabulary_of(model, file) if sentences.writes_text(model) else None
    try:
        model.export(out, vocabulary=vocabulary, beam_size=beam)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        # TensorFlow writes by itself, and has errors of its own.
        if "No space left" not in str(error):
            raise
        with naming(out):
            raise OSError(errno.ENOSPC, "No space left on device") from error
    _console().print(
        f"SavedModel of {model.name}: {out}\nTo see it: saved_model_cli show --dir "
        f"{shlex.quote(str(out))} --all",
        highlight=False,
    )


judge.register(app, lambda: _console())
sentences.register(app, lambda: _console())


# -- train -----------------------------------------------------------------------------------------


def _check_preset(name):
    """Raises the zoo's error for an unknown preset, before the backend is imported."""
    check_name("preset", name, catalog.read(), "one of the zoo's")


def _known_preset(name):
    """Returns `(constructor, settings)` of a preset."""
    _check_preset(name)
    from .. import zoo

    return zoo.presets()[name]


def _add(overrides, section, **values):
    overrides[section].update({k: v for k, v in values.items() if v is not None})


def _read_settings(directory, stored):
    """The settings of a run that goes on, without what only the command line may ask for."""
    try:
        base = settings.from_json(stored["settings"])
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split("Full object config")[0].split())
        raise ValueError(
            f"'{directory / runs.CONFIG}' has settings that cannot be read: {reason}"
        ) from error
    base["data"] = runs.without_asked(base["data"])
    return base


def _find_data(given, base):
    """Replaces a name or path in the settings given by what is found from everywhere."""
    name = given.get("name_or_path", base.get("name_or_path"))
    from ..data.text import text_path

    in_folder = given.get("data_dir") and text_path(name, given["data_dir"])
    if in_folder:
        given["name_or_path"] = str(in_folder.resolve())
    elif "name_or_path" in given:
        given["name_or_path"] = _absolute(name)


def _absolute(name):
    """Returns a path to data such that it is found from everywhere, a name as it is."""
    from ..data.text import SUFFIXES, text_path

    if not isinstance(name, str) or not name:
        return name
    path = Path(name).expanduser()
    means_path = os.sep in name or path.suffix in (".npz", ".npy", ".mat", *SUFFIXES)
    if path.exists() and (means_path or text_path(name) == path):
        return str(path.resolve())
    return name


def _check_same_run(directory, config, preset, given, options):
    differences = []
    if config["preset"] != preset:
        differences.append(f"its preset is {config['preset']}")
    for section, values in given.items():
        for key, value in values.items():
            stored = config["settings"][section].get(key)
            free = (section, key) == ("training", "epochs") or key in runs.ASKED
            if not free and _nameless(stored) != _nameless(settings.to_json(value)):
                differences.append(f"its {section}.{key} is {stored}")
    for name in runs.DECISIVE:
        if options.get(name, config["options"][name]) != config["options"][name]:
            differences.append(f"its {name} is {config['options'][name]}")
    if differences:
        raise ValueError(
            f"'{directory}' already holds another run: {', '.join(differences)}. Leave out what "
            "differs to continue it, or name another directory with --out"
        )


def _nameless(value):
    """A setting without the names that Keras gives to layers in their order."""
    if isinstance(value, dict):
        dropped = ("name", "build_config")
        return {key: _nameless(item) for key, item in value.items() if key not in dropped}
    return [_nameless(item) for item in value] if isinstance(value, list) else value


def _build(preset, overrides, vocabulary=None):
    """Builds a preset for the data, whatever their shape.

    Text is read by `vocabulary`, or by one that is built; it is then in the run's `data_args`.
    """
    from .. import data, zoo
    from ..zoo.preset import check_arguments

    constructor, chosen = _known_preset(preset)
    for key, value in overrides["model"].items():
        homes = [s for s in settings.SECTIONS[1:] if key in chosen[s]]
        if key not in inspect.signature(constructor).parameters and homes:
            raise ValueError(
                f"`{key}` is no argument of {constructor.__name__}: did you mean "
                f"--set {homes[0]}.{key}={settings.as_text(value)}?"
            )
    check_arguments("data", overrides["data"], data.load, preset)
    data_args = _merged(chosen["data"], overrides["data"])
    if vocabulary is not None:
        data_args = runs.with_vocabulary(data_args, vocabulary)
    _check_kind(preset, {**chosen["networks"], **overrides["networks"]}, data_args)
    info = _described(data_args)
    text = isinstance(info, data.TextInfo)
    if text:
        data_args = runs.with_vocabulary(data_args, info.vocabulary)
        size = overrides["networks"].setdefault("vocabulary_size", info.vocabulary_size)
        if size != info.vocabulary_size:
            raise ValueError(
                "networks.vocabulary_size must be that of the data, "
                f"{info.vocabulary_size} in {info.name!r}. Received: {size}"
            )
    elif None in info.shape:
        raise ValueError(
            f"The images of {info.name!r} differ in size: choose one, as in "
            "--set data.image_size=64"
        )
    wanted = overrides["networks"].get("input_shape")
    if wanted is None:
        overrides["networks"]["input_shape"] = tuple(info.shape)
    elif tuple(wanted) != tuple(info.shape):
        raise ValueError(
            f"networks.input_shape must be the shape of the data, {tuple(info.shape)} in "
            f"{info.name!r}. Received: {tuple(wanted)}"
        )
    run = zoo.load(preset, **overrides)
    return run._replace(data_args=data_args) if text else run


def _merged(chosen, given):
    """Returns settings of data with those given; a vocabulary that is given need not be built."""
    if given.get("vocabulary") is not None:
        chosen = runs.with_vocabulary(chosen, None)
    return {**chosen, **given}


def _check_kind(preset, networks, data_args):
    """Raises an error for networks of text and other data, or the other way round."""
    from .. import zoo
    from ..data.text import text_path

    name = data_args["name_or_path"]
    text = text_path(name, data_args.get("data_dir"))
    parts = (networks["kind"], networks.get("encoder"), networks.get("decoder"))
    make_decoder = zoo.networks.makers(*parts)[1]
    for_text = "vocabulary_size" in inspect.signature(make_decoder).parameters
    if for_text and text is None:
        raise ValueError(
            f"{preset} is trained on text: give --data PATH, a folder with train.txt, valid.txt "
            f"and test.txt, or a .txt file with a sentence a line. No such thing: {name!r}"
        )
    if text is not None and not for_text:
        raise ValueError(
            f"{preset} is trained on images, and {name!r} holds text: choose a preset whose "
            "networks are of kind 'lstm' in `vaezoo list`"
        )


def _vocabulary_in(data_args):
    from .. import data

    vocabulary = data_args.get("vocabulary")
    return vocabulary if isinstance(vocabulary, data.Vocabulary) else None


def _described(data_args, **changes):
    from .. import data

    args = {**data_args, **changes}
    return data.describe(
        **{key: args[key] for key in inspect.signature(data.describe).parameters if key in args}
    )


def _compiler(model):
    """How the steps of a compiled model run, in words."""
    mode = "with XLA" if model.jit_compile else "without XLA"
    return f"{mode}, LSTMs by cuDNN" if model.uses_cudnn else mode


def _data_args(data_args, options, epoch):
    """Returns arguments of `data.load` for training and validation, the latter possibly None."""
    # Another seed for the epochs of a resumed run, or they would repeat the order of the first.
    args = {**data_args, "seed": data_args.get("seed", options["seed"]) + epoch}
    split = options["validation"]
    if split == "none":
        return args, None
    if split == "auto":
        split = "validation"
        if args.get("validation_split") is None and runs.can_hold_out(args):
            args["validation_split"] = runs.HELD_OUT
    # One fixed draw, so that epochs can be compared.
    binarize = args.get("binarize") and "fixed"
    changes = {"binarize": binarize, "shuffle": False, "drop_remainder": False}
    held_out = {**args, "split": split, **changes}
    # What is not trained on has no place in the training set.
    held_out.pop("with_index", None)
    return args, held_out


def _observers(directory, options, train_args, validation_args):
    if not importlib.util.find_spec("tensorflow"):
        return []
    import keras

    from .. import callbacks, data

    folder = directory / runs.TENSORBOARD
    found = [keras.callbacks.TensorBoard(folder, write_graph=False)]
    if options["monitor"]:
        names = inspect.signature(data.load_arrays).parameters
        # Without validation data, the first of the training data are watched.
        watched = validation_args or {**train_args, "binarize": train_args["binarize"] and "fixed"}
        args = {name: value for name, value in watched.items() if name in names}
        args["limit"] = min(args.get("limit") or MONITORED, MONITORED)
        x, labels = data.load_arrays(**args)
        labels = labels if getattr(labels, "ndim", 0) == 1 else None
        vocabulary = _vocabulary_in(args)
        to_text = vocabulary and functools.partial(data.to_text, vocabulary=vocabulary)
        found.append(callbacks.LatentMonitor(x, labels, log_dir=folder, to_text=to_text))
    return found


# -- output ----------------------------------------------------------------------------------------


def _print_summary(console, directory, history):
    from rich.table import Table

    last, best = history[-1], min(history, key=lambda record: runs.score(record)[0])
    score, key = runs.score(last)
    (lowest, _) = runs.score(best)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in {
        "model": f"{directory / runs.MODEL} (epoch {last['epoch']}, {key} {score:.2f} nats)",
        "best": f"{directory / runs.BEST} (epoch {best['epoch']}, {key} {lowest:.2f} nats)",
        "history": str(directory / runs.HISTORY),
        "next": f"vaezoo sample {shlex.quote(str(directory))}",
        "": f"vaezoo export {shlex.quote(str(directory))} DIRECTORY",
        " ": f"tensorboard --logdir {shlex.quote(str(directory))}",
    }.items():
        table.add_row(name, text)
    console.print(table)


def _console():
    # Paths, names and reasons are printed as they are: what looks like markup in them is none.
    console = Console(markup=False)
    # Pipes and files get whole lines.
    return console if console.is_terminal else Console(markup=False, width=200)


def _say_error(error, label="Error: "):
    # A terminal that was closed hears nothing more.
    with contextlib.suppress(OSError):
        typer.secho(label + " ".join(str(error).split()), fg="red", err=True)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    typer.secho(f"Warning: {' '.join(str(message).split())}", fg="yellow", err=True)
