"""Three kinds of data of a few hundred rows: binary digits, gray images and short text."""

import functools

import numpy as np

from vaezoo import data

#: Rows that are trained on, and rows that are examined.
TRAINED, EXAMINED = 1000, 400
#: Words of a sentence, and of the vocabulary of the text with neither padding nor ends.
WORDS, VOCABULARY = 8, 24


@functools.cache
def load(kind):
    """Training data and held-out data of a kind, `"binary"`, `"gray"`, `"text"` or `"sentences"`.

    Sentences have a start, an end and padding, as the zoo's own models of text read them.
    """
    if kind in ("binary", "gray"):
        images = np.concatenate(
            [data.load_arrays("digits", split)[0] for split in ("train", "test")]
        )
        images = images[np.random.default_rng(0).permutation(len(images))]
        images = images if kind == "gray" else (images > 0.5).astype("float32")
        return images[:TRAINED], images[TRAINED : TRAINED + EXAMINED]
    text = _text(TRAINED + EXAMINED)
    if kind == "sentences":
        text = np.pad(text + 4, ((0, 0), (1, 1)))
        text[:, 0], text[:, -1] = 1, 2
    return text[:TRAINED], text[TRAINED:]


def _text(count):
    """Sentences whose words tell of three hidden topics: about two nats are worth a code."""
    rng = np.random.default_rng(1)
    topics = rng.integers(3, size=(count, 2))
    words = np.zeros((count, WORDS), "int32")
    for position in range(WORDS):
        # The first half is about one topic, the second about another one.
        topic = topics[:, position // (WORDS // 2)]
        own = topic * 8 + rng.integers(8, size=count)
        stray = rng.integers(VOCABULARY, size=count)
        words[:, position] = np.where(rng.uniform(size=count) < 0.85, own, stray)
    return words
