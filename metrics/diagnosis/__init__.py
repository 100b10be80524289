"""The collapse diagnosis: what is measured, the rules, the remedies and the page."""

from .diagnose import diagnose

__all__ = ["diagnose"]
