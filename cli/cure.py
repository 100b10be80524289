"""`vaezoo cure`: what it gives to try the remedies that the diagnosis recommends."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.files import written
from ..runs import directory
from . import options
from .console import open_console
from .source import check_source, check_target, open_source


def cure(
    run: options.SOURCE,
    data_name: options.DATA = None,
    data_dir: options.DATA_DIR = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Data to train and score on.")] = (
        "train"
    ),
    limit: options.LIMIT = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="For all trainings, such as 90s or 10m.")
    ] = "2m",
    remedies: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many remedies are tried.")
    ] = 3,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Steps of each training, whatever time that takes.",
            show_default="what the budget allows",
        ),
    ] = None,
    seed: options.SEED = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Page to write; the same in JSON lies beside it.",
            show_default="cure.html beside the model",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the winner as a run here, to go on with.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.OVERWRITE = False,
) -> None:
    """Try the remedies of the diagnosis, and say which one helps.

    The original recipe and the first remedies are trained with new weights for
    the same number of steps, from the same seeds and on the same rows, and
    scored on the others: one table, and a page with pictures side by side. A
    remedy that did not help is said not to have helped. `--keep` keeps the very
    model that the trial has trained.

    Examples:
      vaezoo cure runs/vae
      vaezoo cure runs/vae --budget 10m --remedies 5 --out cure.html
      vaezoo cure runs/vae --keep runs/cured
    """
    check_source(run)
    out = out or (run if run.is_dir() else run.parent) / "cure.html"
    beside = out.with_suffix(".json")
    for path in (out, beside):
        check_target(path, overwrite)
    if keep is not None:
        if not run.is_dir():
            raise ValueError(f"`--keep` needs the directory of a run. Received: {str(run)!r}")
        directory.check_free(keep, overwrite)
    from .. import metrics, runs

    opened = open_source(run, data_name, data_dir, split, limit, None)
    screen = open_console()
    screen.print(opened.description, highlight=False)
    cures, more = None, {}
    if directory.run_of(directory.find_model(run)) is not None:
        from ..runs.cures import Cures

        spec = runs.Run.open(opened.folder).spec
        held: Any = spec.data
        if data_dir is not None:
            spec = spec.replace(data={**held, "data_dir": data_dir})
        cures = Cures(spec, len(opened.x))
        more = {"build": cures, "batch_size": cures.batch_size}
        if keep is not None:
            # What cannot be kept is said before anything is trained.
            runs.Run.create(keep, spec, overwrite=overwrite)
    found = metrics.try_remedies(
        opened.model, opened.x, budget=budget, remedies=remedies, steps=steps, seed=seed, **more
    )
    for path, write in ((out, found.to_html), (beside, found.to_json)):
        with written(path) as partial:
            write(partial)
    screen.print(f"Diagnosis: {found.diagnosis.title}", highlight=False, markup=False)
    screen.print(str(found), highlight=False, markup=False, soft_wrap=True)
    screen.print(f"As a page: {out}", highlight=False)
    if keep is None or cures is None:
        return
    if found.winner is None:
        screen.print("Nothing was kept.", highlight=False)
        return
    kept = cures.keep(keep, found.winner, found.steps, overwrite=overwrite)
    name, epochs = shlex.quote(str(keep)), 2 * kept.epochs
    how = f"vaezoo train {kept.spec.preset} --out {name} --resume --epochs {epochs}"
    if kept.spec.preset is None:
        how = f"vaezoo.runs.Run.open({str(keep)!r}).fit(epochs={epochs})"
    screen.print(f"The winner as a run: {keep}. Go on with it: {how}", highlight=False)
