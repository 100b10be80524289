"""`load_text`: text files as batches of a few static shapes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.checks import (
    check_integer,
    check_path,
    shown,
)
from .batches import resolved_backend, resolved_order
from .buckets import cheapest_buckets
from .corpus import Corpus, check_labels
from .selection import select
from .source import SPLIT_NAMES
from .spec import SHORTEST, DataSpec, described_by
from .text_pipeline import Reader, TextBatches, TextPlan, dataset_of, padded
from .vocabulary import TokenizerVocabulary, Vocabulary, as_vocabulary, encoder

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, FilePath

MEMORY_LIMIT = 512 * 2**20
#: How the names of text files end that `load` takes.
SUFFIXES = (".txt", ".tsv")
MANY_UNKNOWN = 0.2


class TextInfo(NamedTuple):
    """Describes a split of a corpus. All lengths count `<s>` and `</s>`.

    Args:
        name: Path.
        split: The split asked for.
        num_examples: Number of sentences.
        num_classes: Number of classes, or None without labels.
        label_counts: Examples of each class, or None.
        vocabulary: The vocabulary, given or built; for a tokenizer with ids an object that knows
            them as `load_text` has them (`pad_id`, `start_id`, `end_id`, `len`), which can be
            given as `vocabulary` in its turn.
        vocabulary_size: Number of ids, special ones included.
        num_tokens: Ids of all sentences.
        length_quantiles: Least length, the quartiles, and the greatest.
        buckets: Lengths of batches.
        num_shapes: Number of different shapes of batches.
        unknown_share: Share of the words that are not in the vocabulary.
        in_memory: Whether `load_text` holds the ids in memory.
        padding_share: Share of the positions of an epoch that are padding.
    """

    name: str
    split: str
    num_examples: int
    num_classes: int | None
    label_counts: tuple | None
    vocabulary: Vocabulary | TokenizerVocabulary
    vocabulary_size: int
    num_tokens: int
    length_quantiles: tuple
    buckets: tuple
    num_shapes: int
    unknown_share: float
    in_memory: bool
    padding_share: float

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one example, `(None,)`: sentences differ in length."""
        return (None,)


#: Arguments that all three functions have.
_SHARED = (
    "vocabulary", "tokenizer", "max_size", "min_count", "labels", "num_classes", "max_length",
    "too_long", "validation_split", "limit",
)  # fmt: skip
_BATCHES = ("batch_size", "buckets", "shuffle", "drop_remainder", "in_memory")


def _described(*names):
    return described_by(
        DataSpec,
        [*_SHARED, *names],
        positional=("path", "split"),
        texts={
            "path": "File or folder.",
            "batch_size": "Positive int.",
            "labels": '"auto": lines have labels if the first one has a tab. True: they must have. '
            "False: labels are not handed out; it is they if the first line has an integer before "
            "a tab.",
        },
        labels="auto",
        batch_size=32,
    )


@_described(*_BATCHES, "seed", "with_index", "backend")
def load_text(spec: DataSpec) -> Any:
    """Reads text as batches of ids for `fit` and `evaluate`.

    A file holds a sentence a line, in UTF-8, possibly after a label and a tab. A folder holds the
    files `train.txt`, `valid.txt` (or `validation.txt`) and `test.txt`; a single file is the split
    `"train"`. An example is `<s> w1 .. wT </s>`, padded on the right by `<pad>`, which has the id 0
    and nothing else has. Every length below counts `<s>` and `</s>`.

    Each batch has the length of one of `buckets`. Examples that do not fill a batch of their own
    bucket move on to the next longer one that is in use, so that an epoch leaves out, or has in one
    smaller batch, at most `batch_size - 1` of them. Batches have at most
    `len(buckets) + 1` shapes; the step compiles once for each.

    The file is read once for the place, length and label of each line. Corpora of more than 130
    million words then stay on disk, their sentences read whenever they are needed.

    Returns:
        Batches of x, or of `(x, y)` with labels: x int32 `(batch, length)`, y int32 `(batch,)`.
        With an index, of `(x, {"index": index})` or `(x, {"index": index, "y": y})`, index int32
        `(batch,)`. Order and batches are a function of the arguments and the epoch, the same with
        both backends. Where there are several lengths, the first two batches differ in theirs:
        from these Keras infers what may vary.

    Raises:
        ValueError: If an argument is out of range, a line unusable (the error names it), or no
            word known.
        TypeError: If an argument is of the wrong kind.
        FileNotFoundError: If a file is missing.
        ImportError: If TensorFlow is needed and missing.

    Note:
        The published text models were trained on batches of one length each, however small.
        `buckets=range(3, n)` comes close: whole batches, and those that complete the examples left
        over hold a few neighboring lengths.
    """
    backend = resolved_backend(spec.backend)
    source = _open(spec)
    part = select(source, spec.split, spec.validation_split, spec.limit)
    _check_words(source, part)
    plan = _plan(source, part, spec)
    labels = source.labels(part)
    reader = Reader(source.corpus, part.index, labels, source.vocabulary, spec.with_index)
    return dataset_of(reader, plan) if backend == "tf" else TextBatches(reader, plan)


