"""HEBAE: a hierarchical empirical Bayes auto-encoder with a full covariance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..core.checks import check_choice
from ..core.renamed import renamed_arguments
from ..layers import CholeskyReparam, Gaussian, GaussianHead
from ..losses import EmpiricalBayesELBO, InEpochs
from .recipes import digits_mlp, mnist_hebae
from .vae.model import VAE

if TYPE_CHECKING:
    from ..core.types import Weighting
    from ..layers.likelihoods import Likelihood

PRESETS = {
    "mnist_mlp": mnist_hebae("Cheng et al. (2020), HEBAE, appendix, MNIST (k = 20)"),
    "celeba_conv": {
        "networks": {"kind": "wae", "input_shape": (64, 64, 3)},
        # The paper's weight of 0.001 on a mean over 12,288 squares, on the scale of their sum.
        "model": {"latent_dim": 64, "weight": 12.288, "likelihood": Gaussian(scale=0.5**0.5)},
        "training": {
            "epochs": 100,
            "learning_rate": InEpochs(
                keras.optimizers.schedules.PiecewiseConstantDecay(
                    [30.0, 50.0, 70.0], [1e-4, 5e-5, 1e-5, 1e-6]
                )
            ),
        },
        "data": {
            "name_or_path": "celeb_a",
            "batch_size": 100,
            "image_size": 64,
            "value_range": (-1.0, 1.0),
        },
        "source": "Cheng et al. (2020), HEBAE, official code, CelebA (k = 64)",
    },
    "digits_mlp": digits_mlp(),
}


@renamed_arguments(sigma=("scale", {}))
def HEBAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 20,
    weight: Weighting = 1.0,
    scale: str = "vector",
    sampling: str = "cholesky",
    stop_gradient: bool = False,
    statistics: str = "running",
    shrinkage: float = 0.0,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "hebae",
) -> VAE:
    """Auto-encoder whose posterior means are one population, drawn to the prior as a whole.

        beta, Sigma = mean and covariance of mean_i over the batch,   Sigma = R R^T
        z_i  = mean_i + sigma_i * (R eps)
        loss = E_q[-log p(x|z)] + weight * KL( N(beta, Sigma) || N(0, I) )    (nats per example)

    The loss is no bound on log p(x): the sigma_i are free, and shrink toward 0.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters.
        latent_dim: Positive int D; batches need more rows than that.
        weight: Non-negative float or schedule, the paper's lambda.
        scale: `"vector"`, one sigma per dimension as in the official code, or `"scalar"`, one per
            example as in the paper's formulas.
        sampling: `"cholesky"`, or `"diagonal"` as in the official code.
        stop_gradient: If True no gradient flows through R into the draw, as in the official code.
        statistics: `"running"` or `"batch"` statistics in inference.
        shrinkage: Float in [0, 1], pull of Sigma toward I; helps where D approaches the batch.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Cheng et al. (2020), eqs. 7, 8 and 11, arXiv:2007.10389.
    """
    check_choice("scale", scale, ("vector", "scalar"))
    reparam = CholeskyReparam(
        num_samples,
        seed,
        shrinkage=shrinkage,
        sampling=sampling,
        stop_gradient=stop_gradient,
        statistics=statistics,
    )
    return VAE(
        encoder,
        decoder,
        head=GaussianHead(latent_dim, num_samples, reparam=reparam, scale=scale, seed=seed),
        likelihood=likelihood,
        objective=EmpiricalBayesELBO(weight),
        name=name,
    )
