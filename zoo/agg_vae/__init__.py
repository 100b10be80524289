"""AggVAE: an encoder trained to the end before each step of the decoder."""

from .model import PRESETS, AggVAE

__all__ = ["PRESETS", "AggVAE"]
