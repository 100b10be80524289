"""`vaezoo export`: a SavedModel that serves alone."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..core.files import check_writable, naming
from ..runs.directory import find_model
from ..runs.models import load_model, vocabulary_of, writes_text
from .console import open_console


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder to write, new or empty.", show_default=False),
    ],
    beam: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Adds the signature decode_beam to a model of text, a search among N sentences.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a SavedModel that serves without vaezoo, for TF Serving or `tf.saved_model.load`.

    Its signatures are encode (serving_default, too), decode, sample,
    reconstruct, interpolate and score. A model of text carries its words in
    assets.extra/vocabulary.txt. What exists is never overwritten.

    Example:
      vaezoo export runs/du served/du/1
      saved_model_cli show --dir served/du/1 --all
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"'{out}' exists and is never overwritten: name another folder")
    check_writable(out)
    file = find_model(source)
    model = load_model(file)
    vocabulary = vocabulary_of(model, file) if writes_text(model) else None
    try:
        model.export(out, vocabulary=vocabulary, beam_size=beam)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        # TensorFlow writes by itself, and has errors of its own.
        if "No space left" not in str(error):
            raise
        with naming(out):
            raise OSError(errno.ENOSPC, "No space left on device") from error
    open_console().print(
        f"SavedModel of {model.name}: {out}\nTo see it: saved_model_cli show --dir "
        f"{shlex.quote(str(out))} --all",
        highlight=False,
    )
