"""Sentences of a model of text, and `vaezoo reconstruct` and `vaezoo interpolate`."""

from pathlib import Path
from typing import Annotated

import typer

from . import judge, runs

SOURCE = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
    ),
]


def writes_text(model):
    """Whether a model is one of text."""
    from ..layers import Tokens

    return isinstance(model.likelihood, Tokens)


def vocabulary_of(model, file):
    """The words of a model of text.

    Raises:
        ValueError: If there are none beside it, or those of another model.
    """
    vocabulary = runs.vocabulary_of(file)
    if vocabulary is None:
        raise ValueError(
            f"{runs.VOCABULARY} must lie beside '{file}': without it nobody knows which words its "
            "ids mean"
        )
    if len(vocabulary) != model.likelihood.vocabulary_size:
        raise ValueError(
            f"'{file}' was trained with another vocabulary than the {runs.VOCABULARY} beside it: "
            f"it knows {model.likelihood.vocabulary_size} ids. Received: {len(vocabulary)}"
        )
    return vocabulary


def _opened(source):
    file = runs.find_model(source)
    model = runs.load_model(file)
    if not writes_text(model):
        return model, None
    return model, vocabulary_of(model, file)


def register(app, console):
    """Adds the commands to `app`; `console()` gives the console to print to."""
    numbered = typer.Option("-n", "--num", metavar="N", min=1, help="How many, of images.")
    scaled = typer.Option(
        metavar="N",
        min=1,
        help="Pixels of the grid for one pixel of an image.",
        show_default="what enlarges small images",
    )
    written = typer.Option(
        metavar="FILE", help="A .png, for images.", show_default="beside the model"
    )

    @app.command()
    def reconstruct(
        source: SOURCE,
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
        num: Annotated[int, numbered] = 20,
        data_name: judge.DATA = None,
        data_dir: judge.DATA_DIR = None,
        split: judge.SPLIT = "test",
        binarize: judge.BINARIZE = None,
        scale: Annotated[int | None, scaled] = None,
        out: Annotated[Path | None, written] = None,
        overwrite: judge.OVERWRITE = False,
    ):
        """Reconstruct from codes: what a model keeps of images, or of sentences.

        Images are those of the run's data, or of --data: rows of them in one
        picture, with the row of their reconstructions below.

        Examples:
          vaezoo reconstruct runs/du
          vaezoo reconstruct runs/du -n 40 --split train --out train.png
          vaezoo reconstruct runs/text "the food was great" "never again"
          vaezoo reconstruct runs/text "the food was great" --beam 5
        """
        model, vocabulary = _opened(source)
        from .. import data
        from . import panels

        if vocabulary is None:
            _check_images(source, sentences, beam=beam)
            file = panels.reconstruct(
                source, num, out, overwrite, scale,
                data_name=data_name, data_dir=data_dir, split=split, binarize=binarize,
            )  # fmt: skip
            console().print(f"Images and their reconstructions: {file}", highlight=False)
            return
        if not sentences:
            raise ValueError(f"'{source}' is a model of text: give it sentences to reconstruct")
        x = data.to_ids(sentences, vocabulary)
        if beam is None:
            found = model.reconstruct(x)
        else:
            codes = model.encode(x, len(x)).mean
            found = model.decode(codes, len(x), beam_size=beam, length_penalty=length_penalty)
        typer.echo("\n".join(data.to_text(found, vocabulary)))

    @app.command()
    def interpolate(
        source: SOURCE,
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
        num: Annotated[int, numbered] = 8,
        data_name: judge.DATA = None,
        data_dir: judge.DATA_DIR = None,
        split: judge.SPLIT = "test",
        binarize: judge.BINARIZE = None,
        scale: Annotated[int | None, scaled] = None,
        out: Annotated[Path | None, written] = None,
        overwrite: judge.OVERWRITE = False,
    ):
        """Decode the way from the code of one image or sentence to that of another.

        Images are named by their places in the split, from 0; without, there is
        a row for each of --num pairs.

        Examples:
          vaezoo interpolate runs/du
          vaezoo interpolate runs/du 3 17 --steps 10 --out way.png
          vaezoo interpolate runs/text "the food was great" "never again" --steps 6
        """
        model, vocabulary = _opened(source)
        from .. import data
        from . import panels

        if vocabulary is None:
            file = panels.interpolate(
                source, first, last, steps, num, out, overwrite, scale,
                data_name=data_name, data_dir=data_dir, split=split, binarize=binarize,
            )  # fmt: skip
            console().print(f"Interpolations: {file}", highlight=False)
            return
        if first is None or last is None:
            raise ValueError(f"'{source}' is a model of text: give it two sentences")
        ends = (data.to_ids([sentence], vocabulary) for sentence in (first, last))
        (found,) = model.interpolate(*ends, steps=steps)
        typer.echo("\n".join(data.to_text(found, vocabulary)))


def _check_images(source, sentences, beam):
    """Raises a `ValueError` for what only a model of text takes."""
    if sentences or beam is not None:
        given = "sentences" if sentences else "--beam"
        raise ValueError(f"'{source}' is a model of images, which takes no {given}")
