"""The model class: its loss, its training and its inference."""

from .model import PRESETS, VAE, Output

__all__ = ["PRESETS", "VAE", "Output"]
