"""Feature networks: the spaces in which generated images are compared with real ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_classes, check_integer, check_path, check_real, check_seed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import ArrayLike, FilePath, Seed, Tensor

_FEATURE_LAYER = "features"
_OPTIONS = (
    "`labels` or features='classifier' with labels for a classifier trained on these data, "
    "features='inception' for InceptionV3 (natural images), features='pixels' for the raw pixels, "
    "or a Keras model or `FeatureNetwork` of your own"
)


class FeatureNetwork:
    """A named map from images in [0, 1] to feature vectors.

    Args:
        function: Keras model, or any callable from a NumPy batch `(n, *event)` to `(n, F)`, whose
            attribute `network`, if any, is the Keras model behind it; or, with `lazy=True`, a
            function of no arguments that makes either when it is first needed.
        name: Name that tells it from others; a Keras model's own by default.
        preprocessing: String, what `function` does to images before its network.
        details: Dict of JSON values to report with a score, for instance an accuracy.
        lazy: Whether `function` makes the network.

    Raises:
        TypeError: If `function` cannot be called.
        ValueError: If there is no name.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        preprocessing: str = "none",
        details: dict[str, Any] | None = None,
        lazy: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(
                "`features` must be a Keras model, a callable or a name. Received: "
                f"{type(function).__name__}"
            )
        name = name or getattr(function, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError(
                "`name` must be given for features without one, so that scores can be told apart: "
                f"FeatureNetwork(function, name=...). Received: name={name!r}"
            )
        self.name, self.preprocessing, self.details = name, preprocessing, dict(details or {})
        self._function: Any = None if lazy else function
        self._make: Any = function if lazy else None
        self._weights_hash: str | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The network, made now if it has not been."""
        if self._function is None:
            self._function = self._make()
        return self._function

    @property
    def weights_hash(self) -> str | None:
        """Short hash of a Keras network's weights; None for other callables."""
        network = getattr(self.function, "network", self.function)
        if self._weights_hash is None and isinstance(network, keras.layers.Layer):
            self._weights_hash = array_hash(*network.get_weights())
        return self._weights_hash

    def __call__(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Features of images.

        Args:
            images: NumPy `(n, *event)`.
            batch_size: Images at once.

        Returns:
            NumPy float64 `(n, F)`.

        Raises:
            ValueError: If the network returns another shape or values that are not finite.
        """
        function = self.function
        if isinstance(function, keras.Model):
            features = function.predict(images, batch_size=batch_size, verbose=0)
        else:
            features = np.concatenate(
                [
                    ops.convert_to_numpy(function(images[start : start + batch_size]))
                    for start in range(0, len(images), batch_size)
                ]
            )
        features = np.asarray(features, "float64")
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"`features` must map images to vectors, (n, F). Received: shape={features.shape} "
                f"from {self.name!r} for {len(images)} images"
            )
        if not np.all(np.isfinite(features)):
            raise ValueError(
                f"`features` must be finite. Received: NaN or infinity from {self.name!r}"
            )
        return features


def array_hash(*arrays: Any) -> str:
    """Short hash of the shapes, kinds and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def get_features(
    features: Any, data: ArrayLike, labels: Tensor = None, seed: int = 0
) -> FeatureNetwork:
    """The `FeatureNetwork` meant by a name, a model, a callable or None.

    Args:
        features: `"classifier"`, `"inception"`, `"pixels"`, Keras model, callable with a name,
            `FeatureNetwork`, or None: a classifier where there are labels.
        data: Images `(N, H, W, C)` in [0, 1] that a classifier is trained on.
        labels: Int `(N,)` or None.
        seed: Int that fixes the classifier.

    Raises:
        ValueError: If there is nothing to choose by, or the name is unknown.
        TypeError: If `features` is of another kind.
    """
    if isinstance(features, FeatureNetwork):
        return features
    if features is None and labels is None:
        raise ValueError(f"`features` must be chosen: give {_OPTIONS}. Received: features=None")
    if features in (None, "classifier"):
        if labels is None:
            raise ValueError("`labels` must be given with features='classifier'. Received: None")
        return classifier_features(data, labels, seed=seed)
    if features == "inception":
        return inception_features()
    if features == "pixels":
        return FeatureNetwork(lambda images: images.reshape(len(images), -1), name="pixels")
    if isinstance(features, str):
        raise ValueError(f"`features` is unknown: give {_OPTIONS}. Received: features={features!r}")
    return FeatureNetwork(features)


def inception_features(weights: FilePath = "imagenet") -> FeatureNetwork:
    """InceptionV3's 2,048 averaged features, of natural images resized to 299x299.

        f(x) = mean over the 8x8 grid of the last mixed block at 2 resize(x) - 1

    Gray images are repeated on three channels; resizing is bilinear. The network is built and its
    weights are fetched when features are first asked for.

    Args:
        weights: `"imagenet"`, which Keras downloads once, or the path of that weights file
            (`inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`).

    Returns:
        `FeatureNetwork`. Using it raises a `RuntimeError` if the weights cannot be had.

    Reference: Heusel et al. (2017), arXiv:1706.08500.

    Note:
        Published scores use the graph of 2015 with its own resizing; the weights of
        `keras.applications` are others, so that scores are not comparable with those.
    """

    def make():
        try:
            network = keras.applications.InceptionV3(
                include_top=False, weights=weights, input_shape=(299, 299, 3), pooling="avg"
            )
        except Exception as error:
            raise RuntimeError(
                f"Could not download the InceptionV3 weights ({error}). Pass a local file with "
                "inception_features(weights=...), or choose other features: "
                f"{_OPTIONS}. Received: weights={weights!r}"
            ) from error
        return _Inception(network)

    return FeatureNetwork(
        make,
        name="inception_v3",
        preprocessing="gray to RGB, bilinear to 299x299, [0, 1] to [-1, 1]",
        lazy=True,
    )


class _Inception:
    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(
                "`data` must be images (N, H, W, 1 or 3) for InceptionV3. Received: "
                f"shape={images.shape}"
            )
        images = np.broadcast_to(images, (*images.shape[:3], 3)).astype("float32")
        resized = ops.image.resize(
            images, (299, 299), interpolation="bilinear", data_format="channels_last"
        )
        return self.network.predict_on_batch(ops.convert_to_numpy(2.0 * resized - 1.0))


def classifier_features(
    data: ArrayLike,
    labels: Tensor,
    *,
    num_features: int = 128,
    epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    held_out: float = 0.1,
    seed: int = 0,
    save_to: FilePath | None = None,
) -> FeatureNetwork:
    """The penultimate layer of a small convolutional classifier trained on the data set itself.

    Three 3x3 convolutions of 32, 64 and 128 filters, strides 1, 2, 2, mean over the grid, a dense
    layer of `num_features` (the features), softmax; ReLU, Adam. Its accuracy on a held-out part,
    the `details` of the result, says how much a distance between its features means.

    Args:
        data: Images `(N, H, W, C)` in [0, 1].
        labels: Int `(N,)`.
        num_features: Positive int F.
        epochs: Positive int.
        learning_rate: Positive float.
        batch_size: Positive int.
        held_out: Fraction in (0, 1), by class.
        seed: Int that fixes initial weights, split and order.
        save_to: Path ending in `.keras`, with a `.json` of the details beside it; `load_features`
            reads them again. Scores are comparable only under the same classifier.

    Returns:
        `FeatureNetwork`.

    Raises:
        ValueError: If data and labels do not fit, there are fewer than 2 classes or 2 examples of
            one, or an argument is out of range.
        FileExistsError: If `save_to` exists.
    """
    from sklearn.model_selection import train_test_split

    images = np.asarray(data, "float32")
    if images.ndim != 4:
        raise ValueError(
            f"`data` must be images (N, H, W, C) for a classifier. Received: shape={images.shape}"
        )
    classes, targets = _classes(labels, len(images))
    num_features = check_integer("num_features", num_features)
    epochs = check_integer("epochs", epochs)
    learning_rate = check_real("learning_rate", learning_rate, "(0, inf)")
    seed = check_seed("seed", seed, optional=False)
    batch_size = check_integer("batch_size", batch_size)
    held_out = check_real("held_out", held_out, "(0, 1)")
    path = None if save_to is None else _fresh_path(save_to)
    count = max(round(held_out * len(images)), len(classes))
    kept, held = train_test_split(
        np.arange(len(images)), test_size=count, stratify=targets, random_state=seed
    )
    model = _classifier(images.shape[1:], len(classes), num_features, seed)
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    model.fit(
        ShuffledBatches(images[kept], targets[kept], batch_size, seed), epochs=epochs, verbose=0
    )
    predicted = np.argmax(model.predict(images[held], batch_size=batch_size, verbose=0), axis=1)
    details = {
        "held_out_accuracy": float(np.mean(predicted == targets[held])),
        "held_out_count": len(held),
        "num_classes": len(classes),
        "epochs": epochs,
        "seed": seed,
        "trained_on": array_hash(images, targets),
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
        path.with_suffix(".json").write_text(json.dumps(details, indent=2) + "\n", "utf-8")
    return _penultimate(model, details)


def load_features(path: FilePath) -> FeatureNetwork:
    """The classifier's features that `classifier_features` saved.

    Args:
        path: Path of the `.keras` file.

    Returns:
        `FeatureNetwork`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds another model.
    """
    path = Path(check_path("path", path))
    if not path.is_file():
        raise FileNotFoundError(f"`path` must name a saved classifier. Received: {str(path)!r}")
    try:
        model = keras.saving.load_model(path)
    except Exception as error:
        # Keras raises almost any kind for a broken file, and says of junk that it is not there.
        raise ValueError(
            f"`path` must name a classifier that `classifier_features` saved. Received: "
            f"{str(path)!r}, which is broken or no .keras file"
        ) from error
    if _FEATURE_LAYER not in [layer.name for layer in getattr(model, "layers", ())]:
        raise ValueError(
            "`path` must name a classifier that `classifier_features` saved. Received: "
            f"{str(path)!r}, a model {model.name!r}"
        )
    beside = path.with_suffix(".json")
    try:
        details = json.loads(beside.read_text("utf-8")) if beside.is_file() else {}
    except ValueError as error:
        raise ValueError(f"'{beside}', beside the classifier, is broken: it is no JSON") from error
    return _penultimate(model, details)


class ShuffledBatches(keras.utils.PyDataset):
    """Full batches of arrays in a seeded order, another in each epoch.

    The global random state neither matters nor changes, and one batch size compiles one step: the
    last batch is filled up from the start of the order.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, seed: Seed) -> None:
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: Tensor) -> Any:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        """Draws the order of the next epoch."""
        self.order = np.resize(self.rng.permutation(len(self.x)), len(self) * self.batch_size)


def _classes(labels, count):
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers of shape ({count},), one an image. Received: "
            f"shape={labels.shape}, dtype={labels.dtype}"
        )
    check_classes("labels", labels)
    classes, targets, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or sizes.min() < 2:
        raise ValueError(
            "`labels` must have at least 2 classes of at least 2 examples. Received: "
            f"{len(classes)} classes, the smallest of {sizes.min()}"
        )
    return classes, targets.astype("int32")


def _fresh_path(save_to):
    path = Path(save_to)
    if path.suffix != ".keras":
        raise ValueError(f"`save_to` must end in .keras. Received: save_to={str(save_to)!r}")
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            raise FileExistsError(
                f"`save_to` must be new; load_features reads what is there. Received: {str(file)!r}"
            )
    return path


def _classifier(input_shape, num_classes, num_features, seed):
    def glorot(offset):
        return keras.initializers.GlorotUniform(seed=seed * 8 + offset)

    x = h = keras.Input(input_shape, name="x")
    for number, (filters, strides) in enumerate(((32, 1), (64, 2), (128, 2)), 1):
        h = keras.layers.Conv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            activation="relu",
            kernel_initializer=glorot(number),
            data_format="channels_last",
            name=f"conv_{number}",
        )(h)
    h = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(h)
    h = keras.layers.Dense(
        num_features, activation="relu", kernel_initializer=glorot(4), name=_FEATURE_LAYER
    )(h)
    logits = keras.layers.Dense(num_classes, kernel_initializer=glorot(5), name="logits")(h)
    return keras.Model(x, logits, name="classifier")


def _penultimate(model, details):
    network = keras.Model(model.inputs, model.get_layer(_FEATURE_LAYER).output, name="classifier")
    return FeatureNetwork(network, details=details)
