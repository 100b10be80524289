"""vaezoo: variational autoencoders that do not collapse, for Keras 3 on TensorFlow and JAX."""

__version__ = "0.1.0"

from . import callbacks, data, layers, losses, metrics, zoo

__all__ = ["callbacks", "data", "layers", "losses", "metrics", "zoo"]
