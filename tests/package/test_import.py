"""`import vaezoo` waits with Keras, and a model's file loads whatever the order of imports."""

import importlib.util
import os
import pickle
import subprocess
import sys

import pytest

import vaezoo
from vaezoo import zoo

pytestmark = pytest.mark.one_backend


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_alone_imports_no_backend():
    run(
        "import sys, vaezoo\n"
        "assert set(vaezoo.__all__) <= set(dir(vaezoo)) and vaezoo.__version__\n"
        "assert not hasattr(vaezoo, 'nothing')\n"
        "import vaezoo.core.checks\n"
        "assert not {'keras', 'numpy', 'tensorflow', 'jax'} & set(sys.modules)\n"
    )


@pytest.mark.large
@pytest.mark.parametrize(
    "imports",
    [
        "import vaezoo; import keras",
        "import keras; import vaezoo",
        "import vaezoo.losses; import keras",
        "from vaezoo.core import compile; import keras",
        "from vaezoo import *; import keras",
    ],
)
def test_classes_are_registered_in_any_order_of_imports(imports, monkeypatch):
    if importlib.util.find_spec("jax"):
        # Which Keras imports in half of the time.
        monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    run(
        f"{imports}\n"
        "import inspect, sys\n"
        "for name in ('VAE', 'ELBO', 'GaussianHead', 'ActiveUnits'):\n"
        "    assert keras.saving.get_registered_object(f'vaezoo>{name}') is not None, name\n"
        "assert 'class VAE' in inspect.getsource(sys.modules['vaezoo'].zoo.VAE)\n"
        "assert not [f for f in sys.meta_path if type(f).__module__ == 'vaezoo']\n"
    )


def test_names_are_those_of_the_folders():
    assert vaezoo.zoo is zoo
    assert pickle.loads(pickle.dumps(zoo.VAE)) is zoo.VAE
    assert pickle.loads(pickle.dumps(zoo.DUVAE)) is zoo.DUVAE


@pytest.mark.large
def test_densities_on_jax_leave_tensorflow_alone(monkeypatch):
    for module in ("jax", "tensorflow"):
        pytest.importorskip(module)
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    run(
        "import sys\n"
        "from vaezoo.core.posteriors import tfd\n"
        "assert float(tfd().Normal(0.0, 1.0).cdf(0.0)) == 0.5\n"
        "assert 'tensorflow' not in sys.modules\n"
        "import tensorflow\n"
        "assert tensorflow.constant(1).numpy() == 1\n"
    )
