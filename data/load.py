"""`load`: any set of images or text as training batches; `load_arrays`: the same as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import EpochNumber, numbered
from ..core.checks import check_choice, check_flag
from . import pipeline
from .batches import resolved_backend, resolved_order
from .images import fixed_draw, fixed_draws, scaled
from .selection import select
from .sources import open_source
from .spec import FIELDS, OF_BATCHES, DataSpec, described_by, pair
from .text import describe_text, load_text, load_text_arrays, text_path

if TYPE_CHECKING:
    from typing import Any

MEMORY_LIMIT = 512 * 2**20


class DataInfo(NamedTuple):
    """Describes a split of a data set.

    Args:
        name: Name or path.
        split: The split asked for.
        num_examples: Number of examples.
        shape: Shape of one example, `(H, W, C)` or `(D,)`.
        num_classes: Number of classes, or None without labels.
        source: "embedded", "npz", "npy", "mat", "folder" or "tfds".
    """

    name: str
    split: str
    num_examples: int
    shape: tuple
    num_classes: int | None
    source: str


@described_by(DataSpec, [name for name in FIELDS if name != "length"])
def load(spec: DataSpec) -> Any:
    """Reads images or text from any source as batches for `fit` and `evaluate`.

    Sources, by name or path:

    - `"digits"`: the 1,797 digits of 8x8 pixels that come with scikit-learn, split by class into
      1,257 train, 180 validation and 360 test images;
    - an image set of tensorflow-datasets by its name (`"mnist"`, `"omniglot"`, `"cifar10"`,
      `"celeb_a"`, ...), read without network where it is prepared;
    - an `.npz` file with `x` (and `y`) or `x_train`, `x_validation`, `x_test` (and `y_...`), or an
      `.npy` file with images. Integers are scaled from 0..255 (sets of 0 and 1 alone: from 0..1),
      floating-point images must lie in [0, 1], booleans are 0 and 1;
    - the file `chardata.mat` of OMNIGLOT in 28x28 pixels that the importance-weighted autoencoder
      was published with: 24,345 train and 8,070 test images in gray, upright, labeled by alphabet;
    - a folder of PNG or JPEG images, sorted by path, its subfolders being classes, or `train`,
      `validation` and `test` holding either;
    - text, a sentence a line: a `.txt` or `.tsv` file, or a folder with `train.txt`, `valid.txt`
      and `test.txt`, by its path or by its name in `data_dir`. `load_text` says what becomes of it.

    Image sets of up to 512 MiB are held in memory as uint8; larger ones and folders stay on disk.

    Returns:
        Batches of x, or of `(x, y)` with labels: x float32 `(batch, H, W, C)`, of text int32
        `(batch, length)`, y int32 `(batch,)`. With an index, of `(x, {"index": index})` or
        `(x, {"index": index, "y": y})`, index int32 `(batch,)`. Order and batches are the same for
        equal arguments, and another in each epoch; both backends have the same order.

    Raises:
        ValueError: If an argument is out of range or of no use to such data, the set is unknown, or
            its content unusable.
        TypeError: If an argument is of the wrong kind.
        FileNotFoundError: If a file is missing, or a TFDS set not prepared.
        ImportError: If TensorFlow or tensorflow-datasets is needed and missing.

    Note:
        A TFDS set too large for memory is shuffled by file and through a buffer of 10,000
        examples; that order has no numpy counterpart.
        Fixed draws are equal on both backends for sets in memory and `.npy` files only.
    """
    text = text_path(spec.name_or_path, spec.data_dir)
    if text is not None:
        spec.refuse("text")
        return load_text(spec.replace(name_or_path=text, labels=_text_labels(spec.labels)))
    spec.refuse("images")
    backend = resolved_backend(spec.backend)
    batch_size = spec.batch_size or 128
    source = _open(spec)
    part = select(source, spec.split, spec.validation_split, spec.limit)
    geometry = _geometry(source, spec)
    source.check_sizes(geometry)
    binarize, in_memory, labels = spec.binarize, spec.in_memory, spec.labels
    copies = spec.copies if binarize == "fixed" else 1
    if copies > 1:
        if in_memory is False:
            raise ValueError(
                "`copies` above 1 needs the images in memory. Received: "
                f"copies={copies}, in_memory=False"
            )
        in_memory = True
    count = copies * len(part.index)
    shuffle, drop_remainder = resolved_order(
        spec.split, spec.shuffle, spec.drop_remainder, batch_size, count
    )
    plan = pipeline.BatchPlan(
        count=count,
        shape=geometry.shape(source.shape),
        batch_size=batch_size,
        shuffle=shuffle,
        drop_remainder=drop_remainder,
        seed=spec.seed,
        binarize=binarize,
        binarize_seed=spec.binarize_seed,
        value_range=spec.value_range,
        num_indices=len(part.index) if spec.with_index else None,
    )

    dtype = source.dtype(part)
    if in_memory is None:
        in_memory = source.kind != "folder" and plan.nbytes(dtype) <= MEMORY_LIMIT
    if in_memory or not source.streamed:
        x, y = source.read(part, geometry)
        if binarize == "fixed":
            x = fixed_draws(x, part, spec.binarize_seed, copies)
        y = _repeated(y, copies) if labels else None
        if backend == "tf":
            return pipeline.array_batches(x, y, plan)
        return pipeline.ImageBatches(x.__getitem__, y, plan)

    if backend == "tf" and source.stream is not None:
        epochs = EpochNumber()
        elements = source.stream(part, geometry, pipeline.ticks(plan, epochs), plan)
        return numbered(pipeline.element_batches(elements, part, plan, bool(labels)), epochs)

    stored = source.reader(part, geometry)

    def drawn(rows):
        return fixed_draw(stored(rows), part.index[rows], part.stream, spec.binarize_seed)

    read, dtype = (drawn, "uint8") if binarize == "fixed" else (stored, dtype)
    y = source.labels(part) if labels else None
    if backend == "tf":
        return pipeline.reader_batches(read, y, dtype, plan)
    return pipeline.ImageBatches(read, y, plan)


@described_by(DataSpec, [name for name in FIELDS if name not in OF_BATCHES])
def load_arrays(spec: DataSpec) -> tuple[Any, Any]:
    """Reads images or text from any source as arrays, in the order in which they are stored.

    Returns:
        `(x, y)`: x float32 `(n, H, W, C)`, of text int32 `(n, length)`; y int32 `(n,)`, or None
        without labels.

    Raises:
        ValueError: As in `load`, and for `binarize="dynamic"`.
    """
    text = text_path(spec.name_or_path, spec.data_dir)
    if text is not None:
        spec.refuse("text")
        return load_text_arrays(spec.replace(name_or_path=text, labels=_text_labels(spec.labels)))
    spec.refuse("images")
    check_choice("binarize", spec.binarize, (None, "fixed"))
    source = _open(spec)
    part = select(source, spec.split, spec.validation_split, spec.limit)
    geometry = _geometry(source, spec)
    source.check_sizes(geometry)
    x, y = source.read(part, geometry)
    if spec.binarize == "fixed":
        x = fixed_draws(x, part, spec.binarize_seed, spec.copies)
        y = _repeated(y, spec.copies)
    return pipeline.to_range(scaled(x), spec.value_range), y if spec.labels else None


_DESCRIBED = (
    "image_size", "channels", "crop", "labels", "validation_split", "limit", "vocabulary",
    "tokenizer", "max_size", "min_count", "num_classes", "max_length", "too_long", "buckets",
)  # fmt: skip


@described_by(DataSpec, _DESCRIBED, positional=("name_or_path", "split", "data_dir"))
def describe(spec: DataSpec) -> DataInfo:
    """Says what `load` would read, without reading the images of TFDS sets and folders.

    Returns:
        `DataInfo`; sides of images that differ in size are None. Of text `TextInfo` for batches of
        32 with no remainder dropped, with its vocabulary; a file of text is read for it.
    """
    text = text_path(spec.name_or_path, spec.data_dir)
    if text is not None:
        spec.refuse("text")
        # Whatever the size of its batches, a set can be described.
        labels = _text_labels(spec.labels)
        whole = spec.replace(name_or_path=text, labels=labels, drop_remainder=False)
        return describe_text(whole.replace(batch_size=None))
    spec.refuse("images")
    source = _open(spec.replace(download=False))
    part = select(source, spec.split, spec.validation_split, spec.limit)
    shape = _geometry(source, spec).shape(source.shape)
    return DataInfo(
        source.name, spec.split, len(part.index), shape, source.num_classes, source.kind
    )


def _text_labels(labels):
    auto = isinstance(labels, str) and labels == "auto"
    return "auto" if auto or check_flag("labels", labels) else False


def _open(spec):
    label = spec.labels if isinstance(spec.labels, str) else None
    return open_source(spec.name_or_path, spec.data_dir, spec.download, label)


def _geometry(source, spec):
    crop, size = pair("crop", spec.crop), pair("image_size", spec.image_size)
    return source.geometry(crop, size, spec.channels, spec.invert)


def _repeated(y, copies):
    return y if y is None or copies == 1 else np.concatenate([y] * copies)
