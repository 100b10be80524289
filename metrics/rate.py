"""What each latent dimension costs."""

import numpy as np
from keras import ops

from ..losses import kl_per_dimension
from ._inputs import encoded


def rate_per_dimension(posterior, data=None, batch_size=256, *, decoder=None, likelihood=None):
    """Mean rate of each latent dimension against a standard normal prior.

        R_d = E_x KL( q(z_d|x) || N(0, 1) )    (nats)

    For a diagonal posterior they add up to the rate.

    Args:
        posterior: Posterior value over `(N, D)`, or a model: a `VAE`, the path of an
            exported SavedModel, or an encoder given with its `decoder`.
        data: `(N, *event)` for a model; nothing otherwise.
        batch_size: Examples that a model encodes at once.
        decoder: Decoder of a foreign encoder.
        likelihood: Name or `Likelihood` of a foreign pair.

    Returns:
        NumPy float64 `(D,)`; infinite for a deterministic encoder.

    Raises:
        TypeError: If `posterior` is neither a posterior value nor a model.
        ValueError: If a model comes without data, or data without a model.
    """
    value, _ = encoded(posterior, data, batch_size, decoder, likelihood)
    if not hasattr(value, "_fields") or "mean" not in value._fields:
        raise TypeError(
            "`posterior` must be a posterior value or a model that encodes. Received: "
            f"{type(value).__name__}"
        )
    return np.mean(ops.convert_to_numpy(kl_per_dimension(value)), axis=0, dtype="float64")
