"""The console of a command, its errors and its warnings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def open_console() -> Any:
    """Returns the console that a command prints its results to."""
    # Paths, names and reasons are printed as they are: what looks like markup in them is none.
    console = Console(markup=False)
    # Pipes and files get whole lines.
    return console if console.is_terminal else Console(markup=False, width=200)


def say_error(error: Exception | str, label: str = "Error: ") -> None:
    """Writes an error in one line."""
    # A terminal that was closed hears nothing more.
    with contextlib.suppress(OSError):
        typer.secho(label + " ".join(str(error).split()), fg="red", err=True)


def say_usage(error: Any) -> None:
    """Ends the command if words of it were wrong; Typer would draw a box around the reason."""
    if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
        return
    context = getattr(error, "ctx", None)
    more = f" (see {context.command_path} --help)" if context is not None else ""
    say_error(error.format_message() + more)
    raise typer.Exit(error.exit_code) from None


def show_warning(
    message: Any,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Path | None = None,
    line: str | None = None,
) -> None:
    """Writes a warning in one line, as `warnings.showwarning` is called."""
    typer.secho(f"Warning: {' '.join(str(message).split())}", fg="yellow", err=True)
