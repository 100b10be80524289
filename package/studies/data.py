"""The data of studies: where they are found, what stands in for them, and what is made here."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import omniglot, synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that studies name.

    Attributes:
        title: What it is.
        kind: "tfds", "text", "file" (an `.npz` or `.mat` file), or "made".
        examples: Training examples of the published set, fewer than which is another set; or 0.
        stand_in: Name of the set that takes its place at small scale, or empty.
        substitute: Whether the stand-in takes its place at published scale, too.
        missing: How it is had, for the reader of a list.
        reading: Fields of `data.DataSpec` that the set needs, such as an image size.
        make: Function that makes the set in a folder that it is given, and returns its path.
        needs: Name of the set that it is made from, or empty.
    """

    title: str
    kind: str
    examples: int = 0
    stand_in: str = ""
    substitute: bool = False
    missing: str = ""
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    make: Callable[..., Path] | None = None
    needs: str = ""


#: What studies of OMNIGLOT say of their data.
OMNIGLOT = (
    "OMNIGLOT in 28x28 pixels by Burda et al. (chardata.mat); where it is not there, the official "
    "images at 28x28, 15 and 5 drawings of each character, which are similar, not the same"
)
_TFDS = "tensorflow-datasets prepares it"
#: All sets by their name.
SETS = {
    "digits": DataSet("scikit-learn's digits, 8x8", "embedded"),
    "mnist": DataSet("MNIST", "tfds", 60_000, missing=_TFDS),
    "fashion_mnist": DataSet("Fashion-MNIST", "tfds", 60_000, missing=_TFDS),
    "omniglot_images": DataSet("OMNIGLOT", "tfds", 19_280, missing=_TFDS),
    "omniglot": DataSet(
        "OMNIGLOT in 28x28 pixels", "file", 0, "omniglot_15_5", True, "chardata.mat of Burda et al."
    ),
    "omniglot_15_5": DataSet(
        "OMNIGLOT at 28x28, 15 and 5 drawings a character",
        "made",
        24_345,
        make=omniglot.write,
        needs="omniglot_images",
    ),
    "cifar10": DataSet("CIFAR-10", "tfds", 50_000, "cifar10_part", missing=_TFDS),
    "cifar10_part": DataSet("any part of CIFAR-10", "tfds", 1, missing=_TFDS),
    "celeb_a": DataSet("CelebA", "tfds", 162_770, "cifar10_part", missing=_TFDS),
    "yahoo": DataSet(
        "Yahoo answers", "text", 100_000, "short_yelp", missing="a folder as that of short_yelp"
    ),
    "yelp": DataSet(
        "long Yelp reviews", "text", 100_000, "short_yelp", missing="a folder as that of short_yelp"
    ),
    "short_yelp": DataSet(
        "short Yelp of DU-VAE, with its vocabulary",
        "text",
        100_000,
        missing="a folder with train.txt, valid.txt, test.txt and vocab.txt",
    ),
    "synthetic_text": DataSet(
        "sentences written from five Gaussians", "made", 16_000, make=synthetic.write
    ),
}
#: Names that tensorflow-datasets has for sets that are called otherwise here.
_FOLDERS = {"omniglot_images": "omniglot", "cifar10_part": "cifar10"}


@dataclasses.dataclass(frozen=True)
class Located:
    """Where a set lies.

    Attributes:
        name: Its name in `SETS`.
        arguments: Fields of `data.DataSpec` that read it.
        stand_in_for: Name of the set in whose place it is read, or empty.
    """

    name: str
    arguments: dict[str, Any]
    stand_in_for: str = ""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where data are looked for.

    Attributes:
        given: Dict from the name of a set to its path.
        folder: Folder of `.npz` files, folders of text and prepared sets of tensorflow-datasets;
            its subfolder `tfds` is looked into, too. By default the environment's TFDS_DATA_DIR.
        made: Folder for sets that are made here.
    """

    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path | None = None
    made: Path = Path("runs/reproduce/data")

    def folders(self) -> list[Path]:
        """Returns the folders that are looked into, in their order."""
        named = self.folder or os.environ.get("TFDS_DATA_DIR")
        base = Path(named).expanduser().resolve() if named else None
        usual = Path("~/tensorflow_datasets").expanduser()
        if base is None:
            return [usual]
        beside = [base.parent] if base.name == "tfds" else []
        return [base, base / "tfds", *beside, usual]


def locate(name: str, places: Places) -> Located | None:
    """Finds a set, or returns None; makes and reads nothing."""
    held = SETS[name]
    if name in places.given:
        return Located(
            name, {"name_or_path": places.given[name], **_vocabulary(places.given[name])}
        )
    if held.kind == "embedded":
        return Located(name, {"name_or_path": name})
    if held.kind == "made":
        return Located(name, {}) if not held.needs or locate(held.needs, places) else None
    for folder in places.folders():
        for suffix in (".npz", ".mat"):
            file = folder / f"{name}{suffix}"
            if file.is_file():
                return Located(name, {"name_or_path": str(file)})
        if held.kind == "file" and (folder / "chardata.mat").is_file():
            return Located(name, {"name_or_path": str(folder / "chardata.mat")})
        if held.kind == "text" and (folder / name / "train.txt").is_file():
            path = str(folder / name)
            return Located(name, {"name_or_path": path, **_vocabulary(path)})
        known = _FOLDERS.get(name, name)
        if held.kind == "tfds" and _prepared(folder / known) >= held.examples:
            return Located(name, {"name_or_path": known, "data_dir": str(folder), **held.reading})
    return None


def find(name: str, places: Places, small: bool = False) -> Located | None:
    """Finds a set as `locate` does, and makes it if it is one that is made here.

    Args:
        name: Name in `SETS`.
        places: Where to look.
        small: Whether another set may stand in for one that is not there.
    """
    found, held = locate(name, places), SETS[name]
    if found is None and (small or held.substitute):
        return _stand_in(name, places)
    if found is None or held.make is None or name in places.given:
        return found
    source = locate(held.needs, places) if held.needs else None
    path = held.make(places.made, *([source.arguments] if source else []))
    return Located(name, {"name_or_path": str(path.resolve()), **_vocabulary(path), **held.reading})


def _stand_in(name, places):
    other = SETS[name].stand_in
    found = find(other, places, small=True) if other else None
    return found and dataclasses.replace(found, stand_in_for=name)


def _vocabulary(path):
    file = Path(path) / "vocab.txt"
    return {"vocabulary": str(file)} if file.is_file() else {}


def _prepared(folder):
    """Number of training examples of a set that tensorflow-datasets has prepared, or -1."""
    counts = [-1]
    for file in folder.glob("*/dataset_info.json"):
        try:
            splits = json.loads(file.read_text("utf-8"))["splits"]
            counts += [
                sum(map(int, split["shardLengths"])) for split in splits if split["name"] == "train"
            ]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(counts)
