"""Layers: posterior heads and their parts, priors, likelihoods, skip connections."""

from ..losses import RootMeanSquare
from .heads import DeltaHead, GaussianHead, PointHead, PosteriorHead
from .inverse_autoregressive_flow import IAFBlock, InverseAutoregressiveFlow
from .latent_clip import LatentClip
from .latent_skip import LatentSkip, with_latent_skips
from .likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Gaussian,
    Likelihood,
    get_likelihood,
)
from .made import MADE
from .mean_batch_norm import MeanBatchNorm
from .priors import Prior, StandardNormal
from .reparameterization import CholeskyReparam, DiagonalReparam
from .variance_dropout import ENTROPY_FLOOR, VarianceDropout

__all__ = [
    "ENTROPY_FLOOR",
    "MADE",
    "Bernoulli",
    "Categorical",
    "CholeskyReparam",
    "ContinuousBernoulli",
    "DeltaHead",
    "DiagonalReparam",
    "Gaussian",
    "GaussianHead",
    "IAFBlock",
    "InverseAutoregressiveFlow",
    "LatentClip",
    "LatentSkip",
    "Likelihood",
    "MeanBatchNorm",
    "PointHead",
    "PosteriorHead",
    "Prior",
    "RootMeanSquare",
    "StandardNormal",
    "VarianceDropout",
    "get_likelihood",
    "with_latent_skips",
]
