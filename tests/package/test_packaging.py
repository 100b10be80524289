import importlib
import re
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vaezoo

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
FOLDERS = SETTINGS["package-dir"]
NOT_INSTALLED = {"benchmarks", "build", "examples", "tests"}


def requirements(lines):
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(item.name): item.specifier for item in parsed}


def requirements_of(file):
    return requirements((ROOT / file).read_text("utf-8").splitlines())


def test_the_wheel_gets_every_folder_with_an_init():
    # A folder that is not listed works in an editable install, yet is missing from the wheel.
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in ROOT.iterdir()
        if top.is_dir() and not top.name.startswith(".") and top.name not in NOT_INSTALLED
        for path in top.rglob("__init__.py")
    }
    assert set(FOLDERS.values()) == found
    assert sorted(SETTINGS["packages"]) == sorted(FOLDERS)


@pytest.mark.parametrize(("package", "folder"), FOLDERS.items())
def test_modules_import_under_the_package_of_their_folder(package, folder):
    expected = package.removeprefix("vaezoo.").replace(".", "/")
    # A top-level `runs/` would be where users' own runs lie in a checkout.
    moved = {
        name: name.replace("vaezoo.", "package/") for name in ("vaezoo.runs", "vaezoo.studies")
    }
    moved["vaezoo"] = "package"
    assert folder == moved.get(package, expected)
    for path in (ROOT / folder).glob("*.py"):
        name = package if path.stem == "__init__" else f"{package}.{path.stem}"
        assert Path(importlib.import_module(name).__file__).name == path.name


@pytest.mark.parametrize("package", FOLDERS)
def test_public_names_exist_once(package):
    module = importlib.import_module(package)
    public = getattr(module, "__all__", [])
    assert [name for name in public if not hasattr(module, name)] == []
    assert len(set(public)) == len(public)


def test_no_module_lies_in_a_folder_without_an_init():
    tops = {folder.split("/")[0] for folder in FOLDERS.values()}
    modules = [path for top in tops for path in (ROOT / top).rglob("*.py")]
    assert [path for path in modules if not (path.parent / "__init__.py").is_file()] == []


def test_version_is_that_of_the_metadata_and_the_changelog():
    assert metadata.version("vaezoo") == vaezoo.__version__
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert next(name for name in headings if name != "Unreleased") == vaezoo.__version__


def test_metadata_require_what_requirements_txt_requires():
    assert requirements(metadata.requires("vaezoo")) == requirements_of("requirements.txt")


def test_both_backends_have_the_same_libraries():
    tensorflow, jax = requirements_of("requirements.txt"), requirements_of("requirements-jax.txt")
    assert jax.keys() - tensorflow.keys() == {"jax", "tfp-nightly"}
    shared = jax.keys() & tensorflow.keys()
    assert {name: jax[name] for name in shared} == {name: tensorflow[name] for name in shared}


def test_types_are_announced():
    assert resources.files(vaezoo).joinpath("py.typed").is_file()


def test_the_command_is_installed():
    (script,) = metadata.entry_points(group="console_scripts", name="vaezoo")
    assert callable(script.load())


@pytest.mark.one_backend
def test_every_make_target_that_a_document_names_exists():
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    documents = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
    for document in (*documents, "benchmarks/exam/EXAM.md"):
        text = (ROOT / document).read_text("utf-8")
        named = set(re.findall(r"`make ([a-z-]+)", text))
        assert named <= rules, document
    assert "exam" in rules
