"""What studies measure beside `vaezoo.metrics.evaluate`.

Each function takes a `Measured` and returns `(metrics, figure)`: dicts of numbers, as pairs of a
value and a standard error, and of what a figure is drawn from.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

from ..core.conditions import data_of
from ..losses import LabelClassifier
from ..metrics import (
    alphabet_probe,
    evaluate,
    few_label_probe,
    kmeans_probe,
    knn_probe,
    latent_dependence,
    linear_probe,
    mutual_information,
)
from ..metrics.diagnosis.conditions import nearest_mean_accuracy
from ..metrics.estimate import mean_estimate
from ..metrics.probes import posterior_means

if TYPE_CHECKING:
    from typing import Any

#: Numbers of labels that the official parts of short Yelp have.
LABELS = (100, 500, 1000, 2000, 10_000)
#: Numbers of components of the aggregate posterior.
COMPONENTS = (100, 500, 1000, 5000, 10_000, 55_000)


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
    found = {"squared_error": mean_estimate(error), "standard_rate": mean_estimate(rate)}
    return {name: (mean.value, mean.standard_error) for name, mean in found.items()}, {}


def alphabets(measured: Measured) -> Any:
    """Accuracy of linear classifiers of an alphabet's characters by the number of drawings."""
    kind = {"labels": "characters"} if _is_mat(measured.run) else {}
    pairs = [measured.run.arrays(split, limit=None, **kind) for split in ("train", "test")]
    epochs = {}
    if measured.limit:
        # A few characters of two alphabets.
        pairs = [_few_characters(x, y) for x, y in pairs]
        epochs = {"epochs": 2}
    coded = [(posterior_means(measured.model, x), y) for x, y in pairs]
    found = {}
    for count in (5, 10, 15):
        estimate = alphabet_probe(*coded, num_drawings=count, runs=3, **epochs)
        found[f"drawings_{count}"] = (estimate.value, estimate.standard_error)
    return found, {}


def _is_mat(run):
    return str(run.spec.data.name_or_path).endswith(".mat")


def _few_characters(x, y):
    first = np.unique(y[:, 0])[:2]
    rows = np.isin(y[:, 0], first) & (y[:, 1] <= np.unique(y[:, 1])[2])
    return x[rows], y[rows]


def digit_probes(measured: Measured) -> Any:
    """Accuracy of k-means, nearest neighbors and logistic regression on codes."""
    x, y = measured.split("train")
    train = (posterior_means(measured.model, x), y)
    test, found = (measured.means, measured.y), {}
    most = len(y)
    for count in (10, 20, 30):
        estimate = kmeans_probe(train, test, num_clusters=min(count, most))
        found[f"kmeans_{count}"] = (estimate.value, estimate.standard_error)
    for name, probe in (("knn", knn_probe), ("linear", linear_probe)):
        for labels in (100, 1000, None):
            few = None if labels is None or labels >= most else labels
            estimate = probe(train, test, num_labels=few)
            error = estimate.standard_error
            if math.isnan(error):
                error = estimate.extra["test_standard_error"]
            found[f"{name}_{labels or 'all'}"] = (estimate.value, error)
    return found, {}


def monte_carlo(measured: Measured) -> Any:
    """Information and divergence by components of the aggregate posterior of training data."""
    x, _ = measured.split("train")
    return components(measured.model, x, COMPONENTS, measured.seed), {}


