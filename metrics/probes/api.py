"""Probes: what a simple classifier or clustering reads off frozen codes.

All are called `probe(train, test)` on pairs `(codes, labels)`, or with `model=vae` on
pairs `(data, labels)`; codes are then posterior means, which take no random draw (of a flow, the
base's mean with what the flow makes of it beside it). For several probes of one model encode once:
`codes = posterior_means(vae, x)`.

Each returns an `Estimate` of the test accuracy, a mean over runs. Its `standard_error` is that over
runs, NaN for one run; in `extra` are `runs`, the accuracy of each; `chance`, the accuracy of always
answering the commonest training label; and `test_standard_error`, that of one accuracy over a test
set of this size.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING

import keras
import numpy as np

from ...core.checks import (
    check_choice,
    check_classes,
    check_integer,
    check_integers,
    check_real,
    check_seed,
)
from ...core.frames import unframed
from ...core.renamed import renamed_arguments
from ...losses import FlowGaussian
from ..estimate import Estimate
from ..features import ShuffledBatches
from ..inputs import Encoded, encoded, means_of
from .heads import adam_head, head_logits, latent_classifier, sgd_head

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...core.types import ArrayLike, Model


def posterior_means(
    model: Model, data: ArrayLike, batch_size: int = 256, flow: str = "both"
) -> Any:
    """Codes of data: the posterior means, float64 `(N, D)`.

    Args:
        model: `VAE`, path of its SavedModel, or what `as_subject` made of a foreign pair.
        data: `(N, *event)`.
        batch_size: Examples at once.
        flow: What stands for the mean of a flow's posterior: `"base"`, the mean of the Gaussian
            that it bends; `"code"`, where the flow takes that; or `"both"` side by side,
            `(N, 2 D)`, as in DU-VAE.

    Raises:
        TypeError: If `model` or `data` is of the wrong kind.
        ValueError: If the data do not fit the model, or `flow` is none of these.

    Reference: Shen et al. (2021), DU-VAE, section 4.2, arXiv:2110.12381 (`"both"`).
    """
    check_choice("flow", flow, ("both", "base", "code"))
    posterior, subject = encoded(model, data, batch_size)
    if not isinstance(posterior, FlowGaussian):
        return means_of(posterior)
    parts = {"base": means_of(Encoded(posterior, subject)), "code": means_of(posterior.mean)}
    return np.concatenate([part for name, part in parts.items() if flow in ("both", name)], axis=1)


@renamed_arguments(labelling=("labeling", {}))
def kmeans_probe(
    train: Any,
    test: Any,
    *,
    model: Model = None,
    num_clusters: int = 10,
    labeling: str = "nearest_sample",
    runs: int = 5,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Accuracy of labels that k-means clusters of the training codes give to test codes.

    Each run is one k-means++ start of its own seed; a test code is given the label of the nearest
    centroid.

    Args:
        train: `(codes, labels)` `(N, D)` and int `(N,)`, or `(data, labels)` with a model.
        test: The same for the test set.
        model: Encodes `train` and `test` if given, as in `posterior_means`.
        num_clusters: Positive int; 10, 20 and 30 in the paper.
        labeling: `"nearest_sample"`: a cluster has the label of the training code nearest to its
            centroid; `"majority"`: the commonest label among its training codes.
        runs: Positive int.
        seed: Int, of the first run.
        batch_size: Examples that a model encodes at once.

    Returns:
        `Estimate`, see the module.

    Raises:
        TypeError: If codes, data or model are of the wrong kind.
        ValueError: If shapes do not fit, or an argument is out of range.

    Reference: Ma et al. (2019), experiments on representations (MAE), arXiv:1901.01498.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    if labeling not in ("nearest_sample", "majority"):
        raise ValueError(
            f"`labeling` must be 'nearest_sample' or 'majority'. Received: labeling={labeling!r}"
        )
    num_clusters = check_integer("num_clusters", num_clusters)
    runs, seed = _checked_runs(runs, seed)
    (x, y), (test_x, test_y) = _pairs(train, test, model, batch_size)
    if num_clusters > len(x):
        raise ValueError(
            "`num_clusters` must not exceed the training examples. Received: "
            f"num_clusters={num_clusters}, {len(x)} examples"
        )
    accuracies = []
    for run in range(runs):
        # A set with fewer distinct codes than clusters warns: that is what a collapsed code has.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Number of distinct clusters")
            fitted = KMeans(num_clusters, n_init=1, random_state=seed + run).fit(x)
        if labeling == "nearest_sample":
            label_of = y[pairwise_distances_argmin(fitted.cluster_centers_, x)]
        else:
            overall = _commonest(y)
            label_of = np.array(
                [
                    _commonest(y[members]) if np.any(members) else overall
                    for members in (fitted.labels_ == cluster for cluster in range(num_clusters))
                ]
            )
        accuracies.append(np.mean(label_of[fitted.predict(test_x)] == test_y))
    settings = {"num_clusters": num_clusters, "labeling": labeling, "seed": seed}
    return _over_runs("kmeans_probe", accuracies, y, test_y, settings)


def knn_probe(
    train: Any,
    test: Any,
    *,
    model: Model = None,
    num_neighbors: int = 10,
    num_labels: int | None = None,
    runs: int = 5,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Accuracy of the vote of the nearest labeled training codes, in Euclidean distance.

    Args:
        train: As in `kmeans_probe`.
        test: As in `kmeans_probe`.
        model: As in `kmeans_probe`.
        num_neighbors: Positive int.
        num_labels: How many training examples have labels: a class-balanced subset, drawn anew for
            each run; None for all, in one run.
        runs: Positive int.
        seed: Int that fixes the subsets.
        batch_size: As in `kmeans_probe`.

    Returns:
        `Estimate`, see the module.

    Raises:
        TypeError: As in `kmeans_probe`.
        ValueError: As in `kmeans_probe`.

    Reference: Ma et al. (2019), experiments on representations (MAE), arXiv:1901.01498.
    """
    from sklearn.neighbors import KNeighborsClassifier

    num_neighbors = check_integer("num_neighbors", num_neighbors)
    settings = {"num_neighbors": num_neighbors}
    return _subset_probe(
        "knn_probe",
        lambda: KNeighborsClassifier(num_neighbors),
        train,
        test,
        model,
        num_labels,
        runs,
        seed,
        batch_size,
        settings,
        least=num_neighbors,
    )


