"""Runs code around the import of certain modules."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportHook:
    """Finds modules as Python does, and executes those that are wanted by a method of its own.

    It goes to the front of `sys.meta_path`. Subclasses implement `wants` and `execute`.
    """

    def __init__(self) -> None:
        self._entered = False

    def wants(self, name: str) -> bool:
        """Whether the module of that full name is one to act on."""
        raise NotImplementedError

    def execute(self, run: Callable[[ModuleType], None], module: ModuleType) -> None:
        """Executes the module by calling `run(module)`."""
        raise NotImplementedError

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the module's own specification, or None to leave it to the other finders."""
        if self._entered or not self.wants(fullname):
            return None
        self._entered = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._entered = False
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            # The loader stays what it is to all others.
            del loader.exec_module
            self.execute(run, module)

        loader.exec_module = exec_module


@contextlib.contextmanager
def as_if_without(name: str) -> Iterator[None]:
    """Lets imports in its block take a package for missing, unless it is already imported.

    For a library that makes do without a package that is slow to import.
    """
    if name in sys.modules:
        yield
        return
    # Python's own mark of a module that cannot be imported.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
