"""Every argument of every public constructor: what is refused in one sentence, what is accepted."""

import functools
import inspect
import json
import re

import keras
import numpy as np
import pytest

from vaezoo import callbacks, data, layers, losses, metrics, zoo
from vaezoo.zoo import networks
from vaezoo.zoo import preset as presets_module

pytestmark = pytest.mark.one_backend

NAN, INF = float("nan"), float("inf")
ONE_D, IMAGES = np.zeros((4, 6), "float32"), np.zeros((4, 8, 8, 1), "float32")

# What no argument of a kind takes.
COUNT = (0, -1, 2.5, True, "ten", NAN)
LEAST_0 = (-1, 0.5, True, "3", INF)
LEAST_2 = (1, 0, 2.5, True, "2")
POSITIVE = (0.0, -1, NAN, INF, "0.5", True)
NON_NEGATIVE = (-0.5, NAN, INF, "0.5", True)
FRACTION = (-0.1, 1.0, NAN, "0.5", True)
SHARE = (0.0, 1.5, NAN, "0.5", True)
REAL = (NAN, -INF, "0", True)
FLAG = ("maybe", 1, None)
SEED = (-1, 2**31, 0.5, True, "7")
FIXED_SEED = (*SEED, None)
CHOICE = ("none such", 3, ["none such"])
WIDTHS = ((8, 0), (8, 2.5), "88", 8, np.array([[8]]))
SHAPE = ((8, 8), (8, 8, 0), "888", 3, (8.0, 8, 1))
PART = ("relu", 3)
NAMED = ("reluu", 3)


def encoder():
    return networks.mlp_encoder((6,), (4,))


def decoder():
    return networks.mlp_decoder(2, (6,), (4,))


@functools.cache
def _networks():
    return encoder(), decoder()


def model_of(constructor):
    """A constructor on two small networks."""

    def make(**arguments):
        return constructor(*_networks(), **{"latent_dim": 2, **arguments})

    make.__name__ = constructor.__name__
    return make


def flow():
    return layers.InverseAutoregressiveFlow(1, (4,))


def preset(**arguments):
    return zoo.load("beta_vae_digits_mlp", **arguments)


def training(**arguments):
    return preset(training=arguments)


def load(**arguments):
    return data.load("digits", **arguments)


def load_arrays(**arguments):
    return data.load_arrays("digits", **arguments)


def measured(metric, *given):
    """A metric on data that are never reached."""

    def measure(**arguments):
        return metric(*given, **arguments)

    measure.__name__ = metric.__name__
    return measure


RAMP = {"steps": COUNT, "start": NON_NEGATIVE, "stop": NON_NEGATIVE}
HEAD = {"latent_dim": COUNT, "num_samples": COUNT}
CONV = {
    "filters": COUNT,
    "kernel_size": (0, (3, 0), "3", 2.5, (3, 3, 3)),
    "weight_norm": FLAG,
    "init_scale": POSITIVE,
    "use_bias": FLAG,
    "activation": NAMED,
    "kernel_initializer": NAMED,
}
MODEL = {"latent_dim": COUNT, "num_samples": COUNT, "seed": SEED}
PAIR = ((ONE_D, np.arange(4) % 2), (ONE_D, np.arange(4) % 2))
PROBE = {"runs": COUNT, "seed": FIXED_SEED}
DECODER = {"latent_dim": COUNT, "params_per_value": COUNT, "num_classes": LEAST_2, "skip": FLAG}

