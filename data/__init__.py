"""Images from any source as training batches: embedded, TFDS, array files and image folders."""

from .index import with_index
from .load import DataInfo, describe, load, load_arrays

__all__ = ["DataInfo", "describe", "load", "load_arrays", "with_index"]
