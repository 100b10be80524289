"""What a terminal shows of studies and their records; imports no backend."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from rich.table import Table

from . import records
from .data import SETS, locate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from .data import Places
    from .study import Row, Study


def chosen_rows(study: Study, names: Iterable[str] | None = None) -> list[Row]:
    """Returns the rows of some names, or all that are run.

    Raises:
        ValueError: If there is no such row, or it is one that is never run.
    """
    from ..core.checks import check_name

    if not names:
        return [row for row in study.rows if row.run is not None]
    for name in names:
        check_name("rows", name, [row.name for row in study.rows], f"rows of {study.key}")
    found = [study.row(name) for name in dict.fromkeys(names)]
    quoted = [row.name for row in found if row.run is None]
    if quoted:
        raise ValueError(f"Row {quoted[0]!r} of {study.key} is only quoted by the paper")
    return found


def studies_table(results: Path, places: Places) -> Iterator[Any]:
    """Yields what there is to say about all studies."""
    from . import STUDIES

    table = _table("study", "shows", "rows", "measured", "training", "hours", "data")
    for study in STUDIES.values():
        run = [row for row in study.rows if row.run is not None]
        states = [state_of(results, study, row) for row in run]
        hours = [trained.hours for trained in {row.run.name: row.run for row in run}.values()]
        names = dict.fromkeys(row.run.data for row in run)
        data = ", ".join(map(functools.partial(_data, places=places), names))
        table.add_row(
            study.key,
            study.title,
            str(len(run)),
            str(states.count(records.MEASURED)),
            str(sum(state in (records.TRAINING, records.TRAINED) for state in states)),
            "-" if None in hours else f"{sum(hours):.1f}",
            data,
        )
    yield table
    yield "\nHours of training: projected for two idle cores; - where nothing is known."
    yield "Rows and numbers of a study: vaezoo reproduce STUDY --list"


def _data(name, places):
    if locate(name, places) is not None:
        return name
    held = SETS[name]
    if held.substitute and locate(held.stand_in, places) is not None:
        return f"{name} (by {held.stand_in})"
    return f"{name} (not found)"


def state_of(results: Path, study: Study, row: Row) -> str:
    """Returns the furthest state among the records of a row, or "" without one."""
    states = [record["state"] for record in records.read_all(results, study, row.name)]
    order = ("", records.TRAINING, records.TRAINED, records.MEASURED)
    return max(states, key=order.index, default="")


def rows_table(study: Study, results: Path, names: Iterable[str] | None = None) -> Any:
    """Returns rows of a study, all by default, with published numbers and ours."""
    table = _table("row", "state", *(column.title for column in study.columns))
    names = list(names or ())
    for row in study.rows:
        if names and row.name not in names:
            continue
        held = records.read_all(results, study, row.name)
        published = [row.published.get(column.name) for column in study.columns]
        if any(value is not None for value in published):
            shown = ["" if value is None else _number(value) for value in published]
            table.add_row(row.name, "published", *shown)
        for record in held:
            values = []
            for column in study.columns:
                found = (
                    records.value_of(record, column.source)
                    if record["state"] == records.MEASURED
                    else None
                )
                values.append("" if found is None else _number(found[0] * column.scale))
            epochs = record["epochs"]
            state = f"seed {record['seed']}: {record['state']}"
            if record["state"] == records.TRAINING:
                state += f" ({epochs['trained']} of {epochs['of']} epochs)"
            table.add_row("" if any(v is not None for v in published) else row.name, state, *values)
        if not held and not any(value is not None for value in published):
            table.add_row(row.name, "not run", *[""] * len(study.columns))
    return table


def _number(value):
    value = value[0] if isinstance(value, tuple) else value
    return f"{value:.4g}"


def _table(*headings):
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
