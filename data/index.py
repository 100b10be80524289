"""`with_index`: numbers the examples of a `tf.data.Dataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .batches import batch_of
from .source import tensorflow

if TYPE_CHECKING:
    from typing import Any


def with_index(dataset: Any) -> Any:
    """Gives each example of a `tf.data.Dataset` its index, as `load(..., with_index=True)` does.

    Apply it to single examples in their stored order, before `shuffle`, `repeat` and `batch`:
    shuffled examples would be numbered anew in each epoch.

        images = tfds.load("mnist", split="train", as_supervised=True)
        images = images.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))
        batches = vaezoo.data.with_index(images).shuffle(60_000).batch(128)

    Args:
        dataset: Finite `tf.data.Dataset` of examples `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        `tf.data.Dataset` of `(x, {"index": index})` or `(x, {"index": index, "y": y})`, followed
        by the sample weight if there was one; index 0..n-1, an int32 scalar.

    Raises:
        TypeError: If `dataset` is something else, or its examples are.
        ValueError: If it never ends, as after `repeat`.
    """
    tf = tensorflow("`with_index`")
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"`dataset` must be a `tf.data.Dataset`. Received: {type(dataset).__name__}"
        )
    spec = dataset.element_spec
    parts = spec if isinstance(spec, tuple) else (spec,)
    if len(parts) not in (1, 2, 3) or not all(isinstance(part, tf.TensorSpec) for part in parts):
        raise TypeError(
            "`dataset` must have examples x, (x, y) or (x, y, sample_weight), as `as_supervised="
            f"True` makes tensorflow-datasets give them. Received: element_spec={spec}"
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`dataset` must be finite: number the examples before `repeat`. "
            "Received: cardinality()=INFINITE_CARDINALITY"
        )

    def numbered(index, example):
        x, *rest = example if isinstance(example, tuple) else (example,)
        y = rest[0] if rest else None
        return *batch_of(x, y, tf.cast(index, tf.int32)), *rest[1:]

    return dataset.enumerate().map(numbered)
