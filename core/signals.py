"""Signals that wait until a training can be saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

#: Seconds that a signal waits for the end of a batch. Clusters kill after 30.
GRACE = 20.0
#: Those that end a process, as far as the system has them.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class HeldSignals:
    """Holds signals back until the work can be left, and then hands them to who had them before.

    A second signal is handed on at once, and so is one that has waited for `GRACE` seconds. Only
    the main thread can hold signals; elsewhere, and for those that are ignored, nothing changes.

    Attributes:
        heard: Number of a signal that waits, or None.
        holding: Whether signals wait; otherwise they are handed on at once.
    """

    def __init__(self) -> None:
        self.heard: int | None = None
        self.holding = False
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """Takes the signals."""
        self.end()
        for name in _NAMES:
            if not hasattr(signal, name):
                continue
            number = getattr(signal, name)
            holder = getattr(signal.getsignal(number), "__self__", None)
            if isinstance(holder, HeldSignals):
                # Of a training that an error has ended.
                holder.end()
            # None is a handler that is not Python's.
            if signal.getsignal(number) in (signal.SIG_IGN, None):
                continue
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._hear)

    def end(self) -> None:
        """Gives the signals back, and forgets one that waits."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            # One that was set in the meantime stays.
            if signal.getsignal(number) == self._hear:
                with contextlib.suppress(ValueError):
                    signal.signal(number, handler)
        self._forget()
        self.holding = False

    def deliver(self) -> None:
        """Hands on the signal that waits; returns if it has not ended the work."""
        number = self.heard
        if number is None:
            return
        handler, holding = self._before.get(number), self.holding
        self._forget()
        if callable(handler):
            handler(number, None)
            return
        self.end()
        signal.raise_signal(number)
        self.begin()
        self.holding = holding

    def _hear(self, number, frame):
        waited = self.heard is not None or not self.holding or not _within_fit(frame)
        self.heard = number
        if waited:
            self.deliver()
            return
        self._timer = threading.Timer(GRACE, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()

    def _forget(self):
        self.heard = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _within_fit(frame):
    """Whether a training goes on: one of Keras' own models does not say when an error ends it."""
    while frame is not None:
        if frame.f_code.co_name == "fit":
            return True
        frame = frame.f_back
    return False
