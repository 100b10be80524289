"""Runs in small: what is cut so that a row ends within a minute on two cores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from .data import Located
    from .study import Training

#: Epochs and training examples.
EPOCHS, IMAGES, SENTENCES = 2, 320, 320


def shrink(run: Training, located: Located) -> Training:
    """Returns a training with few epochs, examples and units.

    Args:
        run: `Training`.
        located: `Located` data, possibly others than the published.
    """
    text = bool(located.arguments.get("vocabulary"))
    networks = _merged(run.networks, run.small.get("networks", {}))
    model = {**run.model, **run.small.get("model", {})}
    reading: dict[str, Any] = {**run.reading, "limit": SENTENCES if text else IMAGES}
    if "validation_split" in reading:
        reading["validation_split"] = 64
    if text:
        networks.update(embedding_dim=8, units=16)
        reading["buckets"] = (max(run.reading.get("buckets", (20,))),)
    reading |= run.small.get("reading", {})
    training = {**run.training, "epochs": EPOCHS}
    return dataclasses.replace(
        run, model=model, networks=networks, training=training, reading=reading
    )


def _merged(settings, changes):
    """Settings with changes, also within those that are dicts."""
    found = dict(settings)
    for key, value in changes.items():
        held = found.get(key)
        found[key] = {**held, **value} if isinstance(held, dict) else value
    return found
