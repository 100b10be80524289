"""Encoders `x -> (batch, F)` and decoders `z -> likelihood parameters`.

Most are functional models; decoders that see x are `AutoregressiveDecoder`s. The posterior head is
no part of an encoder: it makes mean and variance from the F features.
"""

from .conv import conv_decoder, conv_encoder
from .densenet import GaussianFeatures, densenet_encoder
from .lstm import LSTMDecoder, lstm_encoder
from .mlp import mlp_decoder, mlp_encoder
from .mu_vae import mu_vae_classifier, mu_vae_decoder, mu_vae_encoder
from .pixelcnn import GatedPixelCNN, ResidualPixelCNN
from .pixelcnn_pp import PixelCNNPlusPlus
from .registry import make, makers, takes
from .resnet import resnet_decoder, resnet_encoder
from .wae import UntrainedBatchNormalization, wae_decoder, wae_encoder

__all__ = [
    "GaussianFeatures",
    "GatedPixelCNN",
    "LSTMDecoder",
    "PixelCNNPlusPlus",
    "ResidualPixelCNN",
    "UntrainedBatchNormalization",
    "conv_decoder",
    "conv_encoder",
    "densenet_encoder",
    "lstm_encoder",
    "make",
    "makers",
    "mlp_decoder",
    "mlp_encoder",
    "mu_vae_classifier",
    "mu_vae_decoder",
    "mu_vae_encoder",
    "resnet_decoder",
    "resnet_encoder",
    "takes",
    "wae_decoder",
    "wae_encoder",
]
