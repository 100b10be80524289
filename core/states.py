"""What a training changes beside files: variables, and what callbacks and data remember."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .arrays import EpochNumber
from .replicas import host_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    import keras

#: What Keras' own callbacks remember, which have no `get_state`.
_REMEMBERED = {
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    "ReduceLROnPlateau": ("wait", "cooldown_counter", "best"),
    "ModelCheckpoint": ("best",),
}


# -- variables -------------------------------------------------------------------------------------


def _unique(variables):
    return list({id(variable): variable for variable in variables}.values())


def variables_of(model: keras.Model) -> list[Any]:
    """Variables that a step changes, metrics apart: weights, seeds, and those of the optimizer."""
    return _unique([*model.variables, *getattr(model.optimizer, "variables", ())])


def unsaved_variables(model: keras.Model) -> list[Any]:
    """Those of them that Keras leaves out of its files: the states of random numbers."""
    saved = {id(variable) for variable in (*model.weights, *model.optimizer.variables)}
    return [variable for variable in variables_of(model) if id(variable) not in saved]


def values_of(variables: Iterable[Any]) -> list[Any]:
    """Copies of the values of variables, NumPy arrays."""
    return [host_value(variable) for variable in variables]


def assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Sets variables.

    Raises:
        ValueError: If the values are those of others.
    """
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [tuple(value.shape) for value in values]:
        raise ValueError(
            f"it has {len(values)} variables, and the model {len(shapes)} of other shapes"
            if len(values) != len(shapes)
            else "its variables have other shapes than those of the model"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


# -- callbacks -------------------------------------------------------------------------------------


def named(objects: Iterable[Any], prefix: str = "") -> dict[str, Any]:
    """Returns those objects that remember something, by a name that the next process gives, too."""
    found: dict[str, Any] = {}
    for item in objects:
        if not (hasattr(item, "get_state") or _attributes(item)):
            continue
        kind, number = f"{prefix}{type(item).__name__}", 1
        name = kind
        while name in found:
            number += 1
            name = f"{kind}-{number}"
        found[name] = item
    return found


def state_of(item: Any) -> tuple[Any, list[Any]]:
    """Returns what a callback or data set remembers: JSON values and arrays."""
    if hasattr(item, "get_state"):
        values, arrays = item.get_state()
        return values, list(arrays)
    values, arrays = {}, []
    for name in _attributes(item):
        value = getattr(item, name, None)
        if isinstance(value, list):
            values[name] = ["arrays", len(value)]
            arrays += [np.asarray(array) for array in value]
        else:
            values[name] = None if value is None else float(value)
    return values, arrays


def states_of(objects: Iterable[Any], prefix: str = "") -> dict[str, Any]:
    """Returns the states of those objects that have one, by the names that `named` gives."""
    return {name: state_of(item) for name, item in named(objects, prefix).items()}


def set_state(item: Any, values: Any, arrays: Sequence[Any]) -> None:
    """Gives a callback or data set back what `state_of` returned."""
    if hasattr(item, "set_state"):
        item.set_state(values, arrays)
        return
    left = list(arrays)
    for name, value in values.items():
        if isinstance(value, list):
            setattr(item, name, left[: value[1]])
            del left[: value[1]]
        else:
            whole = value is not None and name != "best" and value.is_integer()
            setattr(item, name, int(value) if whole else value)


def _attributes(item):
    kinds = [kind.__name__ for kind in type(item).__mro__ if kind.__module__.startswith("keras")]
    return next((_REMEMBERED[kind] for kind in kinds if kind in _REMEMBERED), ())


def is_expected(item: Any) -> bool:
    """Whether a file that does not know a callback is worth a warning."""
    return not isinstance(item, EpochNumber)
