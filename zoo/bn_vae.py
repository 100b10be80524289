"""BN-VAE: batch-normalized posterior means with a fixed gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layers import GaussianHead, MeanBatchNorm
from ..losses import ELBO
from .recipes import (
    digits_mlp,
    digits_pixelcnn,
    mnist_mlp,
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
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths", gamma=0.5),
    "digits_mlp": digits_mlp(gamma=0.5),
    "omniglot": omniglot_resnet_pixelcnn("BN-VAE (0.5)", gamma=0.5),
    "digits_pixelcnn": digits_pixelcnn(gamma=0.5),
    "yahoo": text_lstm("yahoo", "BN-VAE (0.6)", "normalized", gamma=0.6),
    "yelp": text_lstm("yelp", "BN-VAE (0.6)", "normalized", gamma=0.6),
    "yelp_sentences": text_lstm("yelp_sentences", "BN-VAE (0.6)", "normalized", gamma=0.6),
    "text_tiny": text_tiny(gamma=0.6),
}


def BNVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    gamma: float = 0.6,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "bn_vae",
) -> VAE:
    """VAE whose means are batch-normalized with the same gain in every dimension.

        mean_d = gamma * normalize_B(m_d) + beta_d,   hence   E_B[KL] >= D gamma^2 / 2
        loss   = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        gamma: Positive float, the gain; it is not trained.
        beta: Non-negative float or schedule, weight of the rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Zhu et al. (2020), eq. 6 and algorithm 1, arXiv:2004.12585.
    """
    norm = MeanBatchNorm(gamma, mode="fixed")
    return VAE(
        encoder,
        decoder,
        head=GaussianHead(latent_dim, num_samples, mean_norm=norm, seed=seed),
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        name=name,
    )
