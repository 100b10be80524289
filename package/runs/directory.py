"""Run directories: what a training run leaves behind, and how it is found again.

config.json       every setting after overrides, the seed and the command
versions.json     Python, libraries, platform
history.jsonl     one strict JSON object per epoch
vocabulary.txt    of text: a word a line, line n (from 0) that of id n
checkpoints/      last.keras and best.keras; what the run goes on from is in last.keras
tensorboard/      event files
model.keras       the model after its last epoch
nonfinite/        of a loss that was not finite: batch.npz, before.keras (the model before that
                  batch) and report.json
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.checkpoints import Saved, position_of, read_state
from ..core.files import PARTIAL
from ..core.locks import LOCK
from .settings import SECTIONS

if TYPE_CHECKING:
    from typing import Any


CONFIG, VERSIONS, HISTORY = "config.json", "versions.json", "history.jsonl"
VOCABULARY = "vocabulary.txt"
CHECKPOINTS, TENSORBOARD, MODEL = "checkpoints", "tensorboard", "model.keras"
LAST, BEST = f"{CHECKPOINTS}/last.keras", f"{CHECKPOINTS}/best.keras"
#: What is kept of a loss that was not finite.
NONFINITE = "nonfinite"
NONFINITE_BATCH, NONFINITE_MODEL = f"{NONFINITE}/batch.npz", f"{NONFINITE}/before.keras"
NONFINITE_REPORT = f"{NONFINITE}/report.json"
#: Name under which a checkpoint has the times that a run went back after such a loss.
REWINDS = "rewinds"
#: Options that decide what is computed, so that a run cannot go on with another value.
DECISIVE = ("seed", "precision", "validation")
#: Part of "train" that is held out where a data set has no validation split of its own.
HELD_OUT = 1 / 12
#: Settings of data that only the command line may ask for: they make folders, or download.
ASKED = ("download", "data_dir")
#: A bound that many times further from its lowest value than that is from 0 tells of a divergence.
DIVERGED = 100.0
#: Nats for each value of an example that no model needs: an untrained one of 8-bit images that
#: nobody scaled, under N(m, 1), has 3e4.
HOPELESS = 1e6


def default_directory(preset: str) -> Path:
    """Returns a path `runs/<preset>-<timestamp>` that does not exist yet."""
    stem = Path("runs") / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    directory, number = stem, 2
    while directory.exists():
        directory, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return directory


def check_free(directory: Path, overwrite: bool = False) -> None:
    """Raises a `FileExistsError` unless a new run may write to `directory`."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if not directory.exists() and not directory.is_symlink():
        return
    if is_unbegun(directory):
        return
    try:
        config = _config_or_none(directory)
    except ValueError as error:
        raise FileExistsError(
            f"'{directory}' exists, and nothing is written to it: {error}. Name another directory "
            "(--out)"
        ) from error
    if config is None:
        raise FileExistsError(
            f"'{directory}' exists and holds no vaezoo run, so nothing is written to it: name "
            "another directory (--out)"
        )
    if not overwrite:
        raise FileExistsError(
            f"'{directory}' already holds another run, of {config['preset']}: continue "
            "it (--resume), overwrite it (--overwrite), or name another directory (--out)"
        )


def is_unbegun(directory: Path) -> bool:
    """Whether a run was stopped here before its configuration was written: nothing is lost."""
    if not (directory / LOCK).is_file():
        return False
    for path in directory.iterdir():
        if path.name in (LOCK, VOCABULARY) or path.name.startswith(PARTIAL):
            continue
        if path.name != CHECKPOINTS or not path.is_dir() or any(path.glob("[!.]*")):
            return False
    return True


def read_config(directory: Path) -> dict[str, Any]:
    """Returns the configuration of the run in `directory`.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If its configuration cannot be used.
    """
    config = _config_or_none(directory)
    if config is None:
        raise FileNotFoundError(f"'{directory}' holds no vaezoo run ({CONFIG})")
    return config


