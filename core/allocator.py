"""How the C library hands out memory to steps on a CPU."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

#: Parameters of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
#: Files of GPUs and TPUs.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")

#: Whether `keep_freed_memory` has set anything.
kept = False


def keep_freed_memory() -> None:
    """Lets the process keep the memory that a step frees, for the next step, on JAX's CPU.

    XLA takes the temporary memory of a step at its start and frees it at its end. glibc returns
    such large pieces to the system, which then hands them out page by page, each of them cleared:
    250 of the 640 ms of VAE-AS' step over 55,000 examples, and 38 of 250 ms for text
    (benchmarks/README.md). What is kept is no more than the process has had in use. TensorFlow,
    PyTorch and accelerators have allocators of their own.

    It has to happen before JAX starts its threads. Nothing is set where `wanted` says no. To be
    tried without again when jaxlib (0.10.2) keeps its temporary memory.
    """
    global kept
    if kept or not wanted(os.environ, keras.backend.backend(), glob.glob):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    # Threads have heaps of 64 MB by default, so larger pieces would come from the system.
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1))
    kept = all([mallopt(*setting) for setting in settings])


def wanted(environment: Mapping[str, str], backend: str, find: Callable[[str], Any]) -> bool:
    """Whether the allocator is to be set.

    Args:
        environment: Environment variables. `VAEZOO_KEEP_MEMORY=0` says no, and so does any setting
            of the user's own: `MALLOC_*`, `GLIBC_TUNABLES`, another allocator by `LD_PRELOAD`, or
            another platform by `JAX_PLATFORMS`.
        backend: Name of Keras' backend.
        find: Function like `glob.glob`.
    """
    if backend != "jax" or not sys.platform.startswith("linux"):
        return False
    if environment.get("VAEZOO_KEEP_MEMORY", "1") == "0":
        return False
    own = ("GLIBC_TUNABLES", "LD_PRELOAD")
    if any(name in own or name.startswith("MALLOC_") for name in environment):
        return False
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms == "cpu"
    return not any(find(pattern) for pattern in _ACCELERATORS)
