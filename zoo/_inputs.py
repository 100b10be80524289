"""Reads what users give as data: one place for each rule."""

import keras
import numpy as np


def as_rows(name, value, kinds="an array"):
    """Returns rows of numbers as an array.

    Args:
        name: Name of the argument.
        value: Array, tensor, or anything with `to_numpy` such as a DataFrame.
        kinds: What the argument may be, for the error.

    Returns:
        NumPy array, or the tensor of the backend that was given.

    Raises:
        TypeError: If it is no array, or does not hold real numbers.
    """
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if not (hasattr(value, "dtype") and hasattr(value, "shape")) or hasattr(value, "element_spec"):
        hint = " (turn it into one with `np.asarray`)" if isinstance(value, (list, tuple)) else ""
        raise TypeError(f"`{name}` must be {kinds}{hint}. Received: {_described(value)}")
    if type(value).__name__ == "RaggedTensor":
        raise TypeError(
            f"`{name}` must have rows of one length; pad them with `.to_tensor()`. Received: "
            "a RaggedTensor"
        )
    if hasattr(value, "tocsr") or "Sparse" in type(value).__name__:
        raise TypeError(f"`{name}` must be dense. Received: a {type(value).__name__}")
    if isinstance(value, np.ndarray):
        # Not a masked array, whose statistics leave out what training does not.
        value = np.asarray(value)
    dtype = getattr(value.dtype, "name", None) or str(value.dtype)
    if not dtype.startswith(("float", "bfloat", "int", "uint", "bool")):
        raise TypeError(f"`{name}` must hold real numbers. Received: dtype={dtype}")
    return value


def _described(value):
    if isinstance(value, dict):
        keys = ", ".join(repr(key) for key in value)
        return f"a dict with the keys {keys}; give one of its values" if value else "an empty dict"
    if hasattr(value, "element_spec") or isinstance(value, keras.utils.PyDataset):
        return f"a data set ({type(value).__name__}); give one batch after the other"
    if isinstance(value, str):
        return f"str {value[:40]!r}"
    return type(value).__name__
