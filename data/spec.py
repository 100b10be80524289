"""`DataSpec`: which data, and how they are read and batched, described once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from ..core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_integers,
    check_keys,
    check_range,
    check_seed,
    is_integer,
    shown,
    wrong,
)

# An id between the two special ones.
SHORTEST = 3

Given = ParamSpec("Given")
Result = TypeVar("Result", covariant=True)
Sizes = int | Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Describes data: which images or text, what becomes of them, and their batches.

        spec = data.DataSpec("mnist", binarize="dynamic", batch_size=100)
        model.fit(data.load(spec))
        x, _ = data.load_arrays(spec, "test", binarize="fixed")

    Functions of `vaezoo.data` take these arguments one by one, or a `DataSpec` in place of the
    first, whose other fields are then those not given. Numbers and sizes are kept as plain Python.

    Args:
        name_or_path: Name or path of the set; `load` has a list of what there is.
        split: Split, with an optional slice of it: `"train"`, `"train[:1000]"`, `"test[10%:]"`. A
            source without a validation split holds out part of `"train"` for `"validation"`.
        batch_size: Positive int; by default 128 images or 32 sentences.
        binarize: None for gray levels; "dynamic" for a fresh Bernoulli(pixel) draw at each
            presentation; "fixed" for one draw an example, whatever order and batch size. Of images
            only, as are the arguments from `binarize_seed` to `value_range`, and `download`.
        shuffle: Whether each epoch has a random order; by default the train split only.
        seed: Non-negative int; fixes the order and the dynamic draws of each epoch.
        binarize_seed: Non-negative int; fixes the fixed draw. 777 is customary.
        copies: Positive int, fixed draws of each example: so many sets, one after the other. The
            first is that of `copies=1`. Has no effect on other kinds of `binarize`.
        image_size: Int or `(height, width)` to resize to (bilinear, antialiased), or None.
        channels: 1 or 3 to convert to gray or RGB, or None.
        crop: Int or `(height, width)` of a center crop before resizing. By default 140 for
            `"celeb_a"`, none elsewhere.
        invert: Whether to hand out 1 - x. By default for `"omniglot"` only, whose strokes are 0:
            ink is 1 in every set.
        value_range: `(low, high)` that black and white are mapped to.
        labels: True (of text, "auto" means the same) for labels where there are any, False for
            none, or the name of the TFDS feature that holds them. Of OMNIGLOT, `"characters"` gives
            alphabet and character, y int32 `(batch, 2)`, what `metrics.alphabet_probe` reads.
        with_index: Whether each example goes with its index, for objectives that tell the
            training examples apart. It is the place 0..n-1 among the n examples that `split`,
            `validation_split` and `limit` select, as `load_arrays` has them and `describe` counts
            them: the same in each epoch, order and backend. All `copies` of an example share its
            index, as its dynamic draws do.
        validation_split: Part of the train split held out for `"validation"`, as a fraction or a
            count: `"train"` is then the rest. By default `"train"` is whole, and `"validation"` a
            twelfth of it, with a warning. Held out is the end of TFDS sets, which are stored in
            random order, and evenly spaced examples of other sources, which may be sorted.
        limit: Largest number of examples, the first ones of the split, or None.
        drop_remainder: Whether an incomplete last batch is left out; by default when shuffling.
        in_memory: True or False to overrule the choice by size.
        backend: "tf" for a `tf.data.Dataset`, "numpy" for a `keras.utils.PyDataset`, "auto" for
            the former where TensorFlow is installed.
        data_dir: Folder of prepared TFDS sets, and of folders of text; by default the environment
            variable TFDS_DATA_DIR, else TFDS' own default.
        download: Whether TFDS may fetch and prepare a missing set.
        vocabulary: Of text only, as all below: `Vocabulary` or the path of its file. By default
            all words of the whole file of the train split. Validation and test data in single
            files need that of the training file.
        tokenizer: Function from a string to a list of strings; by default splits at white space
            and leaves case alone. Or a tokenizer of Hugging Face, whose ids are then used, and no
            vocabulary (`<pad>` has the id 0 all the same, see `TextInfo.vocabulary`).
        max_size: Largest size of a vocabulary that is built, as in `Vocabulary.build`.
        min_count: Positive int, occurrences that a word of a vocabulary that is built needs.
        num_classes: Positive int that labels must be below, or None.
        max_length: Int from 3 on, the largest length, or None.
        too_long: What to do about longer sentences: "error", "truncate" or "skip" them.
        buckets: Ascending ints from 3 on, the lengths of batches. By default up to 8,
            those of the fewest positions an epoch, where a compilation counts as 900 of them. The
            last bucket limits the length as `max_length` does.
        length: Of arrays only: length of x, which limits sentences as `max_length` does, or None
            for the greatest one needed.

    Raises:
        ValueError: If a number or a choice is out of range.
    """

    name_or_path: str | os.PathLike
    split: str = "train"
    _: dataclasses.KW_ONLY
    batch_size: int | None = None
    binarize: str | None = None
    shuffle: bool | None = None
    seed: int = 0
    binarize_seed: int = 777
    copies: int = 1
    image_size: Sizes = None
    channels: int | None = None
    crop: Sizes = None
    invert: bool | None = None
    value_range: Sequence[float] = (0.0, 1.0)
    labels: bool | str = True
    with_index: bool = False
    validation_split: float | None = None
    limit: int | None = None
    drop_remainder: bool | None = None
    in_memory: bool | None = None
    backend: str = "auto"
    data_dir: str | os.PathLike | None = None
    download: bool = False
    vocabulary: Any = None
    tokenizer: Any = None
    max_size: int | None = None
    min_count: int = 1
    num_classes: int | None = None
    max_length: int | None = None
    too_long: str = "error"
    buckets: Sequence[int] | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        """Checks whatever needs no data, and stores it as plain Python."""
        value_range = self.value_range
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if type(self.labels).__name__ == "bool_":
            object.__setattr__(self, "labels", bool(self.labels))
        if not isinstance(self.labels, bool | str):
            raise wrong("labels", "True, False or the name of a feature", self.labels)
        if self.binarize and self.value_range != (0.0, 1.0):
            raise ValueError(
                "`binarize` needs `value_range=(0.0, 1.0)`: pixels are probabilities. "
                f"Received: binarize={self.binarize!r}, value_range={value_range!r}"
            )

    def replace(self, **changes: Any) -> DataSpec:
        """Returns a copy with some fields changed."""
        check_keys("`changes`", changes, FIELDS)
        return dataclasses.replace(self, **changes)

    def given(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults, with the name or path first."""
        return {
            name: value
            for name, default in FIELDS.items()
            if type(value := getattr(self, name)) is not type(default) or value != default
        }

    def refuse(self, held: str) -> None:
        """Raises a `ValueError` if a field is given that is of no use to what the set holds.

        Args:
            held: "text" or "images".
        """
        names, other = (OF_IMAGES, "images") if held == "text" else (OF_TEXT, "text")
        given = self.given()
        for name in names:
            if name in given:
                raise ValueError(
                    f"`{name}` is of {other}, but '{self.name_or_path}' holds {held}. Received: "
                    f"{name}={shown(given[name])}"
                )


def pair(name: str, value: Any) -> tuple[int, int] | None:
    """Checks sizes, and returns `(height, width)` or None: an int is that of both sides."""
    sides = (value, value) if is_integer(value) else value
    rule = "a positive integer or a pair of them"
    return check_integers(name, sides, length=2, optional=True, rule=rule)


def _sizes(name, value):
    checked = pair(name, value)
    return checked[0] if is_integer(value) else checked


def _buckets(name, value):
    lengths = None if value is None else check_integers(name, value, SHORTEST, shortest=1)
    if lengths is not None and tuple(sorted(set(lengths))) != lengths:
        raise ValueError(f"`{name}` must ascend. Received: {name}={value!r}")
    return lengths


def _batch_size(name, value):
    return None if value is None else check_integer(name, value, 1)


def _choice(*choices):
    return lambda name, value: check_choice(name, value, choices)


def _optional(check, *args):
    return lambda name, value: check(name, value, *args, optional=True)


def _positive(name, value):
    return check_integer(name, value, 1)


def _seed(name, value):
    return check_seed(name, value, optional=False)


_CHECKS = {
    "batch_size": _batch_size,
    "binarize": _choice(None, "dynamic", "fixed"),
    "shuffle": _optional(check_flag),
    "seed": _seed,
    "binarize_seed": _seed,
    "copies": _positive,
    "image_size": _sizes,
    "channels": _choice(None, 1, 3),
    "crop": _sizes,
    "invert": _optional(check_flag),
    "value_range": check_range,
    "with_index": check_flag,
    "limit": _optional(check_integer, 1),
    "drop_remainder": _optional(check_flag),
    "in_memory": _optional(check_flag),
    "backend": _choice("auto", "tf", "numpy"),
    "download": check_flag,
    "num_classes": _optional(check_integer, 1),
    "max_length": _optional(check_integer, SHORTEST),
    "too_long": _choice("error", "truncate", "skip"),
    "buckets": _buckets,
    "length": _optional(check_integer, SHORTEST),
}

#: Names of the fields, with their defaults; the name or path has none.
FIELDS = {
    field.name: None if field.default is dataclasses.MISSING else field.default
    for field in dataclasses.fields(DataSpec)
}
#: Fields that only images, or only text, have a use for.
OF_IMAGES = (
    "binarize", "binarize_seed", "copies", "image_size", "channels", "crop", "invert",
    "value_range", "download",
)  # fmt: skip
OF_TEXT = (
    "vocabulary", "tokenizer", "max_size", "min_count", "num_classes", "max_length", "too_long",
    "buckets", "length",
)  # fmt: skip
#: Fields that say how batches are made, of which arrays have none.
OF_BATCHES = (
    "batch_size", "shuffle", "seed", "with_index", "drop_remainder", "in_memory", "backend",
    "buckets",
)  # fmt: skip


class Described(Protocol[Given, Result]):
    """A function that takes a `DataSpec`, or the arguments of one."""

    @overload
    def __call__(self, spec: DataSpec, /, *args: Any, **changes: Any) -> Result: ...

    @overload
    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Result: ...


def described_by(
    spec: Callable[Given, DataSpec],
    names: Sequence[str],
    positional: Sequence[str] = ("name_or_path", "split"),
    texts: dict[str, str] | None = None,
    **defaults: Any,
) -> Callable[[Callable[[DataSpec], Result]], Described[Given, Result]]:
    """Gives a function of a `DataSpec` the fields as arguments, with their documentation.

    Args:
        spec: `DataSpec`, of which type checkers read the arguments.
        names: Names of the fields that the function has as arguments.
        positional: Those that may be given by position, in this order. The first stands for
            `name_or_path` whatever it is called, and takes a `DataSpec`, too.
        texts: What the documentation says of arguments in place of the fields' own words.
        **defaults: Defaults of this function in place of the fields' own.
    """
    first, *others = positional
    defaults = {**FIELDS, **defaults}
    by_position, by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(first, by_position)]
    for name in (*others, *(name for name in names if name not in ("name_or_path", *others))):
        kind = by_position if name in others else by_name
        parameters.append(inspect.Parameter(name, kind, default=defaults[name]))
    signature = inspect.Signature(parameters)

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            try:
                given = dict(signature.bind(*args, **kwargs).arguments)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            source = given.pop(first)
            if isinstance(source, DataSpec):
                return function(source.replace(**given))
            return function(DataSpec(source, **{**function_defaults, **given}))

        function_defaults = {name: value for name, value in defaults.items() if name in own}
        call.__signature__ = signature
        call.__doc__ = _with_arguments(function.__doc__, signature.parameters, texts or {})
        return call

    own = [name for name in defaults if defaults[name] is not FIELDS[name]]
    return decorate


def _with_arguments(text, parameters, texts):
    """A docstring with the section of its arguments put before that of what it returns."""
    lines = ["    Args:"]
    for name in parameters:
        if name in texts:
            held = textwrap.wrap(f"{name}: {texts[name]}", 88, break_on_hyphens=False)
            lines += [f"{' ' * (8 if i == 0 else 12)}{line}" for i, line in enumerate(held)]
        else:
            lines += _texts_of_fields()[name]
    head, mark, tail = text.partition("\n    Returns:")
    return "\n".join([head, *lines, ""]) + mark + tail


@functools.cache
def _texts_of_fields():
    """The lines that document each field."""
    texts, name = {}, None
    section = DataSpec.__doc__.partition("\n    Args:\n")[2].partition("\n\n    Raises:")[0]
    for line in section.splitlines():
        if line.startswith("        ") and not line.startswith("         "):
            name, _, _ = line.strip().partition(": ")
            texts[name] = []
        texts[name].append(line)
    return texts
