"""`load`: any set of images or text as training batches; `load_arrays`: the same as arrays."""

from typing import NamedTuple

import numpy as np

from ..core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_integers,
    check_range,
    check_seed,
    is_integer,
    wrong,
)
from . import pipeline
from .batches import resolved_backend, resolved_order
from .images import fixed_draw, fixed_draws, scaled
from .selection import select
from .sources import open_source
from .text import describe_text, load_text, load_text_arrays, text_path

MEMORY_LIMIT = 512 * 2**20
#: Arguments that only images, or only text, have a use for, with their defaults.
OF_IMAGES = {
    "binarize": None,
    "binarize_seed": 777,
    "copies": 1,
    "image_size": None,
    "channels": None,
    "crop": None,
    "invert": None,
    "value_range": (0.0, 1.0),
    "download": False,
}
OF_TEXT = {
    "vocabulary": None,
    "tokenizer": None,
    "max_size": None,
    "min_count": 1,
    "num_classes": None,
    "max_length": None,
    "too_long": "error",
    "buckets": None,
    "length": None,
}


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


def load(
    name_or_path,
    split="train",
    *,
    batch_size=None,
    binarize=None,
    shuffle=None,
    seed=0,
    binarize_seed=777,
    copies=1,
    image_size=None,
    channels=None,
    crop=None,
    invert=None,
    value_range=(0.0, 1.0),
    labels=True,
    with_index=False,
    validation_split=None,
    limit=None,
    drop_remainder=None,
    in_memory=None,
    backend="auto",
    data_dir=None,
    download=False,
    vocabulary=None,
    tokenizer=None,
    max_size=None,
    min_count=1,
    num_classes=None,
    max_length=None,
    too_long="error",
    buckets=None,
):
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

    Args:
        name_or_path: Name or path of the set.
        split: Split, with an optional slice of it: `"train"`, `"train[:1000]"`, `"test[10%:]"`. A
            source without a validation split holds out part of `"train"` for `"validation"`.
        batch_size: Positive int; by default 128 images or 32 sentences.
        binarize: None for gray levels; "dynamic" for a fresh Bernoulli(pixel) draw at each
            presentation; "fixed" for one draw an example, whatever order and batch size. Of images
            only, as are the arguments from `binarize_seed` to `value_range`, and `download`.
        shuffle: Whether each epoch has a random order; by default the train split only.
        seed: Non-negative int; fixes the order and the dynamic draws of each epoch.
        binarize_seed: Non-negative int; fixes the fixed draw. 777 is customary.
        copies: Positive int, fixed draws of each example: so many sets, one after the other. The
            first is that of `copies=1`. Has no effect on other kinds of `binarize`.
        image_size: Int or `(height, width)` to resize to (bilinear, antialiased), or None.
        channels: 1 or 3 to convert to gray or RGB, or None.
        crop: Int or `(height, width)` of a center crop before resizing. By default 140 for
            `"celeb_a"`, none elsewhere.
        invert: Whether to hand out 1 - x. By default for `"omniglot"` only, whose strokes are 0:
            ink is 1 in every set.
        value_range: `(low, high)` that black and white are mapped to.
        labels: True (of text, "auto" means the same) for labels where there are any, False for
            none, or the name of the TFDS feature that holds them. Of OMNIGLOT, `"characters"` gives
            alphabet and character, y int32 `(batch, 2)`, what `metrics.alphabet_probe` reads.
        with_index: Whether each example goes with its index, for objectives that tell the
            training examples apart. It is the place 0..n-1 among the n examples that `split`,
            `validation_split` and `limit` select, as `load_arrays` has them and `describe` counts
            them: the same in each epoch, order and backend. All `copies` of an example share its
            index, as its dynamic draws do.
        validation_split: Part of the train split held out for `"validation"`, as a fraction or a
            count: `"train"` is then the rest. By default `"train"` is whole, and `"validation"` a
            twelfth of it, with a warning. Held out is the end of TFDS sets, which are stored in
            random order, and evenly spaced examples of other sources, which may be sorted.
        limit: Largest number of examples, the first ones of the split, or None.
        drop_remainder: Whether an incomplete last batch is left out; by default when shuffling.
        in_memory: True or False to overrule the choice by size.
        backend: "tf" for a `tf.data.Dataset`, "numpy" for a `keras.utils.PyDataset`, "auto" for
            the former where TensorFlow is installed.
        data_dir: Folder of prepared TFDS sets, and of folders of text; by default the environment
            variable TFDS_DATA_DIR, else TFDS' own default.
        download: Whether TFDS may fetch and prepare a missing set.
        vocabulary: Of text only, as all below: `Vocabulary` or the path of its file, as in
            `load_text`. Validation and test data in single files need that of the training file.
        tokenizer: As in `load_text`.
        max_size: As in `load_text`.
        min_count: As in `load_text`.
        num_classes: As in `load_text`.
        max_length: As in `load_text`.
        too_long: As in `load_text`.
        buckets: As in `load_text`.

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
        examples; that order also depends on `tf.random.set_seed` and has no numpy counterpart.
        Fixed draws are equal on both backends for sets in memory and `.npy` files only.
    """
    of_text = {
        "vocabulary": vocabulary,
        "tokenizer": tokenizer,
        "max_size": max_size,
        "min_count": min_count,
        "num_classes": num_classes,
        "max_length": max_length,
        "too_long": too_long,
        "buckets": buckets,
    }
    with_index = check_flag("with_index", with_index)
    download = check_flag("download", download)
    shuffle = check_flag("shuffle", shuffle, optional=True)
    drop_remainder = check_flag("drop_remainder", drop_remainder, optional=True)
    in_memory = check_flag("in_memory", in_memory, optional=True)
    invert = check_flag("invert", invert, optional=True)
    text = text_path(name_or_path, data_dir)
    if text is not None:
        _refuse(
            name_or_path, "text", binarize=binarize, binarize_seed=binarize_seed, copies=copies,
            image_size=image_size, channels=channels, crop=crop, invert=invert,
            value_range=value_range, download=download,
        )  # fmt: skip
        return load_text(
            text, split, batch_size=32 if batch_size is None else batch_size,
            labels=_text_labels(labels), shuffle=shuffle, seed=seed, drop_remainder=drop_remainder,
            with_index=with_index, validation_split=validation_split, limit=limit,
            in_memory=in_memory, backend=backend, **of_text,
        )  # fmt: skip
    _refuse(name_or_path, "images", **of_text)
    batch_size = 128 if batch_size is None else batch_size
    backend = resolved_backend(backend)
    check_choice("binarize", binarize, (None, "dynamic", "fixed"))
    batch_size = check_integer("batch_size", batch_size, 1)
    value_range = _checked_range(value_range, binarize)
    seed = check_seed("seed", seed, optional=False)
    binarize_seed = check_seed("binarize_seed", binarize_seed, optional=False)
    copies = check_integer("copies", copies, 1)
    source = _open(name_or_path, data_dir, download, labels)
    part = select(source, split, validation_split, limit)
    geometry = _geometry(source, crop, image_size, channels, invert)
    source.check_sizes(geometry)
    copies = copies if binarize == "fixed" else 1
    if copies > 1:
        if in_memory is False:
            raise ValueError(
                "`copies` above 1 needs the images in memory. Received: "
                f"copies={copies}, in_memory=False"
            )
        in_memory = True
    count = copies * len(part.index)
    shuffle, drop_remainder = resolved_order(split, shuffle, drop_remainder, batch_size, count)
    plan = pipeline.BatchPlan(
        count=count,
        shape=geometry.shape(source.shape),
        batch_size=batch_size,
        shuffle=shuffle,
        drop_remainder=drop_remainder,
        seed=seed,
        binarize=binarize,
        binarize_seed=binarize_seed,
        value_range=value_range,
        num_indices=len(part.index) if with_index else None,
    )

    dtype = source.dtype(part)
    if in_memory is None:
        in_memory = source.kind != "folder" and plan.nbytes(dtype) <= MEMORY_LIMIT
    if in_memory or not source.streamed:
        x, y = source.read(part, geometry)
        if binarize == "fixed":
            x = fixed_draws(x, part, binarize_seed, copies)
        y = _repeated(y, copies) if labels else None
        if backend == "tf":
            return pipeline.array_batches(x, y, plan)
        return pipeline.ImageBatches(x.__getitem__, y, plan)

    if backend == "tf" and source.kind != "npy":
        elements = source.stream(part, geometry, pipeline.ticks(plan), plan)
        return pipeline.element_batches(elements, part, plan, bool(labels))

    stored = source.reader(part, geometry)

    def drawn(rows):
        return fixed_draw(stored(rows), part.index[rows], part.stream, binarize_seed)

    read, dtype = (drawn, "uint8") if binarize == "fixed" else (stored, dtype)
    y = source.labels(part) if labels else None
    if backend == "tf":
        return pipeline.reader_batches(read, y, dtype, plan)
    return pipeline.ImageBatches(read, y, plan)


def load_arrays(
    name_or_path,
    split="train",
    *,
    binarize=None,
    binarize_seed=777,
    copies=1,
    image_size=None,
    channels=None,
    crop=None,
    invert=None,
    value_range=(0.0, 1.0),
    labels=True,
    validation_split=None,
    limit=None,
    data_dir=None,
    download=False,
    vocabulary=None,
    tokenizer=None,
    max_size=None,
    min_count=1,
    num_classes=None,
    max_length=None,
    too_long="error",
    length=None,
):
    """Reads images or text from any source as arrays, in the order in which they are stored.

    Args:
        name_or_path: Name or path of the set, as in `load`.
        split: Split, with an optional slice, as in `load`.
        binarize: None for gray levels, "fixed" for one Bernoulli(pixel) draw.
        binarize_seed: As in `load`.
        copies: As in `load`.
        image_size: As in `load`.
        channels: As in `load`.
        crop: As in `load`.
        invert: As in `load`.
        value_range: As in `load`.
        labels: As in `load`.
        validation_split: As in `load`.
        limit: As in `load`.
        data_dir: As in `load`.
        download: As in `load`.
        vocabulary: Of text only, as in `load`, as are all below.
        tokenizer: As in `load`.
        max_size: As in `load`.
        min_count: As in `load`.
        num_classes: As in `load`.
        max_length: As in `load`.
        too_long: As in `load`.
        length: Length of x, as in `load_text_arrays`.

    Returns:
        `(x, y)`: x float32 `(n, H, W, C)`, of text int32 `(n, length)`; y int32 `(n,)`, or None
        without labels.

    Raises:
        ValueError: As in `load`, and for `binarize="dynamic"`.
    """
    of_text = {
        "vocabulary": vocabulary,
        "tokenizer": tokenizer,
        "max_size": max_size,
        "min_count": min_count,
        "num_classes": num_classes,
        "max_length": max_length,
        "too_long": too_long,
        "length": length,
    }
    download = check_flag("download", download)
    invert = check_flag("invert", invert, optional=True)
    text = text_path(name_or_path, data_dir)
    if text is not None:
        _refuse(
            name_or_path, "text", binarize=binarize, binarize_seed=binarize_seed, copies=copies,
            image_size=image_size, channels=channels, crop=crop, invert=invert,
            value_range=value_range, download=download,
        )  # fmt: skip
        return load_text_arrays(
            text, split, labels=_text_labels(labels), validation_split=validation_split,
            limit=limit, **of_text,
        )  # fmt: skip
    _refuse(name_or_path, "images", **of_text)
    check_choice("binarize", binarize, (None, "fixed"))
    value_range = _checked_range(value_range, binarize)
    binarize_seed = check_seed("binarize_seed", binarize_seed, optional=False)
    copies = check_integer("copies", copies, 1)
    source = _open(name_or_path, data_dir, download, labels)
    part = select(source, split, validation_split, limit)
    geometry = _geometry(source, crop, image_size, channels, invert)
    source.check_sizes(geometry)
    x, y = source.read(part, geometry)
    if binarize == "fixed":
        x, y = fixed_draws(x, part, binarize_seed, copies), _repeated(y, copies)
    return pipeline.to_range(scaled(x), value_range), y if labels else None


def describe(
    name_or_path,
    split="train",
    data_dir=None,
    *,
    image_size=None,
    channels=None,
    crop=None,
    labels=True,
    validation_split=None,
    limit=None,
    vocabulary=None,
    tokenizer=None,
    max_size=None,
    min_count=1,
    num_classes=None,
    max_length=None,
    too_long="error",
    buckets=None,
):
    """Says what `load` would read, without reading the images of TFDS sets and folders.

    Args:
        name_or_path: Name or path of the set, as in `load`.
        split: Split, with an optional slice, as in `load`.
        data_dir: Folder of prepared TFDS sets, as in `load`.
        image_size: As in `load`.
        channels: As in `load`.
        crop: As in `load`.
        labels: As in `load`.
        validation_split: As in `load`.
        limit: As in `load`.
        vocabulary: Of text only, as in `load`, as are all below.
        tokenizer: As in `load`.
        max_size: As in `load`.
        min_count: As in `load`.
        num_classes: As in `load`.
        max_length: As in `load`.
        too_long: As in `load`.
        buckets: As in `load`.

    Returns:
        `DataInfo`; sides of images that differ in size are None. Of text `TextInfo` for batches of
        32 with no remainder dropped, with its vocabulary; a file of text is read for it.
    """
    of_text = {
        "vocabulary": vocabulary,
        "tokenizer": tokenizer,
        "max_size": max_size,
        "min_count": min_count,
        "num_classes": num_classes,
        "max_length": max_length,
        "too_long": too_long,
        "buckets": buckets,
    }
    text = text_path(name_or_path, data_dir)
    if text is not None:
        _refuse(name_or_path, "text", image_size=image_size, channels=channels, crop=crop)
        # Whatever the size of its batches, a set can be described.
        return describe_text(
            text, split, labels=_text_labels(labels), drop_remainder=False,
            validation_split=validation_split, limit=limit, **of_text,
        )  # fmt: skip
    _refuse(name_or_path, "images", **of_text)
    source = _open(name_or_path, data_dir, False, labels)
    part = select(source, split, validation_split, limit)
    shape = _geometry(source, crop, image_size, channels, None).shape(source.shape)
    return DataInfo(source.name, split, len(part.index), shape, source.num_classes, source.kind)


def _refuse(name_or_path, held, **given):
    """Raises unless arguments that are of no use to such data have their defaults."""
    defaults, other = {"text": (OF_IMAGES, "images"), "images": (OF_TEXT, "text")}[held]
    for argument, value in given.items():
        default = defaults[argument]
        plain = tuple(value) if hasattr(value, "tolist") and value.ndim else value
        if value is not default and plain != default:
            raise ValueError(
                f"`{argument}` is of {other}, but '{name_or_path}' holds {held}. Received: "
                f"{argument}={value!r}"
            )


def _text_labels(labels):
    auto = isinstance(labels, str) and labels == "auto"
    return "auto" if auto or check_flag("labels", labels) else False


def _open(name_or_path, data_dir, download, labels):
    label = labels if isinstance(labels, str) else None
    if label is None and type(labels).__name__ not in ("bool", "bool_"):
        raise wrong("labels", "True, False or the name of a feature", labels)
    return open_source(name_or_path, data_dir, download, label)


def _repeated(y, copies):
    return y if y is None or copies == 1 else np.concatenate([y] * copies)


def _geometry(source, crop, image_size, channels, invert):
    channels = check_choice("channels", channels, (None, 1, 3))
    crop, size = _pair("crop", crop), _pair("image_size", image_size)
    return source.geometry(crop, size, channels, invert)


def _pair(name, value):
    pair = (value, value) if is_integer(value) else value
    rule = "a positive integer or a pair of them"
    return check_integers(name, pair, length=2, optional=True, rule=rule)


def _checked_range(value_range, binarize):
    low, high = check_range("value_range", value_range)
    if binarize and (low, high) != (0.0, 1.0):
        raise ValueError(
            "`binarize` needs `value_range=(0.0, 1.0)`: pixels are probabilities. "
            f"Received: binarize={binarize!r}, value_range={value_range!r}"
        )
    return low, high
