"""What JAX compiles is kept for later commands, within bounds."""

import os

import pytest

from vaezoo.cli.compilations import keep_compilations, shrink

pytestmark = pytest.mark.one_backend


def test_the_folder_is_in_the_users_cache(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = keep_compilations(environment)
    assert folder.parent == tmp_path / "vaezoo" / "jax"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    # JAX leaves out what compiles in a second, as the many small steps that make variables do.
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERAS_BACKEND", "tensorflow"),
        ("VAEZOO_COMPILATION_CACHE", "0"),
        ("JAX_COMPILATION_CACHE_DIR", "/elsewhere"),
        ("JAX_ENABLE_COMPILATION_CACHE", "false"),
    ],
)
def test_what_the_user_set_stays(tmp_path, name, value):
    environment = {"XDG_CACHE_HOME": str(tmp_path), name: value}
    before = dict(environment)
    assert keep_compilations(environment) is None
    assert environment == before


def test_the_oldest_files_go_first(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / "folder" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0" * 10)
        os.utime(path, (1000 - age, 1000 - age))
    shrink(tmp_path, 25)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"new", "middle"}
    shrink(tmp_path / "missing", 25)
