"""Locks on folders, which the end of a process opens, however it comes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .files import naming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .types import FilePath

#: Name of the file that is locked. It stays when the lock is given back.
LOCK = ".lock"
#: What a system answers where another process holds a lock, and where it has no locks.
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
#: Locks of this process, by the path of the folder.
_OWN: dict[str, FolderLock] = {}


class Occupied(OSError):
    """A folder that another process or thread writes to; the message says which one."""


class FolderLock:
    """Keeps other processes and threads from writing to a folder.

    The system holds the lock for the process (`flock`, on Windows `msvcrt.locking`), so that it
    ends with the process, also with one that is killed; the file that stays behind means nothing.
    On NFS it holds between machines where the server has locks. Where a file system has none there
    is a warning, and no lock.

    Within a thread the latest one counts: a training that has ended without giving back its lock
    is not in the way of the next.

    Args:
        folder: Path, made if it is not there.

    Raises:
        Occupied: If another process or thread holds the lock.
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: FilePath) -> None:
        self.folder = Path(folder)
        self._key = os.path.realpath(self.folder)
        self._thread = threading.current_thread()
        own = _OWN.get(self._key)
        if own is not None:
            if own._thread is not self._thread and own._thread.is_alive():
                raise Occupied(f"'{self.folder}' is written by another thread of this process")
            own.release()
        with naming(self.folder / LOCK):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file: Any = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(self._file, self.folder)
        except BaseException:
            self._close()
            raise
        _OWN[self._key] = self
        with contextlib.suppress(OSError):
            note = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, note, 0) if hasattr(os, "pwrite") else os.write(self._file, note)

    def release(self) -> None:
        """Gives the lock back; a second time does nothing."""
        if _OWN.get(self._key) is self:
            del _OWN[self._key]
        if self._file is not None:
            # A child that has just been forked may still have a copy of the file.
            with contextlib.suppress(OSError):
                _system_lock(self._file, take=False)
        self._close()

    def _close(self):
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()


@contextlib.contextmanager
def locked(folder: FilePath | None) -> Iterator[Any]:
    """Holds the lock of a folder, or none for None."""
    if folder is None:
        yield None
        return
    with FolderLock(folder) as lock:
        yield lock


def check_unlocked(folder: FilePath) -> None:
    """Raises an `Occupied` if another process holds the lock of a folder; makes nothing.

    Args:
        folder: Path, which need not be there.
    """
    path = Path(folder) / LOCK
    if os.path.realpath(folder) in _OWN or not path.is_file():
        return
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        # It will be said by what writes.
        return
    try:
        _lock(file, Path(folder), quiet=True)
    finally:
        os.close(file)


def _lock(file, folder, quiet=False):
    try:
        _system_lock(file)
    except OSError as error:
        if error.errno in _HELD:
            raise Occupied(f"'{folder}' is written by {_holder(folder)}: wait for it") from error
        if error.errno not in _WITHOUT:
            raise
        if not quiet:
            warnings.warn(
                f"The file system of '{folder}' has no locks: let one process at a time write to "
                "it",
                stacklevel=4,
            )


def _system_lock(file, take=True):
    """Takes the system's lock on a file, or gives it back."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        # Behind what is written, which others may read.
        os.lseek(file, 1 << 20, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN)


def _holder(folder):
    try:
        found = json.loads((folder / LOCK).read_text("utf-8"))
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        return f"another process ({found['pid']}{where})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget():
    """Closes the files in a child, which would hold the locks of its parent after that's end."""
    for lock in list(_OWN.values()):
        lock._close()
    _OWN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
