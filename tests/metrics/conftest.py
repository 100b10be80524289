"""A VAE whose evidence and true posterior are known."""

from typing import NamedTuple

import numpy as np
import pytest


class LinearGaussian(NamedTuple):
    """x = W z + b + s e with orthogonal columns of W, so that the true posterior is diagonal."""

    data: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    scale: float

    @property
    def gains(self):
        """Column norms of W, squared."""
        return np.sum(self.weights**2, axis=0)

    @property
    def posterior_variance(self):
        return 1.0 / (1.0 + self.gains / self.scale**2)

    def encoder(self, shift=0.0, log_var_shift=0.0):
        """`x -> (mean, log_var)` of the true posterior, or wrong by as much."""
        from keras import ops

        projection = (self.weights / (self.gains + self.scale**2)).astype("float32")
        log_var = np.log(self.posterior_variance).astype("float32") + log_var_shift

        def encode(x):
            mean = ops.matmul(ops.cast(x, "float32") - self.offset, projection) + shift
            return mean, ops.zeros_like(mean) + log_var

        return encode

    def decoder(self):
        """`z -> E[x|z]`."""
        from keras import ops

        return lambda z: ops.matmul(z, self.weights.T) + self.offset

    def likelihood(self):
        from vaezoo.layers import Gaussian

        return Gaussian(self.scale)

    def log_evidence(self):
        """log N(x; b, W W^T + s^2 I) of each example, float64."""
        size = len(self.offset)
        covariance = self.weights.astype("float64") @ self.weights.T + self.scale**2 * np.eye(size)
        centered = self.data.astype("float64") - self.offset
        square = np.sum(centered * np.linalg.solve(covariance, centered.T).T, axis=1)
        return -0.5 * (square + np.linalg.slogdet(covariance)[1] + size * np.log(2 * np.pi))


@pytest.fixture(scope="session")
def linear_gaussian():
    rng = np.random.default_rng(0)
    columns = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    weights = (columns * [2.0, 1.0, 0.5]).astype("float32")
    offset = rng.normal(size=6).astype("float32")
    codes = rng.normal(size=(200, 3))
    noise = 0.5 * rng.normal(size=(200, 6))
    data = (codes @ weights.T + offset + noise).astype("float32")
    return LinearGaussian(data, weights, offset, 0.5)
