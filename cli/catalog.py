"""The presets in short, for commands that answer before the backend is imported.

`python -m vaezoo.cli.catalog` writes `catalog.json` from the zoo; a test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.checks import check_name
from ..core.files import written
from .logs import hush

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILE = Path(__file__).with_name("catalog.json")


def read() -> dict[str, Any]:
    """Returns the file: dict of a preset's name to its row of `vaezoo list`."""
    return json.loads(FILE.read_text("utf-8"))


def check(name: str) -> None:
    """Raises the zoo's error for an unknown preset, before the backend is imported."""
    check_name("preset", name, read(), "one of the zoo's")


def preset_of(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns `(constructor, settings)` of a preset."""
    check(name)
    from .. import zoo

    return zoo.presets()[name]


def of_zoo() -> dict[str, Any]:
    """Returns what the file must hold."""
    from .. import zoo

    return {name: _row(*preset) for name, preset in zoo.presets().items()}


def _row(constructor, settings):
    networks = settings["networks"]
    units = networks.get("hidden_units", networks.get("units", ()))
    units = "-".join(map(str, units if isinstance(units, tuple | list) else (units,)))
    return {
        "model": constructor.__name__,
        "D": str(settings["model"].get("latent_dim", "")),
        "data": settings["data"]["name_or_path"],
        "networks": f"{networks['kind']} {units}".strip(),
        "source": settings["source"],
    }


def main() -> None:
    """Writes the file, a preset a line."""
    rows = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in of_zoo().items()]
    with written(FILE) as partial:
        partial.write_text("{\n" + ",\n".join(rows) + "\n}\n", "utf-8")


if __name__ == "__main__":
    hush()
    main()
