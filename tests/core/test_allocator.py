import os
import subprocess
import sys

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


# In a process of its own: other tests leave memory of all sizes behind.
_FAULTS = """
import resource
import jax
import numpy as np
from vaezoo.core import allocator

x = jax.numpy.asarray(np.ones((3000, 20), "float32"))

# 36 MB five times over, which glibc would return to the system each time.
@jax.jit
def step(x):
    product = x @ x.T
    for _ in range(4):
        product = jax.lax.optimization_barrier(product) + 1.0
    return jax.numpy.sum(product)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step(x).block_until_ready()
before = faults()
for _ in range(5):
    step(x).block_until_ready()
print(allocator.kept, faults() - before)
"""


def faults_of_steps(**environment):
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.large
def test_steps_get_their_memory_again():
    if not allocator.kept:
        pytest.skip("only on JAX, on Linux with glibc, without an accelerator")
    kept, faults = faults_of_steps()
    assert kept
    assert faults < 3000
    kept, faults = faults_of_steps(VAEZOO_KEEP_MEMORY="0")
    assert not kept
    assert faults > 10_000
