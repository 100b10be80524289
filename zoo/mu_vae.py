"""Mu-VAE: matched means in a ball."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..core.checks import check_real, check_seed
from ..layers import Gaussian, GaussianHead, LatentClip, StandardNormal
from ..losses import MuELBO
from .recipes import digits_mlp, mu_vae_cnn
from .vae.model import VAE

if TYPE_CHECKING:
    from ..layers.likelihoods import Likelihood


def _digits(**model):
    preset = digits_mlp(latent_dim=10, **model)
    preset["networks"]["output_activation"] = "sigmoid"
    preset["data"]["binarize"] = None
    return preset


PRESETS = {
    **{
        f"{data}_cnn{suffix}{ending}": mu_vae_cnn(
            f"{row}, {term}", data, clip_factor=factor, variance_mode=mode
        )
        for data in ("mnist", "fashion_mnist")
        for suffix, row, factor in (
            ("", "mu-VAE #1 (c = 3)", 3.0),
            ("_c6", "mu-VAE #2 (c = 6)", 6.0),
        )
        for ending, mode, term in (
            ("", "full", "with the variance term of the KL, which the text says can be kept"),
            ("_raw_lv", "raw_lv", "with the raw log-variance, as eq. 6 prints it"),
        )
    },
    "digits_mlp": _digits(),
    "digits_mlp_raw_lv": _digits(variance_mode="raw_lv"),
}


def MuVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 10,
    clip_factor: float = 3.0,
    mean_mode: str = "global",
    variance_mode: str = "full",
    half: bool = False,
    likelihood: str | Likelihood | None = None,
    sampling_scale: float = 3.0,
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "mu_vae",
) -> VAE:
    """VAE that matches the batch's mean instead of every posterior, with clipped means.

        mean <- mean * min(1, c sqrt(D) / ||mean||)
        loss = SSE + | sum_b sum_d mean_bd | / B + sum_d ( exp(log_var_d) - log_var_d - 1 )

    up to the constant of a Gaussian likelihood of variance 1/2, in nats per example.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning means of x (a sigmoid in the paper).
        latent_dim: Positive int D.
        clip_factor: Positive float c (3 and 6 in the paper).
        mean_mode: `"global"`, `"per_dimension"` or `"per_sample"`, see
            `vaezoo.losses.mean_matching`.
        variance_mode: `"full"`, `"abs_lv"`, `"exp_only"` or `"raw_lv"`, see
            `vaezoo.losses.variance_matching`; `"raw_lv"` holds the log-variance at -10 or above.
        half: If True both terms carry the 1/2 of the KL that they replace.
        likelihood: Name or `Likelihood`; by default a Gaussian of variance 1/2.
        sampling_scale: Positive float, standard deviation of the codes that `generate` draws.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: mu-VAE, eqs. 4 and 6.
    """
    seed = check_seed("seed", seed)
    head = GaussianHead(
        latent_dim,
        num_samples,
        clip=LatentClip(check_real("clip_factor", clip_factor, "(0, inf)")),
        min_log_var=-10.0 if variance_mode == "raw_lv" else None,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, "fan_in", "untruncated_normal", seed=seed
        ),
        seed=seed,
    )
    return VAE(
        encoder,
        decoder,
        head=head,
        prior=StandardNormal(sampling_scale),
        likelihood=likelihood or Gaussian(scale=0.5**0.5),
        objective=MuELBO(mean_mode, variance_mode, half),
        name=name,
    )
