"""What trials of remedies have shown, and the order in which they are recommended for it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .remedies import Remedy

#: The trials of `python -m benchmarks.exam --cures --write`: of each verdict and change, how often
#: it was tried and helped, and its mean gain as a share of the best one's beside it, 0 where it did
#: not help.
FILE = Path(__file__).with_name("tried.json")
#: Trials from which on a remedy that never helped is taken not to.
VAIN = 2


@functools.cache
def _records() -> dict[tuple[str, str], dict[str, Any]]:
    return {key(r["verdict"], r["change"]): r for r in json.loads(FILE.read_text("utf-8"))}


def key(verdict: str, change: dict[str, Any]) -> tuple[str, str]:
    """What the trials of a change to models of a verdict are known by."""
    return verdict, json.dumps(change, sort_keys=True)


def worth(verdict: str, change: dict[str, Any]) -> float:
    """Share of the best gain that a remedy is expected to give; 1/2 if it was never tried.

    That is (sum of shares + 1) / (trials + 2), so that few trials say little.
    """
    record = _records().get(key(verdict, change)) if change else None
    if record is None:
        return 0.5
    return (record["tried"] * record["share"] + 1.0) / (record["tried"] + 2.0)


def is_vain(verdict: str, change: dict[str, Any]) -> bool:
    """Whether a remedy was tried, and never helped."""
    record = _records().get(key(verdict, change)) if change else None
    return record is not None and record["tried"] >= VAIN and not record["helped"]


def ordered(verdict: str, remedies: Iterable[Remedy]) -> list[Remedy]:
    """Remedies for a verdict, first those that gave most in trials; untried ones as they come."""
    return sorted(remedies, key=lambda remedy: -worth(verdict, remedy.change))