#: What is called, what is always given, and the values that each argument must refuse.
TABLE = [
    (losses.ELBO, {}, {"beta": NON_NEGATIVE, "regularizers": ("MMD", 3)}),
    (losses.FreeBits, {}, {"free_bits": NON_NEGATIVE, "variant": CHOICE, "beta": NON_NEGATIVE}),
    (
        losses.TargetRate,
        {"nats": 3.0},
        {
            "nats": NON_NEGATIVE,
            "speed": POSITIVE,
            "smoothing": FRACTION,
            "limits": (3.0, (1.0,), (-1.0, 2.0), (2.0, 3.0), (0.1, 0.5), "ab"),
        },
    ),
    (losses.EmpiricalBayesELBO, {}, {"weight": NON_NEGATIVE}),
    (
        losses.MuELBO,
        {},
        {"mean_mode": CHOICE, "variance_mode": CHOICE, "half": FLAG},
    ),
    (
        losses.MaximumMeanDiscrepancy,
        {},
        {
            "weight": NON_NEGATIVE,
            "kernel": CHOICE,
            "scales": ((), (1.0, 0.0), (NAN,), 2.0, "12"),
            "prior_variance": POSITIVE,
            "seed": SEED,
        },
    ),
    (
        losses.MutualPosteriorDivergence,
        {},
        {"diversity": NON_NEGATIVE, "smoothness": NON_NEGATIVE, "reduction": CHOICE},
    ),
    (
        losses.AuxiliarySoftmax,
        {"num_examples": 4, "network": keras.layers.Dense(3), "softmax": layers.FlatSoftmax(4)},
        {
            "alpha": NON_NEGATIVE,
            "beta": NON_NEGATIVE,
            "num_examples": LEAST_2,
            "network": PART,
            "softmax": PART,
            "estimator": CHOICE,
            "classifier_grad": CHOICE,
            "density": CHOICE,
            "classifier_steps": COUNT,
            "optimizer": ("adma", 3),
            "seed": FIXED_SEED,
        },
    ),
    (
        losses.LabelClassifier,
        {"labels": [0, 1, 1], "network": keras.layers.Dense(3), "softmax": layers.FlatSoftmax(2)},
        {
            "labels": ([], [0], [0.0, 1.0], [0, 2], [-1, 0], 3, None),
            "network": PART,
            "softmax": PART,
            "optimizer": ("adma", 3),
        },
    ),
    (losses.RootMeanSquare, {}, {"target": POSITIVE}),
    (losses.LinearSchedule, {"steps": 3}, {**RAMP, "unit": CHOICE}),
    (losses.SigmoidSchedule, {"steps": 3}, {**RAMP, "steepness": POSITIVE, "unit": CHOICE}),
    (losses.CosineSchedule, {"steps": 3}, {**RAMP, "unit": CHOICE}),
    (
        losses.CyclicalSchedule,
        {"steps": 9},
        {**RAMP, "cycles": COUNT, "rise": SHARE, "unit": CHOICE},
    ),
    (losses.InEpochs, {}, {"schedule": PART}),
    (
        layers.GaussianHead,
        {"latent_dim": 2},
        {
            **HEAD,
            "mean_norm": PART,
            "clip": PART,
            "variance_dropout": PART,
            "reparam": PART,
            "scale": CHOICE,
            "min_log_var": REAL,
            "project": FLAG,
            "use_bias": FLAG,
            "kernel_initializer": NAMED,
            "seed": SEED,
        },
    ),
    (
        layers.FlowHead,
        {"latent_dim": 2, "flow": flow()},
        {**HEAD, "flow": PART, "context_dim": LEAST_0, "use_bias": FLAG, "seed": SEED},
    ),
    (
        layers.DeltaHead,
        {"latent_dim": 2},
        {**HEAD, "delta": POSITIVE, "seed": SEED, "use_bias": FLAG, "kernel_initializer": NAMED},
    ),
    (layers.PointHead, {"latent_dim": 2}, {**HEAD, "use_bias": FLAG}),
    (layers.LatentClip, {}, {"factor": POSITIVE}),
    (layers.LabelCondition, {}, {"classes": (*COUNT, (1, 1), (), [1.5], [1, "a"], {"a": 1})}),
    (layers.VectorCondition, {}, {"size": COUNT}),
    (layers.NetworkCondition, {}, {"network": PART}),
    (
        layers.ConditionalEncoder,
        {"encoder": keras.layers.Dense(3), "condition": 3},
        {"encoder": PART, "condition": ({}, {"x": 3}, {"a b": 3}, None)},
    ),
    (layers.LatentSkip, {}, {"activation": NAMED, "kernel_initializer": NAMED}),
    (
        layers.MeanBatchNorm,
        {"gamma": 0.5},
        {"gamma": POSITIVE, "mode": CHOICE, "momentum": FRACTION, "epsilon": POSITIVE},
    ),
    (
        layers.VarianceDropout,
        {"keep_prob": 0.9},
        {"keep_prob": SHARE, "floor": NON_NEGATIVE, "seed": SEED, "start_step": (-1, "3", True)},
    ),
    (layers.DiagonalReparam, {}, {"num_samples": COUNT, "seed": SEED}),
    (
        layers.CholeskyReparam,
        {},
        {
            "num_samples": COUNT,
            "shrinkage": (-0.1, 1.1, NAN, "0", True),
            "jitter": POSITIVE,
            "sampling": CHOICE,
            "stop_gradient": FLAG,
            "statistics": CHOICE,
            "momentum": FRACTION,
        },
    ),
    (layers.Gaussian, {}, {"scale": (*POSITIVE, None), "min_scale": POSITIVE}),
    (layers.Categorical, {}, {"num_classes": LEAST_2}),
    (layers.Tokens, {}, {"vocabulary_size": LEAST_2, "pad_id": LEAST_0}),
    (
        layers.DiscretizedLogisticMixture,
        {},
        {
            "num_mixtures": COUNT,
            "num_levels": LEAST_2,
            "min_log_scale": (-21, 21, NAN, "0"),
            "small_bins": CHOICE,
        },
    ),
    (layers.StandardNormal, {}, {"sampling_scale": POSITIVE}),
    (layers.IsotropicNormal, {}, {"scale": POSITIVE}),
    (layers.GaussianMixturePrior, {}, {"num_components": COUNT, "initializer": NAMED}),
    (layers.VampPrior, {}, {"num_components": COUNT, "initializer": NAMED}),
    (layers.FlowPrior, {}, {"flow": PART}),
    (
        layers.AutoregressiveFlowPrior,
        {},
        {"num_blocks": COUNT, "hidden_units": WIDTHS, "weight_norm": FLAG, "init_scale": POSITIVE},
    ),
    (
        layers.ConvAutoregressiveFlowPrior,
        {"latent_shape": (2, 2, 2)},
        {"latent_shape": SHAPE, "num_blocks": COUNT, "filters": COUNT, "init_scale": POSITIVE},
    ),
    (
        layers.MADE,
        {},
        {
            "num_outputs": COUNT,
            "hidden_units": WIDTHS,
            "degrees": CHOICE,
            "activation": NAMED,
            "direct": FLAG,
            "context_layers": CHOICE,
            "seed": FIXED_SEED,
            "kernel_initializer": NAMED,
            "weight_norm": FLAG,
            "init_scale": POSITIVE,
        },
    ),
    (layers.IAFBlock, {}, {"hidden_units": WIDTHS, "gate_bias": REAL, "seed": FIXED_SEED}),
    (
        layers.InverseAutoregressiveFlow,
        {},
        {
            "num_blocks": COUNT,
            "hidden_units": WIDTHS,
            "order": CHOICE,
            "gate_bias": REAL,
            "seed": FIXED_SEED,
        },
    ),
    (
        layers.MaskedAutoregressiveFlow,
        {},
        {
            "num_blocks": COUNT,
            "hidden_units": WIDTHS,
            "order": CHOICE,
            "separate_networks": FLAG,
            "direct": FLAG,
            "init_scale": POSITIVE,
            "activation": NAMED,
            "seed": FIXED_SEED,
        },
    ),
    (
        layers.ConvAutoregressiveFlow,
        {"latent_shape": (2, 2, 2)},
        {"latent_shape": SHAPE, "num_blocks": COUNT, "filters": COUNT, "weight_norm": FLAG},
    ),
    (
        layers.MaskedConv2D,
        {"filters": 4, "kernel_size": 3},
        {**CONV, "mask_type": CHOICE, "channel_groups": COUNT, "unmasked_channels": LEAST_0},
    ),
    (
        layers.ShiftedConv2D,
        {"filters": 4, "kernel_size": (2, 3)},
        {**CONV, "shift": CHOICE, "strides": COUNT, "exclude": FLAG},
    ),
    (layers.ShiftedConv2DTranspose, {"filters": 4, "kernel_size": (2, 3)}, {"shift": CHOICE}),
    (layers.WeightNormDense, {"units": 4}, {"init_scale": POSITIVE}),
    (layers.LSTM, {"units": 4}, {"units": COUNT, "num_biases": (0, 3, True, "1")}),
    (
        layers.FlatSoftmax,
        {"num_classes": 4},
        {"num_classes": COUNT, "use_bias": FLAG, "kernel_initializer": NAMED},
    ),
    (
        layers.HierarchicalSoftmax,
        {"num_classes": 4},
        {"num_classes": COUNT, "row_learning_rate": POSITIVE, "seed": FIXED_SEED},
    ),
    (model_of(zoo.VAE), {}, {**MODEL, "head": PART, "prior": PART, "objective": PART}),
    (model_of(zoo.BetaVAE), {}, {**MODEL, "beta": NON_NEGATIVE}),
    (model_of(zoo.AE), {}, {**MODEL, "deterministic": FLAG}),
    (model_of(zoo.FreeBitsVAE), {}, {**MODEL, "free_bits": NON_NEGATIVE, "variant": CHOICE}),
    (model_of(zoo.DeltaVAE), {}, {**MODEL, "delta": POSITIVE, "beta": NON_NEGATIVE}),
    (model_of(zoo.BNVAE), {}, {**MODEL, "gamma": POSITIVE, "beta": NON_NEGATIVE}),
    (
        model_of(zoo.DUVAE),
        {},
        {
            **MODEL,
            "gamma": POSITIVE,
            "keep_prob": SHARE,
            "gamma_mode": CHOICE,
            "floor": NON_NEGATIVE,
            "beta": NON_NEGATIVE,
            "reg_start_weight": NON_NEGATIVE,
        },
    ),
    (
        model_of(zoo.MuVAE),
        {},
        {**MODEL, "clip_factor": POSITIVE, "mean_mode": CHOICE, "half": FLAG},
    ),
    (
        model_of(zoo.HEBAE),
        {},
        {**MODEL, "weight": NON_NEGATIVE, "scale": CHOICE, "shrinkage": (-0.1, 1.1, "0")},
    ),
    (model_of(zoo.WAE), {}, {"weight": NON_NEGATIVE, "kernel": CHOICE, "prior_variance": POSITIVE}),
    (model_of(zoo.InfoVAE), {}, {**MODEL, "alpha": REAL, "lam": REAL}),
    (
        model_of(zoo.IAFVAE),
        {},
        {**MODEL, "num_blocks": COUNT, "flow_width": COUNT, "free_bits": NON_NEGATIVE},
    ),
    (model_of(zoo.VLAE), {}, {**MODEL, "free_bits": NON_NEGATIVE, "prior": (3, "flow", [1])}),
    (model_of(zoo.MAE), {}, {"diversity": NON_NEGATIVE, "smoothness": NON_NEGATIVE}),
    (
        model_of(zoo.VAEAS),
        {"num_examples": 4},
        {
            **MODEL,
            "num_examples": LEAST_2,
            "num_labels": (0, 5, True, "2"),
            "softmax": CHOICE,
            "hidden_units": WIDTHS,
            "activation": NAMED,
            "classifier_optimizer": ("adma", 3),
        },
    ),
    (
        model_of(zoo.SAVAE),
        {},
        {
            **MODEL,
            "refine_steps": LEAST_0,
            "refine_learning_rate": POSITIVE,
            "momentum": FRACTION,
            "refine_clipnorm": POSITIVE,
            "svi_backward": CHOICE,
        },
    ),
    (model_of(zoo.AggVAE), {}, {**MODEL, "window": COUNT, "max_inner_steps": COUNT}),
    (
        networks.mlp_encoder,
        {"input_shape": (6,)},
        {
            "input_shape": ((), (0,), "6", 6),
            "hidden_units": WIDTHS,
            "activation": NAMED,
            "kernel_initializer": NAMED,
        },
    ),
    (
        networks.mlp_decoder,
        {"latent_dim": 2, "output_shape": (6,), "hidden_units": (4,)},
        {**DECODER, "output_shape": ((), (0,), "6", 6), "output_activation": NAMED},
    ),
    (
        networks.conv_encoder,
        {"input_shape": (8, 8, 1), "filters": (2,)},
        {"input_shape": SHAPE, "filters": (*WIDTHS, ()), "kernel_size": COUNT},
    ),
    (
        networks.conv_decoder,
        {"latent_dim": 2, "output_shape": (8, 8, 1), "filters": (2,)},
        {**DECODER, "output_shape": SHAPE, "filters": (*WIDTHS, ()), "kernel_size": COUNT},
    ),
    (
        networks.resnet_encoder,
        {"input_shape": (8, 8, 1), "filters": (2,)},
        {
            "input_shape": SHAPE,
            "filters": (*WIDTHS, ()),
            "features": COUNT,
            "normalization": CHOICE,
        },
    ),
    (
        networks.densenet_encoder,
        {"growth": (1, 1, 1), "steps": (1, 1, 1)},
        {"latent_channels": COUNT, "max_log_var": POSITIVE},
    ),
    (
        networks.ResidualPixelCNN,
        {"latent_dim": 2, "output_shape": (4, 4, 1), "kernels": (3,), "filters": 4},
        {
            "latent_dim": COUNT,
            "output_shape": SHAPE,
            "kernels": (*WIDTHS, ()),
            "filters": COUNT,
            "latent_maps": COUNT,
            "direct": FLAG,
            "normalization": ("layer", 3),
            "channel_order": FLAG,
        },
    ),
    (
        networks.PixelCNNPlusPlus,
        {"latent_dim": 16, "output_shape": (4, 4, 1), "latent_shape": (2, 2, 4), "filters": 4},
        {"latent_shape": SHAPE, "dropout": FRACTION, "levels": COUNT, "field": CHOICE},
    ),
    (
        networks.lstm_encoder,
        {"input_shape": (None,), "vocabulary_size": 7, "embedding_dim": 3, "units": 3},
        {
            "input_shape": ((1,), (None, 3), 5, "5"),
            "vocabulary_size": LEAST_2,
            "embedding_dim": COUNT,
            "units": COUNT,
            "scale": POSITIVE,
            "bias_scale": NON_NEGATIVE,
            "pad_id": (1, -1, "0"),
        },
    ),
    (
        networks.LSTMDecoder,
        {
            "latent_dim": 2,
            "output_shape": (None,),
            "vocabulary_size": 7,
            "embedding_dim": 3,
            "units": 3,
        },
        {
            "latent_dim": COUNT,
            "vocabulary_size": LEAST_2,
            "initial_state": CHOICE,
            "every_step": FLAG,
            "word_dropout": FRACTION,
            "output_dropout": FRACTION,
            "tie_embeddings": FLAG,
            "max_length": LEAST_2,
            "pad_id": (-5, 7, "0", True),
            "end_id": (-5, 7, "0", True),
            "seed": SEED,
        },
    ),
    (callbacks.AggressiveTraining, {}, {"stop": CHOICE, "patience": COUNT, "seed": FIXED_SEED}),
    (
        callbacks.CollapseWarning,
        {"data": ONE_D},
        {
            "start_epoch": LEAST_0,
            "patience": COUNT,
            "min_rate": NON_NEGATIVE,
            "min_share": SHARE,
            "threshold": NON_NEGATIVE,
            "act": CHOICE,
            "factor": (1.0, NAN, INF, "2", True),
            "max_actions": COUNT,
            "batch_size": COUNT,
        },
    ),
    (callbacks.GammaRenormalization, {}, {"gamma": POSITIVE, "layers": ([], 3)}),
    (callbacks.KLAnnealing, {}, {"epochs": COUNT}),
    (callbacks.KLAnnealing, {"epochs": 3}, {"start": NON_NEGATIVE, "stop": NON_NEGATIVE}),
    (callbacks.KLAnnealing, {}, {"schedule": PART}),
    (
        callbacks.LatentMonitor,
        {"data": IMAGES},
        {
            "frequency": COUNT,
            "image_frequency": COUNT,
            "num_images": COUNT,
            "traversal_range": ((1, 1), (2, 1), (0, NAN), 3, "ab"),
            "threshold": NON_NEGATIVE,
            "max_dimensions": COUNT,
            "batch_size": COUNT,
            "seed": FIXED_SEED,
        },
    ),
    (
        callbacks.PlateauDecay,
        {},
        {
            "factor": (0.0, 1.0, NAN, "0.5", True),
            "patience": COUNT,
            "monitor": ("", 3, "a++b"),
            "start_epoch": LEAST_0,
            "max_decays": COUNT,
            "min_relative_rate": FRACTION,
            "step_factor": SHARE,
            "restore_best": FLAG,
            "reset_optimizer": FLAG,
            "warm_up": LEAST_0,
            "compare_with": CHOICE,
            "repeat": FLAG,
        },
    ),
    (metrics.ActiveUnits, {"latent_dim": 2}, {"latent_dim": COUNT, "threshold": NON_NEGATIVE}),
    (measured(metrics.active_units, ONE_D), {}, {"threshold": NON_NEGATIVE}),
    (measured(metrics.kmeans_probe, *PAIR), {}, {**PROBE, "num_clusters": COUNT}),
    (measured(metrics.knn_probe, *PAIR), {}, {**PROBE, "num_neighbors": COUNT}),
    (
        measured(metrics.classifier_probe, *PAIR),
        {},
        {**PROBE, "hidden_units": WIDTHS, "epochs": COUNT, "learning_rate": POSITIVE},
    ),
    (
        measured(metrics.frechet_distance, IMAGES, IMAGES),
        {"features": "pixels"},
        {
            "num_samples": (2, True, "9"),
            "value_range": ((0, 0), (1, 0), (0, NAN), 3, "01"),
            "num_blocks": (1, -1, True, "2"),
            "seed": FIXED_SEED,
            "batch_size": COUNT,
        },
    ),
    (
        measured(metrics.mine, ONE_D, ONE_D),
        {},
        {
            "hidden_units": WIDTHS,
            "epochs": COUNT,
            "learning_rate": POSITIVE,
            "decay": FRACTION,
            "held_out": (0.0, 1.0, NAN, "0.5"),
            "seed": FIXED_SEED,
        },
    ),
    (
        measured(metrics.diagnose, None),
        {},
        {"max_examples": LEAST_2, "refinement_steps": LEAST_0, "batch_size": COUNT},
    ),
    (
        measured(metrics.negative_log_likelihood, None, ONE_D),
        {},
        {"num_samples": COUNT, "memory": COUNT, "batch_size": COUNT, "seed": FIXED_SEED},
    ),
    (
        measured(metrics.mutual_information, None),
        {},
        {"estimator": CHOICE, "num_samples": COUNT, "aggregate_size": LEAST_2, "chunk": COUNT},
    ),
    (
        load,
        {},
        {
            "split": ("trian", 3, "train[0.5:]"),
            "batch_size": COUNT,
            "binarize": CHOICE,
            "shuffle": ("maybe", 1),
            "seed": FIXED_SEED,
            "binarize_seed": FIXED_SEED,
            "copies": COUNT,
            "image_size": (0, (3, 0), "9", 2.5),
            "channels": (2, True, "3"),
            "crop": (0, (3, 0), "9", 2.5),
            "invert": ("maybe", 1),
            "value_range": ((0, 0), (1, 0), (0, NAN), 3, "01"),
            "labels": (3, None),
            "with_index": FLAG,
            "validation_split": (1.5, -0.5, 0, NAN, INF, "0.1", True),
            "limit": COUNT,
            "drop_remainder": ("maybe", 1),
            "in_memory": ("maybe", 1),
            "backend": CHOICE,
            "download": FLAG,
        },
    ),
    (load_arrays, {}, {"binarize": ("dynamic", 3), "copies": COUNT, "value_range": ((1, 1), 3)}),
    (data.Vocabulary, {}, {"words": ("abc", 3)}),
    (
        training,
        {},
        {
            "epochs": ("ten", 0, -1, True),
            "learning_rate": (-1.0, NAN, 1e6, "fast", True),
            "optimizer": ("adma", 3),
            "use_ema": FLAG,
            "plateau": ("soon", 3),
            "epoch": (3,),
            "clipnorm": (-1.0, NAN),
        },
    ),
]
del RAMP, HEAD, CONV, PROBE, DECODER

