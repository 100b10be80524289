"""Sources of batches that lie ready, for tests of what takes data of any kind."""

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Holds batches as Keras takes them, in their order.

    Args:
        batches: Sequence of batches.
        **kwargs: Keyword arguments of `keras.utils.PyDataset`.
    """

    def __init__(self, batches, **kwargs):
        super().__init__(**kwargs)
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        return self.batches[i]


def in_batches(size, *arrays):
    """Lists the batches `(rows of each array, ...)` of arrays of equal lengths."""
    starts = range(0, len(arrays[0]), size)
    return [tuple(array[start : start + size] for array in arrays) for start in starts]


class Frame:
    """As a DataFrame or Series of pandas: no array, but `to_numpy`.

    Args:
        values: Array; of objects where None stands for a missing value.
        dtypes: Optional dtypes of the columns.
    """

    def __init__(self, values, dtypes=()):
        self.values, self.dtypes = values, dtypes

    def __len__(self):
        return len(self.values)

    @property
    def shape(self):
        return self.values.shape

    def isna(self):
        return Frame(np.equal(self.values, None))

    def to_numpy(self, dtype=None, na_value=None):
        if dtype is None:
            return self.values
        return np.where(self.isna().values, na_value, self.values).astype(dtype)
