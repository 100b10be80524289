"""Text files of a sentence a line: read in one pass, then sentence by sentence."""

from __future__ import annotations

import mmap
import os
import re
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..core.types import ArrayLike, FilePath

BOM = b"\xef\xbb\xbf"
LARGEST_LABEL = 2**31 - 1


class Corpus:
    """The usable lines of a text file: 20 bytes each, and the ids themselves if they fit.

    A file that does not fit is read again, line by line, whenever a batch needs it.

    Args:
        path: Path of the file.
        encode: Function from a sentence to a list of ids, without those of start and end.
        unknown_id: Id of unknown words, or None.
        labels: "auto", True or False, as in `load_text`.
        num_classes: Bound of the labels, or None.
        max_length: Largest length, start and end included, or None.
        too_long: "error", "truncate" or "skip".
        memory: Bytes that the ids may take.

    Attributes:
        lengths: Ids of each line `(n,)`, int32, start and end included.
        unknown: Unknown words of each line `(n,)`, int32.
        labels: Labels `(n,)`, int32, or None.
        first_unknown: Place and beginning of the first sentence with an unknown word, or None.
    """

    def __init__(
        self,
        path: FilePath,
        encode: Callable[..., Any],
        unknown_id: int | None,
        labels: ArrayLike,
        num_classes: int | None,
        max_length: int | None,
        too_long: str,
        memory: int,
    ) -> None:
        self.path, self._encode, self._max_length = path, encode, max_length
        offsets, lengths, unknown, found = array("q"), array("i"), array("i"), array("i")
        ids, memory = array("i"), memory // 4
        fits = memory > 0
        self.first_unknown = None
        for place, offset, label, sentence in _examples(path, labels, num_classes):
            own = tokens(encode, sentence, place)
            length = len(own) + 2
            if max_length is not None and length > max_length:
                if too_long == "skip":
                    continue
                if too_long == "error":
                    raise ValueError(
                        f"{place} has {length} ids, start and end included, more than the limit "
                        f"{max_length}. Truncate or skip it by `too_long`, or raise the limit"
                    )
                own, length = own[: max_length - 2], max_length
            count = own.count(unknown_id)
            if count and self.first_unknown is None:
                self.first_unknown = f"{place}: {_shortened(sentence)}"
            offsets.append(offset)
            lengths.append(length)
            unknown.append(count)
            if label is not None:
                found.append(label)
            if fits:
                ids.extend(own)
                fits = len(ids) <= memory
                ids = ids if fits else array("i")
        if not offsets:
            raise ValueError(
                f"Every line of '{path}' is longer than the limit {max_length}: none is left"
            )
        self._offsets = np.frombuffer(offsets, "int64")
        self.lengths = np.frombuffer(lengths, "int32")
        self.unknown = np.frombuffer(unknown, "int32")
        self.labels = np.frombuffer(found, "int32") if found else None
        self._ids: Any = None
        if fits:
            self._ids = np.frombuffer(ids, "int32")
            self._starts = np.concatenate([[0], np.cumsum(self.lengths - 2, dtype="int64")])
        else:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def in_memory(self) -> bool:
        """Whether the ids are held in memory."""
        return self._ids is not None

    def sentence(self, place: int) -> Any:
        """Returns the ids of a sentence, without those of start and end."""
        if self.in_memory:
            return self._ids[self._starts[place] : self._starts[place + 1]]
        start = int(self._offsets[place])
        end = self._map.find(b"\n", start)
        raw = self._map[start : end if end >= 0 else len(self._map)]
        text = decoded(raw, f"'{self.path}', byte {start}").removesuffix("\r")
        length = int(self.lengths[place]) - 2
        ids = self._encode(text if self.labels is None else text.partition("\t")[2])
        if self._max_length is not None:
            ids = ids[: self._max_length - 2]
        if len(ids) != length:
            raise ValueError(
                f"'{self.path}' has changed since it was opened: the sentence at byte {start} has "
                f"{len(ids)} ids instead of {length}"
            )
        return ids


