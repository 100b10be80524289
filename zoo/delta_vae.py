"""Delta-VAE: a posterior that cannot reach the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layers import DeltaHead
from ..losses import ELBO
from .recipes import digits_mlp, mnist_mlp, omniglot_resnet_pixelcnn, text_lstm, text_tiny
from .vae.model import VAE

if TYPE_CHECKING:
    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths", delta=0.1),
    "digits_mlp": digits_mlp(delta=0.1),
    "omniglot": omniglot_resnet_pixelcnn("delta-VAE (0.1)", delta=0.1),
    "yahoo": text_lstm("yahoo", "delta-VAE (0.1)", delta=0.1),
    "yelp": text_lstm("yelp", "delta-VAE (0.1)", delta=0.1),
    "yelp_sentences": text_lstm("yelp_sentences", "delta-VAE (0.1)", delta=0.1),
    "text_tiny": text_tiny(delta=0.1),
}


def DeltaVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    delta: float = 0.1,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "delta_vae",
) -> VAE:
    """VAE whose posterior family keeps `delta` nats a dimension away from the prior.

        KL(q(z_d|x) || p(z_d)) >= delta
        loss = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        delta: Positive float, nats per dimension.
        beta: Non-negative float or schedule, weight of the rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Razavi et al. (2019), section 2.1, arXiv:1901.03416.
    """
    return VAE(
        encoder,
        decoder,
        head=DeltaHead(latent_dim, delta, num_samples, seed),
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        name=name,
    )