def linear_probe(
    train: Any,
    test: Any,
    *,
    model: Model = None,
    num_labels: int | None = None,
    regularization: float = 1.0,
    runs: int = 5,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Accuracy of multinomial logistic regression on codes.

        minimize  1/2 ||W||^2 + C sum_i -log softmax(W z_i + b)[y_i]

    Args:
        train: As in `kmeans_probe`.
        test: As in `kmeans_probe`.
        model: As in `kmeans_probe`.
        num_labels: As in `knn_probe`.
        regularization: Positive float C; smaller is stronger.
        runs: Positive int.
        seed: Int that fixes the subsets.
        batch_size: As in `kmeans_probe`.

    Returns:
        `Estimate`, see the module.

    Raises:
        TypeError: As in `kmeans_probe`.
        ValueError: As in `kmeans_probe`.

    Reference: Ma et al. (2019), experiments on representations (MAE), arXiv:1901.01498, which
    leaves C open.
    """
    from sklearn.linear_model import LogisticRegression

    if not regularization > 0:
        raise ValueError(
            f"`regularization` must be positive. Received: regularization={regularization}"
        )
    return _subset_probe(
        "linear_probe",
        lambda: LogisticRegression(C=regularization, max_iter=1000),
        train,
        test,
        model,
        num_labels,
        runs,
        seed,
        batch_size,
        {"regularization": regularization},
    )


def alphabet_probe(
    train: Any,
    test: Any,
    *,
    model: Model = None,
    num_drawings: int = 15,
    num_test_drawings: int = 5,
    epochs: int = 300,
    learning_rate: float = 1e-3,
    runs: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Accuracy of linear heads that tell the characters of an alphabet apart, one head each.

    The head of each alphabet is trained on `num_drawings` codes of each of its characters with
    Adam in batches of 50 on the cross-entropy summed over the batch, without validation. The value
    is the plain mean over alphabets. Drawings are taken in their order; a character short of them
    is filled up by drawing again from its own, in training and test.

    Args:
        train: `(codes, labels)`, labels int `(N, 2)`: alphabet and character; or with a model
            `(data, labels)`. A code comes from one fixed Bernoulli draw of an image in the paper.
        test: The same for the test set, whose alphabets and characters are those of `train`.
        model: As in `kmeans_probe`.
        num_drawings: Positive int; 5, 10 and 15 in the paper.
        num_test_drawings: Positive int.
        epochs: Positive int.
        learning_rate: Positive float.
        runs: Positive int.
        seed: Int that fixes initial weights, order and what is drawn again.
        batch_size: As in `kmeans_probe`.

    Returns:
        `Estimate`, see the module; `extra` also has `per_alphabet`, the accuracies by alphabet, and
        `weighted`, their mean by number of characters, of all runs together.

    Raises:
        TypeError: As in `kmeans_probe`.
        ValueError: As in `kmeans_probe`, and if an alphabet has one character only.

    Reference: Shen et al. (2021), section on classification (DU-VAE), arXiv:2110.12381.
    """
    num_drawings = check_integer("num_drawings", num_drawings)
    num_test_drawings = check_integer("num_test_drawings", num_test_drawings)
    epochs = check_integer("epochs", epochs)
    learning_rate = check_real("learning_rate", learning_rate, "(0, inf)")
    runs, seed = _checked_runs(runs, seed)
    (x, y), (test_x, test_y) = _pairs(train, test, model, batch_size, label_columns=2)
    alphabets = np.unique(y[:, 0])
    if not np.array_equal(np.unique(y, axis=0), np.unique(test_y, axis=0)):
        raise ValueError(
            "`test` must have the alphabets and characters of `train`. Received: "
            f"{len(np.unique(y, axis=0))} characters in train, "
            f"{len(np.unique(test_y, axis=0))} in test, or others"
        )
    scores, sizes, chances = np.empty((runs, len(alphabets))), [], []
    for number, alphabet in enumerate(alphabets):
        inside, test_inside = y[:, 0] == alphabet, test_y[:, 0] == alphabet
        characters = np.unique(y[inside, 1])
        if len(characters) < 2:
            raise ValueError(
                "`train` must have at least 2 characters in each alphabet. Received: "
                f"{len(characters)} in alphabet {alphabet}"
            )
        sizes.append(len(characters))
        chances.append(1.0 / len(characters))
        for run in range(runs):
            rng = np.random.default_rng((seed + run, number))
            rows = _drawings(np.flatnonzero(inside), y[:, 1], num_drawings, rng)
            test_rows = _drawings(np.flatnonzero(test_inside), test_y[:, 1], num_test_drawings, rng)
            predict = adam_head(
                x[rows], y[rows, 1], epochs, learning_rate, int(rng.integers(2**31))
            )
            scores[run, number] = np.mean(predict(test_x[test_rows]) == test_y[test_rows, 1])
    accuracies = scores.mean(axis=1)
    by_alphabet = scores.mean(axis=0)
    settings = {
        "num_drawings": num_drawings,
        "num_test_drawings": num_test_drawings,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    estimate = _over_runs("alphabet_probe", accuracies, None, test_y, settings)
    estimate.extra.update(
        chance=float(np.mean(chances)),
        weighted=float(np.average(by_alphabet, weights=sizes)),
        per_alphabet={
            int(alphabet): float(score)
            for alphabet, score in zip(alphabets, by_alphabet, strict=True)
        },
    )
    return estimate


def few_label_probe(
    train: Any,
    validation: Any,
    test: Any,
    *,
    num_labels: int,
    model: Model = None,
    balanced: bool = False,
    learning_rate: float = 1.0,
    epochs: int = 100,
    runs: int = 1,
    seed: int = 783435,
    batch_size: int = 256,
) -> Estimate:
    """Accuracy of a linear head trained by SGD on a few labeled codes.

    Batches of 16, mean cross-entropy, gradients clipped to norm 5. After 2 epochs without a better
    validation loss than any since the last halving, the epoch of it included, the rate is halved
    and the best head taken up again; the fifth time ends it. The head of the best validation loss
    is tested. Images and sentences alike:

        train, validation, test = (
            data.load_text_arrays("reviews", split, vocabulary=vocabulary)
            for split in ("train", "validation", "test")
        )
        metrics.few_label_probe(train, validation, test, model=vae, num_labels=100)

    Args:
        train: As in `kmeans_probe`.
        validation: The same for a validation set.
        test: The same for the test set.
        num_labels: How many training examples have labels; 100, 500, 1,000, 2,000 and 10,000 in
            the paper.
        model: As in `kmeans_probe`.
        balanced: Whether the subset is balanced by class instead of uniform.
        learning_rate: Positive float.
        epochs: Positive int, at most.
        runs: Positive int; subsets and order differ.
        seed: Int, of the first run.
        batch_size: As in `kmeans_probe`.

    Returns:
        `Estimate`, see the module.

    Raises:
        TypeError: As in `kmeans_probe`.
        ValueError: As in `kmeans_probe`.

    Reference: Shen et al. (2021), section on classification (DU-VAE), arXiv:2110.12381.
    """
    num_labels = check_integer("num_labels", num_labels, least=2)
    epochs = check_integer("epochs", epochs)
    learning_rate = check_real("learning_rate", learning_rate, "(0, inf)")
    runs, seed = _checked_runs(runs, seed)
    (x, y), (test_x, test_y) = _pairs(train, test, model, batch_size)
    val_x, val_y = _pair("validation", validation, model, batch_size, x.shape[1])
    classes = np.unique(y)
    if not np.all(np.isin(val_y, classes)):
        raise ValueError("`validation` must have the labels of `train`. Received: others among it")
    targets, val_targets = np.searchsorted(classes, y), np.searchsorted(classes, val_y)
    accuracies = []
    for run in range(runs):
        rng = np.random.default_rng(seed + run)
        rows = _subset(targets, num_labels, rng, balanced)
        head = sgd_head(
            x[rows], targets[rows], val_x, val_targets, len(classes), learning_rate, epochs, rng
        )
        predicted = classes[np.argmax(head_logits(head, test_x), axis=1)]
        accuracies.append(np.mean(predicted == test_y))
    settings = {
        "num_labels": num_labels,
        "balanced": balanced,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "seed": seed,
    }
    return _over_runs("few_label_probe", accuracies, y, test_y, settings)


def classifier_probe(
    train: Any,
    test: Any,
    *,
    model: Model = None,
    hidden_units: Sequence[int] = (1024, 1024, 1024),
    epochs: int = 100,
    learning_rate: float = 1e-4,
    runs: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Accuracy of a dense classifier on codes.

    D-1024-1024-1024-classes with leaky ReLU (slope 0.2), weights from N(0, 2 / fan_in); Adam in
    batches of 64.

    Args:
        train: As in `kmeans_probe`.
        test: As in `kmeans_probe`.
        model: As in `kmeans_probe`.
        hidden_units: Widths of the hidden layers, positive ints.
        epochs: Positive int; the paper gives none.
        learning_rate: Positive float.
        runs: Positive int; initial weights and order differ.
        seed: Int, of the first run.
        batch_size: As in `kmeans_probe`.

    Returns:
        `Estimate`, see the module.

    Raises:
        TypeError: As in `kmeans_probe`.
        ValueError: As in `kmeans_probe`.

    Reference: mu-VAE, tables 1 and 2.
    """
    hidden_units = check_integers("hidden_units", hidden_units)
    epochs = check_integer("epochs", epochs)
    learning_rate = check_real("learning_rate", learning_rate, "(0, inf)")
    runs, seed = _checked_runs(runs, seed)
    (x, y), (test_x, test_y) = _pairs(train, test, model, batch_size)
    classes, targets = np.unique(y, return_inverse=True)
    accuracies = []
    for run in range(runs):
        network = latent_classifier(x.shape[1], len(classes), hidden_units, seed + run)
        network.compile(
            keras.optimizers.Adam(learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
        )
        batches = ShuffledBatches(x.astype("float32"), targets.astype("int32"), 64, seed + run)
        network.fit(batches, epochs=epochs, verbose=0)
        logits = network.predict(test_x.astype("float32"), batch_size=batch_size, verbose=0)
        accuracies.append(np.mean(classes[np.argmax(logits, axis=1)] == test_y))
    settings = {
        "hidden_units": list(hidden_units),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    return _over_runs("classifier_probe", accuracies, y, test_y, settings)


def _subset_probe(
    name,
    make,
    train,
    test,
    model,
    num_labels,
    runs,
    seed,
    batch_size,
    settings,
    least=1,
):
    num_labels = check_integer("num_labels", num_labels, least=2, optional=True)
    runs, seed = _checked_runs(runs, seed)
    (x, y), (test_x, test_y) = _pairs(train, test, model, batch_size)
    available = len(y) if num_labels is None else num_labels
    if available < least:
        raise ValueError(
            "`num_neighbors` must not exceed the labeled examples. Received: "
            f"num_neighbors={least}, {available} labeled examples"
        )
    accuracies = []
    # Nothing is drawn where all labels are used, and all runs would be one.
    for run in range(1 if num_labels is None else runs):
        rows = slice(None)
        if num_labels is not None:
            rows = _subset(y, num_labels, np.random.default_rng(seed + run), balanced=True)
        accuracies.append(np.mean(make().fit(x[rows], y[rows]).predict(test_x) == test_y))
    settings = {**settings, "num_labels": num_labels, "seed": seed}
    return _over_runs(name, accuracies, y, test_y, settings)


def _subset(y, num_labels, rng, balanced):
    """Rows of a labeled subset, balanced by class as far as the number can be divided."""
    if num_labels > len(y):
        raise ValueError(
            "`num_labels` must not exceed the training examples. Received: "
            f"num_labels={num_labels}, {len(y)} examples"
        )
    if not balanced:
        return rng.choice(len(y), num_labels, replace=False)
    classes = np.unique(y)
    if num_labels < len(classes):
        raise ValueError(
            "`num_labels` must be at least the number of classes. Received: "
            f"num_labels={num_labels}, {len(classes)} classes"
        )
    quota = np.full(len(classes), num_labels // len(classes))
    quota[rng.permutation(len(classes))[: num_labels % len(classes)]] += 1
    chosen = []
    for label, count in zip(classes, quota, strict=True):
        members = np.flatnonzero(y == label)
        if len(members) < count:
            raise ValueError(
                "`num_labels` must not ask for more of a class than there are. Received: "
                f"num_labels={num_labels}, {len(members)} examples of class {label}"
            )
        chosen.append(rng.choice(members, count, replace=False))
    return np.concatenate(chosen)


def _drawings(rows, characters, count, rng):
    """`count` rows of each character among `rows`, filled up by drawing again."""
    chosen = []
    for character in np.unique(characters[rows]):
        members = rows[characters[rows] == character][:count]
        again = rng.choice(members, count - len(members))
        chosen.append(np.concatenate([members, again]))
    return np.concatenate(chosen)


def _over_runs(name, accuracies, train_y, test_y, settings):
    accuracies = np.asarray(accuracies, "float64")
    value, count = float(accuracies.mean()), len(accuracies)
    error = np.std(accuracies, ddof=1) / math.sqrt(count) if count > 1 else math.nan
    extra = {
        "runs": accuracies.tolist(),
        "test_standard_error": math.sqrt(value * (1.0 - value) / len(test_y)),
    }
    if train_y is not None:
        extra["chance"] = float(np.mean(test_y == _commonest(train_y)))
    return Estimate(
        value=value,
        standard_error=float(error),
        count=len(test_y),
        estimator=name,
        settings={**settings, "runs": count},
        extra=extra,
    )


def _commonest(labels):
    values, counts = np.unique(labels, return_counts=True)
    return values[np.argmax(counts)]


def _checked_runs(runs, seed):
    return check_integer("runs", runs), check_seed("seed", seed, optional=False)


def _pairs(train, test, model, batch_size, label_columns=None):
    x, y = _pair("train", train, model, batch_size, None, label_columns)
    if len(np.unique(y)) < 2:
        raise ValueError("`train` must have at least 2 classes. Received: 1")
    return (x, y), _pair("test", test, model, batch_size, x.shape[1], label_columns)


def _pair(name, pair, model, batch_size, dim, label_columns=None):
    """Codes float64 `(n, D)` and labels of a pair."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        what = "codes" if model is None else "data"
        raise TypeError(
            f"`{name}` must be a pair ({what}, labels). Received: {type(pair).__name__}"
        )
    x, labels = map(unframed, pair)
    if model is None and not hasattr(x, "dtype"):
        raise TypeError(
            f"`{name}` must hold an array of codes, or of data with `model`. Received: "
            f"{type(x).__name__}"
        )
    try:
        codes = means_of(x) if model is None else posterior_means(model, x, batch_size)
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        message = re.sub(r"^`(means|data)`", f"The data of `{name}`", str(error))
        raise type(error)(message) from None
    labels = np.asarray(labels)
    shape = (len(codes),) if label_columns is None else (len(codes), label_columns)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must have integer labels of shape {shape}. Received: shape={labels.shape}, "
            f"dtype={labels.dtype}"
        )
    check_classes(name, labels)
    if dim not in (None, codes.shape[1]):
        raise ValueError(
            f"`{name}` must have codes of {dim} dimensions as `train` has. Received: "
            f"{codes.shape[1]}"
        )
    return codes, labels