def sentences_of(lines_or_file: Any, labels: bool | str = "auto") -> Iterator[tuple[str, str]]:
    """Yields `(place, sentence)` of a file or of an iterable of lines, without labels."""
    return ((place, sentence) for place, _, _, sentence in _examples(lines_or_file, labels))


def tokens(tokenize: Callable[[str], Any], sentence: Any, place: str) -> Any:
    """Returns the tokens of a sentence; an error says of which line."""
    try:
        found = tokenize(sentence)
    except Exception as error:
        error.add_note(f"while reading {place}")
        raise
    if not len(found):
        raise ValueError(f"{place} has no words. Received: {_shortened(sentence)}")
    return found


def decoded(raw: bytes, place: str) -> str:
    """Returns bytes as text, or says where they are not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place} is not UTF-8: {error.reason} at byte {error.start + 1} of the line"
        ) from error


def check_labels(labels: ArrayLike) -> None:
    """Raises unless `labels` is "auto", True or False."""
    if not (isinstance(labels, bool) or (isinstance(labels, str) and labels == "auto")):
        raise wrong("labels", "'auto', True or False", labels)


def _examples(lines_or_file, labels, num_classes=None):
    """Yields `(place, offset, label, sentence)` of each line, the place being for messages."""
    check_labels(labels)
    labeled = None
    for place, offset, line in _lines(lines_or_file):
        if labeled is None:
            # An unused label is no word of the sentence either.
            pattern = r"[^\t]*\t.*" if labels == "auto" else r"-?\d+\t.*"
            labeled = labels is True or re.fullmatch(pattern, line, re.DOTALL) is not None
        label, sentence = _label(line, place, num_classes) if labeled else (None, line)
        if not sentence.strip():
            raise ValueError(f"{place} has an empty sentence")
        yield place, offset, label, sentence
    if labeled is None:
        where = "`lines_or_file`"
        if isinstance(lines_or_file, str | os.PathLike):
            where = f"'{lines_or_file}'"
        raise ValueError(f"{where} is empty: it must hold a sentence a line")


def _lines(lines_or_file):
    """Yields `(place, offset, line)`."""
    if not isinstance(lines_or_file, str | os.PathLike):
        for number, line in enumerate(lines_or_file, 1):
            if not isinstance(line, str):
                raise TypeError(f"A line must be a string. Received: {line!r} as line {number}")
            yield f"Line {number}", None, line.rstrip("\r\n")
        return
    path = Path(lines_or_file)
    if not path.is_file():
        raise FileNotFoundError(f"No file '{path}'")
    with path.open("rb") as file:
        offset = 0
        for number, raw in enumerate(file, 1):
            place, skipped = f"'{path}', line {number}", 0
            if number == 1 and raw.startswith(BOM):
                skipped = len(BOM)
            line = decoded(raw[skipped:].removesuffix(b"\n").removesuffix(b"\r"), place)
            yield place, offset + skipped, line
            offset += len(raw)


def _label(line, place, num_classes):
    text, tab, sentence = line.partition("\t")
    if not tab:
        raise ValueError(
            f"{place} has no tab between label and sentence. Received: {_shortened(line)}"
        )
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(
            f"{place}: a label must be an integer. Received: {_shortened(text)} before the first "
            "tab. Pass `labels=False` for lines without labels"
        )
    label = int(text)
    largest = LARGEST_LABEL if num_classes is None else num_classes - 1
    if not 0 <= label <= largest:
        bound = f"below num_classes={num_classes}" if num_classes else f"at most {largest}"
        raise ValueError(f"{place}: a label must be at least 0 and {bound}. Received: {label}")
    return label, sentence


def _shortened(text, length=60):
    return repr(text if len(text) <= length else f"{text[:length]}...")
