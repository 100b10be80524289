"""Metrics: what a trained model's latent code does."""

from .active_units import active_dimensions, active_units
from .rate import rate_per_dimension

__all__ = ["active_dimensions", "active_units", "rate_per_dimension"]
