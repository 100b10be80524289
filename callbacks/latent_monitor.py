"""The latent code, watched in TensorBoard while it forms."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_integer, check_path, check_range, check_real, check_seed
from ..core.conditions import conditions_of, data_of, num_rows, take_rows
from ..core.files import check_writable
from ..losses import AuxiliarySoftmax, FlowGaussian, variance
from ..metrics import (
    active_dimensions,
    aggregate_moments,
    conditional_entropy,
    mutual_information,
    mutual_posterior_divergence,
)
from ..metrics.inputs import Encoded, NotMeasurable
from ..metrics.subject import as_subject, check_finite, check_shape
from . import _pictures
from ._data import watched_data
from ._gains import gain_statistics, normalization_layers, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import Array, ArrayLike, FilePath


class LatentMonitor(keras.callbacks.Callback):
    """Writes to TensorBoard what a `VAE` does with its latent code, on data held fixed.

    After each epoch, with the number of the epoch as the step:

    - scalars `latent/active_units`, `latent/rate`, `latent/distortion` (nats per example, one
      posterior draw), `kl_per_dimension/...` (nats, mean over the data), and `gamma/rms`,
      `gamma/min`, `gamma/max` of normalized means;
    - scalars `information/mutual_information` (at most log N),
      `information/mutual_posterior_divergence`, `information/conditional_entropy`,
      `information/marginal_divergence`, and against a prior without weights of its own
      `information/aggregate_divergence` (mean and covariance alone), in nats, as the functions of
      these names in `vaezoo.metrics` give them;
    - scalars `auxiliary/mutual_information`, `auxiliary/mutual_information_bound`,
      `auxiliary/marginal_divergence`, `auxiliary/classifier_loss` of a model with an
      `AuxiliarySoftmax`, averaged over the training data of the epoch (nats);
    - histograms `posterior/mean` and `posterior/variance`.

    Every `image_frequency` epochs and at the end:

    - images `latent/means` (posterior means by label, on their first two principal axes),
      `reconstructions` (inputs above reconstructions), `samples` (from the prior, always with the
      same noise) and `traversals` (of the active dimensions that vary most, around the first
      example). Data that are no images of one or three channels have only the first, and
      sentences, of which `to_text` makes text, `reconstructions` and `samples` as texts.

    A deterministic encoder has no rate and no variance, a prior that is a mixture no KL by
    dimension, a flow no mutual information at a bearable cost; these are left out. Active units
    and variances of a flow are those of the Gaussian that it bends. An autoregressive decoder makes
    its images value by value, so that there are few traversals; it reconstructs and traverses
    greedily. Training is not disturbed: everything runs in inference mode, compiled once, with
    random numbers of its own. On 1,000 images, numbers and histograms together take about 2 % of an
    epoch of MNIST's size (`benchmarks/README.md`), pictures 0.3 to 0.4 s.

    Args:
        data: Array `(N, *event)` with N of at least 2, such as a thousand test examples, or what
            else `fit` takes as validation data save a generator. Of `(x, y)` a y of the shape of x
            is the target: distortions are those of targets, and reconstructions stand between
            inputs and targets.
        labels: Optional array `(N,)` of numbers or strings that color `latent/means`; by default
            labels `(N,)` that go with `data`.
        log_dir: Folder for the event files. `tensorboard --logdir` shows it; it may be the one
            of `keras.callbacks.TensorBoard`.
        frequency: Positive int, epochs between scalars.
        image_frequency: Positive int, epochs between images, or None for no images at all.
        num_images: Positive int, examples that are reconstructed and drawn.
        num_traversals: Positive int, largest number of dimensions that are traversed.
        traversal_range: Pair of floats, least and largest value of a traversed dimension.
        threshold: Non-negative float, variance from which a dimension is active.
        max_dimensions: Positive int; a larger latent dimension has no `kl_per_dimension` beyond it.
        batch_size: Positive int, examples at once.
        seed: Int that fixes the draws.
        to_text: Optional function from ids `(n, length)` to a list of n strings, such as
            `lambda ids: vaezoo.data.to_text(ids, vocabulary)`.

    Raises:
        TypeError: If `data` are not numbers, or `to_text` cannot be called.
        ValueError: If an argument is out of range; before the first step, if the data do not fit
            the model.
        ImportError: If TensorFlow or TensorBoard is not installed.
        OSError: Before the first step, if nothing can be written to `log_dir`.

    Note: TensorFlow writes the files under every backend. Under another one it is told to leave
    GPUs alone, unless it uses them already.
    """

    def __init__(
        self,
        data: ArrayLike,
        labels: ArrayLike = None,
        log_dir: FilePath = "logs",
        frequency: int = 1,
        image_frequency: int | None = 10,
        num_images: int = 16,
        num_traversals: int = 10,
        traversal_range: Sequence[float] = (-3.0, 3.0),
        threshold: float = 0.01,
        max_dimensions: int = 64,
        batch_size: int = 256,
        seed: int = 0,
        to_text: Callable[[Array], list[str]] | None = None,
    ) -> None:
        super().__init__()
        self.data, self.target, found = watched_data(data)
        if self.target is not None:
            check_finite("data", self.target)
        if labels is None and np.ndim(found) == 1:
            labels = found
        self.labels = None if labels is None else _checked_labels(labels, num_rows(self.data))
        frequency = check_integer("frequency", frequency)
        image_frequency = check_integer("image_frequency", image_frequency, optional=True)
        num_images = check_integer("num_images", num_images)
        num_traversals = check_integer("num_traversals", num_traversals)
        max_dimensions = check_integer("max_dimensions", max_dimensions)
        batch_size = check_integer("batch_size", batch_size)
        seed = check_seed("seed", seed, optional=False)
        low, high = check_range("traversal_range", traversal_range)
        threshold = check_real("threshold", threshold, "[0, inf)")
        if to_text is not None and not callable(to_text):
            raise TypeError(
                f"`to_text` must be a function or None. Received: {type(to_text).__name__}"
            )
        for package in ("tensorflow", "tensorboard"):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    "`LatentMonitor` needs TensorFlow and TensorBoard to write event files: "
                    f"`pip install tensorflow tensorboard`. Missing: {package}"
                )
        self.log_dir = check_path("log_dir", log_dir)
        self.frequency, self.image_frequency = frequency, image_frequency
        self.num_images = min(num_images, num_rows(self.data))
        self.num_traversals, self.traversal_range = num_traversals, (float(low), float(high))
        self.threshold = threshold
        self.max_dimensions, self.batch_size, self.seed = max_dimensions, batch_size, seed
        self.to_text = to_text

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Tries the data on the model, and opens the event file."""
        self._terms()
        check_writable(self.log_dir, folder=True)
        self._summary = _tensorflow().summary
        self._writer = self._summary.create_file_writer(self.log_dir)
        self._undrawn: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes what is due after this epoch."""
        scalars = epoch % self.frequency == 0
        images = self.image_frequency is not None and epoch % self.image_frequency == 0
        self._undrawn = None if images else epoch
        if scalars or images:
            self._write(epoch, scalars, images)
        if scalars:
            self._write_auxiliary(epoch, logs or {})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Draws the final state and closes the event file."""
        if self.image_frequency is not None and self._undrawn is not None:
            self._write(self._undrawn, scalars=False, images=True)
        self._writer.close()

    def _terms(self):
        if not isinstance(self.data, dict):
            check_shape(self.model.encoder, self.data)
        return self.model.log_terms(
            self.data, seed=self.seed, batch_size=self.batch_size, target=self.target
        )

    def _write(self, epoch, scalars, images):
        terms = self._terms()
        posterior = Encoded(terms.posterior, as_subject(self.model))
        mean = terms.posterior.mean
        if not all(np.all(np.isfinite(part)) for part in terms.posterior):
            warnings.warn(
                f"Posterior means are not finite after epoch {epoch}: `LatentMonitor` writes "
                "nothing.",
                stacklevel=2,
            )
            return
        active = active_dimensions(posterior, threshold=self.threshold)
        # `keras.callbacks.TensorBoard` records some steps only, and would decide for us.
        with self._writer.as_default(step=epoch), self._summary.record_if(True):
            if scalars:
                self._write_scalars(terms, posterior, active)
            if images:
                self._write_images(mean, active)
        self._writer.flush()

    def _write_auxiliary(self, epoch, logs):
        with self._writer.as_default(step=epoch), self._summary.record_if(True):
            for name in AuxiliarySoftmax.report_names:
                if name in logs:
                    self._summary.scalar(f"auxiliary/{name}", logs[name])
        self._writer.flush()

    def _write_scalars(self, terms, posterior, active):
        summary = self._summary
        summary.scalar("latent/active_units", np.sum(active))
        summary.scalar("latent/distortion", np.mean(ops.convert_to_numpy(terms.distortion)))
        summary.histogram("posterior/mean", terms.posterior.mean)
        if np.all(np.isfinite(terms.kl)):
            summary.scalar("latent/rate", np.mean(terms.kl))
            flow = isinstance(terms.posterior, FlowGaussian)
            variances = variance(terms.posterior.base if flow else terms.posterior)
            summary.histogram("posterior/variance", ops.convert_to_numpy(variances))
        if terms.kl_per_dimension is not None:
            rates = np.mean(terms.kl_per_dimension, axis=0)[: self.max_dimensions]
            digits = len(str(len(rates) - 1))
            for dimension, rate in enumerate(rates):
                summary.scalar(f"kl_per_dimension/{dimension:0{digits}d}", rate)
        if np.all(np.isfinite(terms.kl)):
            self._write_information(posterior)
        gains = [layer for layer in normalization_layers(self.model) if target_of(layer)]
        for layer in gains:
            prefix = f"gamma/{layer.name}" if len(gains) > 1 else "gamma"
            for name, value in gain_statistics(layer).items():
                summary.scalar(f"{prefix}/{name}", value)

    def _write_information(self, posterior):
        options = {"seed": self.seed, "batch_size": self.batch_size}
        found = {
            "mutual_posterior_divergence": mutual_posterior_divergence(posterior).value,
            "conditional_entropy": conditional_entropy(posterior, **options).value,
        }
        # A flow has none: there are too many pairs to invert it for.
        with contextlib.suppress(NotMeasurable):
            information = mutual_information(posterior, **options)
            found["mutual_information"] = information.value
            found["marginal_divergence"] = information.extra["marginal_divergence"]
        # Draws from a learned prior, for its moments, may take as long as an epoch.
        if not self.model.prior.variables:
            found["aggregate_divergence"] = aggregate_moments(posterior, **options).divergence
        for name, value in found.items():
            if np.isfinite(value):
                self._summary.scalar(f"information/{name}", value)

    def _write_images(self, mean, active):
        image = self._summary.image
        image("latent/means", _pictures.draw_means(mean, self.labels)[None])
        if self.to_text is not None:
            self._write_texts(mean)
            return
        data = data_of(self.model.canonical(self.data))
        if not _pictures.is_image(data.shape[1:]):
            return
        num, inputs = self.num_images, data[: self.num_images]
        limits = _pictures.value_range(data)
        dimensions = self._traversed(mean, active)
        values = np.linspace(*self.traversal_range, _TRAVERSAL_STEPS, dtype="float32")
        codes = np.tile(mean[0], (len(dimensions), len(values), 1))
        for row, dimension in enumerate(dimensions):
            codes[row, :, dimension] = values
        decoded, traversed = self._decoded(mean[:num], codes.reshape(-1, mean.shape[1]))
        wanted = () if self.target is None else (self.target[:num],)
        pairs = np.concatenate([inputs, decoded, *wanted])
        image("reconstructions", _pictures.tile(pairs, num, limits)[None])
        samples = self.model.generate(
            num, seed=self.seed, batch_size=num, condition=self._condition(np.arange(num))
        )
        columns = int(np.ceil(np.sqrt(num)))
        image("samples", _pictures.tile(samples, columns, limits)[None])
        if dimensions.size:
            grid = _pictures.tile(traversed, len(values), limits)
            image("traversals", _pictures.draw_traversals(grid, dimensions, values)[None])

    def _condition(self, rows):
        """The conditions of some of the data, or None."""
        found = conditions_of(self.model.canonical(self.data))
        return None if found is None else take_rows(found, rows)

    def _write_texts(self, mean):
        num = self.num_images
        given = self._condition(np.arange(num))
        decoded = self.model.decode(mean[:num], batch_size=num, condition=given)
        data = data_of(self.model.canonical(self.data))
        pairs = zip(self.to_text(data[:num]), self.to_text(decoded), strict=True)
        self._summary.text("reconstructions", _table(("data", "reconstruction"), pairs))
        samples = self.model.generate(num, seed=self.seed, batch_size=num, condition=given)
        self._summary.text("samples", _table(("sample",), zip(self.to_text(samples))))

    def _decoded(self, *codes):
        """Decodes arrays of codes in batches of few sizes, since each size is compiled."""
        if self.model.autoregressive:
            joined = np.concatenate(codes)
            # Traversals begin at the first example.
            rows = np.concatenate([np.arange(len(codes[0])), np.zeros(len(codes[1]), int)])
            given = self._condition(rows)
            images = self.model.decode(joined, batch_size=len(codes[0]), condition=given)
            return np.split(images, [len(codes[0])])
        # Traversals a row at a time: how many rows there are changes.
        sizes = (len(codes[0]), _TRAVERSAL_STEPS)
        rows = np.arange(len(codes[0])), np.zeros(len(codes[1]), int)
        return [
            self.model.decode(part, batch_size=size, condition=self._condition(places))
            if len(part)
            else None
            for part, size, places in zip(codes, sizes, rows, strict=True)
        ]

    def _traversed(self, mean, active):
        dimensions = np.flatnonzero(active)
        spread = np.var(mean[:, dimensions], axis=0)
        most = self.num_traversals
        if self.model.autoregressive:
            most = min(most, _AUTOREGRESSIVE_TRAVERSALS)
        return np.sort(dimensions[np.argsort(-spread)[:most]])


_TRAVERSAL_STEPS, _AUTOREGRESSIVE_TRAVERSALS = 7, 3


def _checked_labels(labels, size):
    array = np.asarray(labels)
    if array.shape != (size,):
        raise ValueError(
            f"`labels` must have shape ({size},), one per example. Received: shape={array.shape}"
        )
    return array


def _table(heads, rows):
    """Markdown, which TensorBoard shows."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _tensorflow():
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        # It writes files only, and would take the memory of a GPU that another backend works on.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    return tf
