"""vaezoo: variational autoencoders that do not collapse, for Keras 3 on TensorFlow and JAX."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from .core.imports import ImportHook

if TYPE_CHECKING:
    from typing import Any

    from . import callbacks, data, layers, losses, metrics, runs, zoo

__version__ = "0.1.0"

__all__ = ["callbacks", "data", "layers", "losses", "metrics", "runs", "zoo"]


def _import_all():
    # Before the backend starts its threads.
    importlib.import_module(f"{__name__}.core.allocator").keep_freed_memory()
    for name in __all__:
        importlib.import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    # Importing Keras takes seconds, which the help of a command should not.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_all()
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _WithKeras(ImportHook):
    """Imports all of vaezoo as soon as Keras is there.

    Keras loads a file only if the classes in it are registered, so `import vaezoo` must be enough,
    whether Keras is imported before it, after it, or by one of its modules. In that case the rest
    follows when that module has been executed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def wants(self, name):
        return name == "keras" or name.startswith(f"{__name__}.")

    def execute(self, run, module):
        self._depth += 1
        try:
            run(module)
        finally:
            self._depth -= 1
        if not self._depth and "keras" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            _import_all()


if "keras" in sys.modules:
    _import_all()
else:
    sys.meta_path.insert(0, _WithKeras())
