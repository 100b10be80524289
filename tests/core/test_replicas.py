from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core import random, replicas
from vaezoo.core.random import SavesNoise, SeedGenerator, StatelessSeed
from vaezoo.core.replicas import gather_batch, num_replicas, replica_context


def _normal(seed, shape=(100,)):
    return np.asarray(keras.random.normal(shape, seed=seed))


def test_single_process_has_no_replicas():
    rows = ops.ones((3, 2))
    assert replica_context() is None
    assert num_replicas() == 1
    assert gather_batch(rows) is rows


@pytest.fixture
def two_replicas(monkeypatch):
    """Stands in for the second of two replicas; the first one's rows are zeros."""
    context = SimpleNamespace(
        num_replicas_in_sync=2,
        replica_id_in_sync_group=1,
        all_gather=lambda value, axis: ops.concatenate([0.0 * value, value], axis),
    )
    for module in (random, replicas):
        monkeypatch.setattr(module, "replica_context", lambda: context)
    return context


def test_batches_are_joined_over_replicas(two_replicas):
    joined = gather_batch(ops.ones((2, 3)))
    np.testing.assert_array_equal(joined, [[0] * 3] * 2 + [[1] * 3] * 2)
    assert num_replicas() == 2


def test_replicas_draw_different_noise(two_replicas):
    draws = []
    for replica in range(2):
        two_replicas.replica_id_in_sync_group = replica
        draws.append(_normal(SeedGenerator(5)))
    np.testing.assert_array_equal(draws[0], _normal(keras.random.SeedGenerator(5)))
    assert abs(np.corrcoef(draws)[0, 1]) < 0.4
    assert not np.any(draws[0] == draws[1])


def test_without_replicas_the_seeds_are_those_of_keras():
    ours, keras_own = SeedGenerator(3), keras.random.SeedGenerator(3)
    for _ in range(2):
        np.testing.assert_array_equal(_normal(ours), _normal(keras_own))


def test_equal_given_seeds_give_equal_draws():
    first, second = StatelessSeed(7), StatelessSeed(ops.convert_to_tensor(7, "int32"))
    for _ in range(3):
        np.testing.assert_array_equal(_normal(first), _normal(second))


def test_given_seeds_streams_and_draws_all_differ():
    streams = (0, 1, 2, 256, 65_536, 2**20, 2**24 - 1)
    generators = [StatelessSeed(seed, stream) for seed in range(3) for stream in streams]
    seeds = [tuple(np.asarray(g.next())) for g in generators for _ in range(50)]
    assert len(set(seeds)) == len(seeds) == 3 * 7 * 50
    draws = np.stack([_normal(StatelessSeed(0, stream)) for stream in range(4)])
    correlations = np.corrcoef(draws)[~np.eye(4, dtype=bool)]
    assert abs(correlations).max() < 0.4


def test_given_seed_has_no_state_to_save():
    assert not hasattr(StatelessSeed(1), "state")


class _Noisy(SavesNoise, keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.noise = SeedGenerator(0)

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return x + self.scale * keras.random.normal(ops.shape(x), seed=self.noise)


def test_noise_continues_after_saving(tmp_path):
    x = np.zeros((2, 3), "float32")
    model, other = keras.Sequential([_Noisy()]), keras.Sequential([_Noisy()])
    first = np.asarray(model(x))
    other.build(x.shape)
    model.layers[0].scale.assign(2.0)
    model.save_weights(tmp_path / "noise.weights.h5")
    other.load_weights(tmp_path / "noise.weights.h5")
    np.testing.assert_array_equal(other(x), model(x))
    assert not np.any(np.asarray(other(x)) == 2.0 * first)
