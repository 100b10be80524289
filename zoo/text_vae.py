"""The sentence VAE: text in, text out, by networks that read and write word by word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..layers import GaussianHead
from ..losses import ELBO
from .recipes import text_lstm, text_tiny
from .vae.model import VAE

if TYPE_CHECKING:
    from ..core.types import Weighting
    from ..layers.autoregressive_decoder import AutoregressiveDecoder
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "yahoo": text_lstm("yahoo", "VAE"),
    "yelp": text_lstm("yelp", "VAE"),
    "yelp_sentences": text_lstm("yelp_sentences", "VAE"),
    "text_tiny": text_tiny(),
}


def TextVAE(
    encoder: keras.layers.Layer,
    decoder: AutoregressiveDecoder,
    *,
    latent_dim: int = 32,
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "tokens",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "text_vae",
) -> VAE:
    """VAE of sentences, the plain one to which the papers' text models are compared.

        mean, log_var = W h_T,   h_T the encoder's last state
        loss = E_q[-sum_t log p(x_{t+1}|x_1..x_t, z)] + beta * KL(q(z|x) || p(z))    (nats)

    Any other model of the zoo works on text in the same way: give it the networks of
    `networks.make("lstm", ...)` and `likelihood="tokens"`.

    Args:
        encoder: Layer `(batch, T) -> (batch, F)`, such as `networks.lstm_encoder`.
        decoder: `AutoregressiveDecoder` of ids, such as `networks.LSTMDecoder`.
        latent_dim: Positive int D.
        beta: Non-negative float or schedule, weight of the rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: `"tokens"`, or a `Tokens`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Reference: Bowman et al. (2016), section 3, arXiv:1511.06349; the head without bias, as in the
    code of He et al. (2019), arXiv:1901.05534. It starts from U(+-1/sqrt(F)); the presets of the
    papers' corpora have that code's U(-0.01, 0.01).
    """
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    head = GaussianHead(
        latent_dim, num_samples, use_bias=False, kernel_initializer=initializer, seed=seed
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
