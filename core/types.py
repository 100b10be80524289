"""Kinds of values in signatures. Keras and the backends have no types of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

#: Tensor of the active backend, its Keras form, or a NumPy array in its place.
Tensor: TypeAlias = Any
#: NumPy array.
Array: TypeAlias = "np.ndarray[Any, Any]"
#: What NumPy makes an array of.
ArrayLike: TypeAlias = Any
#: Tuple or list of ints; the size of the batch may be None.
Shape: TypeAlias = Any
#: Integer in [0, 2^31), a `keras.random.SeedGenerator`, or None for another seed each time.
Seed: TypeAlias = Any
#: JSON values from which an object is made anew.
Config: TypeAlias = "dict[str, Any]"
#: One of the posterior values of `core.posteriors`.
Posterior: TypeAlias = Any
#: `VAE`, path of an exported SavedModel, or encoder `x -> (mean, log_var)`, any callable.
Model: TypeAlias = Any
#: Number, or schedule of the training step.
Weighting: TypeAlias = "float | Callable[[Any], Any]"
#: Name, configuration or object of Keras: an initializer, an activation, an optimizer.
KerasObject: TypeAlias = Any
#: Path of a file or folder.
FilePath: TypeAlias = "str | os.PathLike[str]"
#: Data of any kind that `fit` takes: arrays, `tf.data`, `PyDataset`, generators.
Examples: TypeAlias = Any
