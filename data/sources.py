"""Finds the source that a name or path means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.checks import shown
from .arrays import array_file, digits, mat_file
from .folder import FolderSource
from .tfds import nearest, open_tfds

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import FilePath
    from .source import Source


def open_source(
    name_or_path: FilePath,
    data_dir: FilePath | None = None,
    download: bool = False,
    label: Any = None,
) -> Source:
    """Finds a data set by name or path, without reading its images."""
    text = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else None
    if not text:
        raise TypeError(
            f"`name_or_path` must be a name or a path. Received: name_or_path={shown(name_or_path)}"
        )
    path = Path(text).expanduser()
    if text == "digits" and not isinstance(name_or_path, os.PathLike):
        source = digits()
    elif (
        isinstance(name_or_path, os.PathLike)
        or path.suffix in (".npz", ".npy", ".mat")
        or path.is_file()
        or text[0] in "./~"
        or (os.sep in text and path.exists())
    ):
        source = _open_path(path)
    else:
        source = _open_name(text, path, data_dir, download, label)
    if label == "characters" and source.kind == "mat":
        return source.with_characters()
    if label is not None and source.kind != "tfds":
        raise ValueError(
            "`labels` names a feature for TFDS sets only; here it must be True or False. "
            f"Received: labels={label!r} for {text!r}"
        )
    return source


def _open_path(path):
    if not path.exists():
        raise FileNotFoundError(f"No file or folder '{path}'")
    if path.is_dir():
        return FolderSource(path)
    if path.suffix in (".npz", ".npy"):
        return array_file(path)
    if path.suffix == ".mat":
        return mat_file(path)
    raise ValueError(
        "A data file must end in .npz, .npy or .mat, or in .txt or .tsv for text. Received: "
        f"'{path}'"
    )


def _open_name(name, path, data_dir, download, label):
    # A name of TFDS comes before a folder that happens to be called the same.
    try:
        return open_tfds(name, data_dir, download, label)
    except (ImportError, LookupError) as error:
        if path.is_dir():
            return FolderSource(path)
        if isinstance(error, ImportError):
            raise
    near = nearest(name)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"No data set, file or folder is called {name!r}.{hint} Known are 'digits', the image "
        "sets of tensorflow-datasets, .npz, .npy and .mat files, folders of images, .txt and .tsv "
        "files, and folders with train.txt, valid.txt or test.txt"
    )
