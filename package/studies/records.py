"""Records: what a row came to, one JSON file a row and seed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import written

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .study import Study

#: Of the files; what is added to them later need not change it.
FORMAT = 1
#: Characters of a setting that stands in a record as it is.
_LONG = 1000
#: States of a run, in their order. Only what is measured counts as a result.
TRAINING, TRAINED, MEASURED = "training", "trained", "measured"


def path_of(results: Path, study: Study, row: str, seed: int) -> Path:
    """Returns where the record of a row and seed lies."""
    return Path(results) / study.paper / study.name / row / f"seed-{seed}.json"


def read(path: Path) -> dict[str, Any] | None:
    """Returns a record, or None if there is no such file.

    Raises:
        ValueError: If the file is no record.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"'{path}' is no record: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"'{path}' is no record of format {FORMAT}")
    return record


def read_all(results: Path, study: Study, row: str) -> list[dict[str, Any]]:
    """Returns the records of a row, by seed; not those of a run that it no longer has."""
    folder, run = path_of(results, study, row, 0).parent, study.row(row).run
    found = [read(path) for path in folder.glob("seed-*.json")]
    kept = [r for r in found if r and run and r["run"] == f"{study.paper}/{run.name}"]
    return sorted(kept, key=lambda record: record["seed"])


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, whole or not at all."""
    with written(path) as partial:
        partial.write_text(as_text(record), "utf-8")


def as_text(record: dict[str, Any]) -> str:
    """Returns a record as JSON of few lines: lists of numbers stand on one."""
    return _text(compact(record), 0) + "\n"


def _text(value, depth):
    if isinstance(value, dict) and value and (depth < 3 or _nested(value)):
        indent = "  " * (depth + 1)
        items = ",\n".join(
            f"{indent}{json.dumps(key)}: {_text(item, depth + 1)}" for key, item in value.items()
        )
        return "{\n" + items + "\n" + "  " * depth + "}"
    return json.dumps(value, allow_nan=False)


def _nested(value):
    return any(isinstance(item, dict) and item for item in value.values())


def compact(value: Any) -> Any:
    """Rounds numbers to 6 digits; those that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): compact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [compact(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def columns_of(history: Iterable[dict[str, Any]]) -> dict[str, list]:
    """Turns the records of epochs into columns, None where an epoch lacks one."""
    history = list(history)
    names = dict.fromkeys(name for epoch in history for name in epoch)
    return {name: [epoch.get(name) for epoch in history] for name in names}


def without_paths(value: Any) -> Any:
    """Returns settings without what tells of the machine: paths become names of files.

    Long text, such as packed labels, becomes its length.
    """
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items() if key != "data_dir"}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and len(value) > _LONG:
        return f"({len(value):,} characters)"
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def value_of(record: dict[str, Any], source: str) -> tuple[float, float] | None:
    """Reads a number of a record.

    Args:
        record: Record of a run that has been measured.
        source: As in `Column.source`.

    Returns:
        Value and standard error, which is NaN where there is none; None if it is not there.
    """
    which, colon, name = source.partition(":")
    if not colon:
        found = record.get("metrics", {}).get(source)
        if found is None or found["value"] is None:
            return None
        error = found.get("standard_error")
        return found["value"], math.nan if error is None else error
    sign = -1.0 if name.startswith("-") else 1.0
    logs = [v for v in record["history"].get(name.removeprefix("-"), ()) if v is not None]
    if not logs:
        return None
    values = [sign * value for value in logs]
    return {"first": values[0], "last": values[-1], "max": max(values)}[which], math.nan
