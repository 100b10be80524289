"""Keeps what JAX compiles for later commands, in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

#: The most that a command finds there, in bytes: the oldest files go first.
LIMIT = 1_000_000_000
#: `0` keeps nothing.
SWITCH = "VAEZOO_COMPILATION_CACHE"


def keep_compilations(environment: MutableMapping[str, str]) -> Path | None:
    """Tells JAX, which reads the environment when it is imported, where to keep compiled steps.

    The folder is `vaezoo/jax` in `XDG_CACHE_HOME` or `~/.cache`, with a folder in it for each kind
    of processor, since compiled code may not run on another. A command begins with at most a
    gigabyte in it. What compiles in less than a second, which JAX would leave out, is kept, too:
    the variables of a model need many such compilations. XLA of TensorFlow (2.21) has a cache, but
    a step ends with an error where a file of it is damaged or cannot be written.

    Args:
        environment: Environment variables, changed unless `KERAS_BACKEND` names another backend,
            `VAEZOO_COMPILATION_CACHE` is 0, or JAX's own `JAX_COMPILATION_CACHE_DIR` or
            `JAX_ENABLE_COMPILATION_CACHE` are set.

    Returns:
        The folder, or None if nothing was set.
    """
    if environment.get("KERAS_BACKEND", "jax") != "jax":
        return None
    own = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    if environment.get(SWITCH) == "0" or any(name in environment for name in own):
        return None
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    whole = Path(home) / "vaezoo" / "jax"
    shrink(whole, LIMIT)
    folder = whole / _processor()
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return folder


def shrink(folder: Path, limit: int) -> None:
    """Deletes the oldest files of a folder until the rest take at most `limit` bytes."""
    total, files = 0, []
    for path in folder.rglob("*"):
        # Another command may delete, too.
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.is_file():
                total += status.st_size
                files.append((status.st_mtime, status.st_size, path))
    for _, size, path in sorted(files):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def _processor():
    """A name for the instructions that the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    about = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    text = "\n".join([platform.machine(), *(about or lines[:1])])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
