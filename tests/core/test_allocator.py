import resource

import keras
import numpy as np
import pytest

from vaezoo.core import allocator


@pytest.mark.one_backend
def test_settings_of_the_user_and_accelerators_are_left_alone():
    def wanted(backend="jax", found=(), **environment):
        return allocator.wanted(environment, backend, lambda pattern: list(found))

    assert wanted()
    assert wanted(JAX_PLATFORMS="cpu", found=["/dev/nvidia0"])
    assert wanted(VAEZOO_KEEP_MEMORY="1")
    assert not wanted("tensorflow")
    assert not wanted(found=["/dev/nvidia0"])
    for name, value in {
        "VAEZOO_KEEP_MEMORY": "0",
        "MALLOC_ARENA_MAX": "4",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "LD_PRELOAD": "libjemalloc.so",
        "JAX_PLATFORMS": "cuda,cpu",
    }.items():
        assert not wanted(**{name: value}), name


def test_steps_get_their_memory_again():
    if not allocator.kept:
        pytest.skip("only on JAX, on Linux with glibc, without an accelerator")
    import jax

    x = jax.numpy.asarray(np.ones((1500, 20), "float32"))

    # 9 MB five times over: without the settings 11,000 pages a step.
    @jax.jit
    def step(x):
        product = x @ x.T
        for _ in range(4):
            product = jax.lax.optimization_barrier(product) + 1.0
        return jax.numpy.sum(product)

    step(x).block_until_ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step(x).block_until_ready()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 3000
    assert keras.backend.backend() == "jax"
