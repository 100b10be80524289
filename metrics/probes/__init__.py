"""Probes: accuracies of simple classifiers and clusterings on frozen codes."""

from .api import (
    alphabet_probe,
    classifier_probe,
    few_label_probe,
    kmeans_probe,
    knn_probe,
    linear_probe,
    posterior_means,
)
from .heads import latent_classifier

__all__ = [
    "alphabet_probe",
    "classifier_probe",
    "few_label_probe",
    "kmeans_probe",
    "knn_probe",
    "latent_classifier",
    "linear_probe",
    "posterior_means",
]
