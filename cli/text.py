"""Models of text and their words."""

from ..runs import directory as runs


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


def open_model(source):
    """Returns a model and, if it is one of text, its words."""
    file = runs.find_model(source)
    model = runs.load_model(file)
    if not writes_text(model):
        return model, None
    return model, vocabulary_of(model, file)


def check_text(source, **options):
    """Raises a `ValueError` for options that only a model of images takes."""
    given = [f"--{name}".replace("_", "-") for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"'{source}' is a model of text, which takes no {' or '.join(given)}")
