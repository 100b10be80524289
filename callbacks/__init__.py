"""Callbacks: schedules, monitors and constraints for `fit`."""

from .gamma_renormalization import GammaRenormalization
from .kl_annealing import KLAnnealing
from .latent_monitor import LatentMonitor

__all__ = ["GammaRenormalization", "KLAnnealing", "LatentMonitor"]
