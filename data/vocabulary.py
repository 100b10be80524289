"""`Vocabulary`: words and their ids; tokenizers that come with ids of their own."""

from __future__ import annotations

import collections
import collections.abc
import operator
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_integer, check_path, shown
from .corpus import decoded, sentences_of, tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..core.types import FilePath

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


class Vocabulary:
    """Ids of words: `<pad>` 0, `<s>` 1, `</s>` 2, `<unk>` 3, then the words from 4 on.

    What is not in the vocabulary is `<unk>`, and so is a word of a text that is spelt like one of
    the four: a sentence itself never holds the ids 0, 1 and 2.

    Args:
        words: Words in the order of their ids, without the four.

    Raises:
        TypeError: If a word is no string.
        ValueError: If a word is empty, holds a line break, occurs twice or is one of the four.
    """

    pad_id, start_id, end_id, unknown_id = PAD, START, END, UNKNOWN

    def __init__(self, words: Any) -> None:
        if isinstance(words, (str, bytes)) or not isinstance(words, collections.abc.Iterable):
            # The letters of a string would each become a word.
            raise TypeError(f"`words` must be a list of words. Received: words={shown(words)}")
        self._words = [*SPECIALS, *words]
        self._ids = dict.fromkeys(SPECIALS, UNKNOWN)
        for place, word in enumerate(self._words[len(SPECIALS) :], len(SPECIALS)):
            _check_word(word, f"place {place}")
            if self._ids.setdefault(word, place) != place:
                raise ValueError(
                    f"`words` must differ from one another and from {', '.join(SPECIALS)}. "
                    f"Received: {word!r} at place {place}"
                )

    @classmethod
    def build(
        cls,
        lines_or_file: Any,
        tokenizer: Any = None,
        max_size: int | None = None,
        min_count: int = 1,
        labels: bool | str = "auto",
    ) -> Vocabulary:
        """Collects the words of a corpus.

        Args:
            lines_or_file: Path of a file, or iterable of lines: a sentence, or a label, a tab and
                a sentence.
            tokenizer: Function from a sentence to a list of words; by default splits at white
                space.
            max_size: Largest size, the four special ids included. The most frequent words are
                kept, the most frequent first. By default all are, in the order in which they
                first appear.
            min_count: Positive int, occurrences that a word needs.
            labels: Whether lines have labels, as in `load_text`.

        Returns:
            `Vocabulary`.

        Raises:
            ValueError: If an argument is out of range, or a line unusable.
            TypeError: If an argument is of the wrong kind.
            FileNotFoundError: If the file is missing.
        """
        min_count = check_integer("min_count", min_count, 1)
        max_size = check_integer("max_size", max_size, len(SPECIALS) + 1, optional=True)
        split = words_of(tokenizer)
        counts: collections.Counter[str] = collections.Counter()
        for place, sentence in sentences_of(lines_or_file, labels):
            counts.update(tokens(split, sentence, place))
        for special in SPECIALS:
            counts.pop(special, None)
        kept = [word for word, count in counts.items() if count >= min_count]
        if max_size is not None:
            kept.sort(key=counts.__getitem__, reverse=True)
            kept = kept[: max_size - len(SPECIALS)]
        return cls(kept)

    @classmethod
    def load(cls, path: FilePath) -> Vocabulary:
        """Reads a vocabulary from a UTF-8 file, whose line n (from 0) is the word of id n.

        Args:
            path: File that begins with the lines `<pad>`, `<s>`, `</s>` and `<unk>`.

        Returns:
            `Vocabulary`.

        Raises:
            ValueError: If a line is unusable; names it.
            TypeError: If `path` is no path.
            FileNotFoundError: If the file is missing.
        """
        if not os.path.isfile(check_path("path", path)):
            kind = "a folder" if os.path.isdir(path) else "no such file"
            raise FileNotFoundError(
                f"`path` must name the file of a vocabulary. Received: '{path}', {kind}"
            )
        raw = Path(path).read_bytes().split(b"\n")
        if not raw[-1]:
            raw.pop()
        lines: dict[str, int] = {}
        for number, line in enumerate(raw, 1):
            place = f"'{path}', line {number}"
            word = decoded(line, place).removesuffix("\r")
            _check_word(word, place)
            if lines.setdefault(word, number) != number:
                raise ValueError(f"{place}: {word!r} stands in line {lines[word]} already")
        words = list(lines)
        for number, special in enumerate(SPECIALS, 1):
            found = words[number - 1] if number <= len(words) else None
            if found != special:
                raise ValueError(
                    f"A vocabulary begins with {', '.join(SPECIALS)}, a word a line. "
                    f"Received: {found!r} in line {number} of '{path}'"
                )
        return cls(words[len(SPECIALS) :])

    def save(self, path: FilePath) -> None:
        """Writes the words to a UTF-8 file, a word a line, for `load`."""
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{word}\n" for word in self._words)

    @property
    def words(self) -> tuple[str, ...]:
        """All words as a tuple, the special ones included: that of id n at place n."""
        return tuple(self._words)

    def encode(self, words: Any) -> Any:
        """Returns the ids `(n,)`, int32, of a list of words, without `<s>` and `</s>`."""
        if isinstance(words, str):
            raise TypeError(f"`words` must be a list of words. Received: words={words!r}")
        get = self._ids.get
        return np.array([get(word, UNKNOWN) for word in words], "int32")

    def decode(self, ids: Any) -> list[str]:
        """Returns the words of ids `(n,)` up to `</s>`, without `<s>` and `<pad>`."""
        return [self._words[i] for i in sentence_ids(ids, self)]

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._words == other._words

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids)"