@_described("length")
def load_text_arrays(spec: DataSpec) -> tuple[Any, Any]:
    """Reads text as arrays of ids, in the order in which it is stored.

    Returns:
        `(x, y)`: x int32 `(n, length)`; y int32 `(n,)`, or None without labels.

    Raises:
        ValueError: As in `load_text`.
    """
    length = spec.length
    source = _open(spec.replace(buckets=None if length is None else [length], in_memory=None))
    part = select(source, spec.split, spec.validation_split, spec.limit)
    _check_words(source, part)
    y = source.labels(part)
    reader = Reader(source.corpus, part.index, y, source.vocabulary, False)
    longest = length or source.corpus.lengths[part.index].max()
    return reader.ids(np.arange(len(part.index)), longest), y


@_described(*_BATCHES)
def describe_text(spec: DataSpec) -> TextInfo:
    """Says what `load_text` would read with the same arguments.

        info = vaezoo.data.describe_text("yelp")
        train = vaezoo.data.load_text("yelp", vocabulary=info.vocabulary)
        valid = vaezoo.data.load_text("yelp", "validation", vocabulary=info.vocabulary)

    Returns:
        `TextInfo`.
    """
    source = _open(spec)
    part = select(source, spec.split, spec.validation_split, spec.limit)
    _check_words(source, part)
    plan = _plan(source, part, spec.replace(seed=0))
    y, counts = source.labels(part), None
    if y is not None:
        least = spec.num_classes or 1 + int(source.corpus.labels.max())
        counts = tuple(np.bincount(y, minlength=least).tolist())
    quantiles = np.quantile(plan.lengths, (0, 0.25, 0.5, 0.75, 1), method="inverted_cdf")
    return TextInfo(
        name=source.name,
        split=spec.split,
        num_examples=len(part.index),
        num_classes=None if counts is None else len(counts),
        label_counts=counts,
        vocabulary=source.vocabulary,
        vocabulary_size=len(source.vocabulary),
        num_tokens=int(plan.lengths.sum(dtype="int64")),
        length_quantiles=tuple(quantiles.tolist()),
        buckets=plan.buckets,
        num_shapes=plan.num_shapes,
        unknown_share=_unknown_share(source, part),
        in_memory=source.corpus.in_memory,
        padding_share=plan.padding_share,
    )


