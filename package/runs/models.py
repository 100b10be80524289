"""Models of runs and of files, and the words of those that write text."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from .directory import VOCABULARY
from .directory import vocabulary_of as _vocabulary_beside

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import keras


def load_model(file: Path) -> Any:
    """Loads the `.keras` file of a model, uncompiled; runs no code from it.

    Raises:
        ValueError: If it is not a model of vaezoo.
    """
    from ..zoo import VAE

    model = load_network(file)
    if not isinstance(model, VAE):
        raise ValueError(f"'{file}' is not a model of vaezoo. Received: {type(model).__name__}")
    return model


def load_network(file: Path) -> Any:
    """Loads any `.keras` file, uncompiled; runs no code from it.

    Raises:
        ValueError: If it cannot be loaded.
    """
    if not zipfile.is_zipfile(file):
        # Keras says of such a file that it is not there.
        raise ValueError(f"'{file}' is not a .keras file, or is empty or cut short")
    import keras

    try:
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises almost any kind for a broken file, with the whole configuration behind it.
        reason = " ".join(str(error).split("Full object config")[0].split())
        raise ValueError(f"'{file}' cannot be loaded: {reason}") from error


def writes_text(model: keras.Model) -> bool:
    """Whether a model is one of text."""
    from ..layers import Tokens

    return isinstance(model.likelihood, Tokens)


def vocabulary_of(model: keras.Model, file: Path) -> Any:
    """The words of a model of text.

    Raises:
        ValueError: If there are none beside it, or those of another model.
    """
    vocabulary = _vocabulary_beside(file)
    if vocabulary is None:
        raise ValueError(f"'{file}' needs {VOCABULARY} beside it to turn ids into words")
    if len(vocabulary) != model.likelihood.vocabulary_size:
        raise ValueError(
            f"'{file}' was trained with another vocabulary than the {VOCABULARY} beside it: "
            f"it knows {model.likelihood.vocabulary_size} ids. Received: {len(vocabulary)}"
        )
    return vocabulary
