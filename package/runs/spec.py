"""`RunSpec`: what was asked of a training run, as Python and as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import zoo
from ..core.checkpoints import read_every
from ..core.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_kind,
    check_name,
    check_seed,
)
from ..data import DataSpec, TextInfo, Vocabulary, describe, load
from ..data.text import SUFFIXES, text_path
from ..losses import Regularizer
from ..zoo.preset import build_preset, check_arguments, merge_settings
from .conditions import condition_name
from .directory import ASKED, HELD_OUT
from .settings import SECTIONS, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


#: Dtype policies of Keras that networks are trained in.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
#: Fields that `config.json` has among its options.
OPTIONS = (
    "seed",
    "precision",
    "validation",
    "steps_per_execution",
    "xla",
    "monitor",
    "checkpoint_every",
    "on_nan",
    "max_rewinds",
)
#: What is done about a loss that is not finite.
ON_NAN = ("stop", "rewind")


@dataclasses.dataclass(frozen=True, eq=False)
class RunSpec:
    """Says what a run trains, on which data and how: all that its result depends on.

        spec = runs.RunSpec("du_vae_digits_mlp", model={"gamma": 0.6}, training={"epochs": 20})
        spec == runs.RunSpec.from_dict(spec.to_dict())

    It is what `config.json` in the directory of a run holds. Two are equal if they are the same
    in JSON.

    Args:
        preset: Name from `zoo.presets()`, or None to give `constructor` and all settings.
        constructor: Name of a model of `vaezoo.zoo`, such as `"DUVAE"`; that of the preset by
            default.
        model: Dict of arguments of the constructor that differ from the preset's.
        networks: The same for `zoo.networks.make`. Without a preset it has at least `kind`.
        training: The same for `epochs`, the optimizer and its arguments, `plateau`, `validation`
            and `initial_examples`, as in `zoo.load`.
        data: The same for the fields of `data.DataSpec`, or a `DataSpec`, of which the fields
            that are not at their defaults count. None, without a preset, if `fit` is given data.
        regularizers: Regularizers for `VAE.add_regularizer`, such as a `zoo.auxiliary_softmax` that
            measures; each run trains a copy.
        seed: Non-negative int; fixes initial weights, noise, and order and binarization of the
            training data, whose own `seed` is this one unless it is given.
        precision: "float32", "mixed_bfloat16" or "mixed_float16"; losses are always float32.
        validation: What to evaluate after each epoch: a split such as `"test"`, `"none"`, or
            `"auto"`: the validation split, or a twelfth of the training split where there is none,
            which is then not trained on. By default `training["validation"]`, else `"auto"`.
        steps_per_execution: Positive int, training steps in one call of the compiled function, or
            None to leave it to `VAE.compile`.
        xla: Whether XLA compiles the training step.
        monitor: Whether a run with a directory watches its latent variables in TensorBoard.
        checkpoint_every: How often a run with a directory is saved within an epoch, beside after
            each one: a number of steps, a time such as `"30s"`, `"10m"`, `"2h"`, or None.
        on_nan: What a run with a directory does when its loss, or a weight, is not finite:
            `"stop"`, or `"rewind"` to go back to the last checkpoint with half the learning rate.
            In either case it finds out what was not finite first, and keeps the batch.
        max_rewinds: Positive int, how often a run goes back at most.

    Raises:
        ValueError: If an argument is out of range, or neither preset nor constructor is given.
        TypeError: If an argument is of the wrong kind.
    """

    preset: str | None = None
    _: dataclasses.KW_ONLY
    constructor: str | None = None
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    networks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: DataSpec | Mapping[str, Any] | None = None
    regularizers: Sequence[Any] = ()
    seed: int = 0
    precision: str = "float32"
    validation: str | None = None
    steps_per_execution: int | None = None
    xla: bool = True
    monitor: bool = True
    checkpoint_every: Any = None
    on_nan: str = "stop"
    max_rewinds: int = 3

    def __post_init__(self) -> None:
        """Checks whatever needs no data."""
        check_kind("preset", self.preset, str, "the name of a preset", optional=True)
        check_kind("constructor", self.constructor, str, "the name of a model", optional=True)
        if self.preset is None and self.constructor is None:
            raise ValueError(
                "Either `preset` or `constructor` must be given. Received: preset=None, "
                "constructor=None"
            )
        if self.preset is not None:
            check_name("preset", self.preset, zoo.presets(), "one of the zoo's")
        if self.constructor is not None:
            check_name("constructor", self.constructor, _constructors(), "a model of the zoo")
        for name in ("model", "networks", "training"):
            rule = "a dict of settings"
            values = check_kind(name, getattr(self, name), Mapping, rule)
            object.__setattr__(self, name, dict(values))
        kinds = (DataSpec, Mapping)
        check_kind("data", self.data, kinds, "a DataSpec or a dict of its fields", optional=True)
        if isinstance(self.data, Mapping):
            object.__setattr__(self, "data", dict(self.data))
        read_every("checkpoint_every", self.checkpoint_every)
        regularizers = check_kind("regularizers", self.regularizers, (list, tuple), "a list")
        for item in regularizers:
            check_kind("regularizers", item, Regularizer, "a list of vaezoo regularizers")
        object.__setattr__(self, "regularizers", tuple(regularizers))
        for name, value in {
            "seed": check_seed("seed", self.seed, optional=False),
            "precision": check_choice("precision", self.precision, PRECISIONS),
            "steps_per_execution": check_integer(
                "steps_per_execution", self.steps_per_execution, optional=True
            ),
            "xla": check_flag("xla", self.xla),
            "monitor": check_flag("monitor", self.monitor),
            "on_nan": check_choice("on_nan", self.on_nan, ON_NAN),
            "max_rewinds": check_integer("max_rewinds", self.max_rewinds),
        }.items():
            object.__setattr__(self, name, value)
        wanted = self.validation
        if wanted is None and "validation" in self.training:
            wanted = self.training["validation"]
            wanted = "none" if wanted is None else wanted
        if not isinstance(wanted, str | None):
            name = "training.validation" if self.validation is None else "validation"
            raise ValueError(f"{name} must be a split, 'auto' or 'none'. Received: {wanted!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunSpec):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.preset, self.constructor, self.seed))

    def replace(self, **changes: Any) -> RunSpec:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON values.

        A vocabulary that was built, and is no path, lies beside `config.json` instead.
        """
        data = {} if self.data is None else self.data
        if isinstance(data, DataSpec):
            # A seed that is the default of data may not be the run's.
            data = {**data.given(), "seed": data.seed}
        data = {k: v for k, v in data.items() if not isinstance(v, Vocabulary)}
        sections = (self.model, self.networks, self.training, data)
        found = {
            "preset": self.preset,
            "model": self.constructor,
            "options": {name: to_json(getattr(self, name)) for name in OPTIONS},
            "settings": to_json(dict(zip(SECTIONS, sections, strict=True))),
        }
        return {**found, "regularizers": to_json(self.regularizers)} if self.regularizers else found

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> RunSpec:
        """Reads what `to_dict` returns, or the contents of a `config.json`, also an older one.

        Raises:
            ValueError: If a setting cannot be read.
        """
        try:
            settings = from_json(config["settings"])
            options = {k: v for k, v in config["options"].items() if k in OPTIONS}
            sections = {name: settings.get(name, {}) for name in SECTIONS}
            more: dict[str, Any] = {"constructor": config.get("model")}
            more["regularizers"] = from_json(config.get("regularizers", []))
            return cls(config["preset"], **more, **sections, **options)
        except (ValueError, TypeError, KeyError, ImportError, AttributeError) as error:
            reason = " ".join(str(error).split("Full object config")[0].split())
            raise ValueError(f"settings that cannot be read: {reason}") from error

    def resolve(self, vocabulary: Vocabulary | None = None) -> RunSpec:
        """Returns the run with all settings spelt out, for the data that there are.

        Preset and overrides are merged, data are described for the shape of the networks' input,
        the size of a vocabulary and the number of examples, and paths become absolute. Resolving
        twice changes nothing.

        Args:
            vocabulary: `Vocabulary` that text is read by, or None to build it.

        Raises:
            ValueError: If a setting is unknown, or does not fit the data.
            FileNotFoundError: If the data are not there.
        """
        return resolved(self, vocabulary)[0]


