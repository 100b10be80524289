"""Settings as text: `--set key=value` on the command line, JSON in a run directory."""

import ast
import inspect
import re

import keras

from . import layers, losses

SECTIONS = ("model", "networks", "training", "data")

_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_NAMESPACES = (losses, layers, keras.optimizers.schedules)


def parse_overrides(assignments, base):
    """Reads `["gamma=0.6", "training.learning_rate=1e-4"]`.

    Args:
        assignments: Strings `key=value`, where the key is an argument of the model's constructor,
            `section.key=value`, or `section.key.part=value` for a part of a dict.
        base: Settings that the overrides are for; dicts of which a part is set come from there.

    Returns:
        Dict of the four `SECTIONS` to dicts of values.

    Raises:
        ValueError: If one has another form.
    """
    overrides = {section: {} for section in SECTIONS}
    for assignment in assignments:
        pattern = r"(?:(\w+)\.)?(\w+)(?:\.(\w+))?=(.*)"
        match = re.fullmatch(pattern, assignment.strip(), re.DOTALL)
        if not match or match[1] not in (None, *SECTIONS):
            raise ValueError(
                "`--set` takes key=value, where the key is an argument of the model or one of "
                f"{', '.join(f'{section}.KEY' for section in SECTIONS[1:])}. Received: "
                f"--set {assignment}"
            )
        section, key, part, text = match.groups()
        section, value = section or "model", parse_value(text)
        if part:
            whole = overrides[section].get(key, base[section].get(key))
            value = {**(whole if isinstance(whole, dict) else {}), part: value}
        overrides[section][key] = value
    return overrides


def parse_value(text):
    """Reads a Python literal, or one of our classes with literal arguments; else it is a string.

    Nothing is evaluated: `LinearSchedule(1000)` is looked up by name among the public classes of
    `vaezoo.losses`, `vaezoo.layers` and `keras.optimizers.schedules`.

    Raises:
        ValueError: If a class does not take the arguments.
    """
    text = text.strip()
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        node = ast.parse(text, mode="eval").body
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        arguments = [ast.literal_eval(value) for value in node.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    kind = _public_class(node.func)
    if kind is None:
        return text
    try:
        return kind(*arguments, **named)
    except TypeError as error:
        raise ValueError(f"`{text}` cannot be made: {error}") from error


def _public_class(node):
    if isinstance(node, ast.Name):
        for namespace in _NAMESPACES:
            found = getattr(namespace, node.id, None)
            if inspect.isclass(found) and hasattr(found, "get_config"):
                return found
    return None


def to_json(value):
    """Returns settings as JSON values, Keras objects as their configurations."""
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return value


def from_json(value):
    """Inverse of `to_json`, but for tuples, which come back as lists."""
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value, safe_mode=True)
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


def as_text(value):
    """Returns a value as it would be typed after `--set key=`."""
    if isinstance(value, float):
        return f"{value:g}"
    if not hasattr(value, "get_config"):
        return str(value)
    config = value.get_config()
    parts = [
        f"{name}={config[name]!r}"
        for name, parameter in inspect.signature(type(value)).parameters.items()
        if name in config and config[name] != parameter.default and name != "name"
    ]
    return f"{type(value).__name__}({', '.join(parts)})"
