"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from ..core.checks import SEEDS

SOURCE = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_OR_MODEL", help="Run directory or .keras file.", show_default=False
    ),
]
SOURCE_OR_SERVED = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|MODEL",
        help="Run directory, .keras file or exported SavedModel.",
        show_default=False,
    ),
]
DATA = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="Data to use, as in `vaezoo train`; by default those of the run.",
        show_default="the run's",
    ),
]
DATA_DIR = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of prepared tensorflow-datasets.",
        show_default="TFDS_DATA_DIR",
    ),
]
SPLIT = Annotated[str, typer.Option(metavar="SPLIT", help="Which part of the data.")]
LIMIT = Annotated[
    int | None,
    typer.Option(metavar="N", min=2, help="Use only the first N examples.", show_default="all"),
]
BINARIZE = Annotated[
    bool | None,
    typer.Option(
        "--binarize/--gray",
        " /--grey",
        help="One fixed Bernoulli draw of each pixel, or gray levels.",
        show_default="as the run",
    ),
]
SEED = Annotated[
    int, typer.Option(metavar="N", min=0, max=SEEDS - 1, help="Fixes every random draw.")
]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
LIKELIHOOD = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Likelihood of a SavedModel that cannot tell: bernoulli or gaussian.",
        show_default=False,
    ),
]
NUM = Annotated[int, typer.Option("-n", "--num", metavar="N", min=1, help="How many, of images.")]
SCALE = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Pixels of the grid for one pixel of an image.",
        show_default="what enlarges small images",
    ),
]
PICTURE = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A .png, for images.", show_default="beside the model"),
]
