"""What goes with x: something to reconstruct, labels, or the numbers of examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from .types import Tensor


def target_of(x: Tensor, y: Any) -> Tensor:
    """Returns `y` if it is what x is to be turned into, of the shape of x, and None otherwise.

    Args:
        x: Array or tensor `(batch, *event)`.
        y: Array or tensor, a dict of labels, or None.
    """
    if y is None or isinstance(y, dict):
        return None
    same = len(y.shape) == len(x.shape) and tuple(y.shape[1:]) == tuple(x.shape[1:])
    return y if same else None


def split_index(y: Any) -> tuple[Any, Tensor]:
    """Takes apart what goes with x.

    Args:
        y: `{"index": index}`, `{"index": index, "y": y}`, or anything else, None included.

    Returns:
        `(y, index)`, each of them None where it is missing.

    Raises:
        ValueError: If other keys stand beside the index.
    """
    if not isinstance(y, dict) or "index" not in y:
        return y, None
    foreign = sorted(str(key) for key in y if key not in ("index", "y"))
    if foreign:
        raise ValueError(
            '`y` must hold no keys but "index" and "y". Received: '
            + ", ".join(f'"{key}"' for key in foreign)
        )
    return y.get("y"), y["index"]
