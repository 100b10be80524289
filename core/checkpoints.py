"""State of a training in one file: complete or absent, and read as it was written."""

from __future__ import annotations

import json
import math
import random
import re
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .checks import check_integer, is_integer, wrong
from .files import written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

#: What the members of an archive begin with that hold the state.
STATE = "vaezoo_run"
#: Of the units that a time is given in.
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Saved(NamedTuple):
    """A state that a training goes on from.

    Attributes:
        epoch: Complete epochs.
        batch: Batches of the next epoch that are behind it.
        history: List of a dict for each complete epoch.
        callbacks: Dict of the states of callbacks and data: each a pair of JSON values and a list
            of arrays. None for a file that holds none.
        logs: Dict of numbers, the logs of the last batch, or None between epochs.
        draws: State of the random numbers of Python and NumPy, and that at the beginning of the
            epoch; or None.
        variables: List of arrays, None for a file that holds none.
        metrics: List of arrays, the running means of the epoch's logs; or None.
    """

    epoch: int
    batch: int = 0
    history: Sequence[Any] = ()
    callbacks: dict[str, Any] | None = None
    logs: dict[str, Any] | None = None
    draws: Any = None
    variables: Sequence[Any] | None = None
    metrics: Sequence[Any] | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Epochs and batches, of which the larger is the later."""
        return self.epoch, self.batch

    @property
    def ended(self) -> bool:
        """Whether a callback has ended the training for good."""
        states = [values for values, _ in (self.callbacks or {}).values()]
        return any(
            bool(state.get("ended") or state.get("stopped_epoch"))
            for state in states
            if isinstance(state, dict)
        )


class Every(NamedTuple):
    """How often to save within an epoch.

    Attributes:
        seconds: Seconds between two files, infinite for a number of steps.
        steps: Steps between two files, infinite for a time.
    """

    seconds: float = math.inf
    steps: float = math.inf


def read_every(name: str, value: Any) -> Every:
    """Reads how often to save: a number of steps, or a time such as "30s", "10m", "1.5h".

    Args:
        name: Name of the argument.
        value: Positive int, str, or None for never.

    Raises:
        ValueError: If it is something else.
    """
    if value is None:
        return Every()
    if is_integer(value):
        return Every(steps=check_integer(name, value))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip()) if _is_text(value) else None
    number = float(found[1]) if found else 0.0
    if found and found[2] and number > 0:
        return Every(seconds=number * SECONDS[found[2]])
    if found and not found[2] and number.is_integer() and number > 0:
        return Every(steps=int(number))
    raise wrong(name, "a positive number of steps, or a time such as '30s', '10m', '2h'", value)


def _is_text(value):
    return isinstance(value, str)


def standing(epoch: int, batch: int, epochs: Any = None, batches: Any = None) -> str:
    """Says where a training stands, as in "epoch 7 of 50, batch 120 of 469".

    Args:
        epoch: Number of complete epochs.
        batch: Batches of the next one that are behind it.
        epochs: Epochs that there are to be, or None.
        batches: Batches of an epoch, or None.
    """
    whole = f" of {epochs}" if epochs is not None else ""
    told = f"epoch {epoch + 1 if batch else epoch}{whole}"
    if not batch:
        return told
    return f"{told}, batch {batch}" + (f" of {batches}" if batches else "")


# -- files -----------------------------------------------------------------------------------------


def write_state(path: Path, saved: Saved, write_model: Callable[[Path], Any] | None = None) -> None:
    """Writes a state, so that `path` is the old file or the new one.

    Args:
        path: File, a zip archive.
        saved: `Saved`.
        write_model: Function that writes an archive which the state is added to, such as
            `model.save`; None for the state alone.
    """
    groups: dict[str, Sequence[Any]] = {}
    for name in ("variables", "metrics"):
        if getattr(saved, name) is not None:
            groups[f".{name}"] = getattr(saved, name)
    callbacks = saved.callbacks or {}
    groups.update({name: arrays for name, (_, arrays) in callbacks.items()})
    stored = {name: [_stored(np.asarray(a)) for a in arrays] for name, arrays in groups.items()}
    state = {
        "epoch": saved.epoch,
        "batch": saved.batch,
        "history": list(saved.history),
        "callbacks": {name: (values, len(arrays)) for name, (values, arrays) in callbacks.items()},
        "logs": saved.logs,
        "draws": saved.draws,
        "arrays": {name: [d for _, d in stored[name]] for name in groups if name[0] == "."},
    }
    with written(path) as partial:
        if write_model is not None:
            write_model(partial)
        with zipfile.ZipFile(partial, "w" if write_model is None else "a") as archive:
            archive.writestr(f"{STATE}.json", json.dumps(state))
            for name, arrays in stored.items():
                for i, (array, _) in enumerate(arrays):
                    member = f"{STATE}/{name}/{i}.npy"
                    with archive.open(member, "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, array, allow_pickle=False)


def read_state(path: Path) -> Saved | None:
    """Reads a state, or returns None for an archive without one.

    Raises:
        ValueError: If the file is broken.
        OSError: If it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{STATE}.json" not in archive.namelist():
                return None
            state = json.loads(archive.read(f"{STATE}.json"))
            callbacks = {
                name: (values, [_read_array(archive, name, i) for i in range(count)])
                for name, (values, count) in state["callbacks"].items()
            }
            arrays = {
                name[1:]: [_typed(_read_array(archive, name, i), d) for i, d in enumerate(dtypes)]
                for name, dtypes in state.get("arrays", {}).items()
            }
            return Saved(
                state["epoch"],
                state.get("batch", 0),
                state["history"],
                callbacks,
                state.get("logs"),
                state.get("draws"),
                **arrays,
            )
    except (KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def position_of(path: Path) -> tuple[int, int] | None:
    """Returns complete epochs and batches that a file was written after, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            state = json.loads(archive.read(f"{STATE}.json"))
            return state["epoch"], state.get("batch", 0)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _stored(array):
    # NumPy's files do not know the short floats of the backends.
    if array.dtype.kind == "V" or array.dtype.name not in np.sctypeDict:
        return array.view(f"u{array.dtype.itemsize}"), array.dtype.name
    return array, array.dtype.name


def _typed(array, name):
    if array.dtype.name == name:
        return array
    import ml_dtypes

    return array.view(getattr(ml_dtypes, name))


def _read_array(archive, name, i):
    with archive.open(f"{STATE}/{name}/{i}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


# -- random numbers --------------------------------------------------------------------------------


def draws_so_far() -> Any:
    """Returns the state of the random numbers of Python and NumPy, as JSON values."""
    version, keys, gauss = random.getstate()
    name, words, *rest = np.random.get_state()
    return [[version, list(keys), gauss], [name, np.asarray(words).tolist(), *rest]]


def draw_from(state: Any) -> None:
    """Puts the random numbers of Python and NumPy where `draws_so_far` found them."""
    (version, keys, gauss), (name, words, *rest) = state
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state((name, np.asarray(words, "uint32"), *rest))
