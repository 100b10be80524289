"""Callbacks: schedules, monitors, early warnings and constraints for `fit`."""

from .aggressive_training import AggressiveTraining
from .checkpoint import Checkpoint
from .collapse_warning import CollapseWarning, PosteriorCollapse
from .gamma_renormalization import GammaRenormalization
from .kl_annealing import KLAnnealing
from .latent_monitor import LatentMonitor
from .plateau_decay import PlateauDecay

__all__ = [
    "AggressiveTraining",
    "Checkpoint",
    "CollapseWarning",
    "GammaRenormalization",
    "KLAnnealing",
    "LatentMonitor",
    "PlateauDecay",
    "PosteriorCollapse",
]
