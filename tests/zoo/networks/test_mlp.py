import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import GaussianHead
from vaezoo.zoo.networks import mlp_decoder, mlp_encoder


def test_hebae_pair_has_the_published_parameter_counts():
    encoder = mlp_encoder((28, 28, 1), hidden_units=(784, 800))
    decoder = mlp_decoder(20, (28, 28, 1), hidden_units=(800, 800))
    head = GaussianHead(20)
    head.build(encoder.output_shape)
    assert encoder.count_params() + head.count_params() == 1_275_480
    assert decoder.count_params() == 1_285_584


@pytest.mark.parametrize("shape", [(7,), [8, 8, 1], (3, 4, 5, 2)])
def test_shapes(shape):
    encoder = mlp_encoder(shape, hidden_units=[6, 5])
    decoder = mlp_decoder(2, shape, hidden_units=[5, 6], params_per_value=3)
    assert encoder.input_shape == (None, *shape)
    assert encoder.output_shape == (None, 5)
    assert decoder.output_shape == (None, *shape[:-1], 3 * shape[-1])


def test_values_are_those_of_two_dense_layers():
    encoder = mlp_encoder((2, 3), hidden_units=(4,), activation="leaky_relu")
    decoder = mlp_decoder(4, (2, 3), hidden_units=(5,), activation="tanh")
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype("float32")
    w, b = (ops.convert_to_numpy(a) for a in encoder.weights)
    h = x.reshape(7, 6) @ w + b
    h = np.where(h > 0, h, 0.2 * h)
    features = encoder.predict_on_batch(x)
    np.testing.assert_allclose(features, h, atol=1e-6)
    w1, b1, w2, b2 = (ops.convert_to_numpy(a) for a in decoder.weights)
    expected = (np.tanh(h @ w1 + b1) @ w2 + b2).reshape(7, 2, 3)
    np.testing.assert_allclose(decoder.predict_on_batch(features), expected, atol=1e-6)


def test_without_hidden_layers_the_pair_is_linear():
    encoder = mlp_encoder((2, 3), hidden_units=())
    decoder = mlp_decoder(4, (2, 3), hidden_units=())
    assert encoder.output_shape == (None, 6)
    assert encoder.count_params() == 0
    assert decoder.count_params() == 4 * 6 + 6


def test_an_initializer_object_draws_anew_for_each_layer():
    initializer = keras.initializers.TruncatedNormal(stddev=2.0)
    model = mlp_encoder((6,), hidden_units=(6, 6), kernel_initializer=initializer)
    first, second = (ops.convert_to_numpy(model.get_layer(f"dense_{n}").kernel) for n in (1, 2))
    assert np.abs(first - second).max() > 0.1
    assert 1.0 < np.std(first) < 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"hidden_units": (8, 0)},
            r"`hidden_units` must be a sequence of positive .* hidden_units=\(8, 0\)",
        ),
        ({"hidden_units": 8}, "`hidden_units` must be a sequence .* hidden_units=8"),
        ({"hidden_units": (8.5,)}, r"`hidden_units` .* hidden_units=\(8.5,\)"),
        ({"input_shape": ()}, r"`input_shape` must be a non-empty sequence .* input_shape=\(\)"),
        ({"input_shape": (None, 3)}, r"`input_shape` .* input_shape=\(None, 3\)"),
        ({"input_shape": (-4,)}, r"`input_shape` .* input_shape=\(-4,\)"),
    ],
)
def test_sizes_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mlp_encoder(**{"input_shape": (4,), **arguments})
    if "input_shape" in arguments:
        arguments = {"output_shape": arguments["input_shape"]}
        message = message.replace("input_shape", "output_shape")
    with pytest.raises(ValueError, match=message):
        mlp_decoder(2, **{"output_shape": (4,), **arguments})
