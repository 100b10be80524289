"""DU-IAF: diverse and uncertain posteriors under inverse autoregressive flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.renamed import renamed_arguments
from ..layers import ENTROPY_FLOOR, FlowHead
from ..losses import ELBO
from .du_vae import du_regularizers
from .iaf_vae import _iaf
from .recipes import digits_pixelcnn, omniglot_resnet_pixelcnn, text_lstm, text_tiny
from .vae.model import VAE

if TYPE_CHECKING:
    import keras

    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "omniglot": omniglot_resnet_pixelcnn("DU-IAF (0.5, 0.85)", gamma=0.5, keep_prob=0.85),
    "mnist": omniglot_resnet_pixelcnn(
        "settings of ours: the paper's run on OMNIGLOT, DU-IAF (0.5, 0.85)",
        data="mnist",
        gamma=0.5,
        keep_prob=0.85,
    ),
    "digits_pixelcnn": digits_pixelcnn(gamma=0.5, keep_prob=0.85, flow_width=4),
    "yahoo": text_lstm("yahoo", "DU-IAF (0.7, 0.7)", "flow", gamma=0.7, keep_prob=0.7),
    "yelp": text_lstm("yelp", "DU-IAF (0.6, 0.7)", "flow", gamma=0.6, keep_prob=0.7),
    "yelp_sentences": text_lstm(
        "yelp_sentences", "DU-IAF (0.6, 0.7)", "flow", gamma=0.6, keep_prob=0.7
    ),
    "text_tiny": text_tiny(gamma=0.6, keep_prob=0.7, flow_width=4),
}


@renamed_arguments(gamma_norm=("gamma_mode", {"per_dim": "fixed"}))
def DUIAF(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    num_blocks: int = 2,
    flow_width: int = 60,
    context_layers: str = "first",
    gamma: float | None = 0.5,
    keep_prob: float = 0.85,
    gamma_mode: str = "rms",
    floor: float = ENTROPY_FLOOR,
    beta: Weighting = 1.0,
    reg_start_weight: float = 0.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "du_iaf",
) -> VAE:
    """IAF-VAE with DU-VAE's regularizers on the Gaussian that the flows bend.

        mean_d = gamma_d * normalize_B(m_d) + beta_d,    sqrt(mean_d gamma_d^2) = gamma
        s2_hat = g * softplus(a)^2 + floor,              g ~ Bernoulli(keep_prob) / keep_prob
        eps    ~ N(mean, s2_hat),   z = flow(eps; c)
        loss   = E_q[ -log p(x|z) + beta * (log q(z|x) - log p(z)) ]    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        num_blocks: As in `IAFVAE`.
        flow_width: As in `IAFVAE`.
        context_layers: As in `IAFVAE`.
        gamma: As in `DUVAE`.
        keep_prob: As in `DUVAE`.
        gamma_mode: As in `DUVAE`.
        floor: As in `DUVAE`.
        beta: As in `DUVAE`.
        reg_start_weight: As in `DUVAE`.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes noise and masks.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Shen et al. (2021), section 3.4, arXiv:2110.12381.

    Note: Densities are kept per dimension through the flows' changes of order; the official code
    adds those of different coordinates up, which leaves their sum, and so the loss, the same.
    """
    norm, dropout = du_regularizers(
        gamma, keep_prob, gamma_mode, floor, beta, reg_start_weight, seed, epsilon=1e-8
    )
    flow = _iaf(latent_dim, num_blocks, flow_width, context_layers)
    head = FlowHead(
        latent_dim, flow, num_samples, mean_norm=norm, variance_dropout=dropout, seed=seed
    )
    return VAE(
        encoder,
        decoder,
        head=head,
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        name=name,
    )
