"""Sample quality: distances between the features of generated and of real images."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from ..core.checks import check_integer, check_range, check_seed
from ..core.frames import unframed
from .estimate import Estimate
from .features import array_hash, get_features

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Array, ArrayLike, Seed, Tensor

_MAX_SAMPLES = 10_000
#: Added to the diagonals of both covariances if one is singular.
_JITTER = 1e-6


def gaussian_frechet_distance(
    mean1: Array, cov1: Array, mean2: Array, cov2: Array, jitter: float = 0.0
) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians.

        d = ||mean1 - mean2||^2 + tr( cov1 + cov2 - 2 (cov1 cov2)^(1/2) )

    The trace of the root is taken from the eigenvalues of the symmetric `R' cov2 R` with
    `R R' = cov1`, which are those of `cov1 cov2`: real, and not below 0 but for rounding, for
    singular covariances too.

    Args:
        mean1: `(F,)`.
        cov1: `(F, F)`, symmetric.
        mean2: `(F,)`.
        cov2: `(F, F)`, symmetric.
        jitter: Non-negative float, added to both diagonals.

    Returns:
        Float, not below 0.

    Raises:
        ValueError: If the shapes do not fit, values are not finite, or `jitter` is negative.

    Reference: Dowson & Landau (1982); Heusel et al. (2017), eq. 6, arXiv:1706.08500.
    """
    mean1, mean2 = (np.atleast_1d(np.asarray(mean, "float64")) for mean in (mean1, mean2))
    cov1, cov2 = (np.atleast_2d(np.asarray(cov, "float64")) for cov in (cov1, cov2))
    size = len(mean1)
    if mean1.shape != mean2.shape or any(cov.shape != (size, size) for cov in (cov1, cov2)):
        raise ValueError(
            "Means must have shape (F,) and covariances (F, F). Received: shapes "
            f"{mean1.shape}, {cov1.shape}, {mean2.shape}, {cov2.shape}"
        )
    if not all(np.all(np.isfinite(moment)) for moment in (mean1, cov1, mean2, cov2)):
        raise ValueError("Means and covariances must be finite. Received: NaN or infinity")
    if not jitter >= 0.0:
        raise ValueError(f"`jitter` must be non-negative. Received: jitter={jitter}")
    cov1, cov2 = (cov + jitter * np.eye(size) for cov in (cov1, cov2))
    root = _root(cov1)
    product = root.T @ cov2 @ root
    product_values = np.linalg.eigvalsh(0.5 * (product + product.T))
    trace_root = np.sum(np.sqrt(np.maximum(product_values, 0.0)))
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2.0 * trace_root
    return float(max(distance, 0.0))


