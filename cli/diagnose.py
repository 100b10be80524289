"""`vaezoo diagnose`: whether a latent code is healthy, why, and what would help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.files import written
from ..runs import directory
from . import options
from .console import open_console
from .source import check_source, check_target, open_source


def diagnose(
    source: options.SOURCE_OR_SERVED,
    data_name: options.DATA = None,
    data_dir: options.DATA_DIR = None,
    split: options.SPLIT = "test",
    limit: options.LIMIT = 2000,
    binarize: options.BINARIZE = None,
    likelihood: options.LIKELIHOOD = None,
    seed: options.SEED = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Page to write; the same in JSON lies beside it.",
            show_default="diagnosis.html beside the model",
        ),
    ] = None,
    overwrite: options.OVERWRITE = False,
) -> None:
    """Say whether a model's latent code is healthy, why, and what would help.

    The verdict comes with its evidence and with remedies, on the screen
    and as a page with pictures that needs no network. Of a run whose loss was
    not finite, it first tells which term, layer, rows and batch were so.

    Examples:
      vaezoo diagnose runs/du
      vaezoo diagnose runs/du/checkpoints/best.keras --out best.html
      vaezoo diagnose served/du/1 --data digits --binarize
    """
    check_source(source)
    lost = directory.read_nonfinite(Path(source)) if Path(source).is_dir() else None
    if lost is not None:
        screen = open_console()
        screen.print(lost["text"], highlight=False, markup=False)
        kept = Path(source) / directory.NONFINITE
        screen.print(f"Kept: {kept} (batch.npz, before.keras, report.json)", highlight=False)
        if not directory.recorded(Path(source)):
            # There is no trained model.
            return
    from .. import metrics

    opened = open_source(source, data_name, data_dir, split, limit, binarize)
    out = out or opened.folder / "diagnosis.html"
    beside = out.with_suffix(".json")
    for path in (out, beside):
        check_target(path, overwrite)
    arguments: dict[str, Any] = {"likelihood": likelihood} if likelihood else {}
    diagnosis = metrics.diagnose(opened.model, opened.x, seed=seed, progress=True, **arguments)
    for path, write in ((out, diagnosis.to_html), (beside, diagnosis.to_json)):
        with written(path) as partial:
            write(partial)
    screen = open_console()
    screen.print(opened.description, highlight=False)
    screen.print(str(diagnosis), highlight=False, markup=False)
    screen.print(f"As a page: {out}", highlight=False)
