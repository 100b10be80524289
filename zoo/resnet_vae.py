"""ResNet VAE: an autoregressive-flow prior under a decoder that does not see x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recipes import digits_resnet, mae_images
from .vlae import VLAE

if TYPE_CHECKING:
    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior
    from .vae.model import VAE

PRESETS = {
    "mnist": mae_images("Ma et al. (2019), MAE, table 4, ResNet VAE with AF", decoder="resnet"),
    "omniglot": mae_images(
        "settings of ours: those of MAE's table 4", "omniglot", decoder="resnet"
    ),
    "digits_resnet": digits_resnet(prior={"num_blocks": 1, "hidden_units": [64]}),
}


def ResNetVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "resnet_vae",
) -> VAE:
    """VAE with an autoregressive-flow prior and a factorized decoder: MAE's baseline.

        loss = E_q[ -log p(x|z) + beta * (log q(z|x) - log p(z)) ],   p(x|z) = prod_t p(x_t|z)

    The presets give it residual networks on both sides.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        beta: Non-negative float or schedule, weight of the rate.
        prior: As in `VLAE`.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        TypeError: As `VLAE` does.
        ValueError: If an argument is out of range, or the decoder is autoregressive.

    Reference: Ma et al. (2019), MAE, section 4.1, arXiv:1901.01498.
    """
    model = VLAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        beta=beta,
        prior=prior,
        likelihood=likelihood,
        num_samples=num_samples,
        seed=seed,
        name=name,
    )
    if model.autoregressive:
        raise ValueError(
            "`decoder` must not be autoregressive; with one the model is a `VLAE`. Received: "
            f"{type(decoder).__name__}"
        )
    return model
