"""Labels of a run's data as what a conditional model is conditioned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..core.arrays import epochs_of
from ..core.targets import split_index

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..core.types import ArrayLike


def condition_name(networks: Mapping[str, Any]) -> str | None:
    """Returns the name of the condition of a run's networks, or None without one.

    Raises:
        ValueError: If they have several: the data of a run have labels of one kind.
    """
    condition = networks.get("condition")
    if condition is None or isinstance(condition, str):
        return condition
    names = list(condition) if isinstance(condition, dict) else ["condition"]
    if len(names) != 1:
        raise ValueError(
            "networks.condition must have one condition, the labels of the data. Received: "
            f"{', '.join(map(repr, names))}"
        )
    return names[0]


def conditioned_arrays(x: ArrayLike, y: ArrayLike, name: str | None) -> Any:
    """Returns x beside its labels as conditional models take it; x alone without a name.

    Raises:
        ValueError: If there are no labels.
    """
    if name is None:
        return x
    _check_labels(y, name)
    return {"x": x, name: y}


def conditioned(batches: Any, name: str | None) -> Any:
    """Returns batches `(x, labels)` as conditional models take them; as they are without a name.

    Args:
        batches: What `data.load` returned, or None.
        name: Name of the condition, or None.
    """
    if name is None or batches is None:
        return batches
    if not hasattr(batches, "element_spec"):
        return _Conditioned(batches, name)
    spec = batches.element_spec
    _check_labels(spec[1] if isinstance(spec, tuple) else None, name)
    found = batches.map(lambda x, y: _moved(x, y, name))
    found.vaezoo_epochs = epochs_of(batches)
    return found


def _moved(x, y, name):
    labels, index = split_index(y)
    x = {"x": x, name: labels}
    return x if index is None else (x, {"index": index})


def _check_labels(y, name):
    if y is None:
        raise ValueError(
            f"networks.condition must be a label of the data, which have none. Received: {name!r} "
            "(--condition)"
        )


class _Conditioned(keras.utils.PyDataset):
    """The batches of another data set with labels as conditions."""

    def __init__(self, batches: Any, name: str) -> None:
        super().__init__()
        self._batches, self._name = batches, name
        self.vaezoo_epochs = epochs_of(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Any:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(self._batches[number])
        _check_labels(y, self._name)
        return _moved(x, y, self._name)

    def on_epoch_begin(self) -> None:
        self._batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()
