"""OMNIGLOT at 28x28 pixels, each character split by its drawings.

15 drawings of each of the 1,623 characters to train on and 5 to test on, as in the set of Burda et
al., which is not the same: which drawings, and how they were made small, is not known of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import written

if TYPE_CHECKING:
    from typing import Any

SEED, TRAIN, TEST, SIDE = 0, 15, 5, 28


def write(folder: Path, images: dict[str, Any]) -> Path:
    """Writes the set as an `.npz` file; returns its path.

    Args:
        folder: Where it goes.
        images: Fields of `data.DataSpec` that read the images of tensorflow-datasets.
    """
    path = Path(folder) / "omniglot_15_5.npz"
    if path.is_file():
        return path
    import numpy as np

    from ..data import load_arrays

    found: dict[str, list] = {"x": [], "label": [], "alphabet": [], "character": []}
    for split in ("train", "test"):
        reading = {**images, "split": split, "image_size": SIDE, "channels": 1}
        x, label = load_arrays(**reading, labels="label")
        found["x"].append(np.rint(255 * x).astype("uint8"))
        found["label"].append(label)
        for name in ("alphabet", "character"):
            feature = "alphabet_char_id" if name == "character" else name
            found[name].append(load_arrays(**reading, labels=feature)[1])
    x, label = np.concatenate(found["x"]), np.concatenate(found["label"])
    y = np.stack([np.concatenate(found[name]) for name in ("alphabet", "character")], axis=1)
    rng = np.random.default_rng(SEED)
    train, test = [], []
    for character in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == character))
        train.append(rows[:TRAIN])
        test.append(rows[TRAIN : TRAIN + TEST])
    chosen = {"train": rng.permutation(np.concatenate(train)), "test": np.concatenate(test)}
    arrays: dict[str, Any] = {}
    for split, places in chosen.items():
        arrays |= {f"x_{split}": x[places], f"y_{split}": y[places].astype("int32")}
    with written(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)
    return path
