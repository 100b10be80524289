"""SAVAE: posteriors refined by gradient steps that training differentiates through."""

from .model import PRESETS, SAVAE

__all__ = ["PRESETS", "SAVAE"]
