"""HEBAE (Cheng et al., 2020, arXiv:2007.10389): a hierarchical empirical Bayes auto-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .study import Claim, Column, Protocol, Row, Study, Training

if TYPE_CHECKING:
    from typing import Any

_SIZES = (2, 5, 10, 20)
#: Weights of the sweep at k = 20; the paper shows curves without the numbers.
_WEIGHTS = (0.01, 0.1, 0.5, 1, 2, 5, 10)
_MODELS = ("hebae", "vae", "wae")
_TITLES = {"hebae": "HEBAE", "vae": "VAE", "wae": "WAE"}
_DECAY = "InEpochs(ExponentialDecay(0.001, decay_steps=1, decay_rate=0.995, staircase=True))"
_CODE = (
    "by the official code: draws by the diagonal of the covariance, without a gradient through it; "
    "its optimizer, which is made anew in each epoch, is kept here"
)


def _training(model: str, size: int, weight: float = 1) -> Training:
    suffix = "" if weight == 1 else f"_weight{weight:g}"
    common: dict[str, Any] = {
        "name": f"mnist_{model}_k{size}{suffix}",
        "data": "mnist",
        "hours": 0.3,
    }
    if model == "hebae":
        settings: dict[str, Any] = {"latent_dim": size, "weight": weight}
        settings |= {"sampling": "diagonal", "stop_gradient": True}
        return Training(preset="hebae_mnist_mlp", model=settings, **common)
    if model == "wae":
        return Training(preset="wae_mnist_mlp", model={"latent_dim": size}, **common)
    return Training(
        preset="beta_vae_mnist_mlp",
        model={"latent_dim": size, "beta": weight},
        networks={"encoder": {"hidden_units": (784, 800)}},
        training={"epochs": 100, "learning_rate": _DECAY, "validation": "none"},
        reading={"batch_size": 128, "binarize": None},
        **common,
    )


def _row(model: str, size: int) -> Row:
    return Row(
        name=f"{model}_k{size}",
        title=f"{_TITLES[model]}, k = {size}",
        run=_training(model, size),
        differs=_CODE if model == "hebae" else "",
    )


_ELBO = (
    Column("elbo", "objective, last epoch", "nats", "last:-loss"),
    Column("distortion", "distortion in training", "nats", "last:distortion"),
)
_COVARIANCE = (
    Column("identity", "distance of covariance from I", "", "code_identity_distance"),
    Column("correlation", "mean absolute correlation", "", "code_correlation"),
    Column("variance_least", "least variance", "", "code_variance_least"),
)

FIGURE_1A = Study(
    paper="hebae",
    name="figure1a",
    title="Objective by epoch on MNIST, by the size of the code",
    columns=_ELBO,
    rows=tuple(_row(model, size) for size in _SIZES for model in ("hebae", "vae")),
    protocol=Protocol(
        said="minus the training loss: a bound on the likelihood for the VAE, none for HEBAE, "
        "whose rate leaves out the scales"
    ),
    claims=tuple(
        Claim(
            f"HEBAE's objective is above the VAE's at k = {k}", "elbo", f"hebae_k{k}", f"vae_k{k}"
        )
        for k in _SIZES
    ),
    figure="objective_curves",
)

FIGURE_2 = Study(
    paper="hebae",
    name="figure2",
    title="Covariance and correlation of codes of MNIST's test images",
    columns=_COVARIANCE,
    rows=tuple(_row(model, size) for size in _SIZES for model in _MODELS),
    protocol=Protocol(
        measures=("code_covariance",),
        said="posterior means of the 10,000 test images; distance: root mean square of the entries "
        "of the covariance less the identity",
    ),
    claims=tuple(
        Claim(
            f"HEBAE's covariance is nearer to the identity than the {_TITLES[other]}'s at k = {k}",
            "identity",
            f"{other}_k{k}",
            f"hebae_k{k}",
        )
        for k in _SIZES
        for other in ("vae", "wae")
    ),
    figure="covariance_maps",
)

LAMBDA = Study(
    paper="hebae",
    name="lambda_sweep",
    title="Objective on MNIST by the weight lambda, k = 20",
    columns=(
        Column("elbo", "largest objective", "nats", "max:-loss"),
        Column("distortion", "distortion in training", "nats", "last:distortion"),
    ),
    rows=tuple(
        Row(
            name=f"{model}_{weight:g}",
            title=f"{_TITLES[model]}, lambda = {weight:g}",
            run=_training(model, 20, weight),
            differs=_CODE if model == "hebae" else "",
        )
        for weight in _WEIGHTS
        for model in ("hebae", "vae")
    ),
    protocol=Protocol(said="the largest value of minus the training loss over the epochs"),
    claims=tuple(
        Claim(
            f"HEBAE's objective is above the VAE's at lambda = {weight:g}",
            "elbo",
            f"hebae_{weight:g}",
            f"vae_{weight:g}",
        )
        for weight in _WEIGHTS
    ),
    figure="weight_curves",
    differs="the weights: the paper's curves have no numbers",
)

MIC = Study(
    paper="hebae",
    name="mic_tic",
    title="Dependence of code and index, MNIST, k = 20",
    columns=(
        Column("mic", "MIC", "", "index_mic"),
        Column("tic", "TIC", "", "index_tic"),
        Column("floor", "MIC, index shuffled", "", "index_mic_floor"),
        Column("mi", "MI", "", "code_information"),
    ),
    rows=tuple(_row(model, 20) for model in _MODELS),
    protocol=Protocol(
        measures=("index_dependence",),
        said="1,000 test images and their number in the set, which is stored in random order, so "
        "that only noise can show; MI: of code and image, log 10,000 at most, WAE's by convention",
    ),
    claims=(
        Claim("WAE's MIC is above HEBAE's", "mic", "wae_k20", "hebae_k20"),
        Claim("HEBAE's MIC is above the VAE's", "mic", "hebae_k20", "vae_k20"),
    ),
    figure="dependence_bars",
    differs="1,000 of the 10,000 images",
)

PANELS = Study(
    paper="hebae",
    name="samples",
    title="Samples, reconstructions and interpolations, MNIST, k = 10",
    columns=(Column("distortion", "distortion in training", "", "last:distortion"),),
    rows=tuple(_row(model, 10) for model in _MODELS),
    protocol=Protocol(
        measures=("samples", "reconstructions", "interpolations"),
        said="means of images drawn from N(0, I), test images and their reconstructions, and lines "
        "between the codes of two test images",
    ),
    figure="model_panels",
)


def _celeba(model: str) -> Training:
    settings = {"hebae": {"sampling": "diagonal", "stop_gradient": True}}.get(model, {})
    return Training(
        name=f"celeba_{model}",
        preset=f"{model}_celeba_conv",
        data="celeb_a",
        model=settings,
        memory=16,
        small={
            "networks": {
                "encoder": {"filters": (8, 8, 8, 8)},
                "decoder": {"filters": (8, 8, 8, 8)},
            },
            # Pixels are the features, whose covariance is that of as many.
            "reading": {"image_size": 16},
        },
    )


CELEBA = Study(
    paper="hebae",
    name="celeba",
    title="FID of samples of CelebA",
    columns=(Column("fid", "FID", "", "frechet_distance", "lower", tolerance=1.0),),
    rows=(
        Row(
            name="hebae",
            title="HEBAE",
            run=_celeba("hebae"),
            published={"fid": 46.0},
            not_run="CelebA is not at hand",
            differs=f"{_CODE}; weight 12.288 on the sum of squares, the official code's 0.001 on "
            "their mean",
        ),
        Row(
            name="wae",
            title="WAE",
            run=_celeba("wae"),
            not_run="CelebA is not at hand",
            differs="weight 100 of the original WAE, where HEBAE's code has 0.001, which hardly "
            "counts",
        ),
    ),
    protocol=Protocol(
        metrics=("frechet_distance",),
        options={
            "frechet_distance": {
                "features": "inception",
                "value_range": (-1.0, 1.0),
                "num_samples": 10_000,
            }
        },
        limit=10_000,
        said="10,000 generated and 10,000 real test images, features of Inception",
    ),
    stand_in="at small scale CIFAR-10's images, and pixels as features",
)

STUDIES = (FIGURE_1A, FIGURE_2, LAMBDA, MIC, PANELS, CELEBA)
