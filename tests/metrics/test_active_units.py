import keras
import numpy as np
import pytest

from vaezoo.losses import DiagonalGaussian
from vaezoo.metrics import active_dimensions, active_units


def means_of_variances(variances, dtype="float64"):
    # +-1 in equal numbers has the unbiased variance N / (N - 1).
    signs = np.tile([1.0, -1.0], 50)[:, None]
    return (signs * np.sqrt(np.array(variances) * 99 / 100)).astype(dtype)


class Doubles:
    """A model, as far as these metrics look."""

    def encode(self, x, batch_size):
        self.batch_size = batch_size
        return DiagonalGaussian(2.0 * x, 0.0 * x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_variance_of_a_hundredth_is_the_border(dtype):
    means = means_of_variances([0.0099, 0.0101, 0.5], dtype)
    assert active_units(means) == 2
    assert active_dimensions(means).tolist() == [False, True, True]


def test_the_border_itself_is_active_and_can_be_moved():
    means = np.array([[0.0, 0.0], [2.0, 1.0]])
    assert active_units(means, threshold=2.0) == 1
    assert active_units(means, threshold=np.nextafter(2.0, 3.0)) == 0
    assert active_units(means, threshold=0.5) == 2


def test_divisor_is_unbiased():
    means = np.array([[0.098], [-0.098]])
    assert np.var(means) < 0.01
    assert active_units(means) == 1


def test_large_offsets_cancel():
    # In one pass, and in float32, such a variance is lost to rounding.
    means = 4096.0 + means_of_variances([0.02, 0.0])
    assert active_units(means.astype("float32")) == 1


def test_model_and_data_are_encoded_in_batches():
    data, model = means_of_variances([0.002, 0.004]), Doubles()
    assert active_units(data) == 0
    assert active_units(model, data, batch_size=7) == 1
    assert model.batch_size == 7


def test_backend_tensors_are_taken():
    assert active_units(keras.ops.convert_to_tensor(means_of_variances([0.5], "float32"))) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"means": np.zeros(5)}, ValueError, r"`means` must have shape .* shape=\(5,\)"),
        ({"means": np.zeros((1, 5))}, ValueError, r"at least 2 examples. Received: shape=\(1, 5\)"),
        ({"means": np.array([[1.0], [np.nan]])}, ValueError, "`means` must be finite"),
        ({"means": [[1.0]]}, TypeError, "`means` must be an array or a model.*Received: list"),
        ({"means": np.zeros((3, 2)), "threshold": -0.1}, ValueError, "threshold=-0.1"),
        ({"means": np.zeros((3, 2)), "data": 0.05}, ValueError, "`data` must come with a model"),
        ({"means": Doubles()}, ValueError, "`data` must be given along with a model"),
    ],
)
def test_errors_say_what_came(arguments, error, message):
    with pytest.raises(error, match=message):
        active_units(**arguments)
