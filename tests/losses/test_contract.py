"""What every objective and regularizer does: see `vaezoo.testing.run_objective_test`."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import losses
from vaezoo.layers import FlatSoftmax
from vaezoo.testing import make_terms, run_objective_test


def hierarchical_terms(mean, log_var, log_px, z):
    """Terms of posteriors whose means have a distribution of their own."""
    root = ops.exp(0.5 * log_var)[:, :, None] * np.eye(3, dtype="float32")
    hyper_mean = ops.mean(mean, axis=0, keepdims=True) + 0.0 * mean
    hyper_root = 0.5 * np.eye(3, dtype="float32") + 0.0 * root
    posterior = losses.HierarchicalGaussian(mean, root, hyper_mean, hyper_root)
    return make_terms(mean, log_var, log_px, z)._replace(posterior=posterior)


def classifier():
    return losses.AuxiliarySoftmax(
        num_examples=9,
        network=keras.Sequential([keras.layers.Dense(4)]),
        softmax=FlatSoftmax(9),
        optimizer=keras.optimizers.SGD(0.1),
        seed=0,
    )


def label_classifier():
    return losses.LabelClassifier(
        np.arange(9) % 3, keras.Sequential([keras.layers.Dense(4)]), FlatSoftmax(3), "sgd"
    )


OBJECTIVES = {
    "ELBO": lambda: losses.ELBO(0.5),
    "ELBO of a schedule and a regularizer": lambda: losses.ELBO(
        losses.LinearSchedule(4, start=0.5), [losses.MaximumMeanDiscrepancy(seed=0)]
    ),
    "FreeBits": lambda: losses.FreeBits(0.3),
    "TargetRate": lambda: losses.TargetRate(losses.LinearSchedule(4, 1.0, 2.0)),
    "ImportanceWeightedELBO": losses.ImportanceWeightedELBO,
    "InformationWeightedELBO": losses.InformationWeightedELBO,
    "EmpiricalBayesELBO": losses.EmpiricalBayesELBO,
    "MuELBO": losses.MuELBO,
    "MaximumMeanDiscrepancy": lambda: losses.MaximumMeanDiscrepancy(seed=0),
    "MutualPosteriorDivergence": losses.MutualPosteriorDivergence,
    "AuxiliarySoftmax": classifier,
    "LabelClassifier": label_classifier,
}


@pytest.mark.large_on_jax
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_keep_their_contract(name):
    options = {"terms": hierarchical_terms} if name == "EmpiricalBayesELBO" else {}
    options["charges"] = name != "LabelClassifier"
    run_objective_test(OBJECTIVES[name], **options)


def test_no_objective_is_left_out():
    bases = losses.Objective, losses.Regularizer
    public = [getattr(losses, name) for name in losses.__all__]
    called = {c for c in public if inspect.isclass(c) and issubclass(c, bases)} - set(bases)
    assert called == {type(make()) for make in OBJECTIVES.values()}