def frechet_distance(
    generated: Any,
    data: ArrayLike,
    *,
    features: Any = None,
    labels: Tensor = None,
    num_samples: int | None = None,
    value_range: Sequence[float] = (0.0, 1.0),
    num_blocks: int = 10,
    seed: int = 0,
    batch_size: int = 256,
) -> Estimate:
    """Frechet distance between the features of generated and of real images (FID).

        FID = ||m1 - m2||^2 + tr( C1 + C2 - 2 (C1 C2)^(1/2) )

    with means and unbiased covariances of the features, in float64. If a covariance is singular
    1e-6 is added to the diagonals of both.

    The estimate is biased upwards by about 1/n, so that scores compare only at equal counts. The
    `fingerprint` in `settings` is a hash of the features and their weights, the counts, the value
    range and the data: two scores are comparable only if theirs are equal.

    The standard error is that of the jackknife over `num_blocks` random blocks, one of each set
    left out at a time; `extra["bias_corrected"]` is the jackknife's estimate without the bias of
    first order, worth something once counts are well above F.

    Args:
        generated: Model with `generate`, whose means E[x|z] at draws of the prior are taken; or an
            array of images `(n, *event)`.
        data: Real images `(N, *event)`, all of them used.
        features: `"classifier"`, `"inception"`, `"pixels"`, a Keras model, a named callable, or a
            `FeatureNetwork`. By default a classifier is trained on `data` if `labels` are given.
        labels: Int `(N,)`, for the classifier.
        num_samples: How many images are generated, or used of an array. By default as many as
            `data` has and at most 10,000, and all of an array.
        value_range: `(low, high)`, black and white in `generated` and `data`. Features see values
            scaled to [0, 1]; generated values beyond are clipped.
        num_blocks: Int of at least 2 for the jackknife; 0 for no standard error.
        seed: Int that fixes generation, blocks and classifier.
        batch_size: Images at once.

    Returns:
        `Estimate`.

    Raises:
        TypeError: If `generated` or `data` is of the wrong kind.
        ValueError: If no features are chosen, shapes do not fit, values are out of range or not
            finite, or an argument is out of range.

    Reference: Heusel et al. (2017), eq. 6, arXiv:1706.08500; Chong & Forsyth (2020) on the bias,
    arXiv:1911.07023.
    """
    if num_blocks != 0:
        num_blocks = check_integer("num_blocks", num_blocks, least=2)
    first, second, settings, details = _both_features(
        "frechet_distance",
        generated,
        data,
        features,
        labels,
        num_samples,
        value_range,
        seed,
        batch_size,
    )
    _check_blocks(num_blocks, first, second, least=1)
    moments = _Moments(first), _Moments(second)
    covariances = [moment.all()[1] for moment in moments]
    singular = any(_singular(cov) for cov in covariances)
    jitter = _JITTER if singular else 0.0
    value = gaussian_frechet_distance(*moments[0].all(), *moments[1].all(), jitter=jitter)
    extra = {**details, "jitter": jitter}
    error = math.nan
    if num_blocks:
        blocks = _blocks(first, second, num_blocks, seed)
        left_out = np.array(
            [
                gaussian_frechet_distance(
                    *moments[0].without(rows1), *moments[1].without(rows2), jitter=jitter
                )
                for rows1, rows2 in blocks
            ]
        )
        spread = np.sum((left_out - left_out.mean()) ** 2)
        error = math.sqrt((num_blocks - 1) / num_blocks * spread)
        extra["bias_corrected"] = float(num_blocks * value - (num_blocks - 1) * np.mean(left_out))
    return Estimate(
        value=value,
        standard_error=error,
        count=len(first),
        estimator="frechet_distance",
        settings={**settings, "num_blocks": num_blocks, "seed": seed},
        extra=extra,
    )


