"""Auto-encoder: no rate at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.checks import check_flag
from ..layers import GaussianHead, PointHead
from ..losses import ELBO
from .recipes import digits_mlp, mnist_mlp, text_lstm, text_tiny
from .vae.model import VAE

if TYPE_CHECKING:
    import keras

    from ..layers.likelihoods import Likelihood

PRESETS = {
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths"),
    "digits_mlp": digits_mlp(),
    "yelp_sentences": text_lstm(
        "yelp_sentences", "AE", anneal=False, plateau={"monitor": "val_distortion"}
    ),
    "text_tiny": text_tiny(anneal=False),
}


def AE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    deterministic: bool = False,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "ae",
) -> VAE:
    """VAE whose rate is free.

        loss = E_q[-log p(x|z)]    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        deterministic: If True z is the encoder's output itself, the rate is infinite and
            `log_prob` undefined. By default z is drawn, as in the baselines of the literature, and
            its variance shrinks in training.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.
    """
    deterministic = check_flag("deterministic", deterministic)
    head = (
        PointHead(latent_dim, num_samples)
        if deterministic
        else GaussianHead(latent_dim, num_samples, seed=seed)
    )
    return VAE(
        encoder, decoder, head=head, likelihood=likelihood, objective=ELBO(beta=0.0), name=name
    )
