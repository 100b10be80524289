"""`vaezoo reproduce`: published tables and figures, trained, measured and recorded."""

from __future__ import annotations

import enum
import re
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .. import studies
from ..core.checks import SEEDS
from .console import open_console
from .signals import signals_first


class Scale(enum.StrEnum):
    """Sizes of runs."""

    PUBLISHED = "published"
    SMALL = "small"


class Several(TyperCommand):
    """A command whose options `--rows` and `--seeds` take all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelt, option = [], ""
        for word in args:
            if word.startswith("-"):
                option = word if word in ("--rows", "--seeds", "--data") else ""
                spelt.append(word)
            elif option and spelt[-1] != option:
                spelt += [option, word]
            else:
                spelt.append(word)
        return super().parse_args(ctx, spelt)


def reproduce(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            help="What to reproduce, such as vae_as/table2; all of a paper, such as hebae; or all.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW ...", help="Rows of the study.", show_default="all"),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N ...", min=0, max=SEEDS - 1, help="Seeds, a run each.", show_default="0"
        ),
    ] = None,
    scale: Annotated[
        Scale, typer.Option(help="Published size, or cut to what takes a minute a row.")
    ] = Scale.PUBLISHED,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin nothing after so much time, such as 90s, 30m or 2h; what is left is "
            "printed, and the same command goes on with it.",
            show_default="no limit",
        ),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Show the numbers there are, and run nothing.")
    ] = False,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="Write RESULTS.md, and README.md's sentence, from the records."
        ),
    ] = False,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Print one command a row and seed instead.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Where a data set lies: an .npz or .mat file, or a folder of text.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of .npz files, text and prepared tensorflow-datasets.",
            show_default="TFDS_DATA_DIR",
        ),
    ] = None,
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the runs, which resume by themselves.")
    ] = Path("runs/reproduce"),
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the records.",
            show_default="results; of small runs beside the runs",
        ),
    ] = None,
) -> None:
    """Reproduce a published table or figure: train, measure and record its rows.

    Without a study, the list of them with what has been done. Each row is an
    ordinary run, which goes on by itself when the command is given again, and
    ends in a record, one JSON file a row and seed.

    Examples:
      vaezoo reproduce
      vaezoo reproduce vae_as/table2 --list
      vaezoo reproduce vae_as/table2 --rows vae 1_1 --seeds 0 1 2 --budget 2h
      vaezoo reproduce hebae/figure1a --scale small
      vaezoo reproduce mu_vae/table1_mnist --data mnist=mnist.npz
      vaezoo reproduce vae_as/table2 --jobs | parallel
      vaezoo reproduce --write
    """
    from ..studies.data import Places

    small = scale is Scale.SMALL
    root = root / "small" if small else root
    results = results or (root / "results" if small else Path("results"))
    places = Places(_given(data or []), data_dir, root / "data")
    console = open_console()
    if write:
        for path in _written(results):
            console.print(f"Written: {path}", highlight=False)
        return
    if study is None:
        from ..studies.listing import studies_table

        for part in studies_table(results, places):
            console.print(part, highlight=False)
        return
    from ..studies.listing import chosen_rows, rows_table

    found = studies.find_all(study)
    if rows and len(found) > 1:
        raise ValueError(f"`--rows` needs a single study. Received: {study}")
    chosen = {held.key: [row.name for row in chosen_rows(held, rows)] for held in found}
    if listed:
        for held in found:
            console.print(rows_table(held, results, rows))
        return
    numbers = seeds or [0]
    if jobs:
        given = (scale, data, data_dir, root, results)
        for key, names in chosen.items():
            for seed in numbers:
                for name in names:
                    typer.echo(_command(key, name, seed, *given))
        return
    limit = None if budget is None else seconds_of(budget)

    from ..studies.runner import reproduce as run_rows

    started, left = time.monotonic(), []
    with signals_first():
        for held in found:
            left += run_rows(
                held,
                chosen[held.key],
                numbers,
                places=places,
                root=root,
                results=results,
                budget=None if limit is None else limit - (time.monotonic() - started),
                small=small,
                say=lambda line: console.print(line, highlight=False, soft_wrap=True),
            )
    for held in found:
        console.print(rows_table(held, results, chosen[held.key]))
        for path in _drawn([held], results):
            console.print(f"Figure: {path}", highlight=False)
    if left:
        console.print(f"Left: {', '.join(job.said for job in left)}", highlight=False)
        if limit is None:
            raise typer.Exit(1)


def _drawn(found, results):
    """Draws the figures of studies that have one, and something to show in it."""
    from ..studies import report

    shown = [study for study in found if study.figure and report.is_measured(study, results)]
    if not shown:
        return []
    from ..studies import figures

    return [figures.draw(study, results) for study in shown]


def _written(results):
    """Writes all that is made from records."""
    from ..studies import report

    return [*_drawn(studies.STUDIES.values(), results), *report.write(results)]


def seconds_of(text: str) -> float:
    """Reads a time, such as "90s", "30m" or "2h".

    Raises:
        ValueError: If it is none.
    """
    from ..core.checkpoints import SECONDS

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match:
        raise ValueError(f"`--budget` must be a time such as 90s, 30m or 2h. Received: {text}")
    return float(match[1]) * SECONDS[match[2]]


def _given(pairs):
    """Dict of data sets and their paths."""
    from ..core.checks import check_name
    from ..studies.data import SETS

    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals:
            raise ValueError(f"`--data` takes NAME=PATH. Received: --data {pair}")
        check_name("data", name, SETS, "the name of a data set of the studies")
        if not Path(path).expanduser().exists():
            raise FileNotFoundError(f"No file or folder '{path}' of data set '{name}'")
        found[name] = str(Path(path).expanduser().resolve())
    return found


def _command(study, row, seed, scale, data, data_dir, root, results):
    words = ["vaezoo", "reproduce", study, "--rows", row, "--seeds", str(seed)]
    small = scale is Scale.SMALL
    if small:
        words += ["--scale", "small"]
    for pair in data or []:
        words += ["--data", pair]
    if data_dir:
        words += ["--data-dir", str(data_dir)]
    plain = root.parent if small else root
    if plain != Path("runs/reproduce"):
        words += ["--root", str(plain)]
    if results != (root / "results" if small else Path("results")):
        words += ["--results", str(results)]
    return shlex.join(words)
