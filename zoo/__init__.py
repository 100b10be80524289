"""The models, their networks and their presets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..core.checks import check_kind, check_name
from ..core.renamed import with_names_of_today
from . import networks
from .ae import AE as AE
from .agg_vae import AggVAE as AggVAE
from .beta_vae import BetaVAE as BetaVAE
from .bn_vae import BNVAE as BNVAE
from .delta_vae import DeltaVAE as DeltaVAE
from .du_iaf import DUIAF as DUIAF
from .du_vae import DUVAE as DUVAE
from .free_bits_vae import FreeBitsVAE as FreeBitsVAE
from .hebae import HEBAE as HEBAE
from .iaf_vae import IAFVAE as IAFVAE
from .info_vae import InfoVAE as InfoVAE
from .iwae import IWAE as IWAE
from .mae import MAE as MAE
from .mu_vae import MuVAE as MuVAE
from .preset import Preset, build_preset
from .resnet_vae import ResNetVAE as ResNetVAE
from .sa_vae import SAVAE as SAVAE
from .skip_vae import SkipVAE as SkipVAE
from .text_vae import TextVAE as TextVAE
from .vae import VAE as VAE
from .vae import Output
from .vae_as import VAEAS as VAEAS
from .vae_as import auxiliary_softmax
from .vlae import VLAE as VLAE
from .wae import WAE as WAE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _models():
    """Yields the name of each model, which is that of its file, its constructor and its presets."""
    for name, constructor in [*globals().items()]:
        module = getattr(constructor, "__module__", "")
        model = module.removeprefix(f"{__name__}.").split(".")[0]
        found = getattr(sys.modules.get(module), "PRESETS", None)
        if found is not None and model.replace("_", "") == name.lower():
            yield model, constructor, found


__all__ = ["Output", "Preset", "auxiliary_softmax", "load", "networks", "presets"]
__all__ += [constructor.__name__ for _, constructor, _ in _models()]


def presets() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """All presets: dict of name to `(constructor, settings)`."""
    return {
        f"{model}_{preset}": (constructor, settings)
        for model, constructor, presets_of_model in sorted(_models(), key=lambda model: model[0])
        for preset, settings in presets_of_model.items()
    }


def load(
    preset: str,
    *,
    model: dict[str, Any] | None = None,
    networks: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
) -> Preset:
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
            arguments of the optimizer, `initial_examples` (see `VAE`), and `plateau`, the arguments
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
    given = {"model": model, "networks": networks, "training": training, "data": data}
    for section, value in given.items():
        check_kind(section, value, dict, "a dict of overrides", optional=True)
        for key in value or ():
            check_kind(section, key, str, "a dict of overrides by their names")
    overrides = {section: value or {} for section, value in given.items()}
    overrides["model"] = with_names_of_today(constructor, overrides["model"])
    return build_preset(preset, constructor, settings, overrides)
