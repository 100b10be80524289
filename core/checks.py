"""Checks arguments: one rule and one kind of error for each kind of value.

Each check returns the value as plain Python, so that NumPy's numbers are stored, compared and
serialized like any other. Messages name the argument, the rule and what was received.
"""

from __future__ import annotations

import difflib
import numbers
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .types import Array, ArrayLike, Seed, Shape

#: Seeds of both backends are smaller.
SEEDS = 2**31


def is_integer(value: Any) -> bool:
    """Returns whether a value is a whole number, Python's or NumPy's, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Returns whether a value is a real number, Python's or NumPy's, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as messages show it: its `repr`, cut where it is long."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    # Arrays have several lines.
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def wrong(name: str, rule: str, value: Any, hint: str = "") -> ValueError:
    """The error of every check: ``"`name` must be rule. Received: name=value"``."""
    return ValueError(f"`{name}` must be {rule}. Received: {name}={shown(value)}{hint}")


def check_integer(
    name: str, value: Any, least: int | None = 1, most: int | None = None, optional: bool = False
) -> Any:
    """Checks an integer.

    Args:
        name: Name of the argument.
        value: What was given.
        least: Smallest value allowed, or None.
        most: Largest value allowed, or None.
        optional: Whether None is allowed, and returned as it is.

    Returns:
        The value as an int.

    Raises:
        ValueError: If it is no integer, or out of range.
    """
    if optional and value is None:
        return None
    good = is_integer(value)
    good = good and (least is None or value >= least) and (most is None or value <= most)
    if not good:
        if most is not None and least == most:
            rule = f"{least}"
        elif most is not None and least is not None:
            rule = f"an integer from {least} to {most}"
        elif most is not None:
            rule = f"an integer of at most {most}"
        elif least is None:
            rule = "an integer"
        else:
            rule = {0: "a non-negative integer", 1: "a positive integer"}.get(
                least, f"an integer of at least {least}"
            )
        raise wrong(name, f"{rule} or None" if optional else rule, value)
    return int(value)


def check_real(
    name: str,
    value: Any,
    interval: str = "(-inf, inf)",
    optional: bool = False,
    also: str | None = None,
) -> Any:
    """Checks a real number.

    Args:
        name: Name of the argument.
        value: What was given.
        interval: Where it must lie, as one writes it: `"[0, 1)"`, `"(0, inf)"`. NaN lies nowhere;
            infinity only where the bracket says so.
        optional: Whether None is allowed, and returned as it is.
        also: Wording of what else the caller allows, such as `"'learned'"`, for the message.

    Returns:
        The value as a float; an int that is exact stays an int.

    Raises:
        ValueError: If it is no number, or outside of the interval.
    """
    if optional and value is None:
        return None
    if not _lies_in(value, interval):
        rule = _NUMBERS.get(interval, f"a number in {interval}")
        raise wrong(
            name, " or ".join(filter(None, [rule, also, "None" if optional else None])), value
        )
    return int(value) if is_integer(value) else float(value)


_NUMBERS = {
    "(-inf, inf)": "a finite number",
    "[0, inf)": "a finite, non-negative number",
    "(0, inf)": "a finite, positive number",
}


def _lies_in(value, interval):
    if not is_real(value):
        return False
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def check_flag(name: str, value: Any, optional: bool = False) -> Any:
    """Checks a bool, Python's or NumPy's, and returns it as Python's.

    Args:
        name: Name of the argument.
        value: What was given.
        optional: Whether None is allowed, and returned as it is.

    Raises:
        ValueError: If it is anything else.
    """
    if optional and value is None:
        return None
    if type(value).__name__ not in ("bool", "bool_"):
        raise wrong(name, "True, False or None" if optional else "True or False", value)
    return bool(value)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Checks that a value is one of several, and returns that one.

    Raises:
        ValueError: If it is another one.
    """
    for choice in choices:
        # A bool equals numbers, and an array raises beside strings.
        comparable = is_integer(value) or isinstance(value, str)
        if value is choice or (comparable and value == choice):
            return choice
    known = ", ".join(repr(choice) for choice in choices)
    raise wrong(name, f"one of {known}", value, _nearest(value, choices))


