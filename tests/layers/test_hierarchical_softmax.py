import functools

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import run_once
from vaezoo.core.gradients import value_and_gradients_at
from vaezoo.core.random import StatelessSeed
from vaezoo.layers import FlatSoftmax, HierarchicalSoftmax

SIZES = (1, 2, 3, 8, 13, 100, 1000)
FEATURES = 4
DRAWS = 20_000


def sigmoid(t):
    return np.exp(-np.logaddexp(0.0, -t))


def features(batch, dtype="float32"):
    return np.random.default_rng(7).normal(size=(batch, FEATURES)).astype(dtype)


def make(cls, num_classes, scale=1.0, **kwargs):
    """A head with random weights, biases included."""
    head = cls(num_classes, **kwargs)
    head.build((None, FEATURES))
    rng = np.random.default_rng(3)
    for variable in (head.kernel, head.bias):
        variable.assign(scale * rng.normal(size=variable.shape))
    return head


def path(head, label):
    """Rows of the path to a label from the leaf up, and whether it leaves them to the left."""
    node, rows = head.num_classes + int(head.leaf.numpy()[label]), []
    while node > 1:
        rows.append((node // 2 - 1, node % 2 == 0))
        node //= 2
    return rows


def enumerated(head, h):
    """log s of all classes in float64, decision by decision."""
    kernel, bias = (np.asarray(w.numpy(), "float64") for w in (head.kernel, head.bias))
    if isinstance(head, FlatSoftmax):
        logits = h @ kernel + bias
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    logits = h @ kernel.T + bias
    columns = [
        sum((-np.logaddexp(0.0, -t if left else t) for t, left in decisions), np.zeros(len(h)))
        for decisions in (
            [(logits[:, row], left) for row, left in path(head, label)]
            for label in range(head.num_classes)
        )
    ]
    return np.stack(columns, axis=1)


def everything(head, h):
    """Probabilities, entropies, and the log-probabilities of all classes, of a few rows."""
    size, index = h.shape[0], np.arange(head.num_classes)
    every = head.log_prob(ops.repeat(h, head.num_classes, axis=0), np.tile(index, size))
    return (
        head.probabilities(h),
        head.entropy(h),
        ops.reshape(every, (size, head.num_classes)),
    )


@pytest.mark.parametrize("num_classes", SIZES)
def test_tree_is_a_distribution_and_equals_enumeration(num_classes, run):
    head, h = make(HierarchicalSoftmax, num_classes), features(3)
    probabilities, entropy, log_probs = run(head, functools.partial(everything, head), h)
    expected = enumerated(head, h)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probabilities, np.exp(expected), rtol=1e-4, atol=1e-7)
    by_enumeration = -(np.exp(expected) * expected).sum(1)
    np.testing.assert_allclose(entropy, by_enumeration, rtol=1e-5, atol=1e-6)


def test_tree_equals_enumeration_in_float64(float64, run):
    head, h = make(HierarchicalSoftmax, 100, dtype="float64"), features(3, "float64")
    probabilities, entropy, log_probs = run(head, functools.partial(everything, head), h)
    expected = enumerated(head, h)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(entropy, -(np.exp(expected) * expected).sum(1), rtol=1e-12)


def test_flat_head_equals_enumeration(run):
    head, h = make(FlatSoftmax, 13), features(3)
    probabilities, entropy, log_probs = run(head, functools.partial(everything, head), h)
    expected = enumerated(head, h)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probabilities, np.exp(expected), rtol=1e-5)
    np.testing.assert_allclose(entropy, -(np.exp(expected) * expected).sum(1), rtol=1e-5)


@pytest.mark.large
@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_zero_weights_are_uniform_over_a_power_of_two(cls):
    head, h = cls(8, use_bias=False, kernel_initializer="zeros"), features(2)
    np.testing.assert_allclose(head.entropy(h), np.log(8.0), rtol=1e-6)
    np.testing.assert_allclose(head.log_prob(h, np.array([0, 5])), -np.log(8.0), rtol=1e-6)
    assert len(head.weights) == (1 if cls is FlatSoftmax else 3)


