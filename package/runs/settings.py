"""Settings as text: `--set key=value` on the command line, JSON in a run directory."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SECTIONS = ("model", "networks", "training", "data")

_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}


def _namespaces():
    import keras

    from .. import layers, losses

    return losses, layers, keras.optimizers.schedules, keras.initializers


def parse_overrides(assignments: Sequence[str], base: dict[str, Any]) -> dict[str, dict[str, Any]]:
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
    overrides: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
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


def parse_value(text: str) -> Any:
    """Reads a Python literal, or one of our classes with such arguments; else it is a string.

    Nothing is evaluated: `GaussianHead(2, clip=LatentClip(3.0))` is looked up by name, each class
    for itself, among the public ones of `vaezoo.losses`, `vaezoo.layers`,
    `keras.optimizers.schedules` and `keras.initializers`.

    Raises:
        ValueError: If a class does not take the arguments, or one of them is neither a literal nor
            such a class.
    """
    text = text.strip()
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        node = ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(node, ast.Call) and _public_class(node.func) is None and not _meant(node.func):
        return text
    try:
        return _made(node)
    except (TypeError, _NotLiteral) as error:
        if not any(isinstance(part, ast.Call) for part in ast.walk(node)):
            return text
        raise ValueError(f"`{text}` cannot be made: {error}") from error


class _NotLiteral(Exception):
    """Something that only evaluation could tell the value of."""


def _made(node):
    """Returns the value of a node of literals and constructor calls."""
    if isinstance(node, ast.Call):
        kind = _public_class(node.func)
        if kind is None:
            near = _meant(node.func)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise _NotLiteral(
                f"`{ast.unparse(node.func)}` is no class of vaezoo's losses or layers, and no "
                f"schedule or initializer of Keras{hint}"
            )
        arguments = [_made(value) for value in node.args]
        if any(keyword.arg is None for keyword in node.keywords):
            raise _NotLiteral("`**` is not read here")
        named = {keyword.arg: _made(keyword.value) for keyword in node.keywords}
        return kind(*arguments, **named)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_made(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_made(key): _made(value) for key, value in zip(node.keys, node.values, strict=True)}
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        part = ast.unparse(node)
        if part.lower() in _CONSTANTS:
            return _CONSTANTS[part.lower()]
        raise _NotLiteral(f"`{part}` is neither a literal nor a class of vaezoo") from error


def _public_class(node):
    if isinstance(node, ast.Name):
        for namespace in _namespaces():
            found = getattr(namespace, node.id, None)
            if inspect.isclass(found) and hasattr(found, "get_config"):
                return found
    return None


def _meant(node):
    """Names of public classes that a misspelled one resembles."""
    known = [
        name
        for namespace in _namespaces()
        for name in dir(namespace)
        if _public_class(ast.Name(name)) is not None
    ]
    return difflib.get_close_matches(ast.unparse(node), known, 1, 0.8)


def to_json(value: Any) -> Any:
    """Returns settings as JSON values, Keras objects as their configurations."""
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "get_config"):
        import keras

        return keras.saving.serialize_keras_object(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def from_json(value: Any) -> Any:
    """Inverse of `to_json`, but for tuples, which come back as lists."""
    if isinstance(value, dict) and "class_name" in value:
        import keras

        return keras.saving.deserialize_keras_object(value, safe_mode=True)
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


def as_text(value: Any) -> str:
    """Returns a value as it would be typed after `--set key=`."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else _typed(value)


def _typed(value):
    """Returns the source of a value, with Keras objects as calls of their classes."""
    if isinstance(value, dict) and "class_name" in value:
        value = from_json(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_typed(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_typed, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_typed, value)) + ("," if len(value) == 1 else "") + ")"
    if not hasattr(value, "get_config"):
        return repr(value)
    config = value.get_config()
    parts = [
        f"{name}={_typed(config[name])}"
        for name, parameter in inspect.signature(type(value)).parameters.items()
        if name in config and config[name] != parameter.default and name != "name"
    ]
    return f"{type(value).__name__}({', '.join(parts)})"