def resolved(spec: RunSpec, vocabulary: Any = None) -> tuple[RunSpec, Any]:
    """Returns a `RunSpec` as `resolve` does, with the vocabulary of its text or None."""
    name, constructor, base = _base(spec)
    overrides = {section: dict(getattr(spec, section)) for section in SECTIONS[:3]}
    overrides["data"] = {}
    wanted = spec.validation
    if wanted is None:
        wanted = {**base["training"], **spec.training}.get("validation", "auto")
        wanted = "none" if wanted is None else wanted
    data = _data(spec, base, name)
    if data is not None:
        known = data if vocabulary is None else with_vocabulary(data, vocabulary)
        if "num_examples" in base["model"] and "num_examples" not in overrides["model"]:
            trained_on, _ = splits(known, wanted)
            overrides["model"]["num_examples"] = describe(trained_on).num_examples
        networks = {**base["networks"], **overrides["networks"]}
        if condition_name(networks) is not None:
            data, known = _with_labels(networks["condition"], data, known)
            overrides["networks"]["condition"] = _condition(networks["condition"], known)
        vocabulary = _fit_networks(name, networks, overrides["networks"], known)
    settings = merge_settings(name, constructor, base, overrides)
    spec = spec.replace(
        constructor=constructor.__name__,
        validation=wanted,
        data=data,
        **{section: settings[section] for section in SECTIONS[:3]},
    )
    return spec, vocabulary


