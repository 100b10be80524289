import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import LSTM
from vaezoo.losses._compiled import compiled
from vaezoo.losses._gradients import value_and_gradients_at

BATCH, LENGTH, WIDTH, UNITS = 4, 5, 3, 6
LENGTHS = np.array([5, 3, 1, 2])


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def tensors(rng):
    """Inputs and both first states."""
    shapes = (BATCH, LENGTH, WIDTH), (BATCH, UNITS), (BATCH, UNITS)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@pytest.fixture(scope="module")
def weights(rng):
    shapes = (WIDTH, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def pair(weights, **options):
    """Ours, and Keras' with the same weights."""
    layers = LSTM(UNITS, **options), keras.layers.LSTM(UNITS, use_cudnn=False, **options)
    for layer in layers:
        layer.build((None, None, WIDTH))
        layer.set_weights(weights[: len(layer.weights)])
    return layers


def functions(layer, mask, rng):
    """A scalar that all outputs enter by weights of their own, and one of its gradients."""
    weighing = [rng.normal(size=shape) for shape in [(BATCH, LENGTH, UNITS), (BATCH, UNITS)]]
    weighing = [ops.convert_to_tensor(values, "float32") for values in weighing]

    def scalar(tensors):
        mapping = list(zip(layer.trainable_variables, tensors[3:], strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            h, last_h, last_c = layer(tensors[0], initial_state=tensors[1:3], mask=mask)
        value = ops.sum(h * weighing[0]) + ops.sum(last_h * weighing[1])
        return value + ops.sum(ops.square(last_c)), ()

    def of_gradients(tensors):
        _, found = value_and_gradients_at(scalar, tensors)
        return sum(ops.sum(ops.sin(gradient)) for gradient in found), ()

    return scalar, of_gradients


@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_of_both_orders_are_those_of_keras(tensors, weights, masked):
    mask = ops.convert_to_tensor(np.arange(LENGTH) < LENGTHS[:, None]) if masked else None
    ours, theirs = pair(weights, return_sequences=True, return_state=True)
    results = []
    for layer, xla in (ours, True), (theirs, False):
        both = functions(layer, mask, np.random.default_rng(1))

        def derivatives(*tensors, both=both):
            return [value_and_gradients_at(function, list(tensors)) for function in both]

        # Keras' loop has no second gradient under XLA on TensorFlow.
        eager = keras.backend.backend() == "tensorflow" and not xla
        run = derivatives if eager else compiled(layer, derivatives, xla=xla)
        found = run(*map(ops.convert_to_tensor, [*tensors, *weights]))
        results.append([ops.convert_to_numpy(part) for part in keras.tree.flatten(found)])
    assert len(results[0]) == 2 * (1 + 6)
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_masked_steps_keep_the_states(tensors, weights):
    x, h_0, c_0 = tensors
    ours, _ = pair(weights, return_state=True)
    mask = np.arange(LENGTH) < np.array([5, 3, 1, 0])[:, None]
    _, h, c = map(ops.convert_to_numpy, ours(x, initial_state=[h_0, c_0], mask=mask))
    np.testing.assert_array_equal([h[3], c[3]], [h_0[3], c_0[3]])
    _, *short = ours(x[1:2, :3], initial_state=[h_0[1:2], c_0[1:2]])
    np.testing.assert_allclose([h[1], c[1]], np.concatenate(short), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"go_backwards": True},
        {"unroll": True},
        {"zero_output_for_mask": True},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_other_options_mean_what_they_mean_to_keras(tensors, weights, options):
    ours, theirs = (
        layer(tensors[0], mask=np.arange(LENGTH) < LENGTHS[:, None])
        for layer in pair(weights, return_sequences=True, **options)
    )
    np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), atol=1e-6)


def test_half_precision(tensors, weights):
    ours, theirs = pair(weights, return_sequences=True, dtype="mixed_float16")
    found = ours(tensors[0])
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(theirs(tensors[0])), atol=5e-3
    )


def test_sentences_of_any_length(weights):
    inputs = keras.Input((None, WIDTH))
    ours, _ = pair(weights, return_sequences=True)
    assert ours(inputs).shape == (None, None, UNITS)
    assert ours(keras.Input((LENGTH, WIDTH))).shape == (None, LENGTH, UNITS)


def test_config_round_trip():
    layer = LSTM(3, use_cudnn="auto", return_sequences=True, unit_forget_bias=False)
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(revived) is LSTM
    assert revived.get_config() == layer.get_config()
    assert revived.use_cudnn == "auto"
    assert revived.return_sequences
