"""A classifier of labels that is trained beside a model, on its codes."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import shown
from ..core.posteriors import float32
from .auxiliary_softmax import AuxiliarySoftmax
from .objective import Loss

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, ArrayLike, KerasObject, Tensor
    from .objective import Terms


@keras.saving.register_keras_serializable(package="vaezoo")
class LabelClassifier(AuxiliarySoftmax):
    """Trains a classifier of labels on the codes of a model, and leaves the model as it is.

        loss of the classifier = mean -log s(y_b|z_b),   z_b ~ q(z|x_b)    (nats)

    In each step the classifier learns once from the codes that the model has drawn, by an optimizer
    of its own; no gradient reaches the model. It sees the codes of the whole training, as the
    classifier of mu-VAE does, where `metrics.classifier_probe` trains one on the final codes. The
    logs show `classifier_loss`, during training only.

    Example:
        probe = losses.LabelClassifier(y, keras.layers.Dense(64, "relu"), layers.FlatSoftmax(10))
        model.add_regularizer(probe)
        model.compile("adam")
        model.fit(x)
        accuracy = np.mean(probe.classify(model.encode(x_test).mean) == y_test)

    Args:
        labels: Labels of the training examples, int `(N,)` in [0, V), in stored order; or the text
            by which `get_config` keeps them. The index of each example comes with the batches, see
            `VAE.fit`.
        network: Keras layer `(batch, D) -> (batch, H)`, the hidden layers of the classifier.
        softmax: `vaezoo.layers.FlatSoftmax` or `HierarchicalSoftmax` of V classes over
            `(batch, H)`.
        optimizer: Keras optimizer of the classifier, or its name.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If labels are no classes of the softmax.

    Reference: mu-VAE, the classifier trained along with the model.
    """

    report_names = ("classifier_loss",)
    needs_density = False

    def __init__(
        self,
        labels: ArrayLike | str,
        network: keras.layers.Layer,
        softmax: keras.layers.Layer,
        optimizer: KerasObject = "adam",
        **kwargs: Any,
    ) -> None:
        found = _read(labels)
        classes = getattr(softmax, "num_classes", None)
        if found.ndim != 1 or len(found) < 2 or found.dtype.kind not in "iu":
            raise ValueError(
                "`labels` must be at least two integers, a label for each training example. "
                f"Received: labels={shown(labels)}, shape {found.shape}, dtype {found.dtype}"
            )
        if classes is not None and not (found.min() >= 0 and found.max() < classes):
            raise ValueError(
                "`labels` must be classes of `softmax`, from 0 on. Received: "
                f"labels={shown(labels)}, from {found.min()} to {found.max()}, "
                f"softmax.num_classes={classes}"
            )
        super().__init__(
            0.0,
            0.0,
            num_examples=max(len(found), classes or 0),
            network=network,
            softmax=softmax,
            estimator="ce",
            optimizer=optimizer,
            **kwargs,
        )
        self.num_examples = len(found)
        self._labels = found.astype("int32")

    @property
    def labels(self) -> str:
        """The labels as text, which a configuration can hold."""
        content = zlib.compress(np.asarray(self._labels, "<i4").tobytes(), 9)
        return base64.b64encode(content).decode("ascii")

    def call(self, terms: Terms, training: bool = False) -> Loss:
        """Trains the classifier; adds nothing to the model's loss."""
        nothing = ops.zeros_like(terms.kl)
        if not training:
            return Loss(nothing, 0.0, {})
        self.check_index(terms)
        z = ops.stop_gradient(float32(terms.z))
        samples, latent_dim = z.shape[1:]
        z = ops.reshape(z, (-1, latent_dim))
        label = ops.repeat(self.label_of(terms.index), samples)
        log_s = self.softmax.log_prob(float32(self.network(z)), label)
        loss = -ops.mean(ops.reshape(ops.stop_gradient(log_s), (-1, samples)), axis=1)
        self.update(z, label)
        return Loss(nothing, 0.0, {"classifier_loss": loss})

    def classify(self, z: Tensor) -> Array:
        """Returns the likeliest label of each code.

        Args:
            z: Codes `(n, D)`, such as posterior means.

        Returns:
            NumPy int `(n,)`.
        """
        h = float32(self.network(ops.convert_to_tensor(z, "float32")))
        return ops.convert_to_numpy(ops.argmax(self.softmax.probabilities(h), axis=-1))


def _read(labels):
    if not isinstance(labels, str):
        return np.asarray(labels)
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(labels, validate=True)), "<i4")
    except (ValueError, zlib.error):
        raise ValueError(
            "`labels` must be integers, or the text that `get_config` makes of them. Received: "
            f"labels={shown(labels)}"
        ) from None
