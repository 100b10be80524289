"""What a published table or figure is made of: data that name runs, measures and numbers.

Nothing here needs a backend. Settings are plain values, or text as it would follow `--set KEY=`,
such as `"LinearSchedule(10, unit='epochs')"`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

#: What a number may differ by and still count as reproduced, by its unit.
TOLERANCES = {"nats": 0.3, "%": 1.0, "bits/dim": 0.01, "units": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Says what is trained; rows of several studies may share one.

    Attributes:
        name: Folder of the run, unique in its paper.
        preset: Name of a preset of the zoo.
        data: Name of the data set, see `vaezoo.studies.data`.
        model: Settings that differ from the preset's, as in `vaezoo.runs.RunSpec`; the same holds
            for `networks`, `training`, `reading` (of `data`) and `options` (further fields).
        hours: Hours on two idle cores, as far as projected, or None if not known.
        memory: GiB of memory, or None if not known.
        classifier: None, or what is trained beside the model and leaves it as it is: an auxiliary
            softmax of so many labels, or `"labels"` for mu-VAE's classifier of the data's labels.
        watched: Names of `vaezoo.studies.beside`, for what is measured after each epoch.
        small: Dict of what differs besides where the run is cut to a minute: settings of `model`,
            `networks` and `reading`.
    """

    name: str
    preset: str
    data: str
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    networks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hours: float | None = None
    memory: float | None = None
    classifier: int | str | None = None
    watched: tuple[str, ...] = ()
    small: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Column:
    """Says what is compared.

    Attributes:
        name: Key of `Row.published`.
        title: Heading.
        unit: "nats", "%", "bits/dim", "units" or "".
        source: Where a record has it: the name of a metric, `"first:LOG"`, `"last:LOG"` or
            `"max:LOG"` of the epochs' logs, where a name with a minus in front is negated.
        better: "lower" or "higher" where the paper says which is better, and the number decides
            about the row; None where it only describes the model.
        scale: What the source is multiplied by.
        tolerance: What a difference may be; by default that of the unit.
    """

    name: str
    title: str
    unit: str
    source: str
    better: str | None = None
    scale: float = 1.0
    tolerance: float | None = None

    @property
    def allowed(self) -> float | None:
        """What a difference may be, or None for a number that is not compared."""
        return TOLERANCES.get(self.unit) if self.tolerance is None else self.tolerance


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Says how a trained model is measured.

    Attributes:
        metrics: Names of `vaezoo.metrics.evaluate`.
        options: Dict of further arguments by metric.
        num_samples: Importance samples of the likelihood.
        num_images: Examples that the likelihood is taken of, or None for all.
        measures: Names of `vaezoo.studies.measures`, for what `evaluate` does not have.
        which: "final" or "best" model.
        limit: Number of test examples, or None for all.
        said: The same in words, for the reader of the results.
    """

    metrics: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_samples: int = 500
    num_images: int | None = None
    measures: tuple[str, ...] = ()
    which: str = "final"
    limit: int | None = None
    said: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns what the measured numbers depend on, as JSON values."""
        fields = {**dataclasses.asdict(self), "options": dict(self.options)}
        fields.pop("said")
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table, or a model of a figure.

    Attributes:
        name: What `--rows` takes.
        title: What the paper calls it.
        run: `Training`, or None for a number that the paper only quotes.
        published: Dict from column to the published value, or to a pair of value and error.
        differs: What differs from the published settings, and why; empty if nothing is known to.
        reason: Why it misses, where that is known.
        not_run: Why it cannot be run here, or empty.
        protocol: `Protocol`, if it is not the study's.
        variant: Whether it is one of ours beside the published row, which does not count.
    """

    name: str
    title: str
    run: Any
    published: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    differs: str = ""
    reason: str = ""
    not_run: str = ""
    protocol: Protocol | None = None
    variant: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """A relation that a paper states, where it has no numbers or besides them.

    Attributes:
        said: The claim in words.
        column: Column of the study.
        larger: Row, or number, that should have the larger value.
        smaller: Row, or number, that should have the smaller one.
    """

    said: str
    column: str
    larger: str | float
    smaller: str | float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A published table or figure.

    Attributes:
        paper: Key of `vaezoo.studies.PAPERS`.
        name: Such as "table2"; together with the paper it is what `vaezoo reproduce` takes.
        title: What it shows.
        columns: What is compared.
        rows: `Row`s.
        protocol: How models are measured.
        claims: Relations that the paper states.
        figure: Name of a function of `vaezoo.studies.figures` that draws it, or empty.
        differs: What differs from the published settings in all rows.
        stand_in: What stands in for data that cannot be had, or empty.
    """

    paper: str
    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    protocol: Protocol
    claims: tuple[Claim, ...] = ()
    figure: str = ""
    differs: str = ""
    stand_in: str = ""

    @property
    def key(self) -> str:
        """Paper and name, as `vaezoo reproduce` takes them."""
        return f"{self.paper}/{self.name}"

    def row(self, name: str) -> Row:
        """Returns the row of a name."""
        return next(row for row in self.rows if row.name == name)

    def column(self, name: str) -> Column:
        """Returns the column of a name."""
        return next(column for column in self.columns if column.name == name)

    def protocol_of(self, row: Row) -> Protocol:
        """Returns how a row is measured."""
        return row.protocol or self.protocol