class TokenizerVocabulary:
    """Ids of a tokenizer that has its own, as those of Hugging Face do.

    Ids are the tokenizer's, except that 0 is `<pad>` in every text: where its id of `<pad>` is
    another, it and 0 change places.

    Args:
        tokenizer: Object with `encode(text, add_special_tokens=False)`, `decode(ids)`, a length or
            `vocab_size`, and the ids `pad_token_id`, `bos_token_id` (or `cls_token_id`),
            `eos_token_id` (or `sep_token_id`) and, where it has unknown tokens, `unk_token_id`.

    Raises:
        ValueError: If it lacks one of them, an id is out of range, or `<pad>` has no id of its own.
    """

    pad_id = PAD

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else None
        size = getattr(tokenizer, "vocab_size", None) if size is None else size
        if size is None:
            raise ValueError("`tokenizer` must have a length or `vocab_size`. Received: neither")
        self._size = _id("vocab_size", size)
        pad = self._special("pad_token_id")
        start = self._special("bos_token_id", "cls_token_id")
        end = self._special("eos_token_id", "sep_token_id")
        if pad in (start, end):
            raise ValueError(
                "`tokenizer` must have a separate padding token, to tell padding from text. "
                f"Received: pad_token_id={pad}, start {start}, end {end}"
            )
        unknown = getattr(tokenizer, "unk_token_id", None)
        unknown = None if unknown in (None, pad, start, end) else self._special("unk_token_id")
        self._pad = pad
        self.start_id, self.end_id = self._exchanged(start), self._exchanged(end)
        self.unknown_id = None if unknown is None else self._exchanged(unknown)

    def encode(self, sentence: Any) -> Any:
        """Returns the ids of a text as a list, without those of start and end."""
        ids = self.tokenizer.encode(sentence, add_special_tokens=False)
        ids = [_id("encode(...)", i) for i in ids]
        if ids and max(ids) >= self._size:
            raise ValueError(
                f"`tokenizer` must give ids below its size {self._size}. Received: {max(ids)}"
            )
        ids = [self._exchanged(i) for i in ids]
        reserved = {PAD, self.start_id, self.end_id}
        if reserved.isdisjoint(ids):
            return ids
        if self.unknown_id is None:
            raise ValueError(
                "A text must not hold the tokens of padding, start and end where the tokenizer "
                f"has no `unk_token_id` to put in their place. Received: {sentence!r}"
            )
        return [self.unknown_id if i in reserved else i for i in ids]

    def text(self, ids: Any) -> str:
        """Returns the text of ids `(n,)` up to that of the end, as a string."""
        return self.tokenizer.decode([self._exchanged(i) for i in sentence_ids(ids, self)])

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerVocabulary) and self.tokenizer is other.tokenizer

    __hash__ = None  # type: ignore[assignment]

    def _exchanged(self, i):
        """Changes 0 and the tokenizer's id of padding for one another, in either direction."""
        return self._pad if i == PAD else PAD if i == self._pad else i

    def _special(self, *names):
        values = [getattr(self.tokenizer, name, None) for name in names]
        value = next((value for value in values if value is not None), None)
        if value is None:
            raise ValueError(
                f"`tokenizer` must have the special id `{'` or `'.join(names)}`. Received: None in "
                f"{type(self.tokenizer).__name__}"
            )
        value = _id(names[0], value)
        if value >= self._size:
            raise ValueError(
                f"`tokenizer` must have special ids below its size {self._size}. "
                f"Received: {names[0]}={value}"
            )
        return value


