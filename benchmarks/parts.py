"""Tables that are measured in parts: rows of other parts stay, each with its date."""

import datetime
import os

from .__main__ import HERE, show, write


def publish_parts(title, columns, parts, order, marker=None):
    """Prints Markdown, a title and a table, and puts it into README.md part by part.

    Args:
        title: Line above the table.
        columns: Names of the columns. The first tells the part; the date and the load of the
            machine are added as the last.
        parts: Iterable of `(part, rows)`, where a row is a list of the cells after the first.
        order: All parts, as they follow one another in the table.
        marker: Where README.md has the table, or None to print it alone.
    """
    head = [line_of([*columns, "measured"]), line_of(["---"] * (len(columns) + 1))]
    kept = rows_by_part((HERE / "README.md").read_text(), marker, len(columns) + 1)
    for part, rows in parts:
        lines = [line_of([part, *row, measured()]) for row in rows]
        kept[part] = lines
        # Nothing measured is lost if a later part fails.
        show("\n".join([*head, *lines]))
        if marker:
            lines = [line for name in order for line in kept.get(name, ())]
            write("\n".join([title, "", *head, *lines]), marker)


def rows_by_part(page, marker, columns):
    """The rows of a table by their first cell, without those of another number of columns."""
    found = {}
    if marker is None:
        return found
    block = page.partition(f"<!-- {marker} -->\n")[2].partition("<!-- end -->")[0]
    lines = [line for line in block.splitlines() if line.startswith("| ")]
    for line in lines[2:]:
        cells = line.strip("|").split("|")
        if len(cells) == columns:
            found.setdefault(cells[0].strip(), []).append(line)
    return found


def line_of(cells):
    """A row in Markdown."""
    return f"| {' | '.join(cells)} |"


def measured():
    """The day, and the machine's load, of which a process of ours is one."""
    return f"{datetime.date.today()}, load {os.getloadavg()[0]:.1f}"
