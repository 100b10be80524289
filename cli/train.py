"""`vaezoo train`: trains a preset into the directory of a run."""

import enum
import functools
import importlib.util
import inspect
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.checks import SEEDS, check_seed
from ..core.files import check_writable
from ..runs import directory as runs
from ..runs import settings
from . import catalog
from .console import open_console, say_error
from .signals import Ended, signals_first

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


class Precision(enum.StrEnum):
    """Dtype policies of Keras."""

    FLOAT32 = "float32"
    BFLOAT16 = "mixed_bfloat16"
    FLOAT16 = "mixed_float16"


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
    catalog.check(preset)
    stored, progress = None, None
    if resume:
        stored = runs.read_config(directory)
    else:
        runs.check_free(directory, overwrite)
        check_writable(directory / runs.CONFIG)
    import keras

    from .. import data
    from ..runs.recorder import RunRecorder, load_weights, save_model

    constructor, base = catalog.preset_of(preset)
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

    console = open_console()
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
        with signals_first():
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
        say_error(
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
        say_error(
            f"The loss was no finite number in epoch {last['epoch']}, so training stopped. The "
            f"model as it was before: {directory / runs.LAST}. A smaller "
            "--set training.learning_rate may help."
        )
        raise typer.Exit(1)
    _print_summary(console, directory, recorder.history)
    # Sentences have no length of their own, so that a rise alone tells of them.
    sizes = (size or math.inf for size in run.settings["networks"]["input_shape"])
    told = runs.divergence(recorder.history, math.prod(sizes))
    if told:
        say_error(
            f"Training has diverged: {told}. {runs.BEST} is the best model. A smaller "
            "--set training.learning_rate may help, or data that are scaled; start anew with "
            "--overwrite."
        )
        raise typer.Exit(1)


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

    constructor, chosen = catalog.preset_of(preset)
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
    seed = check_seed("seed", data_args.get("seed", options["seed"]), optional=False)
    args = {**data_args, "seed": seed + epoch}
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
