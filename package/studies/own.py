"""Studies of ours: which models keep their code, at a size of a minute a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .study import Claim, Column, Protocol, Row, Study, Training

if TYPE_CHECKING:
    from typing import Any

_ANNEALED = "LinearSchedule(10, unit='epochs')"
#: Preset and arguments of each row.
_ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {}),
    "vae_annealed": ("vae", {"objective": f"ELBO({_ANNEALED})"}),
    "free_bits": ("free_bits_vae", {"free_bits": 0.1}),
    "bn_vae": ("bn_vae", {"gamma": 0.5}),
    "du_vae": ("du_vae", {"gamma": 0.5, "keep_prob": 0.9}),
    "du_vae_0.3": ("du_vae", {"gamma": 0.3, "keep_prob": 0.9}),
    "iaf_fb": ("iaf_vae", {"free_bits": 0.15}),
    "iaf_bn": ("iaf_vae", {"free_bits": 0.0, "gamma": 0.5}),
    "du_iaf": ("du_iaf", {"gamma": 0.5, "keep_prob": 0.85}),
    "vlae": ("vlae", {"free_bits": 0.0}),
    **{
        f"mae_{eta:g}_{gamma:g}": ("mae", {"diversity": eta, "smoothness": gamma})
        for eta in (0.5, 2.0)
        for gamma in (0.1, 0.5)
    },
}


def _training(row: str) -> Training:
    preset, model = _ROWS[row]
    return Training(
        name=f"digits_{row}",
        preset=f"{preset}_digits_pixelcnn",
        data="digits",
        model={"latent_dim": 32, **model},
        networks={"normalization": "batch"},
        training={"epochs": 40},
        options={"validation": "none"},
        hours=0.03,
    )


DIGITS = Study(
    paper="vaezoo",
    name="digits",
    title="Who keeps the code when the decoder could do without it? Digits of 8x8 pixels",
    columns=(
        Column("nll", "NLL", "", "negative_log_likelihood"),
        Column("kl", "KL", "", "rate"),
        Column("mi", "MI", "", "mutual_information"),
        Column("au", "AU", "", "active_units"),
        Column("mpd", "MPD", "", "mutual_posterior_divergence"),
        Column("std", "STD", "", "posterior_divergence_deviation"),
        Column("train", "KL, training", "", "last:rate"),
    ),
    rows=tuple(Row(name=name, title=name, run=_training(name)) for name in _ROWS),
    protocol=Protocol(
        metrics=(
            "negative_log_likelihood",
            "mutual_information",
            "active_units",
            "mutual_posterior_divergence",
        ),
        num_samples=100,
        said="360 images, binarized once; 100 importance samples. The same residual encoder and "
        "PixelCNN in all rows, 32 latent dimensions, 40 epochs of Adam at 0.002; the numbers after "
        "a name are gain, or the weights of diversity and smoothness",
    ),
    claims=(
        Claim("DU-VAE keeps more than the plain VAE", "mi", "du_vae", "vae"),
        Claim("BN-VAE keeps more than the plain VAE", "mi", "bn_vae", "vae"),
        Claim("free bits keep more than the plain VAE", "mi", "free_bits", "vae"),
        Claim("DU-IAF keeps more than IAF+BN", "kl", "du_iaf", "iaf_bn"),
        *(
            Claim(f"more diversity, more MPD at {g}", "mpd", f"mae_2_{g}", f"mae_0.5_{g}")
            for g in ("0.1", "0.5")
        ),
        *(
            Claim(f"more smoothness, less STD at {e}", "std", f"mae_{e}_0.1", f"mae_{e}_0.5")
            for e in ("0.5", "2")
        ),
    ),
)


def _labeled(name: str, title: str, **settings: Any) -> Row:
    run = Training(
        name=f"labels_{name}",
        preset="vae_digits_mlp",
        data="digits",
        training={"epochs": 40},
        options={"validation": "none"},
        hours=0.03,
        **settings,
    )
    return Row(name=name, title=title, run=run)


LABELS = Study(
    paper="vaezoo",
    name="digit_labels",
    title="Digits of 8x8 pixels conditioned on their label",
    columns=(
        Column("nll", "NLL", "", "negative_log_likelihood"),
        Column("kl", "KL", "", "rate"),
        Column("of_code", "label told by the code", "%", "of_code", scale=100.0),
        Column("of_class", "draws of the class asked for", "%", "of_class", scale=100.0),
        Column("of_real", "test images told right", "%", "of_real", scale=100.0),
    ),
    rows=(
        _labeled("vae", "VAE"),
        _labeled("conditional", "VAE given the label", networks={"condition": "label"}),
        _labeled(
            "conditional_prior",
            "VAE given the label, a learned prior for each",
            networks={"condition": "label"},
            model={"prior": "ConditionalNormal()"},
        ),
    ),
    protocol=Protocol(
        metrics=("negative_log_likelihood",),
        measures=("conditional_draws",),
        num_samples=100,
        said="360 images, binarized once; 100 importance samples; the NLL of a conditional model "
        "is that of an image given its label. The class of 1,000 drawn means, 100 of each digit, "
        "is that of the nearest training image; the label of a code that of the nearest mean of a "
        "class",
    ),
    claims=(
        Claim("images are more probable given their label", "nll", "vae", "conditional"),
        Claim("the code need not hold the label then", "of_code", "vae", "conditional"),
        Claim("the model draws the digit that it is asked for", "of_class", "conditional", 90.0),
    ),
)

STUDIES = (DIGITS, LABELS)
