"""Which part may import what: read from the sources, so that lazy imports count too."""

import ast
import importlib
import inspect
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import keras
from keras.saving import get_registered_object as find_registered

ROOT = Path(__file__).resolve().parents[1]
ARROWS = {
    "core": set(),
    "losses": {"core"},
    "layers": {"core", "losses"},
    "zoo": {"callbacks", "core", "layers", "losses"},
    "metrics": {"core", "layers", "losses"},
    "callbacks": {"core", "losses", "metrics"},
    "data": {"core"},
    "runs": {"callbacks", "core", "data", "layers", "losses", "metrics", "zoo"},
    "studies": {"callbacks", "core", "data", "layers", "losses", "metrics", "runs", "zoo"},
    "cli": {
        "callbacks", "core", "data", "layers", "losses", "metrics", "package", "runs", "studies",
        "zoo",
    },
    "package": {
        "callbacks", "cli", "core", "data", "layers", "losses", "metrics", "runs", "studies", "zoo",
    },
}  # fmt: skip
# Where a part lies if not in a folder of its name.
PLACES = {"runs": "package/runs", "studies": "package/studies"}
# In the environments of both backends; all else waits until a function needs it.
EVERYWHERE = {"keras", "matplotlib", "numpy", "rich", "sklearn", "typer"}
DOOR = "core/posteriors.py"
# Of Keras, which tells a schedule by no public name.
KERAS_ATTRIBUTES = {"_learning_rate"}
SOURCES = sorted({path for part in ARROWS for path in (ROOT / part).rglob("*.py")})


class Import(NamedTuple):
    """One imported name in full, such as `keras.ops` or `vaezoo.losses.elbo`."""

    file: str
    line: int
    name: str
    lazy: bool
    for_types: bool


def part_of(file):
    """The part that a file, given by its path from the root, belongs to."""
    inner = [part for part, place in PLACES.items() if file.startswith(f"{place}/")]
    return inner[0] if inner else file.split("/")[0]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["vaezoo", *(parts[1:] if parts[0] == "package" else parts)])


def imports_of(path):
    def visit(node, lazy, for_types):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # Each dot drops a part of a module's name: in vaezoo.a.b, `..c` is vaezoo.c.
            base = module_name(path).split(".")[: -node.level] if node.level else []
            base += [node.module] if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            names = []
        for name in names:
            file = path.relative_to(ROOT).as_posix()
            yield Import(file, node.lineno, name, lazy, for_types)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = for_types or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy, for_types)

    return list(visit(ast.parse(path.read_text("utf-8")), lazy=False, for_types=False))


IMPORTS = [found for path in SOURCES for found in imports_of(path)]


