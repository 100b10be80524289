"""IWAE: a bound that tightens with the number of draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..losses import ImportanceWeightedELBO
from .recipes import digits_mlp, mnist_mlp
from .vae.model import VAE

if TYPE_CHECKING:
    import keras

    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "mnist_mlp": mnist_mlp(
        "settings of ours: k = 50 of Burda et al. (2016), HEBAE's widths",
        latent_dim=50,
        num_samples=50,
    ),
    "digits_mlp": digits_mlp(num_samples=8),
}


def IWAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 50,
    num_samples: int = 50,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    seed: int | None = None,
    name: str = "iwae",
) -> VAE:
    """VAE trained on the importance-weighted bound.

        loss = log K - logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ]
               (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        num_samples: Positive int K; 1 gives the VAE with a sampled rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Burda et al. (2016), eq. 8, arXiv:1509.00519.
    """
    return VAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        prior=prior,
        likelihood=likelihood,
        objective=ImportanceWeightedELBO(),
        num_samples=num_samples,
        seed=seed,
        name=name,
    )
