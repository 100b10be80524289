"""Published tables and figures as data, and how each is trained, measured and recorded.

    studies.find("vae_as/table2").rows
    studies.reproduce("vae_as/table2", rows=["vae"], seeds=[0])

`vaezoo reproduce` is the command.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import du_vae, hebae, mae, mu_vae, own, vae_as
from .study import Claim, Column, Protocol, Row, Study, Training

if TYPE_CHECKING:
    from typing import Any

    from .runner import reproduce

__all__ = [
    "PAPERS",
    "STUDIES",
    "Claim",
    "Column",
    "Protocol",
    "Row",
    "Study",
    "Training",
    "find",
    "find_all",
    "reproduce",
]

#: Titles of the papers.
PAPERS = {
    "du_vae": "DU-VAE (Shen et al., 2021)",
    "mae": "MAE (Ma et al., 2019)",
    "vae_as": "VAE-AS",
    "mu_vae": "mu-VAE",
    "hebae": "HEBAE (Cheng et al., 2020)",
    "vaezoo": "Studies of our own",
}
#: All studies by their key, such as "vae_as/table2".
STUDIES: dict[str, Study] = {
    study.key: study
    for module in (du_vae, mae, vae_as, mu_vae, hebae, own)
    for study in module.STUDIES
}


def find(key: str) -> Study:
    """Returns the study of a key.

    Raises:
        ValueError: If there is none.
    """
    from ..core.checks import check_name

    check_name("study", key, STUDIES, "one of those that `vaezoo reproduce` lists")
    return STUDIES[key]


def find_all(key: str) -> list[Study]:
    """Returns the study of a key, all of a paper, or for "all" all there are.

    Raises:
        ValueError: If there is none.
    """
    if key == "all":
        return list(STUDIES.values())
    return [study for study in STUDIES.values() if study.paper == key] or [find(key)]


def __getattr__(name: str) -> Any:
    # What trains imports the backend; what lists must not.
    if name != "reproduce":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.runner").reproduce


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
