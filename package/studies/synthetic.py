"""Sentences written by an LSTM with random weights from points of the plane.

The points are drawn from five Gaussians of unit variance, at (0, 0) and (+-2, +-2). All weights of
the writer are drawn from U(-1, 1), but those of the map from the point to the words, from U(-3, 3);
its first word is any. The settings are those of the generator of He et al. (2019),
arXiv:1901.05534, which has the four outer Gaussians.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import written

if TYPE_CHECKING:
    from typing import Any

#: Centers of the Gaussians, whose weights are equal.
CENTERS = ((0, 0), (2, 2), (2, -2), (-2, 2), (-2, -2))
WORDS, LENGTH, UNITS = 1000, 10, 100
SPLITS = {"train": 16_000, "valid": 2000, "test": 2000}
SEED = 19950927


def write(folder: Path) -> Path:
    """Writes the sentences, and the vocabulary, as a folder of text; returns its path."""
    path = Path(folder) / "synthetic_text"
    if (path / "vocab.txt").is_file():
        return path
    component, sentences = sample(sum(SPLITS.values()))
    lines = [
        f"{kind}\t{' '.join(f'w{word}' for word in sentence)}\n"
        for kind, sentence in zip(component, sentences, strict=True)
    ]
    start = 0
    for split, count in SPLITS.items():
        with written(path / f"{split}.txt") as partial:
            partial.write_text("".join(lines[start : start + count]), "utf-8")
        start += count
    # Last: it tells that the others are there.
    with written(path / "vocab.txt") as partial:
        words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{word}" for word in range(WORDS))]
        partial.write_text("\n".join(words) + "\n", "utf-8")
    return path


def sample(count: int, seed: int = SEED) -> tuple[Any, Any]:
    """Draws sentences.

    Args:
        count: Number of sentences.
        seed: Of weights and draws.

    Returns:
        Number of the Gaussian int `(count,)`, and words int `(count, 10)`.
    """
    import numpy as np

    rng = np.random.default_rng(seed)

    def uniform(*shape, scale=1.0):
        return rng.uniform(-scale, scale, shape)

    embedding, start = uniform(WORDS, UNITS), uniform(2, UNITS)
    kernel, recurrent = uniform(UNITS + 2, 4 * UNITS), uniform(UNITS, 4 * UNITS)
    bias = uniform(4 * UNITS) + uniform(4 * UNITS)
    of_state, of_code = uniform(UNITS, WORDS), uniform(2, WORDS, scale=3.0)

    component = rng.integers(len(CENTERS), size=count)
    z = np.array(CENTERS, "float64")[component] + rng.normal(size=(count, 2))
    words = np.empty((count, LENGTH), "int64")
    words[:, 0] = rng.integers(WORDS, size=count)
    cell = z @ start
    state = np.tanh(cell)
    for place in range(1, LENGTH):
        inputs = np.concatenate([embedding[words[:, place - 1]], z], axis=1)
        gates = np.split(inputs @ kernel + state @ recurrent + bias, 4, axis=1)
        enter, forget, leave = (1 / (1 + np.exp(-gate)) for gate in (gates[0], gates[1], gates[3]))
        cell = forget * cell + enter * np.tanh(gates[2])
        state = leave * np.tanh(cell)
        logits = state @ of_state + z @ of_code
        # The largest sum with Gumbel noise is a draw from the softmax.
        words[:, place] = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return component, words