def is_below(name, *modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def test_the_sources_are_read():
    assert {part_of(path.relative_to(ROOT).as_posix()) for path in SOURCES} == set(ARROWS)
    elbo = [found.name for found in IMPORTS if found.file == "losses/elbo.py"]
    assert any(is_below(name, "vaezoo.losses") for name in elbo)
    assert any(is_below(name, "keras") for name in elbo)


def test_imports_point_down_only():
    def allowed(found):
        part, target = part_of(found.file), found.name.split(".")[1]
        # The version, of which `package/` is the home.
        target = target if target in ARROWS else "package"
        return target in ARROWS[part] | {part}

    assert [i for i in IMPORTS if is_below(i.name, "vaezoo") and not allowed(i)] == []


def test_a_module_loads_nothing_that_one_backend_lacks():
    known = EVERYWHERE | sys.stdlib_module_names | {"vaezoo"}
    run = [i for i in IMPORTS if not i.lazy and not i.for_types]
    assert [i for i in run if i.name.split(".")[0] not in known] == []


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def test_no_import_takes_a_private_name_from_another_folder():
    """A module or a name of one: what begins with an underscore stays in its folder."""

    def leaks(found):
        folder = part_of(found.file)
        parts = found.name.split(".")
        of_folder = "package" if parts[1] not in ARROWS else parts[1]
        return folder != of_folder and any(map(is_private, parts))

    assert [i for i in IMPORTS if is_below(i.name, "vaezoo") and leaks(i)] == []


def test_no_folder_uses_the_private_attributes_of_another():
    """Attributes of objects other than `self`, by where names are made: in which folders."""
    made, used = {}, []
    for path in SOURCES:
        folder = part_of(path.relative_to(ROOT).as_posix())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                name = node.name
            elif isinstance(node, ast.Attribute) and is_self(node.value):
                # What a class reads of itself may be its base's, but what it sets is its own.
                name = node.attr if isinstance(node.ctx, ast.Store) else ""
            elif isinstance(node, ast.Attribute):
                name = ""
                used.append((folder, path.name, node.lineno, node.attr))
            else:
                continue
            made.setdefault(name, set()).add(folder)
    assert {"zoo", "metrics"} <= set.union(*made.values())
    used = [use for use in used if is_private(use[3]) and use[3] not in KERAS_ATTRIBUTES]
    assert [use for use in used if use[0] not in made.get(use[3], {use[0]})] == []


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def circles_of(arrows):
    """Sets of nodes that reach each other, of a dict from node to the nodes that it points to."""
    reached = {}
    for node in arrows:
        seen, ahead = set(), [node]
        while ahead:
            new = arrows.get(ahead.pop(), set()) - seen
            seen |= new
            ahead += new
        reached[node] = seen
    return {
        frozenset(other for other in seen if node in reached.get(other, ()))
        for node, seen in reached.items()
        if node in seen
    }


def test_circles_are_found():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles_of(arrows) == {frozenset("bc")}
    assert circles_of({"a": {"b"}, "b": set()}) == set()


def test_modules_import_each_other_in_no_circle():
    """Imports inside of functions count, too; those for types alone never run."""
    modules = {module_name(path).removesuffix(".__init__") for path in SOURCES}

    def module_of(name):
        while name not in modules:
            name = name.rpartition(".")[0]
        return name

    arrows = {module: set() for module in modules}
    for found in IMPORTS:
        if is_below(found.name, "vaezoo") and not found.for_types:
            source = module_name(ROOT / found.file).removesuffix(".__init__")
            arrows[source] |= {module_of(found.name)} - {source}
    assert circles_of(arrows) == set()


def test_keras_is_used_through_its_public_names():
    assert [
        i for i in IMPORTS if is_below(i.name, "keras.src", "tf_keras", "tensorflow.keras")
    ] == []


def test_tensorflow_probability_enters_by_one_door():
    users = {i.file for i in IMPORTS if is_below(i.name, "tensorflow_probability")}
    assert users == {DOOR}


def test_keras_classes_are_registered_once_each():
    kinds = (
        keras.Layer,
        keras.Loss,
        keras.Metric,
        keras.constraints.Constraint,
        keras.initializers.Initializer,
        keras.optimizers.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule,
        keras.regularizers.Regularizer,
    )
    modules = [
        importlib.import_module(module_name(path).removesuffix(".__init__")) for path in SOURCES
    ]
    found = [item for module in modules for item in vars(module).values()]
    classes = {item for item in found if isinstance(item, type) and issubclass(item, kinds)}
    classes = {item for item in classes if is_below(item.__module__, "vaezoo")}
    assert len(classes) > 10
    counts = Counter(item.__name__ for item in classes)
    assert [name for name, count in counts.items() if count > 1] == []
    # What others here extend may be abstract, and then has nothing to load.
    concrete = classes - {base for item in classes for base in item.__mro__[1:]}
    registered = {item for item in classes if item is find_registered(f"vaezoo>{item.__name__}")}
    assert concrete - registered == set()


def test_output_shapes_are_computed_from_what_build_takes():
    # `Model.summary` hands over by name what `build` was given.
    layers = {
        item
        for name, item in keras.saving.get_custom_objects().items()
        if name.startswith("vaezoo>") and issubclass(item, keras.Layer)
    }
    for layer in layers:
        given = inspect.signature(layer.build).parameters
        taken = inspect.signature(layer.compute_output_shape).parameters
        assert set(given) <= set(taken) or "kwargs" in taken, layer
