"""vaezoo: variational autoencoders that do not collapse, for Keras 3 on TensorFlow and JAX."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import callbacks, data, layers, losses, metrics, zoo

__version__ = "0.1.0"

__all__ = ["callbacks", "data", "layers", "losses", "metrics", "zoo"]


def _import_all():
    for name in __all__:
        importlib.import_module(f"{__name__}.{name}")


def __getattr__(name):
    # Importing Keras takes seconds, which the help of a command should not.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_all()
    return globals()[name]


def __dir__():
    return sorted({*globals(), *__all__})


class _WithKeras:
    """Imports all of vaezoo as soon as Keras is there.

    Keras loads a file only if the classes in it are registered, so `import vaezoo` must be enough,
    whether Keras is imported before it, after it, or by one of its modules. In that case the rest
    follows when that module has been executed.
    """

    def __init__(self):
        self._depth, self._entered = 0, False

    def find_spec(self, fullname, path=None, target=None):
        if self._entered or not (fullname == "keras" or fullname.startswith(f"{__name__}.")):
            return None
        self._entered = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._entered = False
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader):
        execute = loader.exec_module

        def exec_module(module):
            del loader.exec_module
            self._depth += 1
            try:
                execute(module)
            finally:
                self._depth -= 1
            if not self._depth and "keras" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _import_all()

        loader.exec_module = exec_module


if "keras" in sys.modules:
    _import_all()
else:
    sys.meta_path.insert(0, _WithKeras())
