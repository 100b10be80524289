"""Keeps TensorFlow's own log lines away from what a command says."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING

from ..core.imports import ImportHook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_LINE = re.compile(rb"([IWE])\d{4} \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([IWE]) ")
_NOTICE = b"WARNING: All log messages before absl::InitializeLog()"


def hush() -> None:
    """Lets TensorFlow log nothing but what ends the process, unless the user has set a level.

    What it writes while it is imported does not know of the level, and is left out here.
    """
    level = os.environ.setdefault(_LEVEL, "3")
    if level.isdigit() and int(level) > 0 and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Import(b"IWE"[: int(level)]))


@contextlib.contextmanager
def without_log_lines(severities: bytes) -> Iterator[Any]:
    """Holds back what is written to the standard error, and then leaves out log lines.

    Args:
        severities: Bytes, the first letters of the lines left out, as in `b"IW"`.
    """
    try:
        before = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            for line in held:
                found = _LINE.match(line)
                dropped = found and (found[1] or found[2]) in severities
                if not dropped and not line.startswith(_NOTICE):
                    os.write(2, line)


class _Import(ImportHook):
    """Lets TensorFlow be imported without log lines."""

    def __init__(self, severities: bytes) -> None:
        super().__init__()
        self._severities = severities

    def wants(self, name):
        return name == "tensorflow"

    def execute(self, run, module):
        with without_log_lines(self._severities):
            run(module)
