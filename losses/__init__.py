"""Densities, objectives, regularizers, constraints and weight schedules."""

from ..core.posteriors import (
    DiagonalGaussian,
    FlowGaussian,
    HierarchicalGaussian,
    PointMass,
    distribution,
    float32,
    kl_divergence,
    kl_per_dimension,
    log_prob,
    log_prob_by_coordinate,
    log_prob_per_dimension,
    reparameterize,
    tfd,
    variance,
)
from .auxiliary_softmax import AuxiliarySoftmax, InformationWeightedELBO
from .constraints import RootMeanSquare
from .elbo import ELBO, FreeBits, ImportanceWeightedELBO
from .empirical_bayes import EmpiricalBayesELBO, batch_moments, gaussian_kl_to_standard, shrink
from .importance_weighting import importance_weighted_log_prob
from .label_classifier import LabelClassifier
from .mmd import MaximumMeanDiscrepancy, maximum_mean_discrepancy
from .mu_elbo import MuELBO, mean_matching, variance_matching
from .mutual_posterior_divergence import MutualPosteriorDivergence, pairwise_kl
from .objective import Loss, Objective, Regularizer, Terms
from .schedules import (
    CosineSchedule,
    CyclicalSchedule,
    InEpochs,
    LinearSchedule,
    Schedule,
    SigmoidSchedule,
    final_value,
)
from .target_rate import TargetRate

__all__ = [
    "ELBO",
    "AuxiliarySoftmax",
    "CosineSchedule",
    "CyclicalSchedule",
    "DiagonalGaussian",
    "EmpiricalBayesELBO",
    "FlowGaussian",
    "FreeBits",
    "HierarchicalGaussian",
    "ImportanceWeightedELBO",
    "InEpochs",
    "InformationWeightedELBO",
    "LabelClassifier",
    "LinearSchedule",
    "Loss",
    "MaximumMeanDiscrepancy",
    "MuELBO",
    "MutualPosteriorDivergence",
    "Objective",
    "PointMass",
    "Regularizer",
    "RootMeanSquare",
    "Schedule",
    "SigmoidSchedule",
    "TargetRate",
    "Terms",
    "batch_moments",
    "distribution",
    "final_value",
    "float32",
    "gaussian_kl_to_standard",
    "importance_weighted_log_prob",
    "kl_divergence",
    "kl_per_dimension",
    "log_prob",
    "log_prob_by_coordinate",
    "log_prob_per_dimension",
    "maximum_mean_discrepancy",
    "mean_matching",
    "pairwise_kl",
    "reparameterize",
    "shrink",
    "tfd",
    "variance",
    "variance_matching",
]
