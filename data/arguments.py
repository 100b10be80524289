"""Checks of arguments."""

import numbers


def check_choice(name, value, choices):
    """Raises unless an argument is one of its choices."""
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")


def check_int(name, value, least):
    """Raises unless an argument is an int of at least `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an int. Received: {name}={value!r}")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
