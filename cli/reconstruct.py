"""`vaezoo reconstruct`: images or sentences, from their codes."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .console import open_console
from .text import check_text, open_model


def reconstruct(
    source: options.SOURCE,
    sentences: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SENTENCE...]",
            help="What a model of text is to write again.",
            show_default=False,
        ),
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Sentences under consideration in a search for the most probable one.",
            show_default="greedy",
        ),
    ] = None,
    length_penalty: Annotated[
        float,
        typer.Option(metavar="A", min=0.0, help="Of the search; larger finds longer ones."),
    ] = 0.0,
    num: options.NUM = 20,
    data_name: options.DATA = None,
    data_dir: options.DATA_DIR = None,
    split: options.SPLIT = "test",
    binarize: options.BINARIZE = None,
    scale: options.SCALE = None,
    out: options.PICTURE = None,
    overwrite: options.OVERWRITE = False,
) -> None:
    """Reconstruct from codes: what a model keeps of images, or of sentences.

    Images are those of the run's data, or of --data: rows of them in one
    picture, with the row of their reconstructions below.

    Examples:
      vaezoo reconstruct runs/du
      vaezoo reconstruct runs/du -n 40 --split train --out train.png
      vaezoo reconstruct runs/text "the food was great" "never again"
      vaezoo reconstruct runs/text "the food was great" --beam 5
    """
    model, vocabulary = open_model(source)
    from .. import data
    from . import panels

    if vocabulary is None:
        _check_images(source, sentences, beam=beam)
        file = panels.reconstruct(
            source, num, out, overwrite, scale,
            data_name=data_name, data_dir=data_dir, split=split, binarize=binarize,
        )  # fmt: skip
        open_console().print(f"Images and their reconstructions: {file}", highlight=False)
        return
    check_text(source, data=data_name, data_dir=data_dir, scale=scale, out=out)
    if not sentences:
        raise ValueError(f"'{source}' is a model of text: give it sentences to reconstruct")
    x = data.to_ids(sentences, vocabulary)
    if beam is None:
        found = model.reconstruct(x)
    else:
        codes = model.encode(x, len(x)).mean
        found = model.decode(codes, len(x), beam_size=beam, length_penalty=length_penalty)
    typer.echo("\n".join(data.to_text(found, vocabulary)))


def _check_images(source, sentences, beam):
    """Raises a `ValueError` for what only a model of text takes."""
    if sentences or beam is not None:
        given = "sentences" if sentences else "--beam"
        raise ValueError(f"'{source}' is a model of images, which takes no {given}")
