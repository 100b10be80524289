"""The model and the data that a command is given, and the file that it writes."""

import inspect
from pathlib import Path
from typing import NamedTuple

from ..core.files import check_writable
from ..runs import directory as runs


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

    model: object
    x: object
    y: object
    train: tuple | None
    description: str
    folder: Path
    validation: tuple | None
    value_range: tuple


def open_source(
    source,
    data_name,
    data_dir,
    split,
    limit,
    binarize,
    with_train=False,
    with_validation=False,
    labels=True,
):
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
    file = source if served else runs.find_model(source)
    from .. import data

    config = None if served else runs.run_of(file)
    args = runs.without_asked(config["settings"]["data"]) if config else {}
    if data_name is not None:
        args["name_or_path"] = data_name
    if "name_or_path" not in args:
        raise ValueError(f"`--data` must be given: '{file}' does not belong to a run that knows it")
    names = inspect.signature(data.load_arrays).parameters
    draws = bool(args.get("binarize")) if binarize is None else binarize
    args = {name: value for name, value in args.items() if name in names}
    args.pop("limit", None)
    args["binarize"] = "fixed" if draws else None
    if labels is not True:
        args["labels"] = labels
    if data_dir is not None:
        args["data_dir"] = data_dir
    model = file if served else runs.load_model(file)
    pairs = {"train": None, "validation": None}
    with runs.asking_again(config if data_name is None else None, args):
        if not served:
            args = _read_by_its_vocabulary(args, model, file)
        x, y = data.load_arrays(**{**args, "split": split, "limit": limit})
        # Several draws of one image are no examples of their own to learn from.
        held = {**args, "copies": 1} if "copies" in args else dict(args)
        if with_validation and held.get("validation_split") is None and runs.can_hold_out(held):
            held["validation_split"] = runs.HELD_OUT
        for name, wanted in (("train", with_train), ("validation", with_validation)):
            if wanted:
                one, labels_of_one = data.load_arrays(**{**held, "split": name})
                pairs[name] = (_reshaped(one, model), labels_of_one)
    x = _reshaped(x, model)
    drawn = ", binarized" if draws else ""
    description = f"{file} on {args['name_or_path']}[{split}], {len(x):,} examples{drawn}"
    folder = file.parent
    if folder.name == runs.CHECKPOINTS:
        folder = folder.parent
    value_range = tuple(args.get("value_range", (0.0, 1.0)))
    return Opened(
        model, x, y, pairs["train"], description, folder, pairs["validation"], value_range
    )


def check_source(source):
    """Raises the error of a missing model, before the backend is imported."""
    if not (source / "saved_model.pb").is_file():
        runs.find_model(source)


def _read_by_its_vocabulary(args, model, file):
    """Arguments of `data.load_arrays` by which text has the ids that the model knows."""
    from ..data.text import text_path
    from .text import vocabulary_of, writes_text

    text = text_path(args["name_or_path"], args.get("data_dir")) is not None
    if text != writes_text(model):
        found, wanted = ("text", "images") if text else ("no text", "text")
        raise ValueError(
            f"'{file}' is a model of {wanted}. Received: {args['name_or_path']!r}, which is {found}"
        )
    if not text:
        return args
    return runs.with_vocabulary(args, vocabulary_of(model, file))


def _reshaped(x, model):
    """Flat rows for a model of flat inputs."""
    shape = getattr(getattr(model, "encoder", None), "input_shape", None)
    return x.reshape(len(x), -1) if isinstance(shape, tuple) and len(shape) == 2 else x


def check_target(path, overwrite):
    """Raises an `OSError` if a file would replace another unasked, or cannot be written at all."""
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder: name a file with --out")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"'{path}' exists: replace it with --overwrite, or name another --out"
        )
    check_writable(path)
