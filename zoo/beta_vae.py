"""Beta-VAE: one weight between rate and distortion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..losses import ELBO
from .recipes import (
    SQUARED_ERROR,
    digits_mlp,
    mnist_mlp,
    mu_vae_cnn,
    omniglot_resnet_pixelcnn,
    text_lstm,
    text_tiny,
)
from .vae.model import VAE

if TYPE_CHECKING:
    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths", beta=4.0),
    "mnist_cnn": mu_vae_cnn("beta-VAE (4)", "mnist", beta=4.0, likelihood=SQUARED_ERROR),
    "fashion_mnist_cnn": mu_vae_cnn(
        "beta-VAE (4)", "fashion_mnist", beta=4.0, likelihood=SQUARED_ERROR
    ),
    "digits_mlp": digits_mlp(beta=4.0),
    "omniglot_annealed": omniglot_resnet_pixelcnn("VAE"),
    "omniglot": omniglot_resnet_pixelcnn("beta-VAE (0.8)", beta=0.8),
    "yahoo": text_lstm("yahoo", "beta-VAE (0.4)", anneal=False, beta=0.4),
    "yelp": text_lstm("yelp", "beta-VAE (0.4)", anneal=False, beta=0.4),
    "text_tiny": text_tiny(anneal=False, beta=0.4),
}


def BetaVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 10,
    beta: Weighting = 4.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "beta_vae",
) -> VAE:
    """VAE whose rate is charged `beta` times.

        loss = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        beta: Non-negative float, or a schedule of the training step; 1 gives the ELBO.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Higgins et al. (2017), eq. 4, openreview.net/forum?id=Sy2fzU9gl.
    """
    return VAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        num_samples=num_samples,
        seed=seed,
        name=name,
    )
