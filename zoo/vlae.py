"""VLAE: a lossy code under an autoregressive-flow prior and a local autoregressive decoder."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from ..core.checks import check_image_shape, check_integer, check_keys, check_kind, check_real
from ..layers import (
    AutoregressiveFlowPrior,
    ConvAutoregressiveFlowPrior,
    GaussianHead,
    Prior,
    StandardNormal,
)
from ..losses import ELBO, FreeBits
from .recipes import cifar10_pixelcnn, digits_pixelcnn, mae_images
from .vae.model import VAE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..losses.objective import Regularizer

PRESETS = {
    "mnist": mae_images(
        "Ma et al. (2019), MAE, table 1a, VLAE (re-implementation)", free_bits=7.84
    ),
    "omniglot": mae_images(
        "Ma et al. (2019), MAE, table 1b, VLAE (re-implementation), on chardata.mat",
        "omniglot",
        free_bits=7.84,
    ),
    "cifar10": cifar10_pixelcnn(
        "Ma et al. (2019), MAE, table 3, VLAE (re-implementation)", free_bits=30.72
    ),
    "digits_pixelcnn": digits_pixelcnn(
        normalization="weight", free_bits=0.64, prior={"num_blocks": 1, "hidden_units": [64]}
    ),
}


def VLAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    latent_shape: Sequence[int] | None = None,
    free_bits: float = 0.0,
    beta: Weighting = 1.0,
    regularizers: Sequence[Regularizer] = (),
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "vlae",
) -> VAE:
    """VAE with a Gaussian posterior, an autoregressive-flow prior and a decoder that sees x.

        rate = E_q[ log q(z|x) - log p(z) ],    p(z) an autoregressive flow
        loss = E_q[-log p(x|z)] + beta * max( mean_b rate_b, free_bits )    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer, for instance an `AutoregressiveDecoder`.
        latent_dim: Positive int D.
        latent_shape: Optional (rows, columns, channels) of a code that is a feature map. The
            encoder then returns the maps of mean and log-variance, flattened, side by side, and the
            default prior is convolutional.
        free_bits: Non-negative float, floor of the mean rate of a batch, all dimensions together,
            in nats; the papers give 0.01 for each dimension of the data.
        beta: Non-negative float or schedule, weight of the rate.
        regularizers: Sequence of `Regularizer`s that are added.
        prior: `Prior`; or dict of options of the default one, `AutoregressiveFlowPrior` or
            `ConvAutoregressiveFlowPrior`; or `"standard_normal"` for N(0, I).
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        TypeError: If `prior` is of another kind.
        ValueError: If an argument is out of range, or `latent_shape` is not of `latent_dim` values.

    Reference: Chen et al. (2017), section 3, arXiv:1611.02731; in the form of Ma et al. (2019),
    arXiv:1901.01498.
    """
    latent_dim = check_integer("latent_dim", latent_dim)
    latent_shape = check_image_shape("latent_shape", latent_shape, optional=True)
    free_bits = check_real("free_bits", free_bits, "[0, inf)")
    return VAE(
        encoder,
        decoder,
        head=GaussianHead(latent_dim, num_samples, project=latent_shape is None, seed=seed),
        prior=_flow_prior(prior, latent_dim, latent_shape),
        likelihood=likelihood,
        objective=(
            FreeBits(free_bits, "total_batch_max", beta, regularizers)
            if free_bits
            else ELBO(beta, regularizers)
        ),
        name=name,
    )


def _flow_prior(prior, latent_dim, latent_shape):
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, str) and prior == "standard_normal":
        return StandardNormal()
    rule = "a vaezoo Prior, a dict of options of the flow prior or 'standard_normal'"
    options = check_kind("prior", prior, dict, rule, optional=True) or {}
    make = AutoregressiveFlowPrior if latent_shape is None else ConvAutoregressiveFlowPrior
    known = [name for name in inspect.signature(make).parameters if name != "latent_shape"]
    check_keys("The options in `prior`", options, known)
    if latent_shape is None:
        return make(**options)
    rows, columns, channels = latent_shape
    if rows * columns * channels != latent_dim:
        raise ValueError(
            "`latent_shape` must hold `latent_dim` values. Received: "
            f"latent_shape={latent_shape}, latent_dim={latent_dim}"
        )
    return make(latent_shape, **options)
