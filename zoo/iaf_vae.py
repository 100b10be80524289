"""IAF-VAE: a posterior bent by inverse autoregressive flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..core.checks import check_integer, check_real
from ..layers import FlowHead, InverseAutoregressiveFlow, MeanBatchNorm
from ..losses import ELBO, FreeBits
from .recipes import digits_pixelcnn, omniglot_resnet_pixelcnn, text_lstm, text_tiny
from .vae.model import VAE

if TYPE_CHECKING:
    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "omniglot": omniglot_resnet_pixelcnn("IAF+FB (0.15)", free_bits=0.15),
    "omniglot_bn": omniglot_resnet_pixelcnn("IAF+BN (0.5)", gamma=0.5),
    "mnist": omniglot_resnet_pixelcnn(
        "settings of ours: DU-VAE's run on OMNIGLOT, IAF+FB (0.15)", data="mnist", free_bits=0.15
    ),
    "digits_pixelcnn": digits_pixelcnn(free_bits=0.15, flow_width=4),
    "digits_pixelcnn_bn": digits_pixelcnn(gamma=0.5, flow_width=4),
    "yahoo": text_lstm("yahoo", "IAF+FB (0.15)", "flow", free_bits=0.15),
    "yelp": text_lstm("yelp", "IAF+FB (0.25)", "flow", free_bits=0.25),
    "yelp_sentences": text_lstm("yelp_sentences", "IAF+FB (0.25)", "flow", free_bits=0.25),
    "yahoo_bn": text_lstm("yahoo", "IAF+BN (0.6)", "flow", gamma=0.6),
    "yelp_bn": text_lstm("yelp", "IAF+BN (0.7)", "flow", gamma=0.7),
    "yelp_sentences_bn": text_lstm("yelp_sentences", "IAF+BN (0.7)", "flow", gamma=0.7),
    "text_tiny": text_tiny(free_bits=0.15, flow_width=4),
    "text_tiny_bn": text_tiny(gamma=0.6, flow_width=4),
}


def IAFVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    num_blocks: int = 2,
    flow_width: int = 60,
    context_layers: str = "first",
    gamma: float | None = None,
    free_bits: float = 0.0,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "iaf_vae",
) -> VAE:
    """VAE whose posterior is a Gaussian bent by gated inverse autoregressive flows.

        eps  ~ N(m(x), softplus(a(x))^2),   z = flow(eps; c(x))
        rate = E_q[ log q(z|x) - log p(z) ], by one draw or several
        loss = E_q[-log p(x|z)] + beta * rate    (nats per example)

    Two cures for its collapse are options: free bits on the rate of each dimension, and batch
    normalization of the base's mean with a fixed gain (which a flow can undo: it keeps little).

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        num_blocks: Positive int, number of flow blocks; coordinates are reversed after each.
        flow_width: Positive int; the two hidden layers of a block have `flow_width * D` units.
        context_layers: `"first"` or `"all"`, where the context enters a block, see `MADE`.
        gamma: Optional positive float, gain of the batch normalization (0.5 to 0.7).
        free_bits: Non-negative float, floor of each dimension's rate in nats (0.15 to 0.25).
        beta: Non-negative float or schedule, weight of the rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Kingma et al. (2016), algorithm 1 and eq. 15, arXiv:1606.04934; in the form of Shen
    et al. (2021), DU-VAE, section 3.4, arXiv:2110.12381. The flows' kernels start from U(+-1 /
    sqrt(fan_in)), as in its code.
    """
    free_bits = check_real("free_bits", free_bits, "[0, inf)")
    # The official code's epsilon for flows, whose encoder starts from tiny means.
    norm = None if gamma is None else MeanBatchNorm(gamma, mode="fixed", epsilon=1e-8)
    flow = _iaf(latent_dim, num_blocks, flow_width, context_layers)
    return VAE(
        encoder,
        decoder,
        head=FlowHead(latent_dim, flow, num_samples, mean_norm=norm, seed=seed),
        prior=prior,
        likelihood=likelihood,
        objective=FreeBits(free_bits, beta=beta) if free_bits else ELBO(beta),
        name=name,
    )


def _iaf(latent_dim, num_blocks, flow_width, context_layers):
    latent_dim = check_integer("latent_dim", latent_dim)
    hidden_units = (check_integer("flow_width", flow_width) * latent_dim,) * 2
    return InverseAutoregressiveFlow(
        num_blocks,
        hidden_units,
        context_layers=context_layers,
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
    )