def build(spec: RunSpec) -> Any:
    """Builds the `zoo.Preset` of a resolved spec."""
    name, constructor, base = _base(spec)
    overrides = {section: dict(getattr(spec, section)) for section in SECTIONS[:3]}
    built = build_preset(name, constructor, base, {**overrides, "data": {}})
    for regularizer in spec.regularizers:
        built.model.add_regularizer(from_json(to_json(regularizer)))
    return built


def splits(data: DataSpec, validation: Any) -> tuple[Any, Any]:
    """Returns the `DataSpec` of training data, and that of validation data or None.

    Args:
        data: `DataSpec` of a run.
        validation: "auto", "none" or a split.
    """
    if validation == "none":
        return data, None
    split = validation
    if split == "auto":
        split = "validation"
        if data.validation_split is None and can_hold_out(data):
            data = data.replace(validation_split=HELD_OUT)
    held_out = data.replace(
        split=split,
        # One fixed draw, so that epochs can be compared.
        binarize=data.binarize and "fixed",
        shuffle=False,
        drop_remainder=False,
        # What is not trained on has no place in the training set.
        with_index=False,
    )
    return data, held_out


def can_hold_out(data: Any) -> bool:
    """Whether part of the training data can be held out: there is no validation split."""
    try:
        describe(data.replace(split="validation", validation_split=HELD_OUT))
    except ValueError:
        return False
    return True


def with_vocabulary(data: Any, vocabulary: Any) -> Any:
    """Returns the `DataSpec` of text that is read by a vocabulary instead of building one."""
    return data.replace(vocabulary=vocabulary, max_size=None, min_count=1)


def without_asked(data: Any) -> Any:
    """Returns settings of data, as a run's file has them, without what that may not ask for."""
    return {name: value for name, value in data.items() if name not in ASKED}


class AskedBefore(ValueError):
    """An error about data that a run was started with something its file may not ask for.

    Attributes:
        reason: The error.
        asked: Dict of what to give again: `data_dir`, `download`.
    """

    def __init__(self, reason: Exception, asked: dict[str, Any]) -> None:
        self.reason, self.asked = str(reason), asked
        words = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        super().__init__(
            f"{reason} (the run was started with {words}, which a run's file may not ask for: give "
            f"it again, as in Run.open(directory, data={asked!r}))"
        )


@contextlib.contextmanager
def asking_again(held: dict[str, Any], given: Iterable[str]) -> Iterator[Any]:
    """Says in an error about data what the run was started with, if it is not given again.

    Args:
        held: Settings of data that the file of the run has.
        given: Names of those that are given.

    Raises:
        AskedBefore: In place of the error.
    """
    try:
        yield
    except (OSError, ValueError, LookupError) as error:
        asked = {name: held[name] for name in ASKED if held.get(name) and name not in given}
        if not asked:
            raise
        raise AskedBefore(error, asked) from error


def located(given: dict[str, Any], base: Any) -> dict[str, Any]:
    """Returns settings of data with a path that is found from everywhere.

    Args:
        given: Dict of settings that were given.
        base: Dict of those that they change.
    """
    name: Any = given.get("name_or_path", base.get("name_or_path"))
    in_folder = given.get("data_dir") and text_path(name, given["data_dir"])
    if in_folder:
        return {**given, "name_or_path": str(in_folder.resolve())}
    if "name_or_path" not in given:
        return given
    return {**given, "name_or_path": _absolute(name)}


def _absolute(name):
    """Returns a path to data such that it is found from everywhere, a name as it is."""
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        return name
    path = Path(name).expanduser()
    means_path = os.sep in os.fspath(name) or isinstance(name, os.PathLike)
    means_path = means_path or path.suffix in (".npz", ".npy", ".mat", *SUFFIXES)
    if path.exists() and (means_path or text_path(name) == path):
        return str(path.resolve())
    return os.fspath(name)


