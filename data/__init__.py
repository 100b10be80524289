"""Images and text from any source as training batches.

Images come embedded, from TFDS, from array files and from folders; text from files.
"""

from .index import with_index
from .load import DataInfo, describe, load, load_arrays
from .spec import DataSpec
from .text import TextInfo, describe_text, load_text, load_text_arrays, to_ids, to_text
from .vocabulary import Vocabulary

__all__ = [
    "DataInfo",
    "DataSpec",
    "TextInfo",
    "Vocabulary",
    "describe",
    "describe_text",
    "load",
    "load_arrays",
    "load_text",
    "load_text_arrays",
    "to_ids",
    "to_text",
    "with_index",
]