def to_ids(
    sentences: Any, vocabulary: Any = None, tokenizer: Any = None, length: int | None = None
) -> Array:
    """Returns sentences as ids, as `load_text` has them.

    Args:
        sentences: List of n strings.
        vocabulary: As in `load_text`; needed unless the tokenizer has ids of its own.
        tokenizer: As in `load_text`.
        length: Length of the result, or None for the greatest one needed.

    Returns:
        Ids `(n, length)`, int32: `<s> w1 .. wT </s>` and padding.

    Raises:
        ValueError: If there is no sentence, or one is empty or too long.
        TypeError: If an argument is of the wrong kind.
    """
    vocabulary = _given(vocabulary, tokenizer)
    listed = not isinstance(sentences, (str, bytes)) and hasattr(sentences, "__iter__")
    sentences = list(sentences) if listed else sentences
    if not listed or not all(isinstance(sentence, str) for sentence in sentences):
        raise TypeError(f"`sentences` must be a list of strings. Received: {shown(sentences)}")
    encode = encoder(vocabulary, tokenizer)
    encoded = [encode(sentence) for sentence in sentences]
    if not all(map(len, encoded)) or not encoded:
        raise ValueError(f"`sentences` must have words. Received: sentences={sentences!r}")
    longest = max(map(len, encoded)) + 2
    length = check_integer("length", length, SHORTEST, optional=True)
    if length is not None and longest > length:
        raise ValueError(
            "`length` must leave room for the longest sentence with its start and end, "
            f"{longest}. Received: length={length}"
        )
    return padded(encoded, vocabulary, length or longest)


def to_text(ids: Any, vocabulary: Any = None, tokenizer: Any = None) -> list[str]:
    """Returns ids as text, each row up to its first `</s>`.

    Args:
        ids: Integers `(n, length)`, such as `load_text` or a model's `generate` gives.
        vocabulary: As in `to_ids`.
        tokenizer: As in `load_text`. Words are joined by its method `detokenize`, a function from
            a list of strings to a string, if it has one, and by spaces otherwise.

    Returns:
        List of n strings.

    Raises:
        ValueError: If `ids` has another shape, or holds what is no id.
        TypeError: If an argument is of the wrong kind.
    """
    vocabulary = _given(vocabulary, tokenizer)
    ids = np.asarray(ids)
    if ids.ndim != 2:
        raise ValueError(f"`ids` must have the shape (n, length). Received: shape {ids.shape}")
    if isinstance(vocabulary, TokenizerVocabulary):
        return [vocabulary.text(row) for row in ids]
    join = getattr(tokenizer, "detokenize", " ".join)
    return [join(vocabulary.decode(row)) for row in ids]


class TextSource:
    """A text file, or the file of a split.

    Args:
        path: Path that the caller gave.
        files: File of each split.
        base: Split whose file is read.
        corpus: `Corpus` of that file, or None if there is none for the split.
        vocabulary: Its vocabulary.
        with_labels: Whether labels are handed out.
        buckets: Lengths of batches, or None.

    Attributes:
        counts: Examples of each split: right for the file that is read, 0 for others.
    """

    mixed = False

    def __init__(
        self,
        path: FilePath,
        files: dict[str, Path],
        base: str,
        corpus: Any = None,
        vocabulary: Any = None,
        with_labels: bool = False,
        buckets: Any = None,
    ) -> None:
        self.name, self.corpus, self.vocabulary = str(path), corpus, vocabulary
        self.buckets, self._with_labels = buckets, with_labels
        self.counts = {split: len(corpus) if split == base else 0 for split in files}

    def labels(self, part: Any) -> Any:
        """Returns the labels of a part that are to be handed out, or None."""
        labels = self.corpus.labels if self._with_labels else None
        return None if labels is None else labels[part.index]


def _open(spec):
    """Reads the file that a split needs."""
    check_labels(spec.labels)
    path, max_length, buckets = spec.name_or_path, spec.max_length, spec.buckets
    if buckets is not None:
        max_length = min(buckets[-1], max_length or buckets[-1])
    tokenizer, labels = spec.tokenizer, spec.labels
    vocabulary = as_vocabulary(spec.vocabulary, tokenizer)
    if vocabulary is not None and (spec.max_size, spec.min_count) != (None, 1):
        raise ValueError(
            "`max_size` and `min_count` must not be given with a vocabulary or with a tokenizer "
            "that has ids. Received: "
            f"max_size={spec.max_size}, min_count={spec.min_count}"
        )
    files = _files(path)
    base = spec.split.partition("[")[0] if isinstance(spec.split, str) else None
    if base == "validation" and base not in files:
        base = "train"
    if base not in files:
        return TextSource(path, files, base)
    if vocabulary is None:
        if "train" not in files:
            raise ValueError(
                "`vocabulary` must be given where there is no train split to build it from. "
                f"Received: vocabulary=None for '{path}', which has {', '.join(files)}"
            )
        vocabulary = Vocabulary.build(
            files["train"], tokenizer, spec.max_size, spec.min_count, labels
        )
    memory = {None: MEMORY_LIMIT, True: 2**62, False: 0}[spec.in_memory]
    corpus = Corpus(
        files[base],
        encoder(vocabulary, tokenizer),
        vocabulary.unknown_id,
        labels=labels,
        num_classes=spec.num_classes,
        max_length=max_length,
        too_long=spec.too_long,
        memory=memory,
    )
    return TextSource(path, files, base, corpus, vocabulary, labels is not False, buckets)