ROWS = [
    pytest.param(call, given, argument, values, id=f"{call.__name__}-{argument}")
    for call, given, arguments in TABLE
    for argument, values in arguments.items()
]


def test_there_are_rows_enough():
    assert sum(len(values) for *_, values in (row.values for row in ROWS)) > 1900


@pytest.mark.parametrize(("call", "given", "argument", "values"), ROWS)
def test_what_is_refused(call, given, argument, values):
    for value in values:
        with pytest.raises((ValueError, TypeError), match=rf"\b{argument}\b") as error:
            call(**{**given, argument: value})
        message = str(error.value)
        assert "Received" in message, message
        assert repr(value)[:100] in message or str(value) in message, message
        # One sentence or two, and no dump behind it.
        assert len(message) < 700, message
        assert not error.value.__cause__, message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training": {"epoch": 3}}, "training.*epoch=3 .did you mean .*epochs"),
        ({"training": {"optimizer": "adma"}}, "optimizer='adma' .did you mean .*'adam'"),
        ({"model": {"latent_dims": 3}}, "model.*latent_dims=3 .did you mean latent_dim"),
        ({"networks": {"hiden_units": (3,)}}, "networks.*did you mean 'hidden_units'"),
        ({"data": {"batchsize": 3}}, "data.*batchsize=3 .did you mean 'batch_size'"),
        ({"data": {"batch_size": -1}}, "`batch_size` must be a positive integer.*batch_size=-1"),
        ({"training": 3}, "`training` must be a dict of overrides or None. Received: training=3"),
    ],
)
def test_misspelled_keys_of_presets_are_refused_before_anything_is_built(
    monkeypatch, arguments, message
):
    monkeypatch.setattr(zoo.VAE, "build", None)
    with pytest.raises((ValueError, TypeError), match=message):
        preset(**arguments)


