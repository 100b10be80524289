"""What studies measure beside `vaezoo.metrics.evaluate`.

Each function takes a `Measured` and returns `(metrics, figure)`: dicts of numbers, as pairs of a
value and a standard error, and of what a figure is drawn from.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from ..metrics import few_label_probe
from ..metrics.probes import posterior_means

if TYPE_CHECKING:
    from typing import Any

#: Numbers of labels that the official parts of short Yelp have.
LABELS = (100, 500, 1000, 2000, 10_000)


@dataclasses.dataclass
class Measured:
    """A model that is measured, and its data.

    Attributes:
        run: `Run`.
        model: `VAE`.
        x: Test data.
        y: Their labels, or None.
        seed: Of all draws.
        limit: Largest number of examples of a split, or None.
    """

    run: Any
    model: Any
    x: Any
    y: Any
    seed: int = 0
    limit: int | None = None

    def split(self, name: str) -> tuple[Any, Any]:
        """Returns data and labels of another split."""
        return self.run.arrays(name, **({"limit": self.limit} if self.limit else {}))

    @functools.cached_property
    def posterior(self) -> Any:
        """Mean and log-variance of the test data's posteriors."""
        found = self.model.encode(self.x, batch_size=500)
        return tuple(np.asarray(part, "float64") for part in found[:2])

    @functools.cached_property
    def means(self) -> Any:
        """Codes of the test data that probes read."""
        return posterior_means(self.model, self.x)


def few_labels(measured: Measured) -> Any:
    """Accuracy of a linear classifier of codes by the number of labels, in five runs each."""
    train, validation = measured.split("train"), measured.split("validation")
    model, found = measured.model, {}
    most = min(max(LABELS), len(train[0]))
    codes = posterior_means(model, train[0][:most])
    held_out = (posterior_means(model, validation[0]), validation[1])
    for count in LABELS:
        labeled = min(count, most)
        estimate = few_label_probe(
            (codes[:labeled], train[1][:labeled]),
            held_out,
            (measured.means, measured.y),
            num_labels=labeled,
            runs=5,
        )
        found[f"few_labels_{count}"] = (estimate.value, estimate.standard_error)
    return found, {}


def posterior_map(measured: Measured) -> Any:
    """Posteriors in the plane, and the share of means nearest to the mean of their own class."""
    mean, log_var = measured.posterior
    kinds = np.unique(measured.y)
    centers = np.stack([mean[measured.y == kind].mean(axis=0) for kind in kinds])
    distance = np.sum(np.square(mean[:, None] - centers), axis=-1)
    own = np.mean(kinds[np.argmin(distance, axis=1)] == measured.y)
    figure = {
        "label": np.asarray(measured.y).tolist(),
        "mean": np.round(mean, 3).T.tolist(),
        "log_var": np.round(log_var, 3).T.tolist(),
    }
    return {"own_center": (float(own), math.sqrt(own * (1 - own) / len(mean)))}, figure


def code_covariance(measured: Measured) -> Any:
    """Covariance of posterior means, and how far it is from the identity."""
    covariance = np.atleast_2d(np.cov(measured.means, rowvar=False))
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / np.maximum(np.outer(spread, spread), 1e-12)
    size = len(covariance)
    apart = np.abs(correlation[~np.eye(size, dtype=bool)])
    distance = np.sqrt(np.mean(np.square(covariance - np.eye(size))))
    found = {
        "code_identity_distance": (float(distance), math.nan),
        "code_correlation": (float(apart.mean()) if apart.size else 0.0, math.nan),
        "code_variance_least": (float(np.diag(covariance).min()), math.nan),
    }
    return found, {"covariance": np.round(covariance, 5).tolist()}


def reconstruction(measured: Measured) -> Any:
    """Squared error of one draw, and the KL to N(0, I), whatever prior the model has."""
    mean, log_var = measured.posterior
    rate = 0.5 * np.sum(np.square(mean) + np.exp(log_var) - log_var - 1, axis=1)
    rng = np.random.default_rng(measured.seed)
    z = (mean + np.exp(0.5 * log_var) * rng.normal(size=mean.shape)).astype("float32")
    decoded = np.asarray(measured.model.decode(z, batch_size=500))
    error = np.sum(np.square(decoded - measured.x).reshape(len(z), -1), axis=1)
    return {"squared_error": _mean(error), "standard_rate": _mean(rate)}, {}


def _mean(values):
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


#: The functions by name, as `Protocol.measures` has them.
MEASURES = {
    function.__name__: function
    for function in (few_labels, posterior_map, code_covariance, reconstruction)
}
