"""What every test shares. Keras is imported late: pytest-xdist's controller then never loads it."""

import atexit
import contextlib
import functools
import gc
import os
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compile much and run little: most of a compilation's time goes into optimizing its code.
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
    config.pluginmanager.register(ProcessorTime(not hasattr(config, "workerinput")))
    # They fill one folder, so each import would meet files of both.
    if _version("tensorflow-probability") and _version("tfp-nightly"):
        raise pytest.UsageError(
            "tensorflow-probability and tfp-nightly are both installed and share a folder. Repair: "
            "`pip uninstall -y tensorflow-probability tfp-nightly`, then "
            "`pip install -r requirements-jax.txt`."
        )


def pytest_collection_finish():
    if "vaezoo.core.posteriors" in sys.modules:
        # The library imports TensorFlow Probability late: no single test is to pay for it.
        sys.modules["vaezoo.core.posteriors"].tfd()
    if BACKEND == "jax":
        _share_context()
    elif "tensorflow" in sys.modules:
        # For graphs, too: they are optimized before they run, and here few run twice.
        sys.modules["tensorflow"].config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": True}
        )


def _share_context():
    """Lets all that JAX compiles share one context, where each would load all dialects anew.

    Nothing public does so. A JAX without this private function does as well, an eighth slower.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src.interpreters import mlir

        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


# First, so that what is marked here is deselected by its mark.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    if BACKEND == "jax":
        for item in items:
            if item.get_closest_marker("large_on_jax"):
                item.add_marker(pytest.mark.large)
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


#: Seconds of processor time that a test without a marker may take, and a fixture that several
#: tests share.
OWN_LIMIT = float(os.environ.get("VAEZOO_TEST_SECONDS", "2"))
SHARED_LIMIT = 5 * OWN_LIMIT
OWN, SHARED = "own seconds", "shared seconds"


def _processor_time():
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


class ProcessorTime:
    """Measures each test, fails a long one without a marker, and prints the longest.

    Fixtures that several tests share are measured apart: their time falls on whichever is first.
    """

    def __init__(self, collects):
        self.shared, self.depth, self.start, self.warm = {}, 0, 0.0, False
        # Workers hand their reports to one process, which alone keeps them.
        self.collects, self.records = collects, []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        self.shared, self.start = {}, _processor_time()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function" or self.depth:
            return (yield)
        self.depth, start = self.depth + 1, _processor_time()
        try:
            return (yield)
        finally:
            self.depth -= 1
            self.shared[fixturedef.argname] = _processor_time() - start

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when != "teardown":
            return report
        own = _processor_time() - self.start - sum(self.shared.values())
        report.user_properties.append((OWN, own))
        report.user_properties.append((SHARED, self.shared))
        marked = item.get_closest_marker("large") or item.get_closest_marker("slow")
        # The first test of a process pays for all that is imported and set up once.
        warm, self.warm = self.warm, True
        if report.passed and warm and not marked:
            long = [f"it took {own:.1f} s, of at most {OWN_LIMIT:.0f} s"] if own > OWN_LIMIT else []
            long += [
                f"its fixture `{name}` took {spent:.1f} s, of at most {SHARED_LIMIT:.0f} s"
                for name, spent in self.shared.items()
                if spent > SHARED_LIMIT
            ]
            if long:
                report.outcome = "failed"
                report.longrepr = (
                    f"{item.nodeid} must be marked `large`, or do less: {', '.join(long)}, of "
                    "processor time"
                )
        return report

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" and self.collects:
            found = dict(report.user_properties)
            if OWN in found:
                self.records.append((found[OWN], report.nodeid))
                for name, spent in found[SHARED].items():
                    self.records.append((spent, f"{report.nodeid}: fixture {name}"))
                # For whoever wants all of them, while the tests run.
                file = os.environ.get("VAEZOO_TEST_TIMES")
                if file:
                    with open(file, "a", encoding="utf-8") as times:
                        times.write(f"{found[OWN]:.3f} {report.nodeid} {found[SHARED]}\n")

    def pytest_terminal_summary(self, terminalreporter):
        self.records.sort(reverse=True)
        total = sum(spent for spent, _ in self.records)
        terminalreporter.section(f"{total:.0f} s of processor time, the longest of it")
        for spent, name in self.records[:10]:
            terminalreporter.write_line(f"{spent:7.1f} s  {name}")


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
