import numpy as np
import pytest
from keras import ops

from vaezoo.core.gradients import product, value_and_gradients_at


@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 3), (2, 4, 5, 3)])
def test_product_has_the_derivatives_of_matmul(shape):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=size).astype("float32") for size in (shape, (3, 7)))
    weight = rng.normal(size=(*shape[:-1], 7)).astype("float32")

    def derivatives(times):
        """Of a function that is not linear, and of the square of its slope."""

        def scalar(tensors):
            return ops.sum(ops.tanh(times(*tensors)) * weight), ()

        def squared_slope(tensors):
            _, found = value_and_gradients_at(scalar, tensors)
            return sum(ops.sum(ops.square(slope)) for slope in found), ()

        tensors = [ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)]
        first, second = (value_and_gradients_at(f, tensors)[1] for f in (scalar, squared_slope))
        return [ops.convert_to_numpy(values) for values in (*first, *second)]

    for found, expected in zip(derivatives(product), derivatives(ops.matmul), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