def _config_or_none(directory):
    """The configuration, or None where there is no such file, or that of another program."""
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ValueError(f"'{path}' cannot be read: {reason}") from error
    if not isinstance(config, dict) or "preset" not in config:
        return None
    for name, parts in (("settings", SECTIONS), ("options", DECISIVE)):
        held = config.get(name)
        if not isinstance(held, dict):
            raise ValueError(f"'{path}' is no configuration of a run: it has no {name!r}")
        missing = [part for part in parts if part not in held]
        if missing:
            raise ValueError(
                f"'{path}' is no configuration of a run: its {name!r} have no {missing[0]!r}"
            )
    wrong = [part for part in SECTIONS if not isinstance(config["settings"][part], dict)]
    if wrong:
        raise ValueError(
            f"'{path}' is no configuration of a run: {wrong[0]!r} of its 'settings' must be an "
            f"object. Received: {config['settings'][wrong[0]]!r}"
        )
    return config


def run_of(model_file: Path) -> dict[str, Any] | None:
    """Returns the configuration of the run that wrote `model_file`, or None."""
    return next(filter(None, map(_config_or_none, _folders_of(model_file))), None)


def _folders_of(model_file):
    folder = model_file.parent
    return [folder, folder.parent] if folder.name == CHECKPOINTS else [folder]


def vocabulary_of(model_file: Path) -> Any:
    """Returns the vocabulary of the run that wrote `model_file`, or None if none lies there."""
    folders = [f for f in _folders_of(model_file) if (f / VOCABULARY).is_file()]
    return read_vocabulary(folders[0]) if folders else None


def read_vocabulary(directory: Path) -> Any:
    """Returns the vocabulary of the run in `directory`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not the one that the run was trained with.
    """
    from ..data import Vocabulary

    vocabulary = Vocabulary.load(directory / VOCABULARY)
    trained_with = (_config_or_none(directory) or {}).get("vocabulary_sha256")
    if trained_with not in (None, fingerprint(vocabulary)):
        raise ValueError(
            f"'{directory / VOCABULARY}' is not the vocabulary that the run was trained with"
        )
    return vocabulary


def fingerprint(vocabulary: Any) -> str:
    """Returns a hash of all words in their order."""
    return hashlib.sha256("\n".join(vocabulary.words).encode()).hexdigest()


def read_progress(directory: Path) -> Any:
    """Reads how far the run in `directory` has come, a `Saved`; without a checkpoint, nowhere.

    Raises:
        ValueError: If checkpoint or history cannot be read, or contradict each other.
    """
    file = directory / LAST
    if not file.is_file():
        if read_history(directory):
            raise ValueError(
                f"'{directory}' cannot be continued: its {LAST} is missing. Start anew, and "
                "overwrite it (--overwrite)"
            )
        return Saved(0)
    try:
        saved = read_state(file)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{file}' is broken, and the run cannot go on from it: start anew, and overwrite it "
            f"(--overwrite), or use {BEST}. ({' '.join(str(error).split())})"
        ) from error
    if saved is None:
        # Of a version that kept no more than the history.
        history = read_history(directory)
        return Saved(len(history), history=history)
    if saved.epoch != len(saved.history):
        raise ValueError(f"'{file}' is broken: it has no record of each of {saved.epoch} epochs")
    try:
        lines = read_history(directory)
        # The last line may be missing, where the run was killed before it was written; and there
        # is one more than the checkpoint has epochs for a loss that was no number.
        reason = "" if lines == saved.history[: max(len(lines), saved.epoch - 1)] else "it differs"
    except ValueError as error:
        reason = str(error)
    if reason:
        warnings.warn(
            f"'{directory / HISTORY}' is not that of the last checkpoint, after epoch "
            f"{len(saved.history)}, and is written anew from it ({reason})",
            stacklevel=2,
        )
    return saved


