"""Metrics: how well a model explains its data, and what its latent code does."""

from .active_units import ActiveUnits, active_dimensions, active_units
from .aggregate import AggregateMoments, aggregate_moments
from .dependence import information_coefficients, latent_dependence
from .diagnosis.diagnose import Diagnosis, diagnose
from .diagnosis.trials import Trials, try_remedies
from .estimate import Estimate
from .evaluate import FURTHER, STANDARD, Evaluation, evaluate
from .features import FeatureNetwork, classifier_features, inception_features, load_features
from .frechet import frechet_distance, gaussian_frechet_distance, kernel_distance
from .mine import mine
from .mutual_information import marginal_divergence, mutual_information
from .negative_log_likelihood import negative_log_likelihood
from .perplexity import perplexity
from .posterior_divergence import conditional_entropy, mutual_posterior_divergence
from .probes import (
    alphabet_probe,
    classifier_probe,
    few_label_probe,
    kmeans_probe,
    knn_probe,
    linear_probe,
)
from .rate import rate_per_dimension

__all__ = [
    "FURTHER",
    "STANDARD",
    "ActiveUnits",
    "AggregateMoments",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "FeatureNetwork",
    "Trials",
    "active_dimensions",
    "active_units",
    "aggregate_moments",
    "alphabet_probe",
    "classifier_features",
    "classifier_probe",
    "conditional_entropy",
    "diagnose",
    "evaluate",
    "few_label_probe",
    "frechet_distance",
    "gaussian_frechet_distance",
    "inception_features",
    "information_coefficients",
    "kernel_distance",
    "kmeans_probe",
    "knn_probe",
    "latent_dependence",
    "linear_probe",
    "load_features",
    "marginal_divergence",
    "mine",
    "mutual_information",
    "mutual_posterior_divergence",
    "negative_log_likelihood",
    "perplexity",
    "rate_per_dimension",
    "try_remedies",
]
