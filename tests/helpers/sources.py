"""Sources of batches that lie ready, for tests of what takes data of any kind."""

import keras


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
