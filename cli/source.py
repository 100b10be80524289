"""The model and the data that a command is given, and the file that it writes."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..core.files import check_writable
from ..runs import directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ..core.types import ArrayLike, FilePath


class Opened(NamedTuple):
    """What a command was given.

    Attributes:
        model: `VAE`, or the path of a SavedModel.
        x: Data.
        y: Labels, or None.
        train: Pair of training data and labels, or None.
        description: Model, data and number of examples, in words.
        folder: Where reports go.
        validation: Pair of validation data and labels, or None.
        value_range: Values of black and white.
    """

    model: Any
    x: Any
    y: Any
    train: tuple | None
    description: str
    folder: Path
    validation: tuple | None
    value_range: Sequence[float]


def open_source(
    source: Path,
    data_name: str | None,
    data_dir: FilePath | None,
    split: str,
    limit: Any,
    binarize: bool | None,
    with_train: bool = False,
    with_validation: bool = False,
    labels: ArrayLike = True,
) -> Opened:
    """Opens model and data that a command was given.

    Args:
        source: Path of a run, a `.keras` file or a SavedModel.
        data_name: Name or path of data, or None for the run's.
        data_dir: Folder of prepared sets, or None.
        split: Split of the data.
        limit: Largest number of examples, or None.
        binarize: Whether pixels are drawn, or None for as the run has them.
        with_train: Whether training data are wanted, too.
        with_validation: Whether validation data are, which are then apart from training data.
        labels: As in `vaezoo.data.load`.

    Returns:
        `Opened`.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If the data are not known, or do not fit.
    """
    served = source.is_dir() and (source / "saved_model.pb").is_file()
    file = source if served else directory.find_model(source)
    from .. import data
    from ..runs.conditions import conditioned_arrays
    from ..runs.models import load_model
    from ..runs.spec import asking_again, can_hold_out, without_asked

    config = None if served else directory.run_of(file)
    stored = config["settings"]["data"] if config else {}
    held = without_asked(stored)
    if data_name is not None:
        held["name_or_path"] = data_name
    if "name_or_path" not in held:
        raise ValueError(f"`--data` must be given: '{file}' does not belong to a run that knows it")
    spec = data.DataSpec(**held)
    draws = bool(spec.binarize) if binarize is None else binarize
    spec = spec.replace(binarize="fixed" if draws else None, limit=None)
    if labels is not True:
        spec = spec.replace(labels=labels)
    if data_dir is not None:
        spec = spec.replace(data_dir=data_dir)
    model = file if served else load_model(file)
    pairs: dict[str, Any] = {"train": None, "validation": None}
    again = asking_again(stored if data_name is None else {}, spec.given())
    with asking_by_options(), again:
        if not served:
            spec = _read_by_its_vocabulary(spec, model, file)
        x, y = data.load_arrays(spec, split, limit=limit)
        # Several draws of one image are no examples of their own to learn from.
        known = spec.replace(copies=1)
        if with_validation and known.validation_split is None and can_hold_out(known):
            known = known.replace(validation_split=directory.HELD_OUT)
        for name, wanted in (("train", with_train), ("validation", with_validation)):
            if wanted:
                one, labels_of_one = data.load_arrays(known, name)
                pairs[name] = (_reshaped(one, model), labels_of_one)
    rows = len(x)
    x = _reshaped(x, model)
    if getattr(model, "conditional", False):
        name = _condition_of(model)
        x = conditioned_arrays(x, y, name)
        for part in pairs:
            if pairs[part] is not None:
                one, labels_of_one = pairs[part]
                pairs[part] = conditioned_arrays(one, labels_of_one, name), labels_of_one
    drawn = ", binarized" if draws else ""
    description = f"{file} on {spec.name_or_path}[{split}], {rows:,} examples{drawn}"
    folder = file.parent
    if folder.name == directory.CHECKPOINTS:
        folder = folder.parent
    return Opened(
        model, x, y, pairs["train"], description, folder, pairs["validation"], spec.value_range
    )


@contextlib.contextmanager
def asking_by_options() -> Iterator[Any]:
    """Says in the words of the command line what a run must be given again."""
    try:
        yield
    except ValueError as error:
        asked = getattr(error, "asked", None)
        if not asked:
            raise
        words = {
            "data_dir": f"--data-dir {shlex.quote(str(asked.get('data_dir')))}",
            "download": "--set data.download=true, in `vaezoo train`",
        }
        told = " and ".join(words[name] for name in asked)
        raise ValueError(
            f"{getattr(error, 'reason', error)} (the run was started with {told}, which a run's "
            "file may not ask for: give it again)"
        ) from error


def check_source(source: Path) -> None:
    """Raises the error of a missing model, before the backend is imported."""
    if not (source / "saved_model.pb").is_file():
        directory.find_model(source)


def _read_by_its_vocabulary(spec, model, file):
    """The data such that text has the ids that the model knows."""
    from ..data.text import text_path
    from ..runs.models import vocabulary_of, writes_text
    from ..runs.spec import with_vocabulary

    text = text_path(spec.name_or_path, spec.data_dir) is not None
    if text != writes_text(model):
        found, wanted = ("text", "images") if text else ("no text", "text")
        raise ValueError(
            f"'{file}' is a model of {wanted}. Received: {spec.name_or_path!r}, which is {found}"
        )
    return with_vocabulary(spec, vocabulary_of(model, file)) if text else spec


def _condition_of(model):
    """The name of the only condition of a model."""
    names = model.encoder.names
    if len(names) > 1:
        raise ValueError(
            "A command can condition a model on the labels of the data alone. Received: a model "
            f"conditioned on {', '.join(map(repr, names))}"
        )
    return names[0]


def _reshaped(x, model):
    """Flat rows for a model of flat inputs."""
    shape = getattr(getattr(model, "encoder", None), "input_shape", None)
    return x.reshape(len(x), -1) if isinstance(shape, tuple) and len(shape) == 2 else x


def check_target(path: Path, overwrite: bool) -> None:
    """Raises an `OSError` if a file would replace another unasked, or cannot be written at all."""
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder: name a file with --out")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"'{path}' exists: replace it with --overwrite, or name another --out"
        )
    check_writable(path)
