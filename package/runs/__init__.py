"""Training runs: what was asked, the data, the model, and the directory that keeps them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from .run import Run, find
    from .spec import RunSpec

__all__ = ["Run", "RunSpec", "find"]

_HOMES = {"Run": "run", "RunSpec": "spec", "find": "run"}


def __getattr__(name: str) -> Any:
    # The command line reads directories before it needs Keras, which these import.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
