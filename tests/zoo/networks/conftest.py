import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def kernels_from_numpy(monkeypatch):
    # JAX compiles a draw for each shape of kernel, which took most of the time of these tests.
    # Fixtures of wider scope, and so the tests of initial values, still get the true draws.
    if keras.backend.backend() != "jax":
        return

    def draw(self, shape, dtype=None):
        values = np.random.default_rng(self.seed).normal(size=shape)
        return keras.ops.convert_to_tensor(values / np.sqrt(np.prod(shape[:-1])), dtype)

    for initializer in (keras.initializers.RandomNormal, keras.initializers.VarianceScaling):
        monkeypatch.setattr(initializer, "__call__", draw)


@pytest.fixture
def see_first_batch():
    """`see_first_batch(layer, *inputs)`: runs a built layer within `initialize_from_data`.

    In one compiled step on JAX, which compiles operation by operation otherwise.
    """
    from vaezoo.core.compile import run_once
    from vaezoo.layers import initialize_from_data

    def run(layer, *inputs):
        def see(*inputs):
            with initialize_from_data():
                layer(*inputs)

        run_once(layer, see, *inputs)

    return run
