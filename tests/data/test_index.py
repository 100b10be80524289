import numpy as np
import pytest

from vaezoo.data import with_index

tf = pytest.importorskip("tensorflow")
X = np.arange(10.0, 15.0, dtype="float32")[:, None]
Y = np.array([3, 1, 4, 1, 5])
WEIGHT = np.linspace(0.5, 1.5, 5)


def examples(parts):
    return tf.data.Dataset.from_tensor_slices(parts)


@pytest.mark.parametrize("parts", [X, (X,), (X, Y), (X, Y, WEIGHT)], ids=["x", "(x,)", "y", "w"])
def test_examples_keep_their_number_when_shuffled(parts):
    labels, weights = ((*parts[1:], None, None) if isinstance(parts, tuple) else (None, None))[:2]
    numbered = with_index(examples(parts))
    assert numbered.cardinality() == 5
    orders = []
    for _ in range(3):
        ((x, y, *weight),) = numbered.shuffle(5, seed=len(orders)).batch(5).as_numpy_iterator()
        index = y.pop("index")
        assert index.dtype == np.int32
        np.testing.assert_array_equal(x, X[index])
        np.testing.assert_equal(y, {} if labels is None else {"y": Y[index]})
        np.testing.assert_equal(weight, [] if weights is None else [WEIGHT[index]])
        orders.append(tuple(index))
    assert sorted(orders[0]) == [0, 1, 2, 3, 4]
    assert len(set(orders)) > 1


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (lambda: X, TypeError, "`dataset` must be a `tf.data.Dataset`. Received: ndarray"),
        (
            lambda: examples({"image": X, "label": Y}),
            TypeError,
            r"\(x, y, sample_weight\), as `as_supervised=True` .*element_spec={'image'",
        ),
        (
            lambda: with_index(examples((X, Y))),
            TypeError,
            r"must have examples x, .*element_spec=\(Tensor.*'index'",
        ),
        (lambda: examples((X, Y, Y, Y)), TypeError, "must have examples x, "),
        (
            lambda: examples(X).repeat(),
            ValueError,
            "`dataset` must be finite: number the examples before `repeat`. Received: card",
        ),
    ],
    ids=["array", "dict", "numbered", "four", "endless"],
)
def test_what_cannot_be_numbered(dataset, error, message):
    with pytest.raises(error, match=message):
        with_index(dataset())
