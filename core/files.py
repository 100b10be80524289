"""Writes files whole or not at all, and names the path that could not be written."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .types import FilePath

#: What the names of files begin with that are being written; a killed process leaves them.
PARTIAL = ".partial-"
#: What the system answers where there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Unwritable(OSError):
    """A file or folder that could not be written; the message has its path."""


def check_writable(path: FilePath, folder: bool = False) -> None:
    """Raises an `Unwritable` unless a file or folder can be made at `path`; leaves nothing behind.

    Args:
        path: Where something will be written, in the end; what exists there is not touched.
        folder: Whether it is a folder that files will be written to.

    Raises:
        Unwritable: With the path and the reason.
    """
    path, made = Path(os.path.abspath(path)), []
    with naming(path):
        try:
            places = [path, *path.parents] if folder else path.parents
            missing = [place for place in places if not place.exists()]
            for place in reversed(missing):
                place.mkdir()
                made.append(place)
            # What permissions say is not all: the folder may be one of a read-only or full disk.
            with tempfile.TemporaryFile(dir=places[0]) as file:
                file.write(b"\0")
        finally:
            for place in reversed(made):
                place.rmdir()


@contextlib.contextmanager
def naming(path: FilePath) -> Iterator[Any]:
    """Says in an `OSError` which path could not be written, and what helps."""
    try:
        yield
    except Unwritable:
        raise
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        if error.errno in _FULL or "No space left" in str(error):
            reason = "no space is left on the disk. Free some, or write to another disk"
        raise Unwritable(f"'{path}' cannot be written: {reason}") from error


@contextlib.contextmanager
def written(path: FilePath) -> Iterator[Any]:
    """Gives the path of a file or folder to write, which then takes the place of `path`.

    A failure leaves `path` as it was, and nothing beside it.

    Raises:
        Unwritable: With the path and the reason.
    """
    path = Path(path)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