def kernel_distance(
    generated: Any,
    data: ArrayLike,
    *,
    features: Any = None,
    labels: ArrayLike = None,
    num_samples: int | None = None,
    value_range: Sequence[float] = (0.0, 1.0),
    num_blocks: int | None = None,
    seed: Seed = 0,
    batch_size: int = 256,
) -> Estimate:
    """Kernel distance between the features of generated and of real images (KID).

        KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)
        k(a, b) = (a . b / F + 1)^3

    averaged over disjoint random blocks. Unbiased at any count, about 0 and at times below it for
    equal distributions; the standard error comes from the spread of the blocks.

    Args:
        generated: As in `frechet_distance`.
        data: As in `frechet_distance`.
        features: As in `frechet_distance`.
        labels: As in `frechet_distance`.
        num_samples: As in `frechet_distance`.
        value_range: As in `frechet_distance`.
        num_blocks: Positive int; by default one for each 1,000 images of the smaller set and at
            least 10.
        seed: As in `frechet_distance`.
        batch_size: As in `frechet_distance`.

    Returns:
        `Estimate`.

    Raises:
        TypeError: As in `frechet_distance`.
        ValueError: As in `frechet_distance`.

    Reference: Binkowski et al. (2018), section 4, arXiv:1801.01401.

    Note:
        There subsets of 1,000 overlap, so that their spread gives no standard error.
    """
    if num_blocks is not None:
        num_blocks = check_integer("num_blocks", num_blocks)
    first, second, settings, details = _both_features(
        "kernel_distance",
        generated,
        data,
        features,
        labels,
        num_samples,
        value_range,
        seed,
        batch_size,
    )
    if num_blocks is None:
        num_blocks = max(10, min(len(first), len(second)) // 1000)
    _check_blocks(num_blocks, first, second, least=2)
    values = np.array(
        [
            _polynomial_discrepancy(first[rows1], second[rows2])
            for rows1, rows2 in _blocks(first, second, num_blocks, seed)
        ]
    )
    error = np.std(values, ddof=1) / math.sqrt(num_blocks) if num_blocks > 1 else math.nan
    return Estimate(
        value=float(np.mean(values)),
        standard_error=float(error),
        count=len(first),
        estimator="kernel_distance",
        settings={**settings, "num_blocks": num_blocks, "seed": seed},
        extra=details,
    )


def _root(cov):
    """A matrix R with R R' = cov."""
    try:
        # A fraction of the time of eigenvectors.
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(cov)
        return vectors * np.sqrt(np.maximum(values, 0.0))


def _polynomial_discrepancy(x, y):
    def gram(a, b):
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    def off_diagonal(a):
        full = gram(a, a)
        return (full.sum() - np.trace(full)) / (len(a) * (len(a) - 1))

    return off_diagonal(x) + off_diagonal(y) - 2.0 * gram(x, y).mean()


class _Moments:
    """Mean and unbiased covariance of rows, also without some of them."""

    def __init__(self, features: Tensor) -> None:
        # Sums about the common mean: the square of a mean never cancels.
        self.center = features.mean(axis=0)
        self.rows = features - self.center
        self.scatter = self.rows.T @ self.rows

    def all(self):
        return self.center, self.scatter / (len(self.rows) - 1)

    def without(self, rows):
        left = self.rows[rows]
        count = len(self.rows) - len(left)
        shift = -left.sum(axis=0) / count
        scatter = self.scatter - left.T @ left - count * np.outer(shift, shift)
        return self.center + shift, scatter / (count - 1)


def _singular(cov):
    values = np.linalg.eigvalsh(cov)
    return values[0] <= len(values) * np.finfo("float64").eps * max(values[-1], 0.0)


def _blocks(first, second, num_blocks, seed):
    rng = np.random.default_rng(seed)
    return zip(
        np.array_split(rng.permutation(len(first)), num_blocks),
        np.array_split(rng.permutation(len(second)), num_blocks),
        strict=True,
    )


def _check_blocks(num_blocks, first, second, least):
    count = min(len(first), len(second))
    if count < least * num_blocks:
        raise ValueError(
            f"`num_blocks` must leave {least} or more images in each block. Received: "
            f"num_blocks={num_blocks} for {count} images"
        )


def _both_features(
    estimator, generated, data, features, labels, num_samples, value_range, seed, batch_size
):
    seed = check_seed("seed", seed, optional=False)
    batch_size = check_integer("batch_size", batch_size)
    num_samples = check_integer("num_samples", num_samples, least=3, optional=True)
    low, high = check_range("value_range", value_range)
    data = _images("data", data)
    if data.min() < low or data.max() > high:
        raise ValueError(
            f"`data` must lie in `value_range`, [{low:g}, {high:g}]. Received: values from "
            f"{data.min():g} to {data.max():g}"
        )
    images = _generated(generated, num_samples or min(len(data), _MAX_SAMPLES), num_samples, seed)
    if images.shape[1:] != data.shape[1:]:
        raise ValueError(
            "`generated` must have the shape of `data`. Received: "
            f"{images.shape[1:]} and {data.shape[1:]}"
        )
    real = (data - low) / (high - low)
    fake = np.clip((images - low) / (high - low), 0.0, 1.0)
    network = get_features(features, real, labels, seed)
    protocol = {
        "estimator": estimator,
        "features": network.name,
        "weights": network.weights_hash,
        "preprocessing": network.preprocessing,
        "num_generated": len(fake),
        "num_real": len(real),
        "value_range": [float(low), float(high)],
        "data": array_hash(data),
    }
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    settings = {**protocol, "fingerprint": digest[:12]}
    return network(fake, batch_size), network(real, batch_size), settings, dict(network.details)


def _generated(generated, wanted, num_samples, seed):
    if callable(getattr(generated, "generate", None)):
        return _images("generated", generated.generate(wanted, seed=seed, mean=True))
    images = _images("generated", generated)
    if num_samples is not None and num_samples > len(images):
        raise ValueError(
            "`num_samples` must not exceed the generated images. Received: "
            f"num_samples={num_samples}, {len(images)} images"
        )
    return images[:num_samples]


def _images(name, values):
    values = unframed(values)
    if not hasattr(values, "dtype") or not hasattr(values, "shape"):
        what = "an array of images or a model with `generate`"
        raise TypeError(
            f"`{name}` must be {what if name == 'generated' else 'an array of images'}. Received: "
            f"{type(values).__name__}"
        )
    array = ops.convert_to_numpy(values).astype("float32")
    # Two are left for a covariance when the jackknife leaves one out.
    if array.ndim < 2 or len(array) < 3:
        raise ValueError(
            f"`{name}` must have shape (N, *event) with at least 3 examples. Received: "
            f"shape={array.shape}"
        )
    if not np.all(np.isfinite(array)):
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity")
    return array
