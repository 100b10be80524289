"""The models, their networks and their presets."""

from ..core.checks import check_kind, check_name
from . import (
    ae,
    agg_vae,
    beta_vae,
    bn_vae,
    delta_vae,
    du_iaf,
    du_vae,
    free_bits_vae,
    hebae,
    iaf_vae,
    info_vae,
    iwae,
    mae,
    mu_vae,
    networks,
    resnet_vae,
    sa_vae,
    skip_vae,
    text_vae,
    vae,
    vae_as,
    vlae,
    wae,
)
from .ae import AE
from .agg_vae import AggVAE
from .beta_vae import BetaVAE
from .bn_vae import BNVAE
from .delta_vae import DeltaVAE
from .du_iaf import DUIAF
from .du_vae import DUVAE
from .free_bits_vae import FreeBitsVAE
from .hebae import HEBAE
from .iaf_vae import IAFVAE
from .info_vae import InfoVAE
from .iwae import IWAE
from .mae import MAE
from .mu_vae import MuVAE
from .preset import Preset, build_preset
from .resnet_vae import ResNetVAE
from .sa_vae import SAVAE
from .skip_vae import SkipVAE
from .text_vae import TextVAE
from .vae import VAE, Output
from .vae_as import VAEAS, auxiliary_softmax
from .vlae import VLAE
from .wae import WAE

__all__ = [
    "VAEAS",
    "VLAE",
    "ResNetVAE",
    "MAE",
    "IAFVAE",
    "DUIAF",
    "AE",
    "AggVAE",
    "HEBAE",
    "IWAE",
    "SAVAE",
    "VAE",
    "WAE",
    "BNVAE",
    "BetaVAE",
    "DUVAE",
    "DeltaVAE",
    "FreeBitsVAE",
    "InfoVAE",
    "MuVAE",
    "Output",
    "Preset",
    "SkipVAE",
    "TextVAE",
    "auxiliary_softmax",
    "load",
    "networks",
    "presets",
]

_MODULES = {
    "ae": (ae, AE),
    "vae": (vae, VAE),
    "beta_vae": (beta_vae, BetaVAE),
    "free_bits_vae": (free_bits_vae, FreeBitsVAE),
    "delta_vae": (delta_vae, DeltaVAE),
    "bn_vae": (bn_vae, BNVAE),
    "du_vae": (du_vae, DUVAE),
    "mu_vae": (mu_vae, MuVAE),
    "hebae": (hebae, HEBAE),
    "wae": (wae, WAE),
    "info_vae": (info_vae, InfoVAE),
    "skip_vae": (skip_vae, SkipVAE),
    "iwae": (iwae, IWAE),
    "iaf_vae": (iaf_vae, IAFVAE),
    "du_iaf": (du_iaf, DUIAF),
    "resnet_vae": (resnet_vae, ResNetVAE),
    "vlae": (vlae, VLAE),
    "mae": (mae, MAE),
    "vae_as": (vae_as, VAEAS),
    "sa_vae": (sa_vae, SAVAE),
    "agg_vae": (agg_vae, AggVAE),
    "text_vae": (text_vae, TextVAE),
}


def presets():
    """All presets: dict of name to `(constructor, settings)`."""
    return {
        f"{model}_{preset}": (constructor, settings)
        for model, (module, constructor) in _MODULES.items()
        for preset, settings in module.PRESETS.items()
    }


def load(preset, *, model=None, networks=None, training=None, data=None):
    """Builds a model with its compile arguments and data settings from a preset.

    Example:
        run = zoo.load("du_vae_digits_mlp", model={"gamma": 0.6})
        run.model.compile(**run.compile_args)
        run.model.fit(vaezoo.data.load(split="train", **run.data_args), **run.fit_args)

    Args:
        preset: Name such as `"du_vae_mnist_mlp"`; `zoo.presets()` has all of them.
        model: Optional dict that overrides arguments of the constructor.
        networks: Optional dict that overrides arguments of `networks.make`.
        training: Optional dict that overrides `epochs`, `learning_rate`, `optimizer`, further
            arguments of the optimiser, `initial_examples` (see `VAE`), and `plateau`, the arguments
            of `vaezoo.callbacks.PlateauDecay` or None. That follows validation data, which `fit`
            must then be given. `validation` is read by the command line alone: what its
            `--validation` is by default.
        data: Optional dict that overrides arguments of `vaezoo.data.load`.

    Returns:
        `Preset`.

    Raises:
        ValueError: If there is no such preset, or an override is not an argument.
    """
    known = presets()
    check_kind("preset", preset, str, "the name of a preset")
    check_name("preset", preset, known, "one of the zoo's")
    constructor, settings = known[preset]
    overrides = {"model": model, "networks": networks, "training": training, "data": data}
    for section, value in overrides.items():
        check_kind(section, value, dict, "a dict of overrides", optional=True)
    overrides = {section: value or {} for section, value in overrides.items()}
    return build_preset(preset, constructor, settings, overrides)