def check_name(name: str, value: Any, known: Iterable[str], rule: str) -> str:
    """Checks that a string is one of many names, and returns it.

    Args:
        name: Name of the argument.
        value: String.
        known: The names.
        rule: The set of them, in words.

    Raises:
        ValueError: If it is none of them, with three that are nearest.
    """
    if value in known:
        return value
    # A part of a name, in whatever letters, is near to all that hold it.
    word, names = value.lower(), sorted(known)
    near = difflib.get_close_matches(word, names, 3)
    near = near or [found for found in names if word in found][:3] or names[:3]
    raise wrong(name, f"{rule}, for instance {', '.join(near)}", value)


def check_seed(name: str, value: Any, optional: bool = True) -> Seed:
    """Checks a seed: an integer in [0, 2^31).

    Args:
        name: Name of the argument.
        value: What was given.
        optional: Whether None is allowed, and returned as it is.

    Returns:
        The seed as an int, or None.

    Raises:
        ValueError: If it is anything else.
    """
    if optional and value is None:
        return None
    if not is_integer(value) or not 0 <= value < SEEDS:
        raise wrong(name, "an integer in [0, 2^31)" + (" or None" if optional else ""), value)
    return int(value)


def check_integers(
    name: str,
    values: Any,
    least: int = 1,
    length: int | None = None,
    optional: bool = False,
    shortest: int = 0,
    rule: str | None = None,
) -> Any:
    """Checks a sequence of integers, such as a shape or the widths of layers.

    Args:
        name: Name of the argument.
        values: List, tuple or one-dimensional array.
        least: Smallest value allowed.
        length: How many there must be, or None.
        optional: Whether None is allowed, and returned as it is.
        shortest: How many there must be at least.
        rule: Wording of all this for the message, where there is a better one.

    Returns:
        A tuple of ints.

    Raises:
        ValueError: If it is no such sequence.
    """
    if optional and values is None:
        return None
    listed = values.tolist() if hasattr(values, "tolist") else values
    good = isinstance(listed, (list, tuple)) and all(is_integer(v) and v >= least for v in listed)
    if not good or length not in (None, len(listed)) or len(listed) < shortest:
        count = "a non-empty sequence of" if shortest else "a sequence of"
        kind = {0: "non-negative integers", 1: "positive integers"}.get(
            least, f"integers of at least {least}"
        )
        rule = rule or f"{count if length is None else length} {kind}"
        raise wrong(name, f"{rule} or None" if optional else rule, values)
    return tuple(int(value) for value in listed)


def check_image_shape(name: str, shape: Shape, optional: bool = False) -> Any:
    """Checks the shape of an image or of a stack of maps.

    Args:
        name: Name of the argument.
        shape: List, tuple or one-dimensional array of three numbers.
        optional: Whether None is allowed, and returned as it is.

    Returns:
        `(height, width, channels)`, a tuple of ints.

    Raises:
        ValueError: If it is no such shape.
    """
    rule = "(height, width, channels), three positive integers"
    return check_integers(name, shape, length=3, optional=optional, rule=rule)


def check_reals(
    name: str,
    values: Any,
    interval: str = "(-inf, inf)",
    length: int | None = None,
    optional: bool = False,
) -> Any:
    """Checks a sequence of at least one real number, such as the scales of a kernel.

    Args:
        name: Name of the argument.
        values: List, tuple or one-dimensional array.
        interval: Where each must lie, as in `check_real`.
        length: How many there must be, or None.
        optional: Whether None is allowed, and returned as it is.

    Returns:
        A tuple of plain numbers.

    Raises:
        ValueError: If it is no such sequence.
    """
    if optional and values is None:
        return None
    listed = values.tolist() if hasattr(values, "tolist") else values
    good = isinstance(listed, (list, tuple)) and len(listed) > 0
    good = good and all(_lies_in(value, interval) for value in listed)
    if not good or length not in (None, len(listed)):
        count = "a sequence of" if length is None else f"{length}"
        rule = _NUMBERS.get(interval, f"number in {interval}").removeprefix("a ")
        rule = f"{count} {rule.replace('number', 'numbers')}"
        raise wrong(name, f"{rule} or None" if optional else rule, values)
    return tuple(check_real(name, value) for value in listed)