@pytest.mark.parametrize("name", ["du_vae_digits_mpl", 3, ["du_vae_digits_mlp"]])
def test_misspelled_presets_are_refused(name):
    with pytest.raises((ValueError, TypeError), match="`preset` must be .*Received: preset="):
        zoo.load(name)


def test_data_keys_of_presets_are_those_of_load():
    assert set(presets_module.OF_DATA) == set(inspect.signature(data.load).parameters)


# What must be given, by name; small sizes in place of defaults that cost time.
GIVEN = {
    "classes": (3, 5),
    "condition": {"digit": 10},
    "size": 3,
    "buckets": None,
    "data": IMAGES,
    "directory": "run",
    "epochs": 3,
    "filters": 4,
    "flow": flow,
    "gamma": 0.5,
    "growth": (1, 1, 1),
    "input_shape": (8, 8, 1),
    "keep_prob": 0.9,
    "kernel_size": 3,
    "kernels": (3,),
    "latent_dim": 4,
    "latent_shape": (2, 2, 1),
    "nats": 3.0,
    "network": lambda: keras.layers.Dense(3),
    "num_classes": 4,
    "num_examples": 4,
    "output_shape": (8, 8, 1),
    "schedule": lambda: losses.LinearSchedule(3),
    "softmax": lambda: layers.FlatSoftmax(4),
    "steps": 4,
    "target": 0.5,
    "units": 4,
    "vocabulary_size": 7,
}
# Where a class needs others.
OWN = {
    "FlowHead": {"kernel_initializer": "zeros"},
    "GammaRenormalization": {"gamma": 0.5},
    "KLAnnealing": {"epochs": 3},
    "LabelClassifier": {"labels": (0, 1, 3)},
    "NetworkCondition": {
        "network": lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    },
    "LSTMDecoder": {"output_shape": (None,), "embedding_dim": 3, "units": 3},
    "PixelCNNPlusPlus": {
        "output_shape": (4, 4, 1),
        "latent_shape": (2, 2, 1),
        "filters": 4,
        "levels": 1,
        "units_per_level": 1,
    },
    "ShiftedConv2D": {"kernel_size": (2, 3)},
    "ShiftedConv2DTranspose": {"kernel_size": (2, 3)},
    "conv_decoder": {"filters": (2,)},
    "conv_encoder": {"filters": (2,)},
    "lstm_encoder": {"input_shape": (None,), "embedding_dim": 3, "units": 3},
    "mlp_decoder": {"hidden_units": (4,)},
    "mlp_encoder": {"hidden_units": (4,)},
    "densenet_encoder": {"steps": (1, 1, 1)},
    "resnet_decoder": {"filters": (2,)},
    "resnet_encoder": {"filters": (2,), "features": 3},
    "wae_decoder": {"filters": (2,), "output_shape": (8, 8, 1)},
    "wae_encoder": {"filters": (2,)},
}
# Optional numbers, whose default does not tell the kind.
OPTIONAL = {
    "context_dim": 3,
    "max_samples": 5,
    "min_log_var": -9.0,
    "num_labels": 2,
    "num_samples": 2,
    "row_learning_rate": 0.1,
    "seed": 7,
    "window": 3,
    "clipnorm": 1.0,
    "scale": 0.5,
    "embedding_scale": 0.5,
    "bias_scale": 0.5,
    "max_length": 5,
    "refine_clipnorm": 2.0,
}
MODELS = [
    item
    for name in zoo.__all__
    if callable(item := getattr(zoo, name)) and "encoder" in inspect.signature(item).parameters
]
CLASSES = [
    item
    for module in (losses, layers, callbacks, networks)
    for name in module.__all__
    if inspect.isclass(item := getattr(module, name))
    and item.__module__.startswith("vaezoo")
    and not issubclass(item, (tuple, Warning, keras.layers.BatchNormalization))
    and item is not losses.Schedule
]
MAKERS = [
    item
    for name in networks.__all__
    if inspect.isfunction(item := getattr(networks, name)) and name.endswith(("coder", "fier"))
]


