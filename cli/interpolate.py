"""`vaezoo interpolate`: the way between two codes."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .console import open_console
from .text import check_text, open_model


def interpolate(
    source: options.SOURCE,
    first: Annotated[
        str | None,
        typer.Argument(metavar="[SENTENCE|PLACE", help="From where.", show_default=False),
    ] = None,
    last: Annotated[
        str | None,
        typer.Argument(metavar="SENTENCE|PLACE]", help="To where.", show_default=False),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", min=2, help="Steps on the way, both ends included.")
    ] = 8,
    num: options.NUM = 8,
    data_name: options.DATA = None,
    data_dir: options.DATA_DIR = None,
    split: options.SPLIT = "test",
    binarize: options.BINARIZE = None,
    scale: options.SCALE = None,
    out: options.PICTURE = None,
    overwrite: options.OVERWRITE = False,
) -> None:
    """Decode the way from the code of one image or sentence to that of another.

    Images are named by their places in the split, from 0; without, there is
    a row for each of --num pairs.

    Examples:
      vaezoo interpolate runs/du
      vaezoo interpolate runs/du 3 17 --steps 10 --out way.png
      vaezoo interpolate runs/text "the food was great" "never again" --steps 6
    """
    model, vocabulary = open_model(source)
    from .. import data
    from . import panels

    if vocabulary is None:
        file = panels.interpolate(
            source, first, last, steps, num, out, overwrite, scale,
            data_name=data_name, data_dir=data_dir, split=split, binarize=binarize,
        )  # fmt: skip
        open_console().print(f"Interpolations: {file}", highlight=False)
        return
    check_text(source, data=data_name, data_dir=data_dir, scale=scale, out=out)
    if first is None or last is None:
        raise ValueError(f"'{source}' is a model of text: give it two sentences")
    ends = (data.to_ids([sentence], vocabulary) for sentence in (first, last))
    (found,) = model.interpolate(*ends, steps=steps)
    typer.echo("\n".join(data.to_text(found, vocabulary)))
