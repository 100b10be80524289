"""What every layer does: see `vaezoo.testing.run_layer_test`."""

import inspect

import keras
import numpy as np
import pytest

from vaezoo import layers
from vaezoo.testing import run_layer_test

RNG = np.random.default_rng(0)
ROWS, OTHER, CODES, IMAGES, STEPS = (
    RNG.normal(size=shape).astype("float32")
    for shape in ((4, 5), (4, 5), (4, 2, 3), (4, 6, 7, 3), (4, 3, 5))
)
# As Keras' own layers have it.
HALF = {"mixed_dtype": "float16"}
LIKE_KERAS = {**HALF, "saves_noise": False}
CONTEXT = {"keywords": {"context": ROWS}}
FLOW = {"output_shape": ((None, 2, 3), (None, 2))}
DENSITY = {"output_shape": (None, 2)}
# Their loops take XLA over a second to compile.
LARGE = {"AutoregressiveFlowPrior", "FlowHead", "MaskedAutoregressiveFlow"}
LARGE |= {"ConvAutoregressiveFlow", "ConvAutoregressiveFlowPrior"}

#: How to make a layer, the arguments of its call, and options of the test.
LAYERS = [
    (lambda: layers.LabelCondition(4), (np.arange(4, dtype="int32"),), {"output_shape": (None, 4)}),
    (lambda: layers.VectorCondition(5), (ROWS,), {"output_shape": (None, 5)}),
    (lambda: layers.LatentClip(1.0), (ROWS,), {"output_shape": (None, 5)}),
    (lambda: layers.MeanBatchNorm(0.5), (ROWS,), {"output_shape": (None, 5)}),
    (lambda: layers.VarianceDropout(0.8, seed=0), (ROWS,), {"output_shape": (None, 5)}),
    (lambda: layers.DiagonalReparam(2), (ROWS, OTHER), {}),
    (lambda: layers.CholeskyReparam(2), (ROWS, OTHER), {}),
    (lambda: layers.PointHead(3), (ROWS,), {"output_shape": ((None, 3), (None, 1, 3))}),
    (lambda: layers.DeltaHead(3, seed=0), (ROWS,), {}),
    (
        lambda: layers.GaussianHead(
            3, 2, mean_norm=layers.MeanBatchNorm(0.5), clip=layers.LatentClip(), seed=0
        ),
        (ROWS,),
        {"output_shape": ((None, 3), (None, 3), (None, 2, 3))},
    ),
    (
        lambda: layers.FlowHead(3, layers.InverseAutoregressiveFlow(1, (4,)), seed=0),
        (ROWS,),
        {},
    ),
    (lambda: layers.MADE(2, (8,)), (CODES,), {"output_shape": (None, 2, 2, 3)}),
    (lambda: layers.IAFBlock((8,)), (CODES,), {**FLOW, **CONTEXT}),
    (
        lambda: layers.InverseAutoregressiveFlow(2, (8,), "permute", seed=5),
        (CODES,),
        {**FLOW, **CONTEXT},
    ),
    (lambda: layers.MaskedAutoregressiveFlow(1, (4,)), (CODES,), FLOW),
    (lambda: layers.ConvAutoregressiveFlow((3, 1, 1), 1, 3), (CODES,), FLOW),
    (lambda: layers.StandardNormal(), (CODES,), DENSITY),
    (lambda: layers.IsotropicNormal(2.0), (CODES,), DENSITY),
    (lambda: layers.GaussianMixturePrior(4), (CODES,), DENSITY),
    (lambda: layers.FlowPrior(layers.MaskedAutoregressiveFlow(1, (4,))), (CODES,), DENSITY),
    (lambda: layers.AutoregressiveFlowPrior(1, (4,)), (CODES,), DENSITY),
    (lambda: layers.ConvAutoregressiveFlowPrior((3, 1, 1), 1, 3), (CODES,), DENSITY),
    (lambda: layers.FlatSoftmax(7), (ROWS,), {"output_shape": (None, 7)}),
    (lambda: layers.HierarchicalSoftmax(7), (ROWS, np.arange(4)), {"output_shape": (None,)}),
    (lambda: layers.LatentSkip(), (ROWS, CODES[:, 0]), {"output_shape": (None, 5), **HALF}),
    (lambda: layers.LSTM(4), (STEPS,), {"output_shape": (None, 4), **LIKE_KERAS}),
    (lambda: layers.LSTM(4, num_biases=2), (STEPS,), LIKE_KERAS),
    (lambda: layers.MaskedConv2D(6, 3, "A"), (IMAGES,), {"output_shape": (None, 6, 7, 6), **HALF}),
    (lambda: layers.ShiftedConv2D(4, (2, 3), "down"), (IMAGES,), HALF),
    (lambda: layers.ShiftedConv2DTranspose(4, (2, 3), "down"), (IMAGES,), HALF),
    (lambda: layers.WeightNormConv2D(4, 3), (IMAGES,), HALF),
    (lambda: layers.WeightNormConv2DTranspose(4, 3), (IMAGES,), HALF),
    (lambda: layers.WeightNormDense(6), (ROWS,), {"output_shape": (None, 6), **HALF}),
]
# Bases; likelihoods, which are called by their parameters; a prior that takes a model's encoder;
# what is made of other layers, see `test_conditions.py`.
ELSEWHERE = {
    *("AutoregressiveDecoder", "AutoregressiveImageDecoder", "Flow", "PosteriorHead", "Prior"),
    *("Condition", "ConditionalEncoder", "ConditionalNormal", "NetworkCondition", "VampPrior"),
}


def marked(row):
    # The name of the class in `layers.Name(`, which is not made before its test.
    name = next(n for n in row[0].__code__.co_names if n in layers.__all__)
    return pytest.param(*row, id=name, marks=pytest.mark.large if name in LARGE else ())


@pytest.mark.large_on_jax
@pytest.mark.parametrize(("make", "inputs", "options"), [*map(marked, LAYERS)])
def test_layers_keep_their_contract(make, inputs, options):
    run_layer_test(make, *inputs, **options)


def test_no_layer_is_left_out():
    public = {getattr(layers, name) for name in layers.__all__ if name not in ELSEWHERE}
    called = {
        item
        for item in public
        if inspect.isclass(item)
        and issubclass(item, keras.Layer)
        and not issubclass(item, layers.Likelihood)
    }
    assert called == {type(make()) for make, _, _ in LAYERS}