def _numpy(value):
    """A number or a sequence of them as NumPy gives it, or None for anything else."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        # Exact in half of the digits, so that nothing else differs.
        return np.float64(value)
    if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
        return np.array(value)
    return None


def in_numpy(call):
    """Arguments of a call as Python's numbers, and as NumPy's, found by its signature."""
    plain, arrays = {}, {}
    if call is layers.WeightNormDense:
        plain, arrays = {"units": 4}, {"units": np.int64(4)}
    if call is layers.ConditionalEncoder:
        plain, arrays = ({"encoder": keras.layers.Dense(3)} for _ in range(2))
    for name, parameter in inspect.signature(call).parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if variadic or name in ("encoder", "decoder"):
            continue
        value = OWN.get(call.__name__, {}).get(name, parameter.default)
        if value is parameter.empty:
            assert name in GIVEN, f"a value of `{name}` for {call.__name__} must be in GIVEN"
            value = GIVEN[name]
        if value is None:
            value = OPTIONAL.get(name)
        if call is callbacks.KLAnnealing and name == "schedule":
            continue
        value = value() if callable(value) and not isinstance(value, type) else value
        required = parameter.default is parameter.empty
        if value is None or isinstance(value, str) and not required:
            continue
        plain[name] = value
        converted = _numpy(value)
        arrays[name] = value if converted is None else converted
    return plain, arrays


def _config(item):
    def plain(value):
        # Names count up.
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("name", "build_config")}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    text = json.dumps(plain(keras.saving.serialize_keras_object(item.get_config())))
    return re.sub(r"_\d+", "", text)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_classes_take_numpy_s_numbers(kind):
    plain, arrays = in_numpy(kind)
    expected, found = kind(**plain), kind(**arrays)
    for name in plain:
        stored = getattr(found, name, None)
        assert not isinstance(stored, np.generic), name
    if hasattr(found, "get_config"):
        assert _config(found) == _config(expected)
        json.dumps(found.get_config(), default=keras.saving.serialize_keras_object)
        assert isinstance(type(found).from_config(found.get_config()), kind)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_networks_take_numpy_s_numbers(make):
    plain, arrays = in_numpy(make)
    assert _config(make(**arrays)) == _config(make(**plain))


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_models_take_numpy_s_numbers(make):
    plain, arrays = in_numpy(make)
    for arguments in (plain, arrays):
        arguments.pop("latent_shape", None)
        arguments["latent_dim"] = np.int64(2)
        arguments["likelihood"] = "bernoulli"
    model = make(*_networks(), **arrays)
    assert type(model.latent_dim) is int
    assert json.loads(json.dumps(keras.saving.serialize_keras_object(model)))


def test_networks_by_name_take_arrays():
    encoder, decoder = networks.make(
        "mlp", np.array([6]), np.int64(2), hidden_units=np.array([4, 3])
    )
    assert [layer.units for layer in encoder.layers[2:]] == [4, 3]
    assert decoder.layers[1].units == 3


def test_training_of_presets_takes_numpy_s_numbers_and_ints():
    made = training(epochs=np.int64(2), learning_rate=1, use_ema=np.bool_(True))
    assert type(made.fit_args["epochs"]) is int
    assert float(made.compile_args["optimizer"].learning_rate) == 1.0
    assert made.compile_args["optimizer"].use_ema is True
