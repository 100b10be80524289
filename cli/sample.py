"""`vaezoo sample`: new data from the prior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.checks import SEEDS
from ..core.files import written
from ..runs.directory import find_model, run_of
from ..runs.models import load_model, vocabulary_of, writes_text
from . import grids
from .console import open_console
from .source import check_target


def sample(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
        ),
    ],
    num: Annotated[
        int, typer.Option("-n", "--num", metavar="N", min=1, help="How many samples.")
    ] = 64,
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=SEEDS - 1, help="Equal seeds give equal samples."),
    ] = 0,
    draw: Annotated[
        bool,
        typer.Option(
            "--draw/--mean",
            help="Draw x from the likelihood p(x|z), or take its mean; text is always drawn.",
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", help="Of drawn words: less than 1 takes the probable ones."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="K", help="Draw each word among the K most probable ones."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Draw each word among the most probable ones of probability P."
        ),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Of a conditional model: the class of all samples.",
            show_default="each class in turn",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Pixels of the grid for one pixel of an image.",
            show_default=f"what enlarges small images to {grids.TILE} pixels",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png for a grid of images, a .txt for sentences, an .npz for the array x as "
            "the model returns it.",
            show_default="samples.png beside the model; sentences are shown",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Generate new data from the prior: a grid of images, sentences, or an array.

    Of a run, the model after its last epoch is used, or else its last checkpoint.

    Examples:
      vaezoo sample runs/du
      vaezoo sample runs/du/checkpoints/best.keras -n 100 --seed 1 --out grid.png
      vaezoo sample runs/du -n 10000 --draw --out generated.npz
      vaezoo sample runs/digits -n 16 --condition 3
      vaezoo sample runs/text -n 10 --temperature 0.7 --top-k 50
    """
    file = find_model(source)
    import numpy as np

    from .. import data

    model = load_model(file)
    of_text = writes_text(model)
    target: Any = out if out or of_text else file.with_name("samples.png")
    suffixes = (".txt" if of_text else ".png", ".npz")
    if target and target.suffix not in suffixes:
        raise ValueError(f"`--out` must end in {' or '.join(suffixes)}. Received: {target}")
    if target:
        check_target(target, overwrite)
    as_words = of_text and not (target and target.suffix == ".npz")
    vocabulary = vocabulary_of(model, file) if as_words else None
    image = target and target.suffix == ".png"
    if scale and not image:
        raise ValueError(f"`--scale` is for a .png of images. Received: --scale {scale}")
    if image:
        config = run_of(file) or {"settings": {"data": {}}}
        value_range = config["settings"]["data"].get("value_range", (0.0, 1.0))
        shape = model.prior.event_shape
        pixels = scale or grids.enlarging(shape)
        grids.check_size(num, shape[:2], pixels)
    given = _condition(model, num, condition)
    x = model.generate(
        num,
        seed=seed,
        mean=not draw,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        progress=True,
        condition=given,
    )
    if as_words:
        lines = "".join(f"{line}\n" for line in data.to_text(x, vocabulary))
        if target is None:
            typer.echo(lines, nl=False)
            return
    if as_words:
        with written(target) as partial:
            partial.write_text(lines, "utf-8")
    elif image:
        grids.save(target, grids.grid(x, value_range, pixels))
    else:
        with written(target) as partial:
            np.savez_compressed(partial, x=x)
    open_console().print(f"{num} samples of {model.name} ({file}): {target}", highlight=False)


def _condition(model, num, condition):
    """The condition of each sample, or None of a model without."""
    if not model.conditional:
        if condition is not None:
            raise ValueError(
                f"`--condition` must be left out of a model without one. Received: {condition}"
            )
        return None
    kinds = model.encoder.condition
    kind = next(iter(kinds.values()))
    classes = getattr(kind, "classes", None)
    if len(kinds) > 1 or classes is None:
        raise ValueError(
            "A command can condition a model on one label alone. Received: a model conditioned on "
            f"{', '.join(map(repr, kinds))}"
        )
    known = list(range(classes)) if isinstance(classes, int) else list(classes)
    if condition is None:
        return [known[place % len(known)] for place in range(num)]
    named = {str(one): one for one in known}
    if condition not in named:
        raise ValueError(f"`--condition` must be {kind.described}. Received: {condition}")
    return named[condition]
