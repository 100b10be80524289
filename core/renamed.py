"""Former names of arguments, which work for one release."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Function = TypeVar("_Function")


def renamed_arguments(**former: Any) -> Callable[[_Function], _Function]:
    """Lets a function take arguments by their former names, with a warning.

    Example:
        @renamed_arguments(labelling=("labeling", {}))
        def kmeans_probe(train, test, labeling="nearest_sample"): ...

    Args:
        **former: By each former name, the name of today and a dict of former values to those of
            today; other values stay.

    Returns:
        A decorator. The signature shows the names of today alone.
    """

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **with_names_of_today(call, kwargs))

        call.former_arguments = former
        return call

    return decorate


def with_names_of_today(
    function: Callable[..., Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns keyword arguments with their former names and values replaced.

    Args:
        function: Function, perhaps decorated by `renamed_arguments`.
        arguments: Dict of its keyword arguments.

    Raises:
        ValueError: If one is given by both names.
    """
    former = getattr(function, "former_arguments", {})
    found = {}
    for name, value in arguments.items():
        today, values = former.get(name, (name, {}))
        if today != name:
            if today in arguments:
                raise ValueError(
                    f"`{name}` is the former name of `{today}`: give one. Received: both"
                )
            warnings.warn(
                f"`{name}` of {function.__name__} is now `{today}`; the former name will go with "
                "the next release",
                FutureWarning,
                stacklevel=3,
            )
            value = values.get(value, value) if isinstance(value, str) else value
        found[today] = value
    return found
