"""The console of a command, its errors and its warnings."""

import contextlib

import typer
from rich.console import Console


def open_console():
    """Returns the console that a command prints its results to."""
    # Paths, names and reasons are printed as they are: what looks like markup in them is none.
    console = Console(markup=False)
    # Pipes and files get whole lines.
    return console if console.is_terminal else Console(markup=False, width=200)


def say_error(error, label="Error: "):
    """Writes an error in one line."""
    # A terminal that was closed hears nothing more.
    with contextlib.suppress(OSError):
        typer.secho(label + " ".join(str(error).split()), fg="red", err=True)


def show_warning(message, category, filename, lineno, file=None, line=None):
    """Writes a warning in one line, as `warnings.showwarning` is called."""
    typer.secho(f"Warning: {' '.join(str(message).split())}", fg="yellow", err=True)
