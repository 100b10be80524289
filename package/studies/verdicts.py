"""How far a row or a claim is reproduced: what records say of published numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from . import records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .study import Claim, Column, Row, Study

REPRODUCED, BETTER, MISSED, NOT_RUN = "reproduced", "better", "missed", "not run"
#: Of a row without published numbers.
RUN = "run"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number of a row.

    Attributes:
        value: Mean over seeds, in the column's unit; None if it was not measured.
        error: Standard error of that, NaN where it is not known.
        published: The published number, or None.
        word: "reproduced", "better" or "missed"; empty where nothing is compared.
    """

    value: float | None
    error: float
    published: float | None
    word: str

    @property
    def difference(self) -> float | None:
        """Ours less the published number."""
        known = self.value is not None and self.published is not None
        return self.value - self.published if known else None  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a row.

    Attributes:
        word: One of the module's constants.
        said: By how much it misses, how far it is trained, or why it is not run.
        cells: Dict from column to `Cell`.
        seeds: Seeds that were measured.
        hours: Hours of training and measuring, of all seeds.
    """

    word: str
    said: str
    cells: dict[str, Cell]
    seeds: tuple[int, ...]
    hours: float


def verdict(study: Study, row: Row, held: Sequence[dict[str, Any]]) -> Verdict:
    """Judges a row by its records.

    The columns that the paper calls better or worse decide, or all where there are none: one that
    misses makes the row a miss.

    Args:
        study: `Study`.
        row: `Row` of it.
        held: Records of the row.
    """
    measured = [record for record in held if record["state"] == records.MEASURED]
    cells = {column.name: _cell(column, row, measured) for column in study.columns}
    seeds = tuple(record["seed"] for record in measured)
    hours = sum(sum(record["seconds"].values()) for record in held) / 3600
    if not measured:
        return Verdict(NOT_RUN, _reason(row, held), cells, seeds, hours)
    other = next((r["data"]["name"] for r in measured if r["data"].get("stand_in_for")), "")
    if other and row.published:
        # Numbers of other data are shown, and prove nothing.
        return Verdict(NOT_RUN, f"run on {other} in place of the data", cells, seeds, hours)
    compared = [column for column in study.columns if cells[column.name].word]
    deciding = [column for column in compared if column.better] or compared
    words = [cells[column.name].word for column in deciding]
    if not words:
        return Verdict(
            RUN, f"on {other} in place of the data" if other else "", cells, seeds, hours
        )
    word = MISSED if MISSED in words else BETTER if BETTER in words else REPRODUCED
    off = [column for column in compared if cells[column.name].word == MISSED]
    said = ", ".join(f"{c.title} {cells[c.name].difference:+.3g}" for c in off)
    if word == MISSED and row.reason:
        said += f": {row.reason}"
    return Verdict(word, said, cells, seeds, hours)


def _cell(column: Column, row: Row, measured: Sequence[dict[str, Any]]) -> Cell:
    published = row.published.get(column.name)
    published = published[0] if isinstance(published, tuple) else published
    values = [
        pair for record in measured if (pair := records.value_of(record, column.source)) is not None
    ]
    if not values:
        return Cell(None, math.nan, published, "")
    numbers = [value * column.scale for value, _ in values]
    mean = sum(numbers) / len(numbers)
    if len(numbers) > 1:
        spread = math.sqrt(sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))
        error = spread / math.sqrt(len(numbers))
    else:
        error = values[0][1] * abs(column.scale)
    word = ""
    if published is not None and column.allowed is not None:
        difference = mean - published
        good = {"lower": difference < 0, "higher": difference > 0}.get(column.better or "", False)
        # What is rounded in the paper may be off by as much besides.
        near = abs(difference) <= column.allowed + 1e-9
        word = REPRODUCED if near else BETTER if good else MISSED
    return Cell(mean, error, published, word)


def _reason(row, held):
    if row.not_run:
        return row.not_run
    if not held:
        return "not yet"
    epochs = max((record["epochs"] for record in held), key=lambda epochs: epochs["trained"])
    return f"trained {epochs['trained']} of {epochs['of']} epochs"


def holds(study: Study, claim: Claim, verdicts: dict[str, Verdict]) -> bool | None:
    """Returns whether a claim holds of what was measured; None while a number is missing.

    Args:
        study: `Study`.
        claim: `Claim` of it.
        verdicts: Dict from rows to their `Verdict`.
    """

    def number(side):
        return side if isinstance(side, int | float) else verdicts[side].cells[claim.column].value

    larger, smaller = number(claim.larger), number(claim.smaller)
    if larger is None or smaller is None:
        return None
    return larger > smaller


def verdicts_of(study: Study, results: Any) -> dict[str, Verdict]:
    """Judges all rows of a study."""
    return {
        row.name: verdict(study, row, records.read_all(results, study, row.name))
        for row in study.rows
    }
