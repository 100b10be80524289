"""What a command does before it needs the backend: help, lists, errors, and no lines of others."""

import os
import subprocess
import sys

import pytest
import typer

from vaezoo import zoo
from vaezoo.cli import catalog
from vaezoo.cli.app import app
from vaezoo.cli.logs import hush, without_log_lines

pytestmark = pytest.mark.one_backend
COMMANDS = sorted(typer.main.get_command(app).commands)
#: Invocations, a line each, with their exit codes.
EARLY = [
    *[([], 2), (["--help"], 0), (["list"], 0), (["list", "nothing"], 2)],
    *[([command, "--help"], 0) for command in COMMANDS],
    *[([command], 2) for command in COMMANDS if command not in ("list", "reproduce")],
    *[(["reproduce"], 0), (["reproduce", "vae_as/table2", "--list"], 0)],
    (["reproduce", "vae_as/table2", "--rows", "vae", "1_1", "--seeds", "0", "1", "--jobs"], 0),
    *[(["train", "nothing"], 2), (["train", "vae_digits_mlp", "--nothing"], 2)],
    *[([command, "nothing"], 2) for command in COMMANDS if command not in ("list", "train")],
    (["train", "vae_digits_mlp", "--out", "nothing", "--resume"], 2),
]


def test_help_lists_and_early_errors_import_no_backend(tmp_path):
    # In one process, whose imports show; those of this one have long been made.
    code = f"""
import sys
from typer.testing import CliRunner
from vaezoo.cli.app import app
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
    assert catalog.read() == catalog.of_zoo(), "write it: python -m vaezoo.cli.catalog"
    assert list(catalog.read()) == list(zoo.presets())


def test_the_catalog_is_written_as_it_is_kept(tmp_path, monkeypatch):
    kept = catalog.FILE.read_text("utf-8")
    monkeypatch.setattr(catalog, "FILE", tmp_path / "catalog.json")
    catalog.main()
    assert catalog.FILE.read_text("utf-8") == kept


LINES = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1796047088.411033   13438 port.cc:153] oneDNN custom operations are on.\n"
    b"W0000 00:00:1796047088.411033   13438 a.cc:1] warning\n"
    b"2026-01-01 10:00:00.411033: I tensorflow/b.cc:2] older form\n"
    b"E0000 00:00:1796047088.411033   13438 c.cc:3] error\n"
    b"F0000 00:00:1796047088.411033   13438 d.cc:4] fatal\n"
    b"Traceback\n"
)


@pytest.mark.parametrize(("severities", "left"), [(b"IWE", 2), (b"I", 5)])
def test_log_lines_are_left_out_of_the_standard_error(capfd, severities, left):
    with without_log_lines(severities):
        os.write(2, LINES)
    os.write(2, b"after\n")
    expected = LINES.decode().splitlines()[-left:]
    kept = [line for line in expected if "older form" not in line]
    assert capfd.readouterr().err.splitlines() == [*kept, "after"]


def test_an_error_meanwhile_leaves_the_standard_error_as_it_was(capfd):
    def fail():
        with without_log_lines(b"I"):
            os.write(2, b"said\n")
            raise ImportError("broken")

    with pytest.raises(ImportError, match="broken"):
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "said\nafter\n"


def test_a_level_of_the_user_stays(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    before = list(sys.meta_path)
    hush()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert sys.meta_path == before


@pytest.mark.large
@pytest.mark.parametrize("level", [None, "2"])
def test_a_command_prints_no_log_lines(tmp_path, level):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    if level:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    done = subprocess.run(
        [sys.executable, "-m", "vaezoo", "list", "vae_digits_mlp"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert "vae_digits_mlp" in done.stdout
