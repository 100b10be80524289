"""What every test shares. Keras is imported late: pytest-xdist's controller then never loads it."""

import atexit
import functools
import gc
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compile much and run little: most of a compilation's time goes into optimising its code.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0 "
    "--xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Otherwise garbage is looked for after every 700 new objects, of which tracing makes millions.
gc.set_threshold(20_000, 20, 10)

BACKEND = os.environ["KERAS_BACKEND"]

# What one worker or child process has compiled, the others of this run need not.
if BACKEND == "jax" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vaezoo-jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def _version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def pytest_configure(config):
    # They fill one folder, so each import would meet files of both.
    if _version("tensorflow-probability") and _version("tfp-nightly"):
        raise pytest.UsageError(
            "tensorflow-probability and tfp-nightly are both installed and share a folder. Repair: "
            "`pip uninstall -y tensorflow-probability tfp-nightly`, then "
            "`pip install -r requirements-jax.txt`."
        )


def pytest_collection_modifyitems(items):
    if BACKEND == "tensorflow" or not _version("tensorflow"):
        return
    skip = pytest.mark.skip(reason="the same on either backend: runs in the tests on TensorFlow")
    for item in items:
        if item.get_closest_marker("one_backend") and not item.get_closest_marker("both_backends"):
            item.add_marker(skip)


def pytest_report_header(config):
    names = ("keras", BACKEND, "tensorflow-probability", "tfp-nightly")
    versions = ", ".join(f"{name} {_version(name)}" for name in names if _version(name))
    return f"backend: {BACKEND} ({versions})"


@pytest.fixture(autouse=True)
def seeded():
    """Seeds Python, NumPy and the backend alike before each test."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def float32_policy():
    """Puts the global dtype policy back to float32 after a test that sets another."""
    import keras

    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def mnist_dir():
    """The `data_dir` of a prepared TensorFlow Datasets folder that holds MNIST."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"
    for folder in (os.environ.get("TFDS_DATA_DIR"), beside):
        if folder and (Path(folder) / "mnist").is_dir():
            return Path(folder)
    pytest.skip("MNIST is not at hand: set TFDS_DATA_DIR to a folder of prepared TFDS data sets")


@pytest.fixture
def gradient():
    """`gradient(function, x)`: NumPy gradient at `x` of a scalar function of one tensor.

    What the function assigns to variables, or draws from a generator, may or may not persist.
    """
    import numpy as np
    from keras import StatelessScope, ops

    @functools.cache
    def jax_compiled(function):
        import jax

        def stateless(value):
            with StatelessScope():
                return function(value)

        # Operation by operation JAX compiles each of them, which takes many times as long.
        return jax.jit(jax.grad(stateless))

    def jax_gradient(function, x):
        return np.asarray(jax_compiled(function)(ops.convert_to_tensor(x)))

    def tensorflow_gradient(function, x):
        import tensorflow as tf

        x = ops.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x, unconnected_gradients="zero").numpy()

    return jax_gradient if BACKEND == "jax" else tensorflow_gradient


@pytest.fixture
def float64():
    """Lets a test compute in float64, which JAX leaves off by default.

    Gives the relative tolerance of what goes through `ops.mean`: Keras has it in float32 on JAX.
    """
    if BACKEND != "jax":
        yield 1e-10
        return
    import jax

    with jax.enable_x64(True):
        yield 1e-5
