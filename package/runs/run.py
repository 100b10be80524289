"""`Run`: trains what a `RunSpec` says, keeps it in a directory, goes on with it, finds it again."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from .. import callbacks as _callbacks
from .. import data as _data
from ..core.checkpoints import position_of, read_every, standing
from ..core.checks import check_choice, check_integer, check_keys, check_kind
from ..core.files import check_writable
from ..core.locks import locked
from ..core.precision import dtype_policy
from ..data import DataSpec
from . import directory as _directory
from .conditions import condition_name, conditioned, conditioned_arrays
from .forensics import investigate, keep
from .models import load_model
from .recorder import RunRecorder, load_weights, record_of, rewind, rewinds_of, save_model
from .settings import SECTIONS, to_json
from .spec import (
    OPTIONS,
    RunSpec,
    asking_again,
    build,
    located,
    resolved,
    splits,
    with_vocabulary,
    without_asked,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Largest number of held-out examples on which the latent code is watched in training.
MONITORED = 1000


class Run:
    """A training run: its spec, its data, its model, its history, and the directory of all that.

        run = runs.Run.create("runs/du", runs.RunSpec("du_vae_digits_mlp"))
        run.fit()
        run = runs.Run.open("runs/du")
        run.fit(epochs=120)
        run.model().generate(16), run.history[-1]["val_bound"]

    Make one by `create` or `open`.

    Attributes:
        spec: `RunSpec` with all settings spelt out.
        directory: `Path`, or None for a run that is kept in memory alone.
    """

    def __init__(
        self,
        spec: RunSpec,
        directory: Path | None = None,
        *,
        vocabulary: Any = None,
        stored: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.spec, self._resolved = spec, stored is None
        # A `Path`, or None.
        self.directory: Any = directory
        self._vocabulary, self._stored, self._overwrite = vocabulary, stored, overwrite
        self._asked = {} if stored is None else stored["settings"]["data"]
        self._command: str | None = None
        self._next: Any = None
        self._model: Any = None
        self._records: list[dict[str, Any]] = []

    @classmethod
    def create(
        cls,
        directory: str | Path | None,
        spec: RunSpec,
        *,
        overwrite: bool = False,
        command: str | None = None,
    ) -> Run:
        """Makes a new run of a spec, which is resolved for the data that there are.

        Nothing is written until training begins, so that a start that fails leaves nothing behind.

        Args:
            directory: Folder for the run, new, empty or with a run to overwrite; None keeps the
                run in memory alone, without checkpoints and TensorBoard.
            spec: `RunSpec`.
            overwrite: Whether a run that is already there is replaced.
            command: What started the run, kept in `config.json`.

        Raises:
            FileExistsError: If something else is there.
            ValueError: As in `RunSpec.resolve`.
        """
        check_kind("spec", spec, RunSpec, "a RunSpec")
        if directory is not None:
            directory = Path(directory)
            _directory.check_free(directory, overwrite)
            check_writable(directory / _directory.CONFIG)
        spec, vocabulary = resolved(spec)
        run = cls(spec, directory, vocabulary=vocabulary, overwrite=overwrite)
        run._command = command
        return run

    @classmethod
    def open(cls, directory: str | Path, *, command: str | None = None, **changes: Any) -> Run:
        """Opens the run in a directory, to read it or to go on with it.

        Args:
            directory: Folder of the run.
            command: What goes on with the run, kept in `config.json` if it is trained.
            **changes: Fields of the spec, which must be those of the run. These alone may differ:
                `training={"epochs": ...}`, `steps_per_execution`, `xla`, `monitor`,
                `checkpoint_every`, `on_nan`, `max_rewinds`; `data={"data_dir": ...}` or
                `"download"`, which are not taken from the file; and `data={"name_or_path": ...}`
                for a file or folder that was moved, under the same name.

        Raises:
            FileNotFoundError: If there is no run.
            ValueError: If its configuration cannot be used, or a change makes it another run.
        """
        check_keys("`changes` of a run", changes, ("preset", *SECTIONS, *OPTIONS))
        directory = Path(directory)
        stored = _directory.read_config(directory)
        changes = {name: value for name, value in changes.items() if value is not None}
        try:
            spec = RunSpec.from_dict(stored)
        except ValueError as error:
            raise ValueError(f"'{directory / _directory.CONFIG}' has {error}") from error
        spec = spec.replace(data=without_asked(spec.data))
        given = changes.get("data", {})
        given = located(given.given() if isinstance(given, DataSpec) else given, spec.data)
        _check_same_run(directory, stored, {**changes, "data": given})
        merged = {
            name: {**getattr(spec, name), **(given if name == "data" else changes.get(name, {}))}
            for name in SECTIONS
        }
        options = {name: changes[name] for name in OPTIONS if name in changes}
        run = cls(spec.replace(**merged, **options), directory, stored=stored)
        run._command = command
        return run

    @property
    def history(self) -> list[dict]:
        """Records of the epochs so far, a dict each: `epoch`, `seconds` and the logs."""
        if self.directory is None:
            return list(self._records)
        return [] if self._stored is None else _directory.recorded(self.directory)

    @property
    def epochs(self) -> int:
        """Epochs that the run is to have, those so far included."""
        return self.spec.training["epochs"]

    @property
    def vocabulary(self) -> Any:
        """`Vocabulary` of a run on text, or None."""
        if self._vocabulary is None and "vocabulary_sha256" in (self._stored or {}):
            self._vocabulary = _directory.read_vocabulary(self.directory)
        return self._vocabulary

    def data(self, split: str = "train") -> Any:
        """Returns batches of a split, those of "train" and "validation" as in training.

        Args:
            split: "train", "validation" or another one, with an optional slice.

        Returns:
            What `data.load` returns, or None for "validation" if the run has none.
        """
        train, validation = self._splits()
        if split in ("train", "validation"):
            spec = train if split == "train" else validation
            return spec and self._batches(spec)
        return self._batches(self._held_out(split))

    def arrays(self, split: str = "test", **changes: Any) -> tuple:
        """Returns a split as arrays `(x, y)`, pixels drawn once where training draws them.

        Of a conditional run x is a dict of the data and their labels.

        Args:
            split: Split, with an optional slice.
            **changes: Fields of `data.DataSpec`, such as `limit` or `binarize`.
        """
        x, y = self._read(_data.load_arrays, self._held_out(split).replace(**changes))
        return conditioned_arrays(x, y, condition_name(self.spec.networks)), y

    def _batches(self, spec):
        return conditioned(self._read(_data.load, spec), condition_name(self.spec.networks))

    def model(self, which: str = "final") -> Any:
        """Returns the model.

        Args:
            which: "final" for the model after its last epoch so far, "best" for the one with the
                best bound on validation data.

        Raises:
            FileNotFoundError: If the run has no such model yet.
        """
        check_choice("which", which, ("final", "best"))
        if which == "final" and self._model is not None:
            return self._model
        if self.directory is None:
            if which == "best":
                raise FileNotFoundError("A run without a directory keeps no best model")
            return self._built().model
        file = self.directory / _directory.BEST if which == "best" else self.directory
        return load_model(_directory.find_model(file))

    def prepare(self) -> Prepared:
        """Builds and compiles the model, opens the data, and reads the last checkpoint.

        `fit` does so by itself; beforehand, it tells what will be trained.
        """
        return self._opened(self._built())

    def fit(
        self,
        callbacks: Any = (),
        *,
        epochs: int | None = None,
        checkpoint_every: Any = None,
        on_nan: str | None = None,
        verbose: Any = "auto",
        x: Any = None,
        validation_data: Any = None,
        **fit_args: Any,
    ) -> list[dict]:
        """Trains, from the last checkpoint on where there is one.

        A run that was stopped, by `kill -9` too, ends with the bits of one that never was, given
        the same machine, versions and settings. Ctrl-C and SIGTERM wait for the end of the batch
        and save; a second one does not wait.

        Args:
            callbacks: Keras callbacks beside those that the run has. What they have as
                `get_state()` is in the checkpoint, and given to `set_state` when the run goes on.
            epochs: Epochs that the run is to have, those so far included; by default the spec's.
            checkpoint_every: How often to save within an epoch, as in `RunSpec`, whose value is
                the default.
            on_nan: What to do about a loss that is not finite, as in `RunSpec`, whose value is the
                default.
            verbose: As in `Model.fit`.
            x: Data to train on in place of the spec's.
            validation_data: The same to validate on.
            **fit_args: Further arguments of `Model.fit`, which belong to such data.

        Returns:
            The history, as the attribute.

        Raises:
            ValueError: If the run has all of its epochs, or cannot go on.
            FloatingPointError: If the loss is no finite number.
            OSError: If the directory cannot be written.
        """
        if epochs is not None:
            training = {**self.spec.training, "epochs": check_integer("epochs", epochs)}
            self.spec = self.spec.replace(training=training)
        if checkpoint_every is not None:
            self.spec = self.spec.replace(checkpoint_every=checkpoint_every)
            if self._next is not None and self._next.recorder is not None:
                self._next.recorder.every = read_every("checkpoint_every", checkpoint_every)
        if self.directory is None and self._records:
            raise ValueError("A run without a directory is trained once")
        if on_nan is not None:
            self.spec = self.spec.replace(on_nan=on_nan)
        while True:
            # That of a new run is taken where its directory is made.
            with locked(None if self._stored is None else self.directory) as lock:
                try:
                    return self._fit(lock, callbacks, verbose, x, validation_data, fit_args)
                except _Rewound as rewound:
                    if verbose:
                        print(rewound)

    def adopt(self, model: keras.Model, records: Sequence[dict[str, float]]) -> None:
        """Takes a model that was trained elsewhere for what a new run has trained so far.

        The run is written with its weights and the state of its optimizer, and goes on from there.

        Args:
            model: Model of the run's spec, trained.
            records: Dict of numbers for each epoch that it stands for, `loss` among them.

        Raises:
            ValueError: If the run has begun, or the model is another one than the spec's.
        """
        if self.directory is None or self._stored is not None:
            raise ValueError("`adopt` needs a new run with a directory")
        ready = self._built()
        own, other = ready.model.weights, model.weights
        if [tuple(w.shape) for w in own] != [tuple(w.shape) for w in other]:
            raise ValueError(
                f"`model` must be one of the run's spec, {self.spec.constructor}. Received: "
                f"{model.name!r}, whose weights have other shapes"
            )
        ready.model.set_weights(model.get_weights())
        states = [
            getattr(getattr(one, "optimizer", None), "variables", ())
            for one in (ready.model, model)
        ]
        if [tuple(v.shape) for v in states[0]] == [tuple(v.shape) for v in states[1]]:
            for variable, value in zip(*states, strict=True):
                variable.assign(value)
        ready.recorder.adopt(ready.model, records)
        self._model, self._next = ready.model, None
        self._stored, self._overwrite = _directory.read_config(self.directory), False

    def _fit(self, lock, callbacks, verbose, x, validation_data, fit_args):
        last = None if self.directory is None else self.directory / _directory.LAST
        if self._next is not None and lock is not None and position_of(last) != self._next.position:
            # Another process has gone on with it in the meantime.
            self._next = None
        ready = self._built()
        if x is None:
            self._opened(ready, validation_data is None)
            x = ready.train
        validation = ready.validation if validation_data is None else validation_data
        own, recorder = [*ready.callbacks, *keras.tree.flatten(callbacks)], ready.recorder
        if recorder is not None:
            recorder.lock = lock
            # Observers change nothing, and draw while the checkpoint is already safe.
            own = [*recorder.around(own), *self._observers(ready)]
        try:
            with dtype_policy(self.spec.precision):
                history = ready.model.fit(
                    x,
                    validation_data=validation,
                    epochs=ready.epochs,
                    initial_epoch=ready.trained_epochs,
                    callbacks=own,
                    verbose=verbose,
                    **fit_args,
                )
            if recorder is None:
                self._records = _records(history)
            else:
                last = recorder.history[-1]
                if last["loss"] is None:
                    # A model whose own `fit` does not watch its loss.
                    raise FloatingPointError(f"The loss was not finite in epoch {last['epoch']}.")
                file = self.directory / _directory.MODEL
                save_model(ready.model, file, len(recorder.history))
            self._model = ready.model
        except FloatingPointError as error:
            if recorder is None or not recorder.claimed:
                raise
            # It stays, with what is found.
            self._lost(ready, recorder, error, x, validation, fit_args)
        except Exception:
            if recorder is not None:
                recorder.withdraw()
            raise
        finally:
            # What comes next begins with the last checkpoint.
            self._next = None
            if recorder is not None and recorder.lock is not None:
                recorder.lock.release()
            if recorder is not None and recorder.claimed:
                self._stored, self._overwrite = _directory.read_config(self.directory), False
        return self.history

    def _lost(self, ready, recorder, error, x, validation, fit_args):
        """Finds out why a loss is not finite, and stops or goes back."""
        report = None
        last = self.directory / _directory.LAST
        saved = _directory.read_progress(self.directory)
        model = ready.model
        steering = [one for one in ready.callbacks if not isinstance(one, RunRecorder)]

        def run_again(examiner):
            with dtype_policy(self.spec.precision), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(
                    x,
                    validation_data=validation,
                    epochs=saved.epoch + 1,
                    initial_epoch=saved.epoch,
                    callbacks=[*steering, examiner],
                    verbose=0,
                    **fit_args,
                )

        if not inspect.isgenerator(x):
            load_weights(model, last)
            found = investigate(run_again, model, saved)
            if found is not None:
                report = found[0]
                keep(self.directory, model, *found)
        told = (
            report["text"]
            if report
            else ("It was finite when the steps since the last checkpoint were taken again.")
        )
        done = sum(len(record.get(_directory.REWINDS, ())) for record in saved.history)
        done += len(rewinds_of(saved))
        note = (
            {key: report[key] for key in ("epoch", "batch", "text")}
            if report
            else {"epoch": saved.epoch + 1, "text": str(error)}
        )
        # Of the first batch after the checkpoint the loss is that, whatever the learning rate.
        first = (saved.epoch + 1, saved.batch + 1)
        vain = report and report["terms"] and (report["epoch"], report["batch"]) == first
        if vain:
            told += " It is the first batch after the checkpoint: no learning rate mends that."
        if self.spec.on_nan == "rewind" and done < self.spec.max_rewinds and not vain:
            load_weights(model, last)
            saved = rewind(model, last, saved, note)
            rate = rewinds_of(saved)[-1]["learning_rate"]
            raise _Rewound(
                f"{told} Going back to {standing(*saved.position)} with a learning rate of "
                f"{rate:.3g} ({done + 1} of at most {self.spec.max_rewinds} times)."
            )
        if recorder.history:
            recorder.fail(f"{error} {told}")
        tried = f" It went back {done} times, to half the learning rate each." if done else ""
        where = shlex.quote(str(self.directory))
        more = f" The batch and the model before it are kept: vaezoo diagnose {where}."
        raise FloatingPointError(f"{error} {told}{tried}{more if report else ''}") from error

    def _read(self, function, spec):
        if self.vocabulary is not None:
            spec = with_vocabulary(spec, self.vocabulary)
        with self._asking():
            return function(spec)

    def _asking(self):
        data = self.spec.data
        return asking_again(self._asked, data.given() if isinstance(data, DataSpec) else data or {})

    def _splits(self):
        data = self.spec.data
        if not isinstance(data, DataSpec):
            # Of a directory, where data are the sparse settings of its file.
            data = DataSpec(**{"seed": self.spec.seed, **data})
        return splits(data, self.spec.validation)

    def _held_out(self, split):
        train, _ = self._splits()
        return train.replace(
            split=split, binarize=train.binarize and "fixed", shuffle=False, drop_remainder=False,
            with_index=False,
        )  # fmt: skip

    def _built(self):
        """Builds what is trained next, once."""
        if self._next is not None:
            return self._next
        directory, stored = self.directory, self._stored
        progress = None if stored is None else _directory.read_progress(directory)
        trained = len(progress.history) if progress else 0
        keras.utils.set_random_seed(self.spec.seed)
        with dtype_policy(self.spec.precision):
            if not self._resolved:
                with self._asking():
                    self.spec, self._vocabulary = resolved(self.spec, self.vocabulary)
                self._resolved = True
            built = build(self.spec)
            epochs = self.spec.training["epochs"]
            if directory is not None:
                epochs = self._epochs_left(progress, trained, epochs)
            ready = Prepared(built.model, epochs, trained)
            ready.trained_batches = progress.batch if progress else 0
            ready.position = None if stored is None else position_of(directory / _directory.LAST)
            ready.callbacks = list(built.fit_args.get("callbacks", ()))
            compile_args = dict(built.compile_args)
            if self.spec.steps_per_execution is not None:
                compile_args["steps_per_execution"] = self.spec.steps_per_execution
            if not self.spec.xla:
                compile_args["jit_compile"] = False
            ready.model.compile(**compile_args)
            # Checkpoints have the same variables from the first one on.
            ready.model.optimizer.build(ready.model.trainable_variables)
            if stored is not None:
                self._load_weights(ready)
        if directory is not None:
            config = self._config(trained)
            ready.recorder = RunRecorder(
                directory,
                config,
                progress,
                self._overwrite,
                self.vocabulary,
                self.spec.checkpoint_every,
            )
        self._next = ready
        return ready

    def _epochs_left(self, progress, trained, epochs):
        final = self.directory / _directory.MODEL
        finished = self._stored is not None and final.exists()
        # That of before an extension is not its end.
        finished = finished and _directory.epoch_of(final) in (None, trained)
        if progress is not None and progress.ended and trained < epochs:
            if finished:
                raise ValueError(
                    f"'{self.directory}' has ended after {trained} epochs, by a callback such as "
                    "its last plateau: further epochs would change nothing"
                )
            return trained
        if trained >= epochs and finished:
            raise ValueError(
                f"'{self.directory}' has all of its {epochs} epochs: ask for more with `epochs` "
                "(--epochs)"
            )
        return epochs

    def _opened(self, ready, with_validation=True):
        """Opens the data of the spec, once."""
        if ready.train is not None:
            return ready
        if self.spec.data is None:
            raise ValueError("`x` must be given for a spec without data. Received: x=None")
        train, validation = self._splits()
        if validation is None and with_validation and self.spec.training.get("plateau"):
            raise ValueError(
                "The preset lowers the learning rate on the validation bound. Without validation "
                "data (--validation none) set training={'plateau': None} "
                "(--set training.plateau=none), too"
            )
        ready.train_spec, ready.validation_spec = train, validation if with_validation else None
        ready.train = self._batches(train)
        if ready.validation_spec is not None:
            ready.validation = self._batches(validation)
        return ready

    def _load_weights(self, ready):
        if not (self.directory / _directory.LAST).exists():
            return
        load_weights(ready.model, self.directory / _directory.LAST)
        begun = ready.trained_epochs or ready.trained_batches
        if not begun and int(ready.model.optimizer.iterations):
            raise ValueError(
                f"'{self.directory / _directory.HISTORY}' has no epoch, but {_directory.LAST} is "
                "of a later one, so the run cannot be resumed. Start anew, and overwrite the run "
                "(--overwrite)"
            )

    def _config(self, trained):
        """What `config.json` holds from now on."""
        config = {**self.spec.to_dict(), "command": self._command, "resumed": []}
        if self.vocabulary is not None:
            config["vocabulary_sha256"] = _directory.fingerprint(self.vocabulary)
        if self._stored is not None:
            last = {
                "epoch": trained,
                "command": self._command,
                "versions": _directory.versions(),
            }
            resumed = [*self._stored.get("resumed", ()), last]
            config.update(command=self._stored.get("command"), resumed=resumed)
            for name in _directory.ASKED:
                if name in self._asked:
                    config["settings"]["data"].setdefault(name, self._asked[name])
        return config

    def observers(self) -> list:
        """Returns the callbacks that show a run with a directory: TensorBoard, latent monitor."""
        return self._observers(self.prepare())

    def _observers(self, ready):
        if not importlib.util.find_spec("tensorflow"):
            return []
        folder = self.directory / _directory.TENSORBOARD
        found = [keras.callbacks.TensorBoard(folder, write_graph=False)]
        if not self.spec.monitor or ready.train_spec is None:
            return found
        # Without validation data, the first of the training data are watched.
        watched = ready.validation_spec or ready.train_spec
        limit = min(watched.limit or MONITORED, MONITORED)
        watched = watched.replace(binarize=watched.binarize and "fixed", limit=limit)
        x, labels = self._read(_data.load_arrays, watched)
        x = conditioned_arrays(x, labels, condition_name(self.spec.networks))
        labels = labels if getattr(labels, "ndim", 0) == 1 else None
        vocabulary = self.vocabulary
        to_text = vocabulary and functools.partial(_data.to_text, vocabulary=vocabulary)
        return [*found, _callbacks.LatentMonitor(x, labels, log_dir=folder, to_text=to_text)]


class _Rewound(Exception):
    """A run has gone back to its last checkpoint."""


class Prepared:
    """What a run trains next.

    Attributes:
        model: Compiled `VAE`, with the weights of the last checkpoint.
        epochs: Epochs that the run will have then.
        trained_epochs: Epochs that it has already.
        trained_batches: Batches of the next epoch that it has already.
        position: The same as the checkpoint tells it, or None without one.
        train_spec: `DataSpec` of the training data, or None before they are opened.
        validation_spec: The same of the validation data.
        train: Training batches, or None before they are opened.
        validation: Validation batches, or None.
        callbacks: What steers the training.
        recorder: `RunRecorder`, or None without a directory.
    """

    def __init__(self, model: keras.Model, epochs: int, trained_epochs: int) -> None:
        self.model, self.epochs, self.trained_epochs = model, epochs, trained_epochs
        self.train_spec: Any = None
        self.validation_spec: Any = None
        self.train: Any = None
        self.validation: Any = None
        self.callbacks: list[Any] = []
        self.recorder: Any = None


def find(name_or_path: str | Path, root: str | Path = "runs") -> Run:
    """Finds a run again.

    Args:
        name_or_path: Directory of the run, a file in it, the name of a directory in `root`, or the
            name of a preset for its latest run there.
        root: Folder where runs lie, that of `vaezoo train` by default.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(name_or_path)
    for place in (path, Path(root) / path):
        if place.is_file():
            for folder in (place.parent, place.parent.parent):
                if (folder / _directory.CONFIG).is_file():
                    return Run.open(folder)
        if place.is_dir():
            return Run.open(place)
    found = [
        folder
        for folder in sorted(Path(root).glob("*"), key=lambda folder: folder.stat().st_mtime)
        if folder.is_dir() and _preset_of(folder) == str(name_or_path)
    ]
    if not found:
        raise FileNotFoundError(f"No run '{name_or_path}', as a path or in the folder '{root}'")
    return Run.open(found[-1])


