"""Signals that end a command."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: Seconds after which a signal that had no effect is sent again.
AGAIN = 5.0
#: Signals that have come while this command runs.
_HEARD: list[int] = []


class Ended(KeyboardInterrupt):
    """A signal by which others end a process: a batch queue, a terminal that is closed."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        # As a shell reports it.
        self.code = 128 + number


@contextlib.contextmanager
def noticed_signals() -> Iterator[Any]:
    """Turns SIGTERM and SIGHUP into `Ended`, so that a command can say how to go on."""
    timers: list[threading.Timer] = []
    before: dict[int, Any] = {}
    _HEARD.clear()

    def interrupt(number, frame):
        _HEARD.append(number)
        raise KeyboardInterrupt

    def end(number, frame):
        _HEARD.append(number)
        # An exception is lost where it meets the clean-up of an object: the signal comes again,
        # until the context is left.
        timers.append(threading.Timer(AGAIN, os.kill, (os.getpid(), number)))
        timers[-1].daemon = True
        timers[-1].start()
        raise Ended(number)

    for name, usual, handler in (
        ("SIGTERM", signal.SIG_DFL, end),
        ("SIGHUP", signal.SIG_DFL, end),
        ("SIGINT", signal.default_int_handler, interrupt),
    ):
        number = getattr(signal, name, None)
        # What is ignored, as under `nohup`, stays ignored. Only the main thread has handlers.
        if number is not None and signal.getsignal(number) == usual:
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)
        for timer in timers:
            timer.cancel()


@contextlib.contextmanager
def signals_first() -> Iterator[Any]:
    """Lets a signal end the work where an error took its place.

    TensorFlow turns what is raised while it traces a function into errors of its own.
    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if not _HEARD:
            raise
        number = _HEARD[0]
        raise (KeyboardInterrupt() if number == signal.SIGINT else Ended(number)) from error
