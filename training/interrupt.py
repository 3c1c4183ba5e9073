"""Ctrl-C between steps: an interrupt waits until the running step is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SAME_PRESS_S = 1.0


class Interrupt:
    """``is_set`` turns true at the first SIGINT, or when ``is_asked`` says so.

    A second SIGINT raises KeyboardInterrupt at once. One within a second of the first is the same
    press of Ctrl-C, which the terminal sends to a worker and its launcher sends once more.
    """

    def __init__(self, is_asked: Callable[[], bool] | None = None) -> None:
        self._is_asked = is_asked
        self._received_at: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether the run is to stop."""
        return self._received_at is not None or (self._is_asked is not None and self._is_asked())

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self._received_at is None:
            self._received_at = now
        elif now - self._received_at > _SAME_PRESS_S:
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupt(is_asked: Callable[[], bool] | None = None) -> Iterator[Interrupt]:
    """Hold SIGINT back inside the block; outside the main thread nothing is held back."""
    interrupt = Interrupt(is_asked)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = signal.signal(signal.SIGINT, interrupt.receive)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
