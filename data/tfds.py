"""Image sets of tensorflow-datasets."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
from typing import TYPE_CHECKING

import numpy as np

from .source import CORES, Source, tensorflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..core.types import FilePath

SHUFFLE_BUFFER = 10_000


class TFDSSource(Source):
    """The feature `image` of a set of tensorflow-datasets, with `label` where it has one.

    Args:
        name: TFDS name.
        builder: The set's prepared builder.
        label: Name of the label's feature, or None for `label` if it exists.
    """

    kind, streamed, mixed = "tfds", True, True

    def __init__(self, name: str, builder: Any, label: str | None = None) -> None:
        self.name, self._builder = name, builder
        features = builder.info.features
        if features["image"].np_dtype != np.uint8:
            raise ValueError(
                f"Images must be uint8. Received: {features['image'].np_dtype} in {name!r}"
            )
        numeric = [key for key in features if key != "image" and _is_number(features[key])]
        # Aligned faces fill the middle of 178x218; strokes are 0 on 255, while ink is 1 elsewhere.
        base = name.split("/")[0].split(":")[0]
        self.crop = (140, 140) if base == "celeb_a" else None
        self.invert = base == "omniglot"
        characters = label == "characters" and base == "omniglot"
        if label is not None and label not in numeric and not characters:
            raise ValueError(
                f"`labels` must name a numeric feature of {name!r}: {sorted(numeric)}. "
                f"Received: labels={label!r}"
            )
        chosen = label or ("label" if "label" in numeric else None)
        self._labels = ("alphabet", "label") if characters else (chosen,) if chosen else ()
        self.counts = {split: info.num_examples for split, info in builder.info.splits.items()}
        self.shape = tuple(features["image"].shape)
        self.num_classes = getattr(
            features[self._labels[0]] if len(self._labels) == 1 else None, "num_classes", None
        )

    def _stored(self, part, geometry, with_rows=False):
        """Returns two functions: one that opens the part as it is stored, and one that decodes.

        The first gives a `tf.data.Dataset` of encoded examples; with a seed, int64, files and
        examples are shuffled. The second makes `(image, [label], row)` of one. The row is that in
        the part, and 0 unless `with_rows`.
        """
        import tensorflow as tf
        import tensorflow_datasets as tfds

        wanted = dict.fromkeys(("image", *self._labels), True)
        decoders = tfds.decode.PartialDecoding(
            wanted, decoders={"image": tfds.decode.SkipDecoding()}
        )
        split = f"{part.base}[{part.index[0]}:{part.index[-1] + 1}]"

        def opened(split=split, seed=None):
            # By default 16 files take turns; stored order, which slices are cut from, has one by
            # one.
            turns = {"interleave_cycle_length": 1} if seed is None else {}
            config = tfds.ReadConfig(
                try_autocache=False, shuffle_seed=seed, add_tfds_id=with_rows, **turns
            )
            with _without_warning():
                elements = self._builder.as_dataset(
                    split=split,
                    decoders=decoders,
                    read_config=config,
                    shuffle_files=seed is not None,
                )
            if seed is None:
                return elements
            # Encoded images are shuffled: the buffer holds 10,000 files, not 10,000 pictures.
            return elements.shuffle(min(SHUFFLE_BUFFER, len(part.index)), seed=seed)

        def raw(example):
            image = tf.io.decode_image(
                example["image"], channels=self.shape[-1], expand_animations=False
            )
            image.set_shape(self.shape)
            return image

        # Sets such as `binarized_mnist` store 0 and 1, which the first examples show.
        head = opened(part.base).take(64).map(lambda example: tf.reduce_max(raw(example)))
        factor = 255 if max(head.as_numpy_iterator()) <= 1 else 1
        shape = geometry.shape(self.shape)
        row = _row_of_id(self._builder.info.splits[split].file_instructions)

        def decode(example):
            image = tf.ensure_shape(geometry.tensor(raw(example) * factor), shape)
            label = [_narrow(example[key]) for key in self._labels]
            label = [tf.stack(label)] if len(label) > 1 else label
            return (image, *label, row(example["tfds_id"]) if with_rows else np.int64(0))

        return opened, decode

    def read(self, part: Any, geometry: Any) -> Any:
        """Returns stored images `(n, H, W, C)` and labels `(n,)` or None, all in memory."""
        tensorflow(f"reading {self.name!r}")
        count, row = len(part.index), 0
        x: Any = None
        y: Any = None
        opened, decode = self._stored(part, geometry)
        elements = opened().map(decode, num_parallel_calls=CORES)
        for images, *labels, _ in elements.batch(1024).as_numpy_iterator():
            if x is None:
                x = np.empty((count, *images.shape[1:]), images.dtype)
                y = np.empty((count, *labels[0].shape[1:]), labels[0].dtype) if labels else None
            x[row : row + len(images)] = images
            if labels:
                y[row : row + len(images)] = labels[0]
            row += len(images)
        if row != count:
            raise ValueError(f"{self.name!r} announces {count} examples, but holds {row}")
        return x, y

    def reader(self, part: Any, geometry: Any) -> None:
        """Refuses: the stored files are read in sequence."""
        raise ValueError(
            f"{self.name!r} does not fit in memory and can only be streamed by `backend='tf'`: "
            "use that, a `limit`, or `in_memory=True`. Received: backend='numpy'"
        )

    def stream(self, part: Any, geometry: Any, ticks: Any, plan: Any) -> Any:
        """Returns a `tf.data.Dataset` of `(image, [label], row, tick)` from the stored files."""
        import tensorflow as tf

        with_rows = plan.binarize == "fixed" or plan.num_indices is not None
        opened, decode = self._stored(part, geometry, with_rows)

        @tf.autograph.experimental.do_not_convert
        def of_epoch(ticks):
            # The seed of this function alone, in place of the process's: an epoch is to have one
            # order wherever it is read. Zeros would stand for a random one.
            tf.random.set_seed(plan.seed + 1)
            elements = opened(seed=ticks[0] // plan.count + 1) if plan.shuffle else opened()
            return tf.data.Dataset.zip(elements, tf.data.Dataset.from_tensor_slices(ticks))

        return ticks.flat_map(of_epoch).map(
            lambda example, tick: (*decode(example), tick), num_parallel_calls=CORES
        )


@contextlib.contextmanager
def _without_warning() -> Iterator[None]:
    """Leaves out the warning of a property that partial decoding reads itself (TFDS 4.9)."""
    logger = logging.getLogger("absl")

    def wanted(record):
        return "`FeatureConnector.dtype` is deprecated" not in record.getMessage()

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def _row_of_id(files):
    """Returns a function from a TFDS id to the row in the part that is read from `files`.

    An id is the name of a file and the place in it, `"mnist-train.tfrecord-00000-of-00001__42"`.
    """
    import tensorflow as tf

    names = np.array([file.basename() for file in files])
    ends = np.cumsum([file.take for file in files])
    starts = np.array([end - file.take - file.skip for end, file in zip(ends, files, strict=True)])

    def row(name):
        file = tf.strings.regex_replace(name, "__[0-9]+$", "")
        place = tf.strings.to_number(tf.strings.split(name, "__")[-1], tf.int64)
        # A name that is none of them has no first match: an error, not a wrong row.
        return tf.boolean_mask(starts, tf.equal(names, file))[0] + place

    return row


def _is_number(feature):
    try:
        return np.dtype(feature.np_dtype).kind in "biuf"
    except TypeError:
        return False


def _narrow(label):
    import tensorflow as tf

    return tf.cast(label, tf.float32 if label.dtype.is_floating else tf.int32)


def open_tfds(name: str, data_dir: FilePath | None, download: bool, label: Any) -> Any:
    """Opens a prepared set, or prepares it; raises LookupError on a name unknown to TFDS."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{name!r} is no file, folder or embedded set, and looking it up by name needs "
            "tensorflow-datasets: pip install tensorflow-datasets importlib_resources"
        ) from error
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir))
    except ValueError as error:
        unknown = isinstance(error, tfds.core.registered.DatasetNotFoundError)
        if unknown or "Parsing builder name" in str(error):
            raise LookupError(name) from error
        raise
    if "image" not in builder.info.features:
        raise ValueError(
            f"An image set needs a feature `image`. Received: {name!r}, which has "
            f"{sorted(builder.info.features)}"
        )
    if download:
        builder.download_and_prepare()
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{name!r} is not prepared: '{builder.data_dir}' is missing or empty. Pass "
            "download=True to fetch and prepare it, or `data_dir` (or the environment variable "
            "TFDS_DATA_DIR) naming a folder that holds it prepared"
        )
    return TFDSSource(name, builder, label)


def nearest(name: str) -> list[str]:
    """Returns up to three known names that resemble an unknown one."""
    import tensorflow_datasets as tfds

    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    return difflib.get_close_matches(name.lower(), known)
