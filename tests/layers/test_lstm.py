import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import compiled
from vaezoo.core.gradients import value_and_gradients_at
from vaezoo.layers import LSTM
from vaezoo.testing import check_serialization

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


@pytest.mark.large
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


@pytest.mark.large
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
    revived = check_serialization(layer)
    assert revived.use_cudnn == "auto"
    assert revived.return_sequences


def stepped(x, weights, num_biases, optimizer):
    """The bias, as a sum, before and after a step on copied weights."""
    layer = LSTM(UNITS, num_biases=num_biases)
    layer.build((None, None, WIDTH))
    kernel, recurrent_kernel, bias = weights
    layer.set_weights([kernel, recurrent_kernel, *[bias / num_biases] * num_biases])

    def scalar(weights):
        with keras.StatelessScope(list(zip(layer.trainable_variables, weights, strict=True))):
            return ops.sum(layer(x)), ()

    values = [ops.convert_to_tensor(v) for v in layer.trainable_variables]
    _, gradients = value_and_gradients_at(scalar, values)
    optimizer.build(layer.trainable_variables)
    optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
    moved = sum(layer.get_weights()[2:]) - bias
    return moved, ops.convert_to_numpy(gradients[2]), ops.convert_to_numpy(layer(x))


@pytest.mark.large
@pytest.mark.parametrize("name", ["sgd", "adam", "clipped"])
def test_two_biases_are_the_same_model_and_take_two_steps(tensors, weights, name):
    def optimizer():
        if name == "adam":
            return keras.optimizers.Adam(0.01)
        return keras.optimizers.SGD(0.1, global_clipnorm=0.5 if name == "clipped" else None)

    one, gradient, _ = stepped(tensors[0], weights, 1, optimizer())
    two, same, _ = stepped(tensors[0], weights, 2, optimizer())
    np.testing.assert_allclose(same, gradient, rtol=1e-5)
    if name == "clipped":
        # The gradient counts once more in the norm that it is clipped by.
        assert 1 < np.max(two / one) < 1.9
    else:
        np.testing.assert_allclose(two, 2 * one, rtol=2e-3, atol=1e-6)
    if name == "sgd":
        np.testing.assert_allclose(two, -0.2 * gradient, rtol=1e-4, atol=1e-6)


def test_two_biases_start_apart_and_are_saved(tmp_path, tensors):
    uniform = keras.initializers.RandomUniform(-1, 1)
    options = {"bias_initializer": uniform, "unit_forget_bias": False, "num_biases": 2}
    model = keras.Sequential([keras.Input((None, WIDTH)), LSTM(UNITS, **options)])
    assert len(model.weights) == 4
    assert np.all(model.get_weights()[2] != model.get_weights()[3])
    model.save(tmp_path / "two.keras")
    revived = keras.saving.load_model(tmp_path / "two.keras")
    assert revived.layers[0].num_biases == 2
    np.testing.assert_array_equal(revived.predict_on_batch(tensors[0]), model(tensors[0]))
    # As files from before have it.
    assert "num_biases" not in LSTM(UNITS).get_config()


@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"unroll": True}, {"implementation": 1}], ids=str
)
def test_two_biases_with_other_options(tensors, weights, options):
    theirs = keras.layers.LSTM(UNITS, use_cudnn=False, **options)
    ours = LSTM(UNITS, num_biases=2, **options)
    for layer in (theirs, ours):
        layer.build((None, LENGTH, WIDTH))
    theirs.set_weights(weights)
    ours.set_weights([*weights[:2], 0.25 * weights[2], 0.75 * weights[2]])
    found, expected = (ops.convert_to_numpy(layer(tensors[0])) for layer in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bad_number_of_biases():
    with pytest.raises(ValueError, match="`num_biases` must be an integer from 1 to 2"):
        LSTM(3, num_biases=3)
    with pytest.raises(ValueError, match="`num_biases` must be 1 when there is no bias"):
        LSTM(3, num_biases=2, use_bias=False)
