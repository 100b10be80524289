"""The application: its commands, and how they fail."""

from __future__ import annotations

import os
import warnings
from typing import Annotated

import typer
from typer.core import TyperGroup

from .. import __version__
from ..runs.directory import versions
from . import logs
from .compilations import keep_compilations
from .console import say_error, say_usage, show_warning
from .cure import cure
from .diagnose import diagnose
from .evaluate import evaluate
from .export import export
from .interpolate import interpolate
from .list import list_presets
from .reconstruct import reconstruct
from .reproduce import Several, reproduce
from .sample import sample
from .signals import Ended, noticed_signals, signals_first
from .train import train


class _Group(TyperGroup):
    """Commands whose errors are one line and exit code 2."""

    def parse_args(self, ctx, args):
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            say_usage(error)
            raise

    def invoke(self, ctx):
        with warnings.catch_warnings(), noticed_signals():
            warnings.showwarning = show_warning
            try:
                with signals_first():
                    return super().invoke(ctx)
            except BrokenPipeError:
                raise
            except Ended as error:
                say_error(f"Ended by {error}", "")
                raise typer.Exit(error.code) from None
            except MemoryError as error:
                if ctx.params.get("debug"):
                    raise
                say_error(f"There is not enough memory for this. {error}")
                raise typer.Exit(2) from error
            except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
                if ctx.params.get("debug"):
                    raise
                say_error(error)
                raise typer.Exit(2) from error
            except Exception as error:
                say_usage(error)
                # What the backend says of data that it reads itself, with its graph behind it.
                backend = type(error).__module__.split(".")[0] in ("tensorflow", "jax", "jaxlib")
                if ctx.params.get("debug") or not backend:
                    raise
                said = [line.strip() for line in str(error).splitlines()]
                said = [line for line in said if line and line[0] not in "[<"]
                reason = said[-1] if said else "no reason given"
                say_error(f"{type(error).__name__}: {reason} (--debug shows where)")
                raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    # Each completion of a word would wait for the backend to be imported.
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command line."""
    logs.hush()
    keep_compilations(os.environ)
    app(prog_name="vaezoo")


def _show_version(wanted):
    if wanted:
        import keras

        backend = keras.backend.backend()
        found = versions()
        typer.echo(
            f"vaezoo {__version__} (keras {found['keras']}, backend {backend} "
            f"{found.get(backend, 'unknown')}, python {found['python']})"
        )
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions and the backend.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback behind an error.")
    ] = False,
) -> None:
    """Train, sample and export variational auto-encoders that do not collapse.

    From a published model to a served one:

      [bold]vaezoo list[/]                                    the presets there are
      [bold]vaezoo train du_vae_digits_mlp --out runs/du[/]   a minute on two cores
      [bold]vaezoo diagnose runs/du[/]                        is its latent code healthy?
      [bold]vaezoo cure runs/du[/]                            what it gives to try the remedies
      [bold]vaezoo evaluate runs/du[/]                        likelihood, information, rates
      [bold]vaezoo sample runs/du[/]                          new digits: runs/du/samples.png
      [bold]vaezoo export runs/du served/du[/]                a SavedModel that serves alone

    Each command has examples: [bold]vaezoo train --help[/].

    The backend is chosen by an environment variable, before Keras starts:
    [bold]KERAS_BACKEND=jax vaezoo train ...[/]; TensorFlow is the default.
    """


app.command("list")(list_presets)
app.command(cls=Several)(reproduce)
for _command in (train, sample, export, evaluate, diagnose, cure, reconstruct, interpolate):
    app.command()(_command)
