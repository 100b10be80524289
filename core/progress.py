"""Bars for long work, on terminals alone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any


def tracked(values: Sequence[Any], label: str | None) -> Iterable[Any]:
    """Goes through a sequence with a bar and the time left, which vanish at the end.

    Args:
        values: Sequence.
        label: What is being done; None for no bar.
    """
    if label is None:
        return values
    from rich import get_console
    from rich.progress import track

    # In a pipe the bar would leave an empty line behind.
    return track(values, label, transient=True, disable=not get_console().is_terminal)


@contextlib.contextmanager
def stages(number: int, shown: bool, done: int = 0) -> Iterator[Callable[[str], None]]:
    """A bar over parts of different kinds, which vanishes at the end.

    Args:
        number: Positive int, how many parts there are.
        shown: Whether to show it.
        done: Non-negative int, parts that are behind already.

    Yields:
        Function of the name of the part that begins.
    """
    from rich import get_console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    shown = shown and get_console().is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=number, completed=done - 1)

        def begin(name):
            bar.update(task, description=name, advance=1)

        yield begin
