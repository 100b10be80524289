"""Imports every module of an installed vaezoo, then trains one small model."""

import importlib
import math
import pkgutil
import sys
from pathlib import Path

import keras

import vaezoo
from vaezoo import data, zoo

if not Path(vaezoo.__file__).is_relative_to(sys.prefix):
    sys.exit(f"Expected vaezoo from {sys.prefix}. Received: {vaezoo.__file__}")

modules = [module.name for module in pkgutil.walk_packages(vaezoo.__path__, "vaezoo.")]
for module in modules:
    importlib.import_module(module)

keras.utils.set_random_seed(0)
encoder, decoder = zoo.networks.make("mlp", (8, 8, 1), 4, hidden_units=(16,))
model = zoo.VAE(encoder, decoder, latent_dim=4)
model.compile("adam", jit_compile=True)
x, _ = data.load_arrays("digits")
history = model.fit(x[:256], batch_size=128, epochs=1, verbose=0).history
if not all(math.isfinite(values[-1]) for values in history.values()):
    sys.exit(f"Expected finite training logs. Received: {history}")

print(
    f"vaezoo {vaezoo.__version__}: {len(modules)} modules imported, one model trained on "
    f"{keras.backend.backend()}, loss {history['loss'][-1]:.1f}."
)