def _constructors():
    return {
        name: item
        for name in zoo.__all__
        if inspect.isfunction(item := getattr(zoo, name)) or item is zoo.VAE
        if "encoder" in inspect.signature(item).parameters
    }


def _base(spec):
    """Returns name, constructor and settings that a spec's own go on top of."""
    if spec.preset is None:
        for section, key in (("networks", "kind"), ("training", "epochs")):
            if key not in getattr(spec, section):
                raise ValueError(
                    f"`{section}` must have {key!r} where there is no preset. Received: {section}="
                    f"{getattr(spec, section)!r}"
                )
        settings = {section: dict(getattr(spec, section)) for section in SECTIONS[:3]}
        return spec.constructor, _constructors()[spec.constructor], {**settings, "data": {}}
    constructor, settings = zoo.presets()[spec.preset]
    if spec.constructor not in (None, constructor.__name__):
        raise ValueError(
            f"`constructor` must be that of the preset, {constructor.__name__!r}, or None. "
            f"Received: preset={spec.preset!r}, constructor={spec.constructor!r}"
        )
    return spec.preset, constructor, settings


def _data(spec, base, name):
    given = spec.data
    if isinstance(given, DataSpec):
        vocabulary = {"vocabulary": given.vocabulary}
        given = {**given.given(), **(vocabulary if given.vocabulary is not None else {})}
    given = located(given or {}, base["data"])
    check_arguments("data", given, load, name)
    chosen = {**base["data"]}
    if given.get("vocabulary") is not None:
        # A vocabulary that is given need not be built.
        chosen = {k: v for k, v in chosen.items() if k not in ("max_size", "min_count")}
    merged = {"seed": spec.seed, **chosen, **given}
    return DataSpec(**merged) if "name_or_path" in merged else None


#: Name of the labels that data have without a choice among several.
_LABEL = "label"


def _with_labels(condition, *specs):
    """Returns `DataSpec` that hand out the labels that a condition names."""
    name = condition_name({"condition": condition})
    return [
        spec if spec.labels is True and name == _LABEL or not isinstance(condition, str)
        else spec.replace(labels=True if name == _LABEL else name)
        for spec in specs
    ]  # fmt: skip


def _condition(condition, data):
    """Returns a condition with the number of classes that the data have."""
    if not isinstance(condition, str):
        return condition
    classes = describe(data).num_classes
    if classes is None:
        raise ValueError(
            f"networks.condition must be a label of the data, and {str(data.name_or_path)!r} has "
            f"no classes. Received: {condition!r} (--condition)"
        )
    return {condition: classes}


def _fit_networks(name, networks, overrides, data):
    """Sets shape and size of the networks by the data; returns the vocabulary of text."""
    _check_kind(name, networks, data)
    info = describe(data)
    text = isinstance(info, TextInfo)
    if text:
        size = overrides.setdefault("vocabulary_size", info.vocabulary_size)
        if size != info.vocabulary_size:
            raise ValueError(
                "networks.vocabulary_size must be that of the data, "
                f"{info.vocabulary_size} in {info.name!r}. Received: {size}"
            )
    elif None in info.shape:
        raise ValueError(
            f"The images of {info.name!r} differ in size: choose one, such as "
            "data={'image_size': 64} (--set data.image_size=64)"
        )
    wanted = overrides.get("input_shape")
    if wanted is None:
        overrides["input_shape"] = tuple(info.shape)
    elif tuple(wanted) != tuple(info.shape):
        raise ValueError(
            f"networks.input_shape must be the shape of the data, {tuple(info.shape)} in "
            f"{info.name!r}. Received: {tuple(wanted)}"
        )
    return info.vocabulary if text else None


def _check_kind(preset, networks, data):
    """Raises an error for networks of text and other data, or the other way round."""
    name = data.name_or_path
    text = text_path(name, data.data_dir)
    parts = (networks["kind"], networks.get("encoder"), networks.get("decoder"))
    make_decoder = zoo.networks.makers(*parts)[1]
    for_text = "vocabulary_size" in inspect.signature(make_decoder).parameters
    if for_text and text is None:
        raise ValueError(
            f"{preset} is trained on text: give --data PATH, a folder with train.txt, valid.txt "
            f"and test.txt, or a .txt file with a sentence a line. No such thing: {name!r}"
        )
    if text is not None and not for_text:
        raise ValueError(
            f"{preset} is trained on images, and {name!r} holds text: choose a preset whose "
            "networks are of kind 'lstm'"
        )