def has_ids(tokenizer: Any) -> bool:
    """Whether a tokenizer gives ids rather than words."""
    return hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode")


def encoder(vocabulary: Any, tokenizer: Any) -> Callable[[str], Any]:
    """Returns a function from a sentence to the list of its ids, without start and end."""
    if isinstance(vocabulary, TokenizerVocabulary):
        return vocabulary.encode
    split, get = words_of(tokenizer), vocabulary._ids.get
    return lambda sentence: [get(word, UNKNOWN) for word in split(sentence)]


def words_of(tokenizer: Any) -> Callable[[str], list[str]]:
    """Returns a function from a sentence to a list of words; checks what `tokenizer` returns."""
    if tokenizer is None:
        return str.split
    if has_ids(tokenizer) or not callable(tokenizer):
        raise TypeError(
            "`tokenizer` must be a function from a string to a list of strings. "
            f"Received: tokenizer={tokenizer!r}"
        )

    def split(sentence):
        words = tokenizer(sentence)
        good = isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
        if not good:
            raise TypeError(
                f"`tokenizer` must return a list of strings. Received: {words!r} for {sentence!r}"
            )
        return words

    return split


def sentence_ids(ids: Any, vocabulary: Any) -> list[int]:
    """Returns ids `(n,)` as a list: those between the start and the first end, without padding."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"`ids` must be a vector of integers. Received: shape {ids.shape}, dtype {ids.dtype}"
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(vocabulary):
        raise ValueError(
            f"`ids` must be at least 0 and below the size {len(vocabulary)} of the vocabulary. "
            f"Received: {ids.min()} to {ids.max()}"
        )
    ids = ids.tolist()
    # Start and end may be one and the same token, so only the first place can be the start's.
    ids = ids[1:] if ids[:1] == [vocabulary.start_id] else ids
    if vocabulary.end_id in ids:
        ids = ids[: ids.index(vocabulary.end_id)]
    return [i for i in ids if i not in (PAD, vocabulary.start_id)]


def _check_word(word, place):
    if not isinstance(word, str):
        raise TypeError(f"`words` must be strings. Received: {word!r} at {place}")
    if not word or "\n" in word or "\r" in word:
        raise ValueError(
            f"A word must not be empty or hold a line break. Received: {word!r}, {place}"
        )


def _id(name, value):
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"`tokenizer` must have ids from 0 on. Received: {name}={value!r}")
    return number


def as_vocabulary(vocabulary: Any, tokenizer: Any) -> Any:
    """Returns the vocabulary that two arguments mean, or None if it is yet to be built."""
    if isinstance(vocabulary, str | os.PathLike):
        vocabulary = Vocabulary.load(vocabulary)
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary | TokenizerVocabulary):
        raise TypeError(
            "`vocabulary` must be a `Vocabulary` or the path of its file. "
            f"Received: vocabulary={vocabulary!r}"
        )
    if isinstance(vocabulary, TokenizerVocabulary):
        if tokenizer is not None and tokenizer is not vocabulary.tokenizer:
            raise ValueError(
                "`vocabulary` belongs to another tokenizer than `tokenizer`. "
                f"Received: tokenizer={tokenizer!r}"
            )
        return vocabulary
    if not has_ids(tokenizer):
        words_of(tokenizer)
        return vocabulary
    if vocabulary is not None:
        raise ValueError(
            "`vocabulary` must be None for a tokenizer that has ids of its own. "
            f"Received: vocabulary={vocabulary!r}"
        )
    return TokenizerVocabulary(tokenizer)
