"""RESULTS.md and the sentence of README.md, written from records alone."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import written
from . import verdicts

if TYPE_CHECKING:
    from typing import Any

    from .study import Row, Study
    from .verdicts import Verdict

BEGIN, END = "<!-- reproduced: begin -->", "<!-- reproduced: end -->"
WORDS = (verdicts.REPRODUCED, verdicts.BETTER, verdicts.MISSED, verdicts.NOT_RUN)
_HEAD = """# Results

Published tables and figures beside what this library measured. `vaezoo reproduce --write` writes
this file from the records in [`results/`](results) and from nothing else; `vaezoo reproduce STUDY`
trains, measures and records a study. A row is *reproduced* within 0.3 nats or 1 percentage point of
the published number, *better* or *missed* otherwise; numbers that a paper calls neither good nor
bad (KL, MI, AU) do not decide, and are named where they are off by more. ± is one standard error:
over test examples or repetitions of one run, over seeds where there are several.
"""


def results_text(results: str | Path) -> str:
    """Returns RESULTS.md for the records in a folder."""
    from . import PAPERS, STUDIES

    judged = {key: verdicts.verdicts_of(study, results) for key, study in STUDIES.items()}
    parts = [_HEAD, "## All entries\n", _overview(judged)]
    for paper, title in PAPERS.items():
        parts.append(f"## {title}\n")
        for key, study in STUDIES.items():
            if study.paper == paper:
                parts.append(_section(study, judged[key], Path(results)))
    return "\n".join(parts).rstrip() + "\n"


def sentence(results: str | Path) -> str:
    """Returns how many published rows are reproduced, for README.md."""
    from . import STUDIES

    counts: Counter[str] = Counter()
    claims: Counter[Any] = Counter()
    for study in STUDIES.values():
        judged = verdicts.verdicts_of(study, results)
        counts += _counts(study, judged)
        if study.paper != "vaezoo":
            claims.update(verdicts.holds(study, claim, judged) for claim in study.claims)
    total = sum(counts[word] for word in WORDS)
    numbers = ", ".join(f"{counts[word]} {word}" for word in WORDS)
    return (
        f"Of {total} published rows of five papers: {numbers}. Of {sum(claims.values())} stated "
        f"orders: {claims[True]} hold, {claims[False]} do not, {claims[None]} not yet measured. "
        "[All of them](RESULTS.md)."
    )


def is_measured(study: Study, results: str | Path) -> bool:
    """Returns whether a row of a study was measured."""
    return any(found.seeds for found in verdicts.verdicts_of(study, results).values())


def write(results: str | Path, folder: str | Path | None = None) -> list[Path]:
    """Writes RESULTS.md, and the sentence of README.md between its markers.

    Args:
        results: Folder of the records.
        folder: Folder of the two files; that which the folder of the records lies in by default.

    Returns:
        Paths of what was written.
    """
    folder, done = Path(folder or Path(results).parent), []
    with written(folder / "RESULTS.md") as partial:
        partial.write_text(results_text(results), "utf-8")
    done.append(folder / "RESULTS.md")
    readme = folder / "README.md"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    if BEGIN in text and END in text:
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        with written(readme) as partial:
            block = f"{BEGIN}\n{sentence(results)}\n{END}"
            partial.write_text(before + block + after, "utf-8")
        done.append(readme)
    return done


def _counts(study: Study, judged: dict[str, Verdict]) -> Counter[str]:
    """Published rows by their word: those with numbers that the paper measured itself."""
    return Counter(judged[row.name].word for row in _published(study))


def _published(study):
    return [row for row in study.rows if row.published and row.run and not row.variant]


def _overview(judged):
    from . import STUDIES

    lines = ["| entry | shows | rows | " + " | ".join(WORDS) + " | orders that hold |"]
    lines.append("| --- | --- |" + " --- |" * (len(WORDS) + 2))
    for key, study in STUDIES.items():
        counts = _counts(study, judged[key])
        rows = _published(study) or [row for row in study.rows if row.run]
        if not _published(study):
            done = sum(judged[key][row.name].word != verdicts.NOT_RUN for row in rows)
            numbers = ["-", "-", "-", str(len(rows) - done)]
        else:
            numbers = [str(counts[word]) for word in WORDS]
        held = [verdicts.holds(study, claim, judged[key]) for claim in study.claims]
        orders = f"{held.count(True)} of {len(held)}" if held else "-"
        if None in held:
            orders += f" ({held.count(None)} open)"
        anchor = key.replace("/", "")
        lines.append(
            f"| [{key}](#{anchor}) | {study.title} | {len(rows)} | {' | '.join(numbers)} "
            f"| {orders} |"
        )
    return "\n".join(lines) + "\n"


def _section(study: Study, judged: dict[str, Verdict], results: Path) -> str:
    lines = [f"### {study.key}\n", f"{study.title}.\n"]
    if study.protocol.said:
        lines.append(f"Measured: {study.protocol.said}.\n")
    if study.stand_in:
        lines.append(f"Data: {study.stand_in}.\n")
    if study.differs:
        lines.append(f"What differs: {study.differs}.\n")
    headings = " | ".join(_heading(column) for column in study.columns)
    lines.append(f"| row | | {headings} | hours | |")
    lines.append("| --- | --- |" + " --- |" * (len(study.columns) + 2))
    for row in study.rows:
        lines += _lines(study, row, judged[row.name])
    lines.append("")
    noted = [f"- {row.title}: {row.differs}." for row in study.rows if _noted(row, judged)]
    lines += [*noted, ""] if noted else []
    for claim in study.claims:
        word = {True: "holds", False: "does not hold", None: "open"}
        lines.append(f"- {claim.said}: **{word[verdicts.holds(study, claim, judged)]}**.")
    if study.claims:
        lines.append("")
    if study.figure and any(judged[row.name].seeds for row in study.rows):
        path = Path(results.name) / study.paper / study.name / "figure.png"
        lines.append(f"![{study.title}]({path.as_posix()})\n")
    return "\n".join(lines)


def _noted(row: Row, judged: dict[str, Verdict]) -> bool:
    # Of a variant that was never run there is nothing to say.
    return bool(row.differs) and (not row.variant or bool(judged[row.name].seeds))


def _heading(column):
    return column.title + (f" ({column.unit})" if column.unit in ("%", "bits/dim") else "")


def _lines(study: Study, row: Row, found: Verdict) -> list[str]:
    """Lines of a table: the published numbers, ours, and their difference."""
    if row.variant and not found.seeds and found.said == "not yet":
        return []
    lines, name = [], row.title
    columns = study.columns
    if row.published:
        values = " | ".join(_number(found.cells[c.name].published) for c in columns)
        word = "" if found.seeds else _word(row, found)
        lines.append(f"| {name} | published | {values} | | {word} |")
        name = ""
    if found.seeds:
        seeds = "seed " + ", ".join(map(str, found.seeds))
        values = " | ".join(_with_error(found.cells[c.name]) for c in columns)
        lines.append(f"| {name} | {seeds} | {values} | {found.hours:.1f} | {_word(row, found)} |")
        if row.published:
            values = " | ".join(_signed(found.cells[c.name].difference) for c in columns)
            lines.append(f"| | difference | {values} | | |")
    elif not row.published:
        lines.append(f"| {name} | |{' |' * len(columns)} | {_word(row, found)} |")
    return lines


def _word(row, found):
    if row.run is None:
        return "quoted by the paper"
    if found.word == verdicts.RUN:
        return f"run {found.said}".strip()
    if found.said == "not yet":
        return "not run yet"
    return f"**{found.word}**" + (f" ({found.said})" if found.said else "")


def _number(value):
    return "" if value is None else f"{value:.5g}"


def _with_error(cell):
    if cell.value is None:
        return ""
    if math.isfinite(cell.error) and cell.error > 0:
        digits = max(0, min(4, 1 - math.floor(math.log10(cell.error))))
        return f"{cell.value:.{digits}f} ± {cell.error:.{digits}f}"
    return _number(cell.value)


def _signed(value):
    return "" if value is None else f"{value:+.3g}"
