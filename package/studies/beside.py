"""What is trained and measured beside a model while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from .. import layers, losses
from .measures import COMPONENTS, components

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import ArrayLike
    from ..runs import Run


def label_classifier(labels: ArrayLike) -> losses.LabelClassifier:
    """Returns mu-VAE's classifier: three hidden layers of 1,024 units, Adam at 0.0001."""
    hidden: list[Any] = []
    for _ in range(3):
        hidden.append(keras.layers.Dense(1024, kernel_initializer="he_normal", dtype="float32"))
        hidden.append(keras.layers.LeakyReLU(0.2, dtype="float32"))
    softmax = layers.FlatSoftmax(int(np.max(labels)) + 1, dtype="float32")
    return losses.LabelClassifier(
        labels, keras.Sequential(hidden), softmax, keras.optimizers.Adam(1e-4)
    )


class MonteCarlo(keras.callbacks.Callback):
    """Adds to the logs of an epoch what components of the aggregate posterior say of the codes.

    Args:
        run: `Run` that is trained.
        limit: Largest number of training examples, or None for all.
    """

    #: All training examples take longer than the epoch, and are measured at the end.
    sizes = COMPONENTS[:-1]

    def __init__(self, run: Run, limit: int | None = None) -> None:
        super().__init__()
        self.x, _ = run.arrays("train", **({"limit": limit} if limit else {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            found = components(self.model, self.x, self.sizes)
            logs.update({name: value for name, (value, _) in found.items()})


#: Callbacks by name, as `Training.watched` has them.
WATCHED = {"monte_carlo": MonteCarlo}
