"""`vaezoo list`: the presets, and all about one of them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..runs.settings import as_text
from . import catalog
from .console import open_console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

#: Arguments that no setting of a preset gives.
_NOT_SET = ("encoder", "decoder", "latent_dim", "output_shape", "options")


def list_presets(
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET", help="Show everything about this preset.", show_default=False
        ),
    ] = None,
) -> None:
    """Show the presets, or everything that one of them sets and takes.

    A preset is a published model with its networks, training and data settings.

    Examples:
      vaezoo list
      vaezoo list du_vae_digits_mlp
    """
    console = open_console()
    if preset is None:
        console.print(presets_table(with_source=console.width >= 100))
        console.print("\nEverything about one of them: vaezoo list PRESET", highlight=False)
        return
    for part in preset_view(preset, *catalog.preset_of(preset)):
        console.print(part, highlight=False)


def presets_table(with_source: bool) -> Any:
    """Returns the table of all presets.

    Args:
        with_source: Whether to show where a preset comes from, which takes a wide terminal.
    """
    table = _table("preset", "model", "D", "data", "networks")
    for column in table.columns:
        column.no_wrap = True
    if with_source:
        table.add_column("source")
    for name, row in catalog.read().items():
        table.add_row(*[name, *row.values()][: len(table.columns)])
    return table


def preset_view(
    name: str, constructor: Callable[..., Any], preset: dict[str, Any]
) -> Iterator[Any]:
    """Yields what there is to say about one preset, to be printed one by one."""
    from .. import data, zoo
    from ..data.spec import OF_IMAGES, OF_TEXT

    text = inspect.getdoc(constructor) or ""
    lines = text.splitlines()
    yield Text.assemble((name, "bold"), f": {constructor.__name__}. {lines[0]}")
    yield f"Source: {preset['source']}"
    # To the end of its paragraph.
    _, heading, reference = text.partition("\nReference: ")
    if heading:
        yield "Reference: " + " ".join(reference.split("\n\n")[0].split())

    table = _table("--set", "here", "default", "meaning")
    texts = argument_texts(constructor)
    for argument, parameter in _arguments(constructor).items():
        if argument not in ("encoder", "decoder"):
            here = as_text(preset["model"][argument]) if argument in preset["model"] else ""
            row = (argument, here, as_text(parameter.default), texts.get(argument, ""))
            table.add_row(*row)
    yield Text("\nArguments of the model", "bold")
    yield table

    table = _table("--set", "here")
    takes = {
        "networks": zoo.networks.makers(
            *(preset["networks"].get(name) for name in ("kind", "encoder", "decoder"))
        ),
        "training": [],
        "data": [data.load],
    }
    also = {}
    # The data are images or text, and have no use for the other's options.
    of_text = zoo.networks.takes(preset["networks"]["kind"], "vocabulary_size")
    idle = (*OF_IMAGES, "tokenizer") if of_text else OF_TEXT
    for section, functions in takes.items():
        for key, value in preset[section].items():
            table.add_row(f"{section}.{key}", as_text(value))
        names = {key: None for function in functions for key in _arguments(function)}
        also[section] = ", ".join(n for n in names if n not in (*preset[section], *_NOT_SET, *idle))
    yield Text("\nOther settings", "bold")
    yield table
    yield f"Further keys of networks: {also['networks']}"
    yield "Further keys of training: optimizer, and arguments of that Keras optimizer"
    yield f"Further keys of data: {also['data']}"
    yield f"\nFor instance: vaezoo train {name} --set training.learning_rate=1e-4"


def argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Reads the `Args:` section of a docstring: dict of argument to its description."""
    descriptions, name = {}, None
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            descriptions[name] = text
        elif name and line.strip():
            descriptions[name] += f" {line.strip()}"
    return descriptions


def _arguments(function):
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _table(*headings):
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
