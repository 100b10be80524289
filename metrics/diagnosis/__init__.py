"""The collapse diagnosis: what is measured, rules, causes, remedies and trials."""

from .diagnose import diagnose
from .trials import try_remedies

__all__ = ["diagnose", "try_remedies"]
