"""DU-VAE: diverse posteriors that stay uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.checks import check_choice, check_real
from ..core.renamed import renamed_arguments
from ..layers import ENTROPY_FLOOR, GaussianHead, MeanBatchNorm, VarianceDropout
from ..losses import ELBO, Schedule
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

    from ..core.types import Seed, Weighting
    from ..layers.likelihoods import Likelihood
    from ..layers.priors import Prior

PRESETS = {
    "mnist_mlp": mnist_mlp(
        "settings of ours: DU-VAE's gain and keep probability on OMNIGLOT, HEBAE's widths",
        latent_dim=32,
        gamma=0.5,
        keep_prob=0.9,
    ),
    "digits_mlp": digits_mlp(gamma=0.5, keep_prob=0.9),
    "omniglot": omniglot_resnet_pixelcnn("DU-VAE (0.5, 0.9)", gamma=0.5, keep_prob=0.9),
    "digits_pixelcnn": digits_pixelcnn(gamma=0.5, keep_prob=0.9),
    "yahoo": text_lstm("yahoo", "DU-VAE (0.6, 0.8)", "normalized", gamma=0.6, keep_prob=0.8),
    "yelp": text_lstm("yelp", "DU-VAE (0.5, 0.8)", "normalized", gamma=0.5, keep_prob=0.8),
    "yelp_sentences": text_lstm(
        "yelp_sentences", "DU-VAE (0.5, 0.8)", "normalized", gamma=0.5, keep_prob=0.8
    ),
    "text_tiny": text_tiny(gamma=0.5, keep_prob=0.8),
}


@renamed_arguments(gamma_norm=("gamma_mode", {"per_dim": "fixed"}))
def DUVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    gamma: float | None = 0.5,
    keep_prob: float = 0.9,
    gamma_mode: str = "rms",
    floor: float = ENTROPY_FLOOR,
    beta: Weighting = 1.0,
    reg_start_weight: float = 0.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "du_vae",
) -> VAE:
    """VAE with batch-normalized means of renormalized gain and dropout on its variances.

        mean_d = gamma_d * normalize_B(m_d) + beta_d,   sqrt(mean_d gamma_d^2) = gamma
        s2_hat = g * exp(r) + floor,                    g ~ Bernoulli(keep_prob) / keep_prob
        loss   = E_q[-log p(x|z)] + beta * KL(N(mean, s2_hat) || p(z))    (nats per example)

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D.
        gamma: Positive float, the gain (0.4 to 0.7 in the paper), or None for the ablation without
            batch normalization.
        keep_prob: Float in (0, 1]; 1 is the ablation without dropout, which keeps the floor.
        gamma_mode: `"rms"` pins the root mean square of the gains, `"fixed"` each single one.
        floor: Positive float, least variance.
        beta: Non-negative float or schedule, weight of the rate.
        reg_start_weight: Non-negative float; floor and dropout wait until the schedule `beta` has
            reached it. 0 is the paper's algorithm 1, 1 the official code.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes noise and masks.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Shen et al. (2021), algorithm 1, arXiv:2110.12381.
    """
    norm, dropout = du_regularizers(
        gamma, keep_prob, gamma_mode, floor, beta, reg_start_weight, seed
    )
    head = GaussianHead(
        latent_dim, num_samples, mean_norm=norm, variance_dropout=dropout, seed=seed
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


def du_regularizers(
    gamma: float | None,
    keep_prob: float,
    gamma_mode: str,
    floor: float,
    beta: Weighting,
    reg_start_weight: float,
    seed: Seed,
    epsilon: float = 1e-5,
) -> tuple[MeanBatchNorm | None, VarianceDropout]:
    """The layers on the posterior's mean and variance, with the arguments of `DUVAE`.

    Args:
        gamma: As in `DUVAE`.
        keep_prob: As in `DUVAE`.
        gamma_mode: As in `DUVAE`.
        floor: As in `DUVAE`.
        beta: As in `DUVAE`.
        reg_start_weight: As in `DUVAE`.
        seed: As in `DUVAE`.
        epsilon: Positive float, of the batch normalization.

    Returns:
        `(mean_norm, variance_dropout)`; the first is None without `gamma`.

    Raises:
        ValueError: If an argument is out of range.
    """
    check_choice("gamma_mode", gamma_mode, ("rms", "fixed"))
    reg_start_weight = check_real("reg_start_weight", reg_start_weight, "[0, inf)")
    if not callable(beta):
        beta = check_real("beta", beta, "[0, inf)", also="a schedule of the training step")
    norm = None if gamma is None else MeanBatchNorm(gamma, mode=gamma_mode, epsilon=epsilon)
    start_step: float = 0
    unit = "steps"
    if isinstance(beta, Schedule):
        start_step, unit = beta.first_step_at(reg_start_weight), beta.unit
    elif callable(beta):
        if reg_start_weight > 0:
            raise ValueError(
                "`reg_start_weight` must be 0 unless `beta` is a number or a vaezoo schedule. "
                f"Received: reg_start_weight={reg_start_weight}, beta={type(beta).__name__}"
            )
    elif reg_start_weight > beta:
        raise ValueError(
            "`reg_start_weight` must not exceed a constant `beta`, or the regularizers never "
            f"start. Received: reg_start_weight={reg_start_weight}, beta={beta}"
        )
    return norm, VarianceDropout(keep_prob, floor, seed=seed, start_step=start_step, unit=unit)
