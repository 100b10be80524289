"""Terms of a batch, from arrays or tensors."""

import pytest


@pytest.fixture
def make_terms():
    """`make_terms(mean, log_var, log_px=..., z=...)`: `Terms` under a standard normal prior.

    In NumPy where everything given is: JAX compiles each operation for each new shape.
    """
    import numpy as np
    from keras import ops

    from vaezoo.losses import DiagonalGaussian, Terms

    def log_density(xp, z, mean, log_var):
        squared = xp.square(z - mean[:, None]) * xp.exp(-log_var)[:, None]
        return -0.5 * xp.sum(squared + log_var[:, None] + np.log(2.0 * np.pi), axis=-1)

    def make(mean, log_var, log_px=None, z=None):
        xp = np if isinstance(mean, np.ndarray) and isinstance(log_var, np.ndarray) else ops
        z = mean[:, None] if z is None else z
        kl_per_dimension = 0.5 * (xp.square(mean) + xp.exp(log_var) - log_var - 1.0)
        return Terms(
            log_px=np.zeros(z.shape[:2], "float32") if log_px is None else log_px,
            log_pz=log_density(xp, z, 0.0 * mean, 0.0 * log_var),
            log_qz=log_density(xp, z, mean, log_var),
            kl=xp.sum(kl_per_dimension, axis=-1),
            kl_per_dimension=kl_per_dimension,
            posterior=DiagonalGaussian(mean, log_var),
            z=z,
        )

    return make
