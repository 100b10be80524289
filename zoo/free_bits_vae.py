"""Free bits: a rate that costs nothing below a floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..losses import FreeBits
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
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths", free_bits=0.1),
    "digits_mlp": digits_mlp(free_bits=0.3),
    "omniglot": omniglot_resnet_pixelcnn("FB (0.1)", free_bits=0.1),
    "digits_pixelcnn": digits_pixelcnn(free_bits=0.3),
    "yahoo": text_lstm("yahoo", "FB (0.1)", free_bits=0.1),
    "yelp": text_lstm("yelp", "FB (0.1)", free_bits=0.1),
    "yelp_sentences": text_lstm("yelp_sentences", "FB (0.1)", free_bits=0.1),
    "text_tiny": text_tiny(free_bits=0.1),
}


def FreeBitsVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    free_bits: float = 0.1,
    variant: str = "dim_batch_max",
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "free_bits_vae",
) -> VAE:
    """VAE whose rate is charged above a floor only.

        loss = E_q[-log p(x|z)] + beta * sum_d max( mean_b KL_bd, free_bits )    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        free_bits: Non-negative float, the floor in nats (per dimension in the `dim_` variants).
        variant: `"dim_batch_max"`, `"dim_sample_mask"`, `"total_sample_mask"` or
            `"total_batch_max"`, see `vaezoo.losses.FreeBits`.
        beta: Non-negative float or schedule, weight of the charged rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Kingma et al. (2016), eq. 15, arXiv:1606.04934.
    """
    return VAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        prior=prior,
        likelihood=likelihood,
        objective=FreeBits(free_bits, variant, beta),
        num_samples=num_samples,
        seed=seed,
        name=name,
    )
