"""WAE-MMD: a deterministic encoder whose codes match the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layers import Gaussian, PointHead
from ..losses import ELBO, MaximumMeanDiscrepancy
from .recipes import digits_mlp, mnist_hebae
from .vae.model import VAE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood

PRESETS = {
    "mnist_mlp": mnist_hebae(
        "Cheng et al. (2020), HEBAE, appendix, MNIST (k = 20), WAE-MMD", latent_dim=20
    ),
    "celeba_conv": {
        "networks": {"kind": "wae", "input_shape": (64, 64, 3)},
        # A variance of 10 charges 0.05 times the squared error, as the paper's code does.
        "model": {
            "latent_dim": 64,
            "weight": 100.0,
            "prior_variance": 2.0,
            "likelihood": Gaussian(scale=10.0**0.5),
        },
        "training": {"epochs": 70, "learning_rate": 1e-3, "beta_1": 0.5},
        "data": {
            "name_or_path": "celeb_a",
            "batch_size": 100,
            "image_size": 64,
            "value_range": (-1.0, 1.0),
        },
        "source": "settings of ours: HEBAE's networks, lambda 100 of Tolstikhin et al. (2018)",
    },
    "digits_mlp": digits_mlp(latent_dim=10),
}


def WAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 10,
    weight: Weighting = 10.0,
    kernel: str = "imq",
    scales: Sequence[float] | None = None,
    prior_variance: float = 1.0,
    likelihood: str | Likelihood = "bernoulli",
    seed: int | None = None,
    name: str = "wae",
) -> VAE:
    """Deterministic auto-encoder with a penalty on the distance of its codes from the prior.

        loss = -log p(x|z) + weight * MMD( q(z), p(z) ),   z = encoder(x)    (nats per example)

    It has no posterior density: the rate is infinite, `log_prob` undefined.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        weight: Non-negative float or schedule (10 on MNIST, 100 on CelebA).
        kernel: `"imq"` or `"rbf"`.
        scales: Sequence of positive floats, or None for the kernel's own.
        prior_variance: Positive float; codes are matched to N(0, prior_variance I), which is the
            model's prior, too.
        likelihood: Name or `Likelihood`.
        seed: Optional int that fixes the prior draws.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Tolstikhin et al. (2018), algorithm 2, arXiv:1711.01558.
    """
    penalty = MaximumMeanDiscrepancy(weight, kernel, scales, prior_variance, seed)
    return VAE(
        encoder,
        decoder,
        head=PointHead(latent_dim),
        likelihood=likelihood,
        objective=ELBO(beta=0.0, regularizers=[penalty]),
        name=name,
    )
