"""Commands on sentences: `vaezoo reconstruct` and `vaezoo interpolate`."""

from pathlib import Path
from typing import Annotated

import typer

from . import data, runs
from .layers import Tokens

SOURCE = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
    ),
]


def writes_text(model):
    """Whether a model is one of text."""
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
        raise ValueError(f"'{file}' is a model of images: it must be one of text")
    return model, vocabulary_of(model, file)


def register(app):
    """Adds the commands to `app`."""

    @app.command()
    def reconstruct(
        source: SOURCE,
        sentences: Annotated[
            list[str],
            typer.Argument(metavar="SENTENCE...", help="What to write again.", show_default=False),
        ],
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
    ):
        """Write sentences again from their codes: what a model of text keeps of them.

        Examples:
          vaezoo reconstruct runs/text "the food was great" "never again"
          vaezoo reconstruct runs/text "the food was great" --beam 5
        """
        model, vocabulary = _opened(source)
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
        first: Annotated[str, typer.Argument(metavar="SENTENCE", show_default=False)],
        last: Annotated[str, typer.Argument(metavar="SENTENCE", show_default=False)],
        steps: Annotated[
            int, typer.Option(metavar="N", min=2, help="Sentences, both ends included.")
        ] = 8,
    ):
        """Write the sentences on the way from the code of one to that of another.

        Example:
          vaezoo interpolate runs/text "the food was great" "never again" --steps 6
        """
        model, vocabulary = _opened(source)
        ends = (data.to_ids([sentence], vocabulary) for sentence in (first, last))
        (found,) = model.interpolate(*ends, steps=steps)
        typer.echo("\n".join(data.to_text(found, vocabulary)))