def recorded(directory: Path) -> list[dict[str, Any]]:
    """Returns the records of complete epochs: those of the last checkpoint, or of the history.

    Raises:
        ValueError: If the history cannot be read.
    """
    lines = read_history(directory)
    found = epoch_of(directory / LAST)
    if found is None or found != len(lines) + 1:
        return lines
    # The run was killed before it had written the last line.
    try:
        saved = read_state(directory / LAST)
    except (OSError, ValueError):
        return lines
    return lines if saved is None else list(saved.history)


def read_history(directory: Path) -> list[dict[str, Any]]:
    """Returns the records of the epochs whose loss was a number.

    Raises:
        ValueError: If a line is no record of its epoch; the last one may have been cut short.
    """
    try:
        lines = (directory / HISTORY).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ValueError(f"'{directory / HISTORY}' is broken: it is no text") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                # Cut short when the run was killed.
                break
            raise ValueError(
                f"'{directory / HISTORY}' is broken: line {number} is no JSON"
            ) from error
        if not isinstance(record, dict) or record.get("epoch") != number or "loss" not in record:
            raise ValueError(
                f"'{directory / HISTORY}' is broken: line {number} is no record of epoch {number}"
            )
        if record["loss"] is None:
            break
        records.append(record)
    return records


def score(record: dict[str, Any]) -> tuple[float, str]:
    """What the best epoch is chosen by: `(value, name)`, lower is better.

    It is the negative bound on validation data, without regularizers, wherever a model has one;
    infinite where it is no number.
    """
    for names in (("val_distortion", "val_rate"), ("val_loss",), ("loss",)):
        if all(name in record for name in names):
            values = [record[name] for name in names]
            finite = all(isinstance(value, int | float) for value in values)
            name = "val_bound" if len(names) > 1 else names[0]
            return (sum(values) if finite else math.inf), name
    return math.inf, "loss"


def divergence(history: list[dict[str, Any]], size: Any) -> str | None:
    """Says that a run has ended far from where it had been, or returns None.

    Args:
        history: Records of at least one epoch.
        size: Number of values in an example.
    """
    scores = [score(record)[0] for record in history]
    last, name = score(history[-1])
    lowest = min(scores)
    rise = last - lowest > DIVERGED * max(1.0, abs(lowest))
    if not rise and math.isfinite(last) and last <= HOPELESS * size:
        return None
    told = f"{name} is {last:.3g} nats after epoch {history[-1]['epoch']}"
    if rise and math.isfinite(lowest):
        told += f", and was {lowest:.3g} after epoch {history[scores.index(lowest)]['epoch']}"
    return told


def versions() -> dict[str, str]:
    """Returns the versions that a result may depend on."""
    import keras

    found = {
        "python": platform.python_version(),
        "vaezoo": importlib.metadata.version("vaezoo"),
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


def epoch_of(file: Path) -> int | None:
    """Returns the epoch that a checkpoint was written after, or None if it does not tell."""
    found = position_of(file)
    return None if found is None else found[0]


def read_nonfinite(directory: Path) -> dict[str, Any] | None:
    """Returns what is known of the last loss of a run that was not finite, or None.

    Raises:
        ValueError: If the report cannot be read.
    """
    path = directory / NONFINITE_REPORT
    try:
        report = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read: it is no JSON") from error
    if not isinstance(report, dict) or not isinstance(report.get("text"), str):
        raise ValueError(f"'{path}' is no report: it has no 'text'")
    return report


def find_model(path: Path) -> Path:
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
        found = [path / name for name in (MODEL, LAST) if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"'{path}' holds no model: neither {MODEL} nor {LAST}")
        return found[-1] if len(found) > 1 and _is_later(found[1], found[0]) else found[0]
    if path.suffix != ".keras":
        raise ValueError(f"'{path}' is not a .keras file")
    return path


def _is_later(checkpoint, model):
    """Whether a run has gone on after its final model was written."""
    last, final = position_of(checkpoint), position_of(model)
    if last is not None and final is not None:
        return last > final
    # An earlier version wrote the one or the other; it wrote the model after the checkpoint.
    return checkpoint.stat().st_mtime > model.stat().st_mtime + 1.0