def components(model: Any, x: Any, sizes: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    """Estimates information and divergence, as pairs of a value and a standard error.

    Args:
        model: `VAE`.
        x: Training data.
        sizes: Numbers of components; each are the first examples, which are also measured.
        seed: Of the draws.
    """
    posterior = model.encode(x[: max(sizes)], batch_size=500)
    found = {}
    for size in sizes:
        part = type(posterior)(*(values[:size] for values in posterior))
        estimate = mutual_information(part, seed=seed)
        found[f"monte_carlo_mi_{size}"] = (estimate.value, estimate.standard_error)
        found[f"monte_carlo_md_{size}"] = (estimate.extra["marginal_divergence"], math.nan)
    return found


def trained_classifier(measured: Measured) -> Any:
    """Accuracy of the classifier that was trained beside the model, on posterior means."""
    (probe,) = (
        part for part in measured.model.objective.regularizers if isinstance(part, LabelClassifier)
    )
    right = float(np.mean(probe.classify(measured.means) == np.asarray(measured.y)))
    error = math.sqrt(right * (1 - right) / len(measured.means))
    return {"trained_classifier": (right, error)}, {}


def index_dependence(measured: Measured) -> Any:
    """MIC and TIC of code and index, and what the code tells of the image."""
    few = {"max_samples": min(1000, len(measured.means)), "num_permutations": 3}
    estimate = latent_dependence(measured.means, seed=measured.seed, **few)
    found = evaluate(measured.model, measured.x, metrics=("mutual_information",)).results
    # A point holds all there is to know of its image.
    held = found.get("mutual_information")
    information = (math.log(len(measured.x)), math.nan)
    if held is not None:
        information = (held.value, held.standard_error)
    return {
        "index_mic": (estimate.value, estimate.standard_error),
        "index_tic": (estimate.extra["tic"], math.nan),
        "index_mic_floor": (estimate.extra["mic_floor"], math.nan),
        "code_information": information,
    }, {}


def code_map(measured: Measured) -> Any:
    """Means of test images in the plane: their spread, and 2,000 of them to be drawn."""
    means = measured.means
    norms = np.linalg.norm(means, axis=1)
    figure = {"label": measured.y[:2000].tolist(), "mean": np.round(means[:2000], 3).T.tolist()}
    spread = float(np.sqrt(np.mean(np.var(means, axis=0))))
    return {
        "largest_norm": (float(norms.max()), math.nan),
        "means_deviation": (spread, math.nan),
    }, figure


def code_histograms(measured: Measured) -> Any:
    """Counts of the posterior means of each dimension in 60 bins."""
    reach = float(np.abs(measured.means).max())
    edges = np.linspace(-reach, reach, 61)
    counts = [np.histogram(column, edges)[0].tolist() for column in measured.means.T]
    return {}, {"histograms": counts, "reach": round(reach, 4)}


def tsne(measured: Measured) -> Any:
    """A map of 2,000 codes by t-SNE."""
    from sklearn.manifold import TSNE

    means = measured.means[:2000]
    perplexity = min(30.0, (len(means) - 1) / 3)
    found = TSNE(random_state=measured.seed, perplexity=perplexity).fit_transform(means)
    return {}, {"label": measured.y[:2000].tolist(), "mean": np.round(found, 2).T.tolist()}


#: Reach of traversals by the factor of the clip, which VAE and beta-VAE have none of.
_REACH = {None: 2.0, 3.0: 10.0, 6.0: 20.0}


def traversals(measured: Measured) -> Any:
    """Images along each latent dimension in 40 steps, the others at 0."""
    size = measured.model.latent_dim
    reach = _REACH[measured.run.spec.model.get("clip_factor")]
    z = np.zeros((size, 40, size), "float32")
    z[np.arange(size), :, np.arange(size)] = np.linspace(-reach, reach, 40)
    images = np.asarray(measured.model.decode(z.reshape(-1, size), batch_size=400))
    shown = images.reshape(size, 40, *images.shape[1:])[:, ::4]
    return {}, {"traversals": packed(shown), "reach": reach}


def samples(measured: Measured) -> Any:
    """Means of 64 images from the prior."""
    return {}, {"samples": packed(np.asarray(measured.model.generate(64, seed=measured.seed)))}


def reconstructions(measured: Measured) -> Any:
    """20 test images, two of each class where there are classes, and their reconstructions."""
    rows = np.arange(20)
    if measured.y is not None and measured.y.ndim == 1:
        rows = np.argsort(measured.y, kind="stable")
        kinds = np.unique(measured.y)[:10]
        rows = np.concatenate([np.flatnonzero(measured.y == kind)[:2] for kind in kinds])
    images = measured.x[rows]
    again = np.asarray(measured.model.reconstruct(images))
    return {}, {"images": packed(images), "reconstructions": packed(again)}


def interpolations(measured: Measured) -> Any:
    """Lines of 10 steps between the codes of five pairs of test images."""
    a, b = measured.x[:5], measured.x[5:10]
    found = np.asarray(measured.model.interpolate(a, b, steps=10))
    return {}, {"interpolations": packed(found)}


def packed(images: Any) -> dict[str, Any]:
    """Returns images in [0, 1] as text: their shape, and bytes of 0 to 255."""
    pixels = np.rint(255 * np.clip(images, 0, 1)).astype("uint8")
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    content = base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode("ascii")
    return {"shape": list(pixels.shape), "bytes": content}


def unpacked(held: dict[str, Any]) -> Any:
    """Inverse of `packed`: NumPy uint8."""
    content = zlib.decompress(base64.b64decode(held["bytes"]))
    return np.frombuffer(content, "uint8").reshape(held["shape"])


def conditional_draws(measured: Measured) -> Any:
    """Share of drawn digits that are of the class asked for, and what codes tell of the class.

    What a digit is, the nearest of the gray training images tells, in squared distance; the class
    of a code, the nearest mean of a class. Of a model without conditions there is only the latter.
    """
    from sklearn.neighbors import KNeighborsClassifier

    limit = {"limit": measured.limit} if measured.limit else {}
    (train, labels), (test, classes) = (
        measured.run.arrays(split, binarize=None, **limit) for split in ("train", "test")
    )
    told = KNeighborsClassifier(1).fit(_flat(train), labels)
    hits = told.predict(_flat(test)) == classes
    code, _, count = nearest_mean_accuracy(measured.means, np.asarray(measured.y))
    found = {"of_real": _share(hits.mean(), len(hits)), "of_code": _share(code, count)}
    if measured.model.conditional:
        asked = np.repeat(np.arange(10), 100)
        drawn = measured.model.generate(len(asked), measured.seed, condition=asked)
        found["of_class"] = _share(np.mean(told.predict(_flat(drawn)) == asked), len(asked))
    return found, {}


def _flat(x):
    x = data_of(x)
    return x.reshape(len(x), -1)


def _share(share, count):
    return float(share), math.sqrt(share * (1.0 - share) / count)


#: The functions by name, as `Protocol.measures` has them.
MEASURES = {
    function.__name__: function
    for function in (
        few_labels,
        posterior_map,
        code_covariance,
        reconstruction,
        alphabets,
        digit_probes,
        monte_carlo,
        trained_classifier,
        index_dependence,
        code_map,
        code_histograms,
        tsne,
        traversals,
        samples,
        reconstructions,
        interpolations,
        conditional_draws,
    )
}
