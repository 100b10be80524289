"""Encoders `x -> (batch, F)` and decoders `z -> likelihood parameters`, as functional models.

The posterior head is no part of an encoder: it makes mean and variance from the F features.
"""

from .conv import conv_decoder, conv_encoder
from .mlp import mlp_decoder, mlp_encoder
from .mu_vae import mu_vae_classifier, mu_vae_decoder, mu_vae_encoder
from .registry import make
from .wae import UntrainedBatchNormalization, wae_decoder, wae_encoder

__all__ = [
    "UntrainedBatchNormalization",
    "conv_decoder",
    "conv_encoder",
    "make",
    "mlp_decoder",
    "mlp_encoder",
    "mu_vae_classifier",
    "mu_vae_decoder",
    "mu_vae_encoder",
    "wae_decoder",
    "wae_encoder",
]
