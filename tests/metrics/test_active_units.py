import keras
import numpy as np
import pytest

from vaezoo.losses import DiagonalGaussian
from vaezoo.metrics import active_dimensions, active_units
from vaezoo.metrics.active_units import ActiveUnits
from vaezoo.testing import check_serialization


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
    assert int(active_units(means)) == 2
    assert active_dimensions(means).tolist() == [False, True, True]


def test_the_border_itself_is_active_and_can_be_moved():
    means = np.array([[0.0, 0.0], [2.0, 1.0]])
    assert int(active_units(means, threshold=2.0)) == 1
    assert int(active_units(means, threshold=np.nextafter(2.0, 3.0))) == 0
    assert int(active_units(means, threshold=0.5)) == 2


def test_divisor_is_unbiased():
    means = np.array([[0.098], [-0.098]])
    assert np.var(means) < 0.01
    assert int(active_units(means)) == 1


def test_large_offsets_cancel():
    # In one pass, and in float32, such a variance is lost to rounding.
    means = 4096.0 + means_of_variances([0.02, 0.0])
    assert int(active_units(means.astype("float32"))) == 1


def test_model_and_data_are_encoded_in_batches():
    data, model = means_of_variances([0.002, 0.004]), Doubles()
    assert int(active_units(data)) == 0
    assert int(active_units(model, data, batch_size=7)) == 1
    assert model.batch_size == 7


def test_backend_tensors_are_taken():
    assert int(active_units(keras.ops.convert_to_tensor(means_of_variances([0.5], "float32")))) == 1


def test_foreign_encoders_and_posteriors_are_taken():
    data = means_of_variances([0.002, 0.5], "float32")
    model = Doubles()
    expected = active_dimensions(model, data)
    assert expected.tolist() == [False, True]

    def encoder(x):
        return 2.0 * x, 0.0 * x

    pair = active_dimensions(
        encoder, data, decoder=lambda z: z, likelihood="gaussian", batch_size=30
    )
    assert pair.tolist() == expected.tolist()
    assert int(active_units(DiagonalGaussian(2.0 * data, 0.0 * data))) == 1


def test_running_variance_is_that_of_all_examples():
    rng = np.random.default_rng(0)
    # An offset and a drift, which a running sum of squares would lose or leave out.
    means = rng.normal(size=(60, 3)) * [0.02, 1.0, 0.3] + [500.0, 0.0, -3.0]
    means += np.linspace(0.0, 1.0, 60)[:, None] * [0.0, 2.0, 0.0]
    metric = ActiveUnits(3)
    for rows in np.split(means.astype("float32"), [1, 8, 40, 59]):
        metric.update_state(rows)
    variance = np.var(means, axis=0, ddof=1)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(metric.variance())[1:], variance[1:], rtol=1e-4
    )
    # Float32 has steps of 3e-5 at 500.
    assert abs(float(metric.variance()[0]) - variance[0]) < 1e-5
    assert float(metric.result()) == float(active_units(means)) == 2


def test_running_count_has_the_same_border_and_starts_anew():
    metric = ActiveUnits(3, threshold=0.01)
    assert float(metric.result()) == 0.0
    metric.update_state(np.ones((1, 3), "float32"))
    assert float(metric.result()) == 0.0
    metric.reset_state()
    for batch in np.split(means_of_variances([0.0099, 0.0101, 0.5], "float32"), 4):
        metric.update_state(batch)
    assert float(metric.result()) == 2.0
    metric.reset_state()
    metric.update_state(np.ones((10, 3), "float32"))
    assert float(metric.result()) == 0.0


def test_everything_counts_at_threshold_zero_but_a_single_example():
    metric = ActiveUnits(2, threshold=0.0)
    metric.update_state(np.ones((1, 2), "float32"))
    assert float(metric.result()) == 0.0
    metric.update_state(np.ones((1, 2), "float32"))
    assert float(metric.result()) == 2.0


def test_running_metric_works_in_a_compiled_step():
    @keras.saving.register_keras_serializable(package="vaezoo_tests")
    class Coder(keras.Model):
        def __init__(self):
            super().__init__()
            self.units = ActiveUnits(2)
            self.scale = self.add_weight(shape=(2,), initializer="ones")
            self.built = True

        def call(self, x):
            return x * self.scale

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            self.units.update_state(y_pred)
            return keras.ops.mean(keras.ops.square(y_pred))

    model = Coder()
    model.compile("sgd", jit_compile=True)
    data = means_of_variances([0.002, 0.5], "float32")
    logs = model.evaluate(data, batch_size=25, verbose=0, return_dict=True)
    assert logs["active_units"] == 1.0


def test_running_metric_is_rebuilt_from_its_config():
    metric = ActiveUnits(4, threshold=0.2, name="units")
    again = check_serialization(metric)
    assert isinstance(again, ActiveUnits)
    assert (again.latent_dim, again.threshold, again.name) == (4, 0.2, "units")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActiveUnits(0), "`latent_dim` must be a positive integer.*latent_dim=0"),
        (
            lambda: ActiveUnits(2, threshold=-1.0),
            "`threshold` must be a .*non-negative.*-1.0",
        ),
        (
            lambda: ActiveUnits(2).update_state(np.zeros((5, 3))),
            r"`mean` must have shape \(batch, 2\). Received: shape=\(5, 3\)",
        ),
    ],
)
def test_running_metric_says_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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


def test_standard_error_is_that_of_counting():
    # A unit whose true variance is the threshold is counted every second time.
    rng = np.random.default_rng(0)
    counts = [
        active_units(rng.normal(size=(200, 8)) * np.array([1.0] * 4 + [3.0] * 4), threshold=1.0)
        for _ in range(300)
    ]
    values = np.array([float(count) for count in counts])
    errors = np.array([count.standard_error for count in counts])
    assert np.mean(values) == pytest.approx(6.0, abs=4 * np.std(values) / np.sqrt(300) + 0.2)
    # Each estimate judges by its own variances, so 0.85 of the spread on average.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)
    assert counts[0].extra["dimensions"][-4:] == [4, 5, 6, 7]
    assert counts[0].unit == "of 8"
