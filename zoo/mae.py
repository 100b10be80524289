"""MAE: mutual posterior divergence, rewarded and evened out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..losses import MutualPosteriorDivergence
from .recipes import cifar10_pixelcnn, digits_pixelcnn, mae_images, text_lstm, text_tiny
from .vlae import VLAE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior
    from .vae.model import VAE

_CODE = {"reduction": "softplus_of_mean"}

PRESETS = {
    "mnist": mae_images(
        "Ma et al. (2019), MAE, table 1a, MAE (1.0, 0.5)", diversity=1.0, smoothness=0.5, **_CODE
    ),
    "omniglot": mae_images(
        "Ma et al. (2019), MAE, table 1b, MAE (0.5, 0.5), on chardata.mat",
        "omniglot",
        diversity=0.5,
        smoothness=0.5,
        **_CODE,
    ),
    "cifar10": cifar10_pixelcnn(
        "Ma et al. (2019), MAE, table 3, MAE (0.5, 1.0)", diversity=0.5, smoothness=1.0, **_CODE
    ),
    "cifar10_full": cifar10_pixelcnn(
        "Ma et al. (2019), MAE, table 3, MAE (0.5, 1.0), by the official code's decoder",
        field="full",
        diversity=0.5,
        smoothness=1.0,
        **_CODE,
    ),
    "digits_pixelcnn": digits_pixelcnn(
        normalization="weight",
        diversity=1.0,
        smoothness=0.5,
        prior={"num_blocks": 1, "hidden_units": [64]},
    ),
    "yahoo": text_lstm(
        "yahoo", "MAE (1, 0.2)", diversity=1.0, smoothness=0.2, prior="standard_normal"
    ),
    "yelp": text_lstm(
        "yelp", "MAE (2, 0.2)", diversity=2.0, smoothness=0.2, prior="standard_normal"
    ),
    "yelp_sentences": text_lstm(
        "yelp_sentences", "MAE (2, 0.2)", diversity=2.0, smoothness=0.2, prior="standard_normal"
    ),
    "text_tiny": text_tiny(diversity=2.0, smoothness=0.2, prior="standard_normal"),
}


def MAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    latent_shape: Sequence[int] | None = None,
    diversity: float = 1.0,
    smoothness: float = 0.5,
    reduction: str = "mean_of_softplus",
    free_bits: float = 0.0,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "mae",
) -> VAE:
    """VLAE whose posteriors are rewarded for differing, evenly.

        P_ij = KL( q(z|x_i) || q(z|x_j) ), per dimension, all pairs of the batch
        loss = VLAE's + diversity * mean_{i != j} sum_k softplus(-P_ijk)
                      + smoothness * std_{i != j}( sum_k P_ijk )    (nats per example)

    Args:
        encoder: As in `VLAE`.
        decoder: As in `VLAE`.
        latent_dim: Positive int D.
        latent_shape: As in `VLAE`.
        diversity: Non-negative float, the paper's eta (0.5 to 2).
        smoothness: Non-negative float, the paper's gamma (0.1 to 1).
        reduction: `"mean_of_softplus"` as in the paper, or `"softplus_of_mean"` as in the official
            code, which presumably gave the published numbers. Weights do not carry over.
        free_bits: As in `VLAE`.
        beta: As in `VLAE`.
        prior: As in `VLAE`; `"standard_normal"` gives the setting of DU-VAE's comparison.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        TypeError: As `VLAE` does.
        ValueError: If an argument is out of range.

    Reference: Ma et al. (2019), eqs. 5, 8 and 9, arXiv:1901.01498.
    """
    return VLAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        latent_shape=latent_shape,
        free_bits=free_bits,
        beta=beta,
        regularizers=[MutualPosteriorDivergence(diversity, smoothness, reduction)],
        prior=prior,
        likelihood=likelihood,
        num_samples=num_samples,
        seed=seed,
        name=name,
    )
