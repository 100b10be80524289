"""SKIP-VAE: the code reaches every layer of the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layers import with_latent_skips
from ..losses import ELBO
from .recipes import digits_mlp, mnist_mlp
from .vae.model import VAE

if TYPE_CHECKING:
    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths"),
    "digits_mlp": digits_mlp(),
}


def SkipVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 20,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "skip_vae",
) -> VAE:
    """VAE whose decoder sees z in every layer.

        h_{l+1} = act( W_l h_l + b_l + V_l z )
        loss    = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Functional or sequential model `(batch, D) -> (batch, ...)`. Skips are added to a
            copy of it, unless it has some already (`LatentSkip` layers).
        latent_dim: Positive int D.
        beta: Non-negative float or schedule, weight of the rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Dieng et al. (2019), arXiv:1807.04863.
    """
    return VAE(
        encoder,
        with_latent_skips(decoder),
        latent_dim=latent_dim,
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        num_samples=num_samples,
        seed=seed,
        name=name,
    )
