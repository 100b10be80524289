"""Images in folders of PNG and JPEG files."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .source import CORES, SPLIT_NAMES, Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


class FolderSource(Source):
    """PNG and JPEG files below a folder, sorted by path; subfolders are classes.

    Args:
        path: Folder that holds images, class folders of images, or one folder a split (`train`,
            `validation`, `test`) of either.
    """

    kind, streamed = "folder", True

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        folders = {entry.name: entry for entry in path.iterdir() if entry.is_dir()}
        names = ("train", "validation", "valid", "val", "test")
        splits = {SPLIT_NAMES.get(n, n): folders[n] for n in names if n in folders}
        found = {split: _image_files(root) for split, root in (splits or {"train": path}).items()}
        self.counts = {split: len(files) for split, files in found.items()}
        if not sum(self.counts.values()):
            raise ValueError(f"The folder '{path}' holds no {', '.join(IMAGE_SUFFIXES)} images")
        classes = {label for files in found.values() for _, label in files}
        if None in classes and len(classes) > 1:
            raise ValueError(
                f"The folder '{path}' holds images both in class folders and outside them"
            )
        self.classes = None if None in classes else sorted(classes)
        self.num_classes = None if self.classes is None else len(self.classes)
        self._files = {
            split: np.array([file for file, _ in files]) for split, files in found.items()
        }
        number = {label: i for i, label in enumerate(self.classes or ())}
        self._labels = {
            split: np.array([number[label] for _, label in files], "int32") if number else None
            for split, files in found.items()
        }
        self.shape = self._inspect(next(files for files in found.values() if files)[0][0])

    def _inspect(self, path):
        with _opened(path) as image:
            width, height = image.size
            mode = image.mode
        if mode not in EIGHT_BIT_MODES:
            raise ValueError(f"Images must have 8 bits a channel. Received: '{path}', mode {mode}")
        return height, width, 1 if mode in ("1", "L", "LA") else 3

    def check_sizes(self, geometry: Any) -> None:
        """Raises unless all images will have one size; reads headers where none is imposed."""
        if geometry.crop or geometry.size:
            return
        for path in (path for files in self._files.values() for path in files):
            height, width, _ = self._inspect(path)
            if (height, width) != self.shape[:2]:
                raise ValueError(
                    f"The images of {self.name!r} differ in size: pass `image_size` or `crop`. "
                    f"Received: {height}x{width} in '{path}', "
                    f"{self.shape[0]}x{self.shape[1]} in the first"
                )

    def labels(self, part: Any) -> Any:
        """Returns the labels of a part, or None."""
        y = self._labels[part.base]
        return None if y is None else y[part.index]

    def reader(self, part: Any, geometry: Any) -> Callable[..., Any]:
        """Returns a function from rows of the part to their stored images."""
        files = self._files[part.base][part.index]
        mode = "L" if self.shape[-1] == 1 else "RGB"

        def read(rows):
            images = []
            for path in files[rows]:
                with _opened(path) as image:
                    pixels = np.asarray(image.convert(mode))
                images.append(geometry(pixels.reshape(1, *pixels.shape[:2], -1))[0])
            return np.stack(images)

        return read

    def stream(self, part: Any, geometry: Any, ticks: Any, plan: Any) -> Any:
        """Returns a `tf.data.Dataset` of `(image, [label], row, tick)`, decoded in parallel.

        In the first epoch errors name the file that cannot be read.
        """
        import tensorflow as tf

        with tf.device("CPU:0"):
            files = tf.constant(self._files[part.base][part.index])
            y = self.labels(part)
            y = None if y is None else tf.constant(y)
        shape = geometry.shape(self.shape)
        read = functools.partial(_decoded, channels=self.shape[-1])

        def decode(tick):
            row = tick % plan.count
            # A call of Python for each image takes longer than the decoding of a small one.
            image = tf.cond(
                tick < plan.count,
                lambda: tf.numpy_function(read, [files[row]], tf.uint8),
                lambda: _decode(files[row], self.shape[-1]),
            )
            image.set_shape((None, None, self.shape[-1]))
            image = tf.ensure_shape(geometry.tensor(image), shape)
            return (image, *(() if y is None else (y[row],)), row, tick)

        return ticks.unbatch().map(decode, num_parallel_calls=CORES)


def _decode(path, channels):
    import tensorflow as tf

    return tf.io.decode_image(tf.io.read_file(path), channels=channels, expand_animations=False)


def _decoded(path, channels):
    """Reads an image outside of TensorFlow's graph, whose own error does not say which one."""
    import tensorflow as tf

    path = path.decode()
    try:
        return _decode(path, channels).numpy()
    except tf.errors.OpError as error:
        # Pillow's words are plainer, where it cannot read the file either.
        with _opened(path) as image:
            image.load()
        reason = re.sub(r"^{{.*?}} | \[Op:.*$", "", error.message)
    raise ValueError(f"'{path}' cannot be read as an image: {reason}")


@contextlib.contextmanager
def _opened(path):
    """Opens an image; raises a `ValueError` with its path if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"'{path}' is not a readable image") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"'{path}' has more pixels than the {2 * Image.MAX_IMAGE_PIXELS:,} that are read: "
            "make it smaller first"
        ) from error
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read as an image: {error}") from error


def _image_files(root):
    """Returns sorted `(path, class or None)` of the images below a folder."""
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        inside = Path(folder).relative_to(root).parts
        for file in files:
            if file.lower().endswith(IMAGE_SUFFIXES) and not file.startswith("."):
                found.append((os.path.join(folder, file), inside[0] if inside else None))
    return sorted(found, key=lambda item: (item[1] or "", item[0]))