def text_path(name_or_path: FilePath, data_dir: FilePath | None = None) -> Path | None:
    """Finds the text that a name or path means.

    Args:
        name_or_path: What `load` was given.
        data_dir: Folder in which text lies by its name; by default TFDS_DATA_DIR.

    Returns:
        Path of a file that ends as text does or of a folder with the files of splits, or None.

    Raises:
        FileNotFoundError: If it can only mean a file, which is missing.
    """
    if not isinstance(name_or_path, str | os.PathLike) or not os.fspath(name_or_path):
        return None
    path = Path(name_or_path).expanduser()
    if path.suffix in SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"No file or folder '{path}'")
        return path
    if data_dir is not None:
        data_dir = check_path("data_dir", data_dir)
    beside = data_dir or os.environ.get("TFDS_DATA_DIR")
    places = [path]
    if beside and isinstance(name_or_path, str) and len(path.parts) == 1:
        places.append(Path(beside).expanduser() / path)
    return next((place for place in places if _split_files(place)), None)


def _files(path):
    """Returns the file of each split."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"`path` must be the path of a file or folder. Received: path={path!r}")
    path = Path(path).expanduser()
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise FileNotFoundError(f"No file or folder '{path}'")
    files = _split_files(path)
    if not files:
        raise FileNotFoundError(
            f"The folder '{path}' holds none of train.txt, validation.txt, valid.txt and test.txt"
        )
    return files


def _split_files(folder):
    files = {}
    for name in ("train", "validation", "valid", "val", "test"):
        if (folder / f"{name}.txt").is_file():
            files.setdefault(SPLIT_NAMES.get(name, name), folder / f"{name}.txt")
    return files


def _plan(source, part, spec):
    batch_size = spec.batch_size or 32
    shuffle, drop_remainder = resolved_order(
        spec.split, spec.shuffle, spec.drop_remainder, batch_size, len(part.index)
    )
    lengths = source.corpus.lengths[part.index]
    buckets = np.asarray(source.buckets or cheapest_buckets(lengths, batch_size))
    # Those that move on to a longer bucket must not end in one that nothing needs.
    buckets = tuple(buckets[np.unique(np.searchsorted(buckets, lengths))].tolist())
    return TextPlan(lengths, buckets, batch_size, shuffle, drop_remainder, spec.seed)


def _unknown_share(source, part):
    words = source.corpus.lengths[part.index].sum(dtype="int64") - 2 * len(part.index)
    return float(source.corpus.unknown[part.index].sum(dtype="int64") / words)


def _check_words(source, part):
    """Raises if no word is known, and warns if many are not."""
    share = _unknown_share(source, part)
    if share == 1:
        raise ValueError(
            f"No word of '{source.corpus.path}' is in the vocabulary of {len(source.vocabulary)} "
            f"ids. Received: {source.corpus.first_unknown}"
        )
    if share > MANY_UNKNOWN:
        warnings.warn(
            f"{share:.0%} of the words of '{source.corpus.path}' are not in the vocabulary of "
            f"{len(source.vocabulary)} ids, first in {source.corpus.first_unknown}",
            stacklevel=3,
        )


def _given(vocabulary, tokenizer):
    vocabulary = as_vocabulary(vocabulary, tokenizer)
    if vocabulary is None:
        raise ValueError(
            "`vocabulary` must be given unless `tokenizer` has ids of its own. "
            f"Received: vocabulary=None, tokenizer={tokenizer!r}"
        )
    return vocabulary
