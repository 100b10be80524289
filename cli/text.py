"""Models of text and their words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runs.directory import find_model
from ..runs.models import load_model, vocabulary_of, writes_text

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def open_model(source: Path) -> tuple[Any, Any]:
    """Returns a model and, if it is one of text, its words."""
    file = find_model(source)
    model = load_model(file)
    if not writes_text(model):
        return model, None
    return model, vocabulary_of(model, file)


def check_text(source: Path, **options: Any) -> None:
    """Raises a `ValueError` for options that only a model of images takes."""
    given = [f"--{name}".replace("_", "-") for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"'{source}' is a model of text, which takes no {' or '.join(given)}")
