"""Models of text and their words."""

from ..runs.directory import find_model
from ..runs.models import load_model, vocabulary_of, writes_text


def open_model(source):
    """Returns a model and, if it is one of text, its words."""
    file = find_model(source)
    model = load_model(file)
    if not writes_text(model):
        return model, None
    return model, vocabulary_of(model, file)


def check_text(source, **options):
    """Raises a `ValueError` for options that only a model of images takes."""
    given = [f"--{name}".replace("_", "-") for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"'{source}' is a model of text, which takes no {' or '.join(given)}")
