"""A folder has one writer at a time, and a dead one leaves it to the next."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vaezoo.core import locks
from vaezoo.core.locks import FolderLock, Occupied, check_unlocked, locked

pytestmark = pytest.mark.one_backend
SOURCE = Path(locks.__file__)
# Without the package, whose import takes seconds.
CHILD = """
import importlib.util, sys, types
for name in ("files", "locks"):
    package = sys.modules.setdefault("p", types.ModuleType("p"))
    package.__path__ = [sys.argv[1]]
from p.locks import FolderLock
lock = FolderLock(sys.argv[2])
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock of the folder."""
    command = [sys.executable, "-c", CHILD, str(SOURCE.parent), str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_dead(other, tmp_path):
    run = tmp_path / "run"
    for attempt in (FolderLock, check_unlocked):
        with pytest.raises(Occupied, match=rf"another process \({other.pid}\): wait for it"):
            attempt(run)
    other.kill()
    other.wait()
    check_unlocked(run)
    with FolderLock(run):
        assert (run / ".lock").is_file()


def test_a_lock_is_of_one_thread_and_its_latest_holder(tmp_path):
    first = FolderLock(tmp_path)
    second = FolderLock(tmp_path)
    first.release()
    found = []

    def attempt():
        try:
            FolderLock(tmp_path).release()
        except Occupied as error:
            found.append(str(error))

    for expected in (1, 1):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert len(found) == expected
        second.release()
    assert "another thread of this process" in found[0]
    with locked(None) as nothing:
        assert nothing is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_does_not_hold_the_lock_of_its_parent(tmp_path):
    lock = FolderLock(tmp_path)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(out, 1)
        os._exit(0)
    lock.release()
    # The child lives, and has a copy of each file of its parent.
    check_unlocked(tmp_path)
    FolderLock(tmp_path).release()
    os.write(into, b"x")
    os.waitpid(child, 0)


def test_a_folder_that_nobody_locked_is_free(tmp_path):
    check_unlocked(tmp_path)
    check_unlocked(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def none(file, take=True):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_system_lock", none)
    with pytest.warns(UserWarning, match="has no locks: let one process"):
        FolderLock(tmp_path).release()