def check_range(name: str, value: Any) -> tuple[float, float]:
    """Checks a pair of rising numbers, such as black and white.

    Args:
        name: Name of the argument.
        value: List, tuple or one-dimensional array of two numbers.

    Returns:
        A tuple of two floats.

    Raises:
        ValueError: If it is no such pair.
    """
    listed = value.tolist() if hasattr(value, "tolist") else value
    good = isinstance(listed, (list, tuple)) and len(listed) == 2
    if not (good and all(_lies_in(end, "(-inf, inf)") for end in listed) and listed[0] < listed[1]):
        raise wrong(name, "two finite numbers, the lower first", value)
    return float(listed[0]), float(listed[1])


def check_kind(
    name: str, value: Any, kinds: type | tuple[type, ...], rule: str, optional: bool = False
) -> Any:
    """Checks the class of an object, and returns the object.

    Args:
        name: Name of the argument.
        value: What was given.
        kinds: Class or tuple of classes.
        rule: Wording of what it must be, such as `"a vaezoo Flow"`.
        optional: Whether None is allowed, and returned as it is.

    Raises:
        TypeError: If it is of another class.
    """
    if isinstance(value, kinds) or (optional and value is None):
        return value
    rule = f"{rule} or None" if optional else rule
    kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    raise TypeError(f"`{name}` must be {rule}. Received: {name}={shown(value)} ({kind})")


def check_path(name: str, value: Any) -> str:
    """Checks the path of a file or folder, and returns it as a string.

    Args:
        name: Name of the argument.
        value: String or `os.PathLike`.

    Raises:
        TypeError: If it is anything else, or empty.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise TypeError(f"`{name}` must be a path. Received: {name}={shown(value)}")
    return os.fspath(value)


def check_keras(name: str, value: Any, module: Any) -> Any:
    """Resolves what Keras knows by name: an initializer, activation or optimizer.

    Args:
        name: Name of the argument.
        value: Name, config or object, or None.
        module: `keras.initializers`, `keras.activations` or `keras.optimizers`.

    Returns:
        What `module.get(value)` returns.

    Raises:
        ValueError: If Keras knows no such thing.
    """
    try:
        found = module.get(value)
        # A number or a list passes through some of them.
        if found is None or callable(found) or hasattr(found, "apply"):
            return found
    except (ValueError, TypeError, AttributeError):
        pass
    kind = module.__name__.rsplit(".", 1)[-1].removesuffix("s")
    article = "an" if kind[0] in "aeiou" else "a"
    known = [word for word, item in vars(module).items() if callable(item)]
    raise wrong(name, f"{article} {kind} of Keras or its name", value, _nearest(value, known))


def check_keys(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Checks names of options against those that are known.

    Args:
        what: Wording of what the options belong to, such as `"options of mlp"`.
        given: Names that were given, or a dict of them and their values.
        known: Names that exist.

    Raises:
        ValueError: If one is unknown; the nearest known one is offered.
    """
    known = list(known)
    for key in given:
        if key not in known:
            listed = ", ".join(map(str, known)) or "none"
            received = f"{key}={shown(given[key])}" if isinstance(given, dict) else shown(key)
            raise ValueError(
                f"{what} must be among {listed}. Received: {received}{_nearest(key, known)}"
            )


def _nearest(value, known):
    if not isinstance(value, str):
        return ""
    known = {word.lower(): word for word in known if isinstance(word, str)}
    near = [repr(known[word]) for word in difflib.get_close_matches(value.lower(), known, n=2)]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def check_classes(name: str, labels: ArrayLike) -> Array:
    """Returns class labels, integers in NumPy.

    Raises:
        ValueError: If one is negative: classes are numbered from 0.
    """
    if labels.size and labels.min() < 0:
        raise ValueError(
            f"`{name}` must number classes from 0 on. Received: labels down to {labels.min()}"
        )
    return labels