def _preset_of(folder):
    try:
        return _directory.read_config(folder)["preset"]
    except (FileNotFoundError, ValueError):
        return None


def _check_same_run(directory, config, changes):
    differences = []
    if changes.get("preset", config["preset"]) != config["preset"]:
        differences.append(f"its preset is {config['preset']}")
    for section in SECTIONS:
        for key, value in changes.get(section, {}).items():
            stored = config["settings"][section].get(key)
            free = (section, key) == ("training", "epochs") or key in _directory.ASKED
            free = free or (key == "name_or_path" and _moved(stored, value))
            if not free and _nameless(stored) != _nameless(to_json(value)):
                differences.append(f"its {section}.{key} is {stored}")
    for name in _directory.DECISIVE:
        if changes.get(name, config["options"][name]) != config["options"][name]:
            differences.append(f"its {name} is {config['options'][name]}")
    if differences:
        raise ValueError(
            f"'{directory}' already holds another run: {', '.join(differences)}. Leave out what "
            "differs to continue it, or name another directory (--out)"
        )


def _moved(stored, given):
    """Whether a path of data is gone, and there is one of the same name elsewhere."""
    paths = [Path(value) for value in (stored, given) if isinstance(value, str)]
    return (
        len(paths) == 2
        and all(path.is_absolute() for path in paths)
        and paths[0].name == paths[1].name
        and not paths[0].exists()
        and paths[1].exists()
    )


def _nameless(value):
    """A setting without the names that Keras gives to layers in their order."""
    if isinstance(value, dict):
        dropped = ("name", "build_config")
        return {key: _nameless(item) for key, item in value.items() if key not in dropped}
    return [_nameless(item) for item in value] if isinstance(value, list) else value


def _records(history):
    """The records of a Keras `History`."""
    columns = history.history
    return [
        record_of(epoch + 1, None, {name: values[i] for name, values in columns.items()})
        for i, epoch in enumerate(history.epoch)
    ]
