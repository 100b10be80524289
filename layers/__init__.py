"""Layers: posterior heads and their parts, flows, priors, likelihoods, masked convolutions."""

from ..losses import RootMeanSquare
from .autoregressive_decoder import AutoregressiveDecoder, AutoregressiveImageDecoder
from .autoregressive_flow_prior import (
    AutoregressiveFlowPrior,
    ConvAutoregressiveFlowPrior,
    FlowPrior,
)
from .conditions import (
    Condition,
    ConditionalEncoder,
    ConditionalNormal,
    LabelCondition,
    NetworkCondition,
    VectorCondition,
)
from .flow import Flow
from .heads import DeltaHead, FlowHead, GaussianHead, PointHead, PosteriorHead
from .hierarchical_softmax import FlatSoftmax, HierarchicalSoftmax
from .inverse_autoregressive_flow import IAFBlock, InverseAutoregressiveFlow
from .latent_clip import LatentClip
from .latent_skip import LatentSkip, with_latent_skips
from .likelihoods import Bernoulli, Categorical, ContinuousBernoulli, Gaussian, Likelihood
from .logistic_mixture import DiscretizedLogisticMixture
from .lstm import LSTM
from .made import MADE
from .masked_autoregressive_flow import ConvAutoregressiveFlow, MaskedAutoregressiveFlow
from .masked_conv import MaskedConv2D, ShiftedConv2D, ShiftedConv2DTranspose
from .mean_batch_norm import MeanBatchNorm
from .mixture_prior import GaussianMixturePrior
from .named_likelihoods import get_likelihood
from .priors import IsotropicNormal, Prior, StandardNormal
from .reparameterization import CholeskyReparam, DiagonalReparam
from .token_sampling import filter_logits, restricted_logits
from .tokens import Tokens
from .vamp_prior import VampPrior
from .variance_dropout import ENTROPY_FLOOR, VarianceDropout
from .weight_normalization import (
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
    awaits_initialization,
    initialize_from_data,
    normalized_kernel,
)

__all__ = [
    "Tokens",
    "filter_logits",
    "restricted_logits",
    "FlowPrior",
    "VampPrior",
    "GaussianMixturePrior",
    "ShiftedConv2DTranspose",
    "ShiftedConv2D",
    "MaskedConv2D",
    "MaskedAutoregressiveFlow",
    "DiscretizedLogisticMixture",
    "ConvAutoregressiveFlow",
    "ConvAutoregressiveFlowPrior",
    "AutoregressiveFlowPrior",
    "ENTROPY_FLOOR",
    "LSTM",
    "MADE",
    "AutoregressiveDecoder",
    "AutoregressiveImageDecoder",
    "Bernoulli",
    "Categorical",
    "CholeskyReparam",
    "Condition",
    "ConditionalEncoder",
    "ConditionalNormal",
    "ContinuousBernoulli",
    "DeltaHead",
    "DiagonalReparam",
    "FlatSoftmax",
    "Flow",
    "FlowHead",
    "Gaussian",
    "GaussianHead",
    "HierarchicalSoftmax",
    "IAFBlock",
    "InverseAutoregressiveFlow",
    "IsotropicNormal",
    "LatentClip",
    "LabelCondition",
    "LatentSkip",
    "Likelihood",
    "MeanBatchNorm",
    "NetworkCondition",
    "PointHead",
    "PosteriorHead",
    "Prior",
    "RootMeanSquare",
    "StandardNormal",
    "VarianceDropout",
    "VectorCondition",
    "WeightNormConv2D",
    "WeightNormConv2DTranspose",
    "WeightNormDense",
    "awaits_initialization",
    "get_likelihood",
    "initialize_from_data",
    "normalized_kernel",
    "with_latent_skips",
]
