"""InfoVAE: mutual information is paid back, the aggregate posterior is matched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.checks import check_real
from ..layers import GaussianHead
from ..losses import ELBO, MaximumMeanDiscrepancy
from .recipes import digits_mlp, mnist_mlp
from .vae.model import VAE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from ..layers.likelihoods import Likelihood

PRESETS = {
    "mnist_mlp": mnist_mlp("settings of ours: MMD-VAE (alpha = 1, lambda = 1000), HEBAE's widths"),
    "digits_mlp": digits_mlp(),
}


def InfoVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 10,
    alpha: float = 1.0,
    lam: float = 1000.0,
    kernel: str = "rbf",
    scales: Sequence[float] | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "info_vae",
) -> VAE:
    """VAE that prefers informative codes and matches the prior in the aggregate.

        loss = E_q[-log p(x|z)] + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + lam - 1) MMD(q(z), p(z))

    in nats per example. `alpha = 1` is the MMD-VAE.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        alpha: Float of at most 1, bonus on mutual information.
        lam: Float of at least `1 - alpha`.
        kernel: `"rbf"` or `"imq"`.
        scales: Sequence of positive floats, or None for the kernel's own.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Zhao et al. (2017), eq. 6, arXiv:1706.02262.
    """
    alpha, lam = check_real("alpha", alpha), check_real("lam", lam)
    if alpha > 1 or alpha + lam < 1:
        raise ValueError(
            "`alpha` must be at most 1 and `alpha + lam` at least 1. Received: "
            f"alpha={alpha}, lam={lam}"
        )
    penalty = MaximumMeanDiscrepancy(alpha + lam - 1.0, kernel, scales, seed=seed)
    return VAE(
        encoder,
        decoder,
        head=GaussianHead(latent_dim, num_samples, seed=seed),
        likelihood=likelihood,
        objective=ELBO(beta=1.0 - alpha, regularizers=[penalty]),
        name=name,
    )
