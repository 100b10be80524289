"""Checks arguments: one rule and one kind of error for each kind of value.

Each check returns the value as plain Python, so that NumPy's numbers are stored, compared and
serialized like any other.
"""

import numbers

#: Seeds of both backends are smaller.
SEEDS = 2**31


def is_integer(value):
    """Returns whether a value is a whole number, Python's or NumPy's, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_real(value):
    """Returns whether a value is a real number, Python's or NumPy's, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_integer(name, value, least=1, most=None):
    """Checks an integer.

    Args:
        name: Name of the argument.
        value: What was given.
        least: Smallest value allowed, or None.
        most: Largest value allowed, or None.

    Returns:
        The value as an int.

    Raises:
        ValueError: If it is no integer, or out of range.
    """
    good = is_integer(value)
    good = good and (least is None or value >= least) and (most is None or value <= most)
    if not good:
        if most is not None and least is not None:
            rule = f"an integer from {least} to {most}"
        elif most is not None:
            rule = f"an integer of at most {most}"
        elif least is None:
            rule = "an integer"
        else:
            rule = {0: "a non-negative integer", 1: "a positive integer"}.get(
                least, f"an integer of at least {least}"
            )
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")
    return int(value)


def check_real(name, value, interval="(-inf, inf)"):
    """Checks a real number.

    Args:
        name: Name of the argument.
        value: What was given.
        interval: Where it must lie, as one writes it: `"[0, 1)"`, `"(0, inf)"`. NaN lies nowhere;
            infinity only where the bracket says so.

    Returns:
        The value as a float; an int that is exact stays an int.

    Raises:
        ValueError: If it is no number, or outside of the interval.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    good = is_real(value)
    good = good and (value >= low if interval[0] == "[" else value > low)
    good = good and (value <= high if interval[-1] == "]" else value < high)
    if not good:
        rule = {
            "(-inf, inf)": "a finite number",
            "[0, inf)": "a finite, non-negative number",
            "(0, inf)": "a finite, positive number",
        }.get(interval, f"a number in {interval}")
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")
    return int(value) if is_integer(value) else float(value)


def check_flag(name, value):
    """Checks a bool, Python's or NumPy's, and returns it as Python's.

    Raises:
        ValueError: If it is anything else.
    """
    if type(value).__name__ not in ("bool", "bool_"):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_choice(name, value, choices):
    """Checks that a value is one of several, and returns it.

    Raises:
        ValueError: If it is another one.
    """
    # A bool or an array equals numbers and raises beside strings.
    if not any(value is choice for choice in choices) and not (
        isinstance(value, (str, int)) and value in choices
    ):
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}")
    return value


def check_seed(name, value):
    """Checks a seed: None, or an integer in [0, 2^31).

    Returns:
        The seed as an int, or None.

    Raises:
        ValueError: If it is anything else.
    """
    if value is None:
        return None
    if not is_integer(value) or not 0 <= value < SEEDS:
        raise ValueError(f"`{name}` must be an integer in [0, 2^31). Received: {name}={value!r}")
    return int(value)


def check_integers(name, values, least=1, length=None):
    """Checks a sequence of integers, such as a shape or the widths of layers.

    Args:
        name: Name of the argument.
        values: List, tuple or one-dimensional array.
        least: Smallest value allowed.
        length: How many there must be, or None.

    Returns:
        A tuple of ints.

    Raises:
        ValueError: If it is no such sequence.
    """
    listed = values.tolist() if hasattr(values, "tolist") else values
    good = isinstance(listed, (list, tuple)) and all(is_integer(v) and v >= least for v in listed)
    if not good or length not in (None, len(listed)):
        count = "a sequence of" if length is None else f"{length}"
        raise ValueError(
            f"`{name}` must be {count} integers of at least {least}. Received: {name}={values!r}"
        )
    return tuple(int(value) for value in listed)
