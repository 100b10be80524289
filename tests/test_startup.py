"""What a command does before it needs the backend: help, lists, errors, and no lines of others."""

import subprocess
import sys

import pytest
import typer

from vaezoo import catalog, zoo
from vaezoo.cli import app

pytestmark = pytest.mark.one_backend
COMMANDS = sorted(typer.main.get_command(app).commands)
#: Invocations, a line each, with their exit codes.
EARLY = [
    *[([], 2), (["--help"], 0), (["list"], 0), (["list", "nothing"], 2)],
    *[([command, "--help"], 0) for command in COMMANDS],
    *[([command], 2) for command in COMMANDS if command != "list"],
    *[(["train", "nothing"], 2), (["train", "vae_digits_mlp", "--nothing"], 2)],
    *[([command, "nothing"], 2) for command in COMMANDS if command not in ("list", "train")],
    (["train", "vae_digits_mlp", "--out", "nothing", "--resume"], 2),
]


def test_help_lists_and_early_errors_import_no_backend(tmp_path):
    # In one process, whose imports show; those of this one have long been made.
    code = f"""
import sys
from typer.testing import CliRunner
from vaezoo.cli import app
for arguments, code in {EARLY!r}:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (arguments, result.exit_code, result.output)
    heavy = {{"keras", "tensorflow", "jax", "sklearn", "matplotlib"}} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_catalog_is_that_of_the_zoo():
    assert catalog.read() == catalog.of_zoo(), "write it: python -m vaezoo.catalog"
    assert list(catalog.read()) == list(zoo.presets())


def test_the_catalog_is_written_as_it_is_kept(tmp_path, monkeypatch):
    kept = catalog.FILE.read_text("utf-8")
    monkeypatch.setattr(catalog, "FILE", tmp_path / "catalog.json")
    catalog.main()
    assert catalog.FILE.read_text("utf-8") == kept