@pytest.mark.large
@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_extreme_logits_leave_values_and_gradients_finite(cls, gradient):
    head, h = make(cls, 13, scale=1e4), features(6)
    index = np.array([0, 1, 4, 7, 9, 12])

    def value(h):
        return ops.sum(head.entropy(h)) + ops.sum(head.log_prob(h, index))

    expected = enumerated(head, h)[np.arange(6), index]
    np.testing.assert_allclose(head.log_prob(h, index), expected, rtol=1e-4)
    assert expected.min() < -1e4
    np.testing.assert_allclose(head.entropy(h), 0.0, atol=1e-6)
    assert np.isfinite(gradient(value, h)).all()


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_entropy_gradient_is_numerical(cls, gradient, float64):
    head, h = make(cls, 13, dtype="float64"), features(2, "float64")
    slope = gradient(lambda h: ops.sum(head.entropy(h)), h)

    def entropy(h):
        log_probs = enumerated(head, h)
        return -(np.exp(log_probs) * log_probs).sum(1)

    unit = 1e-5 * np.eye(FEATURES)
    differences = [(entropy(h + e) - entropy(h - e)) / 2e-5 for e in unit]
    np.testing.assert_allclose(slope, np.stack(differences, axis=1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_draws_have_the_probabilities(cls, run):
    head, h = make(cls, 13), features(1)
    labels = run(
        head, lambda h, seed: head.sample(ops.tile(h, (DRAWS, 1)), StatelessSeed(seed)), h, 5
    )
    assert labels.dtype == "int32"
    assert labels.shape == (DRAWS,)
    frequencies = np.bincount(labels, minlength=13) / DRAWS
    expected = np.exp(enumerated(head, h))[0]
    error = np.abs(frequencies - expected)
    np.testing.assert_array_less(error, 4.5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-9)


def test_sampled_entropy_is_unbiased(run, gradient):
    head, h = make(HierarchicalSoftmax, 13), features(1)

    def estimates(h):
        return head.sampled_entropy(ops.tile(h, (DRAWS, 1)), seed=1)

    values, exact = run(head, lambda h: (estimates(h), head.entropy(h)), h)
    assert values.std() > 0.1
    assert abs(values.mean() - exact[0]) < 4.0 * values.std() / np.sqrt(DRAWS)
    np.testing.assert_array_equal(gradient(lambda h: ops.sum(estimates(h)), h), 0.0)


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_seed_fixes_the_draws(cls):
    head, h = make(cls, 1000), features(8)
    first, second = (ops.convert_to_numpy(head.sample(h, seed=seed)) for seed in (2, 3))
    np.testing.assert_array_equal(head.sample(h, seed=2), first)
    assert (first != second).any()
    assert head.sample(h).shape == (8,)


def test_single_class_draws():
    head, h = HierarchicalSoftmax(1), features(3)
    np.testing.assert_array_equal(head.sample(h), 0)
    np.testing.assert_array_equal(head.sampled_entropy(h), 0.0)


def test_log_prob_reaches_the_rows_of_its_path_only(gradient):
    head, h = make(HierarchicalSoftmax, 13), features(2)
    labels = np.array([3, 11])

    def value(kernel):
        # The product makes TensorFlow's gradient dense.
        with keras.StatelessScope(state_mapping=[(head.kernel, 1.0 * kernel)]):
            return ops.sum(head.log_prob(h, labels))

    slope = gradient(value, head.kernel.numpy())
    touched = sorted({row for label in labels for row, _ in path(head, label)})
    assert np.flatnonzero(np.abs(slope).sum(1)).tolist() == touched
    assert len(touched) < 8


def test_permutation_follows_the_seed_and_travels_with_the_weights():
    head = make(HierarchicalSoftmax, 13)
    other = make(HierarchicalSoftmax, 13, seed=5)
    h, index = features(3), np.array([0, 6, 12])
    assert sorted(head.leaf.numpy()) == list(range(13))
    assert (head.leaf.numpy() != other.leaf.numpy()).any()
    other.set_weights(head.get_weights())
    np.testing.assert_array_equal(other.log_prob(h, index), head.log_prob(h, index))
    np.testing.assert_array_equal(other.sample(h, seed=1), head.sample(h, seed=1))


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_half_precision_around_a_head_is_kept_out_of_it(cls, float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    head, index = cls(1000), np.array([4, 700])

    class Around(keras.layers.Layer):
        def call(self, h):
            return head.log_prob(h, index)

    h = features(2).astype("float16")
    head.build((None, FEATURES))
    values = Around()(h)
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    np.testing.assert_allclose(values, enumerated_at(head, h, index), rtol=1e-5)


def enumerated_at(head, h, index):
    if head.bias is not None:
        head.bias.assign(np.zeros(head.bias.shape))
    return enumerated(head, h.astype("float64"))[np.arange(len(index)), index]


class Reference:
    """The update in NumPy, row by row."""

    def __init__(self, head):
        self.head, self.rate = head, head.row_learning_rate
        self.rows = np.concatenate([head.kernel.numpy(), head.bias.numpy()[:, None]], axis=1)
        self.rows = self.rows.astype("float64")
        self.moment, self.visits = np.zeros(len(self.rows)), np.zeros(len(self.rows))

    def update(self, h, index):
        h = np.concatenate([h, np.ones((len(h), 1))], axis=1)
        gradients, log_probs = {}, np.zeros(len(h))
        for number, (example, label) in enumerate(zip(h, index, strict=True)):
            for row, left in path(self.head, label):
                t = example @ self.rows[row]
                log_probs[number] += np.log(sigmoid(t if left else -t))
                gradients.setdefault(row, np.zeros(h.shape[1]))
                gradients[row] += (sigmoid(t) - left) * example
        for row, gradient in gradients.items():
            self.visits[row] += 1
            self.moment[row] = 0.9 * self.moment[row] + 0.1 * np.mean(gradient**2)
            scale = np.sqrt(self.moment[row] / (1 - 0.9 ** self.visits[row])) + 1e-7
            self.rows[row] -= self.rate * gradient / scale
        return log_probs


@pytest.mark.large_on_jax
def test_update_is_the_reference_and_leaves_other_rows_alone():
    head = make(HierarchicalSoftmax, 13, row_learning_rate=0.1)
    assert head.trainable_weights == []
    reference, before = Reference(head), head.kernel.numpy().copy()
    # Labels occur again, and so do the rows near the root.
    short, long, other = head.label.numpy()[[0, 4, 5]]
    assert [len(path(head, label)) for label in (short, long, other)] == [3, 4, 4]
    indices = [np.array([long, long, short, long, other, short]), np.repeat([short, other], 3)]
    h = features(6)
    for index in indices:
        expected = reference.update(h, index)
        head_log_prob = head.log_prob(h, index)
        np.testing.assert_allclose(head_log_prob, expected, rtol=1e-4, atol=1e-5)
        run_once(head, head.update, h, index)
    np.testing.assert_allclose(head.kernel.numpy(), reference.rows[:, :-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.bias.numpy(), reference.rows[:, -1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.second_moment.numpy(), reference.moment, rtol=1e-3, atol=1e-8)
    np.testing.assert_array_equal(head.visits.numpy(), reference.visits)
    untouched = reference.visits == 0
    assert 2 <= untouched.sum() <= 8
    np.testing.assert_array_equal(head.kernel.numpy()[untouched], before[untouched])


@pytest.mark.large
def test_update_of_a_single_class_and_without_bias():
    head = HierarchicalSoftmax(1, use_bias=False, row_learning_rate=0.1)
    np.testing.assert_array_equal(head.update(features(2), np.array([0, 0])), 0.0)
    head = HierarchicalSoftmax(2, use_bias=False, row_learning_rate=0.1, kernel_initializer="zeros")
    h = features(1)
    np.testing.assert_allclose(head.update(h, np.array([1])), -np.log(2.0), rtol=1e-6)
    left = -1.0 if path(head, 1)[0][1] else 1.0
    expected = -0.1 * left * h / np.sqrt(np.mean(h**2))
    np.testing.assert_allclose(head.kernel.numpy(), expected, rtol=1e-5)


def negative(_, log_prob):
    return -log_prob


class Learner(keras.Model):
    """Learns by `update`, within whatever step Keras compiles."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def call(self, inputs):
        return self.head.update(*inputs)


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_updates_within_a_compiled_step_learn_separate_inputs():
    count, size = 64, 64
    h = np.random.default_rng(0).normal(size=(count, size)).astype("float32")
    head = HierarchicalSoftmax(count, row_learning_rate=0.1)
    head.build((None, size))
    index = np.arange(count, dtype="int32")
    before = -np.mean(head.log_prob(h, index))
    model = Learner(head)
    model.compile("sgd", loss=negative, jit_compile=True)
    model.fit((h, index), index, batch_size=16, epochs=20, verbose=0)
    assert before == pytest.approx(np.log(count), abs=1.0)
    assert -np.mean(head.log_prob(h, index)) < 0.05
    np.testing.assert_array_equal(head.visits.numpy()[0], 4 * 20)


@pytest.mark.large
def test_heads_train_and_reload_within_a_model(tmp_path):
    x = keras.Input((FEATURES,), name="x")
    index = keras.Input((), dtype="int32", name="index")
    hidden = keras.layers.Dense(6, activation="relu")(x)
    tree = HierarchicalSoftmax(10, seed=4)(hidden, index)
    lazy = HierarchicalSoftmax(10, row_learning_rate=0.1)
    model = keras.Model([x, index], [tree, FlatSoftmax(10)(hidden), lazy(hidden)])
    kernels = [layer.kernel.numpy().copy() for layer in model.layers[-3:]]
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=[negative, "sparse_categorical_crossentropy", None],
        jit_compile=True,
    )
    rng = np.random.default_rng(0)
    inputs = [features(32), rng.integers(0, 10, 32).astype("int32")]
    losses = model.fit(inputs, [inputs[1]] * 3, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5
    changed = [
        (before != layer.kernel.numpy()).any()
        for before, layer in zip(kernels, model.layers[-3:], strict=True)
    ]
    frozen = [layer is lazy for layer in model.layers[-3:]]
    assert changed == [not value for value in frozen]
    lazy.visits.assign(np.ones(9))

    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    for value, again in zip(model(inputs), reloaded(inputs), strict=True):
        np.testing.assert_allclose(value, again, rtol=1e-6)
    np.testing.assert_array_equal(reloaded.get_layer(lazy.name).visits.numpy(), 1.0)


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
@pytest.mark.parametrize("num_classes", [0, 2.5, True])
def test_num_classes_error(cls, num_classes):
    message = f"`num_classes` must be a positive integer. Received: num_classes={num_classes}"
    with pytest.raises(ValueError, match=message):
        cls(num_classes)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan"), True, "fast"])
def test_row_learning_rate_error(rate):
    message = (
        f"`row_learning_rate` must be a finite, positive .* Received: row_learning_rate={rate!r}"
    )
    with pytest.raises(ValueError, match=message):
        HierarchicalSoftmax(4, row_learning_rate=rate)


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
def test_call_errors(cls):
    head, h = cls(4), features(2)
    with pytest.raises(TypeError, match="`index` must be of integers. Received: dtype=float32"):
        head.log_prob(h, np.zeros(2, "float32"))
    with pytest.raises(ValueError, match=r"`index` must have shape \(batch,\).*shape=\(2, 1\)"):
        head.log_prob(h, np.zeros((2, 1), "int32"))
    with pytest.raises(ValueError, match=r"`h` must have shape \(batch, H\).*shape=\(1, 2, 4\)"):
        head.entropy(h[None])


def test_update_error():
    with pytest.raises(ValueError, match="`update` needs a `row_learning_rate`"):
        HierarchicalSoftmax(4).update(features(2), np.zeros(2, "int32"))


@pytest.mark.parametrize("cls", [FlatSoftmax, HierarchicalSoftmax])
@pytest.mark.parametrize("num_classes", [2, 13])
def test_entropy_has_the_gradients_that_differentiation_finds(cls, num_classes, gradient):
    """The first by its own formula, the second by differentiating that, at ties (0) as well."""
    head, h = make(cls, num_classes), features(3)
    head.bias.assign(np.zeros(head.bias.shape))
    h[0] = 0.0
    weight = ops.convert_to_tensor(features(3)[::-1].copy())

    def written_out(h):
        return head.entropy(h)

    def of_probabilities(h):
        probabilities = head.probabilities(h)
        return -ops.sum(probabilities * ops.log(probabilities), axis=1)

    def slope(entropy):
        return gradient(lambda h: ops.sum(entropy(h) ** 2), h)

    def curvature(entropy):
        def along(h):
            _, (found,) = value_and_gradients_at(
                lambda tensors: (ops.sum(entropy(tensors[0])), ()), [h]
            )
            return ops.sum(found * weight)

        return gradient(along, h)

    for derivative in (slope, curvature):
        found, expected = derivative(written_out), derivative(of_probabilities)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
