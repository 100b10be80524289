"""Batches of arrays: rows, parts, precision, and orders that a seed and an epoch give."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.core.arrays import RowOrder, batches_of

N, BATCH = 11, 4


def epoch_of(batches):
    """All batches of one epoch, as Keras' `fit` reads them."""
    if hasattr(batches, "element_spec"):
        return list(batches)
    batches.on_epoch_begin()
    return [batches[i] for i in range(len(batches))]


def rows_of(batches):
    return [ops.convert_to_numpy(batch[0]).astype(int).ravel().tolist() for batch in batches]


@pytest.mark.parametrize("count", [3, 8, 11])
def test_without_shuffling_rows_come_in_turn_and_parts_stay_together(count):
    x, y = np.arange(count, dtype="float64")[:, None], np.arange(count, dtype="int32")
    found = epoch_of(batches_of((x, None, y), BATCH, RowOrder(count, shuffle=False)))
    assert rows_of(found) == [
        list(range(first, min(first + BATCH, count))) for first in range(0, count, BATCH)
    ]
    for values, missing, labels in found:
        assert missing is None
        assert keras.backend.standardize_dtype(values.dtype) == "float32"
        assert keras.backend.standardize_dtype(labels.dtype) == "int32"
        np.testing.assert_array_equal(ops.convert_to_numpy(values)[:, 0], labels)


def test_each_epoch_has_all_rows_in_an_order_of_its_own():
    order = RowOrder(N, seed=5)
    batches = batches_of((np.arange(N)[:, None],), BATCH, order)
    found = {}
    for epoch in (0, 1, 2):
        order.on_epoch_begin(epoch)
        found[epoch] = sum(rows_of(epoch_of(batches)), [])
    assert all(sorted(rows) == list(range(N)) for rows in found.values())
    assert len({tuple(rows) for rows in found.values()}) == 3
    # Whichever epoch comes first, and on either backend.
    later = RowOrder(N, seed=5)
    later.on_epoch_begin(2)
    again = batches_of((np.arange(N)[:, None],), BATCH, later)
    assert sum(rows_of(epoch_of(again)), []) == found[2]
    assert found[1] == np.random.default_rng([5, 1]).permutation(N).tolist()


@pytest.mark.large
def test_fit_gives_each_epoch_its_own_order_whichever_it_starts_with():
    keras.utils.set_random_seed(1)
    networks = zoo.networks.make("mlp", (64,), latent_dim=2, hidden_units=(4,))
    model = zoo.VAE(*networks, latent_dim=2, likelihood="gaussian")
    # Operation by operation on TensorFlow: one epoch costs less than a compilation.
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=keras.backend.backend() == "tensorflow")
    # Each row tells itself by its loss, for nothing is learned.
    x = np.repeat(np.arange(6, dtype="float32")[:, None], 64, axis=1)
    sums, found = [], []

    class Losses(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            sums[:] = [0.0]

        def on_train_batch_end(self, batch, logs=None):
            sums.append(float(logs["loss"]) * len(sums))

        def on_epoch_end(self, epoch, logs=None):
            found.append(np.argsort(np.argsort(np.diff(sums))).tolist())

    for first in (0, 1):
        keras.utils.set_random_seed(1)
        options = {"epochs": 3, "initial_epoch": first, "callbacks": [Losses()]}
        model.fit(x, batch_size=1, verbose=0, **options)
    assert len({tuple(order) for order in found[:3]}) == 3
    assert found[3:] == found[1:3]
