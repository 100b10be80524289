"""Run directories: what a training run leaves behind, and how it is found again.

config.json       every setting after overrides, the seed and the command
versions.json     Python, libraries, platform
history.jsonl     one strict JSON object per epoch
vocabulary.txt    of text: a word a line, line n (from 0) that of id n
checkpoints/      last.keras and best.keras
tensorboard/      event files
model.keras       the model after its last epoch
"""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import time
import zipfile
from pathlib import Path

import keras

from . import __version__, data, zoo

CONFIG, VERSIONS, HISTORY = "config.json", "versions.json", "history.jsonl"
VOCABULARY = "vocabulary.txt"
CHECKPOINTS, TENSORBOARD, MODEL = "checkpoints", "tensorboard", "model.keras"
LAST, BEST = f"{CHECKPOINTS}/last.keras", f"{CHECKPOINTS}/best.keras"


def default_directory(preset):
    """Returns a path `runs/<preset>-<timestamp>` that does not exist yet."""
    stem = Path("runs") / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    directory, number = stem, 2
    while directory.exists():
        directory, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return directory


def check_free(directory, overwrite=False):
    """Raises a `FileExistsError` unless a new run may write to `directory`."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if not directory.exists() and not directory.is_symlink():
        return
    config = _config_or_none(directory)
    if config is None:
        raise FileExistsError(
            f"'{directory}' exists and holds no vaezoo run, so nothing is written to it: name "
            "another directory with --out"
        )
    if not overwrite:
        raise FileExistsError(
            f"'{directory}' already holds another run, of {config['preset']}: continue it with "
            "--resume, replace it with --overwrite, or name another directory with --out"
        )


def read_config(directory):
    """Returns the configuration of the run in `directory`.

    Raises:
        FileNotFoundError: If there is no run.
    """
    config = _config_or_none(directory)
    if config is None:
        raise FileNotFoundError(f"'{directory}' holds no vaezoo run ({CONFIG})")
    return config


def _config_or_none(directory):
    try:
        config = json.loads((directory / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and "preset" in config else None


def run_of(model_file):
    """Returns the configuration of the run that wrote `model_file`, or None."""
    return next(filter(None, map(_config_or_none, _folders_of(model_file))), None)


def _folders_of(model_file):
    folder = model_file.parent
    return [folder, folder.parent] if folder.name == CHECKPOINTS else [folder]


def vocabulary_of(model_file):
    """Returns the vocabulary of the run that wrote `model_file`, or None if none lies there."""
    folders = [f for f in _folders_of(model_file) if (f / VOCABULARY).is_file()]
    return read_vocabulary(folders[0]) if folders else None


def read_vocabulary(directory):
    """Returns the vocabulary of the run in `directory`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not the one that the run was trained with.
    """
    vocabulary = data.Vocabulary.load(directory / VOCABULARY)
    trained_with = (_config_or_none(directory) or {}).get("vocabulary_sha256")
    if trained_with not in (None, fingerprint(vocabulary)):
        raise ValueError(
            f"'{directory / VOCABULARY}' is another vocabulary than the run was trained with: its "
            "ids would mean other words"
        )
    return vocabulary


def fingerprint(vocabulary):
    """Returns a hash of all words in their order."""
    return hashlib.sha256("\n".join(vocabulary.words).encode()).hexdigest()


def with_vocabulary(data_args, vocabulary):
    """Returns arguments of `data.load` that read text by a vocabulary instead of building one."""
    args = {k: v for k, v in data_args.items() if k not in ("max_size", "min_count")}
    return {**args, "vocabulary": vocabulary}


def read_history(directory):
    """Returns the records of the epochs that have a checkpoint behind them."""
    try:
        lines = (directory / HISTORY).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            # Cut short when the run was killed.
            break
        if record["loss"] is None:
            break
        records.append(record)
    return records


def versions():
    """Returns the versions that a result may depend on."""
    found = {
        "python": platform.python_version(),
        "vaezoo": __version__,
        "backend": keras.backend.backend(),
    }
    for name in (
        "keras",
        "tensorflow",
        "jax",
        "tensorflow-probability",
        "tfp-nightly",
        "tensorflow-datasets",
        "numpy",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "platform": platform.platform()}


class RunRecorder(keras.callbacks.Callback):
    """Writes the run directory, and claims it only when training is about to begin.

    Args:
        directory: Path of the run.
        config: JSON values, the run's configuration.
        resume: Whether the run in `directory` goes on.
        overwrite: Whether a run that is already there is removed.
        vocabulary: Vocabulary of a run on text.
    """

    def __init__(self, directory, config, resume=False, overwrite=False, vocabulary=None):
        super().__init__()
        self.directory, self.config = directory, config
        self.resume, self.overwrite, self.vocabulary = resume, overwrite, vocabulary
        self.history = read_history(directory) if resume else []
        self._started = None

    def on_train_begin(self, logs=None):
        if not self.resume:
            check_free(self.directory, self.overwrite)
            self._clear()
        (self.directory / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        if self.vocabulary is not None and not self.resume:
            # Before the configuration, which promises it.
            self.vocabulary.save(self.directory / VOCABULARY)
        self._write(CONFIG, json.dumps(self.config, indent=2))
        if not (self.directory / VERSIONS).exists():
            self._write(VERSIONS, json.dumps(versions(), indent=2))
        self._write(HISTORY, "".join(map(_line, self.history)))
        if not (self.directory / LAST).exists():
            self._save(LAST)

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        values = {name: float(value) for name, value in (logs or {}).items()}
        seconds = round(time.perf_counter() - self._started, 3)
        record = {"epoch": epoch + 1, "seconds": seconds, **map_finite(values)}
        if record["loss"] is None:
            self.model.stop_training = True
        else:
            # Before the record, which counts as the promise that the checkpoint is complete.
            self._save(LAST)
            if self._is_best(record):
                self._copy(LAST, BEST)
        self.history.append(record)
        with (self.directory / HISTORY).open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def _is_best(self, record):
        def score(one):
            value = one.get("val_loss", one["loss"])
            return math.inf if value is None else value

        return all(score(record) < score(other) for other in self.history)

    def _clear(self):
        for name in (CONFIG, VERSIONS, HISTORY, VOCABULARY, MODEL):
            (self.directory / name).unlink(missing_ok=True)
        for name in (CHECKPOINTS, TENSORBOARD):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def _write(self, name, text):
        partial = self.directory / f".{name}.partial"
        partial.write_text(text, "utf-8")
        os.replace(partial, self.directory / name)

    def _save(self, name):
        save_model(self.model, self.directory / name)

    def _copy(self, source, target):
        partial = self.directory / f"{target}.partial"
        shutil.copyfile(self.directory / source, partial)
        os.replace(partial, self.directory / target)


def save_model(model, path):
    """Saves a model so that `path` is the old file or the new one, never half of one."""
    partial = path.with_name(f".partial-{path.name}")
    model.save(partial)
    os.replace(partial, path)


def map_finite(values):
    """Replaces infinities and NaN, which JSON does not have, by None."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _line(record):
    return json.dumps(record, allow_nan=False) + "\n"


def find_model(path):
    """Finds the `.keras` file of a run directory, or returns the file itself.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"No run directory or model file '{path}'")
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            raise ValueError(
                f"'{path}' is an exported SavedModel: give the run directory or the .keras file "
                "that it was exported from"
            )
        for name in (MODEL, LAST):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"'{path}' holds no model: neither {MODEL} nor {LAST}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is not a .keras file")
    return path


def load_model(file):
    """Loads a `.keras` file, uncompiled; runs no code from it.

    Raises:
        ValueError: If it is not a model of vaezoo.
    """
    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises almost any kind for a broken file, with the whole configuration behind it.
        reason = " ".join(str(error).split("Full object config")[0].split())
        raise ValueError(f"'{file}' cannot be loaded: {reason}") from error
    if not isinstance(model, zoo.VAE):
        raise ValueError(f"'{file}' is not a model of vaezoo. Received: {type(model).__name__}")
    return model
