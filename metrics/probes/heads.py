"""The linear heads and the network that probes train."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ...layers.classifier import dense_classifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import keras

    from ...core.types import Array, Seed, Tensor


def latent_classifier(
    latent_dim: int,
    num_classes: int = 10,
    hidden_units: Sequence[int] = (1024, 1024, 1024),
    seed: int = 0,
) -> keras.Model:
    """The uncompiled network of `classifier_probe`, which returns logits.

    2,120,714 parameters for 10 dimensions and 10 classes.

    Args:
        latent_dim: Positive int D.
        num_classes: Positive int.
        hidden_units: Widths of the hidden layers, positive ints.
        seed: Int that fixes the initial weights.

    Returns:
        Functional model `(batch, D) -> (batch, num_classes)`.
    """
    return dense_classifier(
        latent_dim, num_classes, hidden_units, seed=seed, name="latent_classifier"
    )


def adam_head(x: Tensor, y: Tensor, epochs: int, learning_rate: float, seed: Seed) -> Any:
    """Trains a linear head by Adam on the summed cross-entropy; returns its `predict`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    batch = min(50, len(x))
    head = MLPClassifier(
        hidden_layer_sizes=(),
        solver="adam",
        alpha=0.0,
        batch_size=batch,
        learning_rate_init=learning_rate,
        max_iter=epochs,
        tol=0.0,
        n_iter_no_change=epochs,
        # The loss here is the batch's mean: Adam on the sum is Adam on the mean with this.
        epsilon=1e-8 / batch,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Epochs are counted, not run to convergence.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return head.fit(x, y).predict


def head_logits(head: Any, x: Tensor) -> Array:
    """Returns the logits of a head `(weights, bias)`, `(n, classes)`."""
    weights, bias = head
    return x @ weights + bias


def mean_cross_entropy(head: Any, x: Tensor, y: Tensor) -> float:
    """Returns the mean cross-entropy of a head."""
    logits = head_logits(head, x)
    peak = logits.max(axis=1, keepdims=True)
    log_total = np.log(np.sum(np.exp(logits - peak), axis=1)) + peak[:, 0]
    return np.mean(log_total - logits[np.arange(len(y)), y])


def sgd_head(
    x: Tensor,
    y: Tensor,
    val_x: Array,
    val_y: Array,
    num_classes: int,
    learning_rate: float,
    epochs: int,
    rng: np.random.Generator,
) -> Any:
    """Trains a linear head by SGD as `few_label_probe` says; returns the best one."""
    bound = 1.0 / math.sqrt(x.shape[1])
    head = (
        rng.uniform(-bound, bound, (x.shape[1], num_classes)),
        rng.uniform(-bound, bound, num_classes),
    )
    best, best_loss, reference, waited, decays = head, math.inf, math.inf, 0, 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 16):
            rows = order[start : start + 16]
            head = sgd_step(head, x[rows], y[rows], learning_rate)
        loss = mean_cross_entropy(head, val_x, val_y)
        if loss < best_loss:
            best, best_loss = head, loss
        if loss < reference:
            reference, waited = loss, 0
            continue
        waited += 1
        if waited == 2:
            head, reference, waited, decays = best, loss, 0, decays + 1
            learning_rate *= 0.5
            if decays == 5:
                break
    return best


def sgd_step(head: Any, x: Tensor, y: Tensor, learning_rate: float) -> Any:
    """Returns a head after one step on a batch, its gradient clipped to norm 5."""
    logits = head_logits(head, x)
    slope = np.exp(logits - logits.max(axis=1, keepdims=True))
    slope /= slope.sum(axis=1, keepdims=True)
    slope[np.arange(len(y)), y] -= 1.0
    slope /= len(y)
    gradient = x.T @ slope, slope.sum(axis=0)
    norm = math.sqrt(sum(float(np.sum(part**2)) for part in gradient))
    rate = learning_rate * min(1.0, 5.0 / max(norm, 1e-12))
    return tuple(part - rate * change for part, change in zip(head, gradient, strict=True))
