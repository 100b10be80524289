"""Configurations of everything public in `losses` and `layers`."""

import inspect

import keras
import pytest

from vaezoo import layers, losses
from vaezoo.core.serialization import ArgumentsConfig
from vaezoo.testing import check_serialization

INSTANCES = [
    losses.ELBO(2.0, [losses.MutualPosteriorDivergence(0.5), losses.MaximumMeanDiscrepancy()]),
    losses.ELBO(losses.CyclicalSchedule(10)),
    losses.ELBO(keras.optimizers.schedules.PolynomialDecay(0.1, 10, 1.0)),
    losses.FreeBits(0.3, "total_batch_max", losses.LinearSchedule(5)),
    losses.TargetRate(3.0, 0.02, 0.8, (0.1, 10.0), [losses.MaximumMeanDiscrepancy()]),
    losses.TargetRate(losses.LinearSchedule(5, 0.0, 25.0)),
    losses.ImportanceWeightedELBO([losses.MaximumMeanDiscrepancy(2.0)]),
    losses.EmpiricalBayesELBO(0.5),
    losses.EmpiricalBayesELBO(losses.CosineSchedule(7)),
    losses.MuELBO("per_dimension", "abs_lv", True),
    losses.MaximumMeanDiscrepancy(losses.LinearSchedule(3), "rbf", (0.5, 1.0), 2.0, 4),
    losses.MutualPosteriorDivergence(2.0, 0.1, "softplus_of_mean"),
    losses.LinearSchedule(5, 0.1, 2.0),
    losses.SigmoidSchedule(5, 0.1, 2.0, 6.0),
    losses.CosineSchedule(5, 0.1, 2.0),
    losses.CyclicalSchedule(8, 2, 0.7, 0.1, 2.0),
    losses.CosineSchedule(2.5, 0.1, unit="epochs"),
    losses.InEpochs(losses.LinearSchedule(5, 0.1)),
    layers.Bernoulli(),
    layers.ContinuousBernoulli(name="shade"),
    layers.Gaussian(0.5, 1e-4),
    layers.Gaussian("learned"),
    layers.Gaussian("decoder"),
    layers.Categorical(7),
    layers.Tokens(7, pad_id=2),
    layers.DiscretizedLogisticMixture(3, 16, -5.0, "exact"),
    layers.StandardNormal(3.0),
    layers.IsotropicNormal(2.0),
    layers.VarianceDropout(0.8, 0.1, 3, 5),
    layers.MeanBatchNorm(0.6, "free", 0.8, 1e-4),
    layers.RootMeanSquare(0.6),
    layers.LatentClip(6.0),
    layers.LabelCondition(4),
    layers.LabelCondition(["b", "a"]),
    layers.VectorCondition(3),
    layers.ConditionalNormal(),
    layers.NetworkCondition(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])),
    layers.ConditionalEncoder(keras.layers.Dense(4), {"digit": 10, "place": ["b", "a"]}),
    layers.DiagonalReparam(4, 2),
    layers.CholeskyReparam(4, 2, 0.1, 1e-5, "diagonal", True, "batch", 0.9),
    layers.MADE(3, (8, 6), "sequential", "tanh", True, "first", 4, keras.initializers.HeNormal(1)),
    layers.MADE(2, (8,), weight_norm=True, init_scale=0.1),
    layers.MaskedAutoregressiveFlow(
        3, (8,), "permute", False, False, False, 0.2, "random", "tanh", "first", 4
    ),
    layers.MaskedAutoregressiveFlow(),
    layers.ConvAutoregressiveFlow((2, 3, 2), 3, 4, False, 0.2),
    layers.AutoregressiveFlowPrior(2, (8,), False, 0.2),
    layers.ConvAutoregressiveFlowPrior((2, 3, 2), 2, 4, False, 0.2),
    layers.GaussianMixturePrior(4, keras.initializers.RandomNormal(0.0, 2.0, seed=1)),
    layers.VampPrior(4, keras.initializers.RandomNormal(0.0, 2.0, seed=1)),
    layers.IAFBlock((8,), 1.5, "sequential", "first", 4),
    layers.InverseAutoregressiveFlow(3, (8,), "permute", 1.5, "sequential", "first", 4),
    layers.DeltaHead(3, 0.2, 4, 2),
    layers.PointHead(3, 4),
    layers.GaussianHead(
        3,
        4,
        mean_norm=layers.MeanBatchNorm(0.5),
        clip=layers.LatentClip(),
        variance_dropout=layers.VarianceDropout(0.9),
        min_log_var=-8.0,
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        seed=2,
    ),
    layers.GaussianHead(3, 4, reparam=layers.CholeskyReparam(4), scale="scalar"),
    layers.GaussianHead(3, min_log_var=-7.0, project=False),
    layers.FlatSoftmax(7, False, keras.initializers.RandomNormal(0.0, 2.0, seed=1)),
    layers.HierarchicalSoftmax(7, False, 0.02, keras.initializers.RandomNormal(seed=1), 4),
    losses.InformationWeightedELBO([losses.MaximumMeanDiscrepancy(2.0)]),
    losses.AuxiliarySoftmax(
        0.5,
        2.0,
        num_examples=9,
        network=keras.layers.Dense(4, name="hidden"),
        softmax=layers.FlatSoftmax(7, name="last"),
        estimator="fano_low",
        classifier_grad="joint",
        density="analytic",
        classifier_steps=2,
        optimizer=keras.optimizers.Adam(0.5),
        seed=3,
    ),
    losses.LabelClassifier(
        [2, 0, 1, 1],
        keras.layers.Dense(4, name="labels_hidden"),
        layers.FlatSoftmax(3, name="labels_last"),
        keras.optimizers.Adam(0.25),
    ),
    layers.FlowPrior(layers.InverseAutoregressiveFlow(2, (8,))),
    layers.FlowHead(
        3,
        layers.InverseAutoregressiveFlow(2, (8,)),
        4,
        context_dim=2,
        mean_norm=layers.MeanBatchNorm(0.5),
        variance_dropout=layers.VarianceDropout(0.9),
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        seed=2,
    ),
    layers.MaskedConv2D(6, 3, "A", 3, 2, True, 0.5, activation="elu"),
    layers.ShiftedConv2D(4, (2, 3), "down_right", exclude=True, bias_initializer="ones"),
    layers.ShiftedConv2DTranspose(4, (2, 3), "down", weight_norm=True, use_bias=False),
]
BASES = {
    losses.Objective,
    losses.Regularizer,
    losses.Schedule,
    layers.AutoregressiveDecoder,
    layers.AutoregressiveImageDecoder,
    layers.Condition,
    layers.Flow,
    layers.Likelihood,
    layers.PosteriorHead,
    layers.Prior,
}
# It has a file of its own.
ELSEWHERE = {layers.LatentSkip}


def _identifier(instance):
    return type(instance).__name__


@pytest.mark.parametrize("instance", INSTANCES, ids=_identifier)
def test_config_round_trip(instance):
    registered = keras.saving.get_registered_name(type(instance))
    assert registered == f"vaezoo>{type(instance).__name__}"
    check_serialization(instance)


@pytest.mark.parametrize("instance", INSTANCES, ids=_identifier)
def test_config_holds_every_constructor_argument(instance):
    parameters = inspect.signature(type(instance).__init__).parameters.values()
    names = {p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD}
    of_layers = {"name", "trainable", "dtype"} if isinstance(instance, keras.Layer) else set()
    assert set(instance.get_config()) == names | of_layers


def test_every_public_class_is_covered():
    public = {getattr(module, name) for module in (losses, layers) for name in module.__all__}
    configured = {
        item for item in public if isinstance(item, type) and issubclass(item, ArgumentsConfig)
    }
    assert configured - BASES - ELSEWHERE == {type(instance) for instance in INSTANCES}
