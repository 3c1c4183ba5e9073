"""Ctrl-C between steps: an interrupt waits until the running step is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """``is_set`` turns true at the first SIGINT; a second one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.is_set = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Hold SIGINT back inside the block; outside the main thread nothing is held back."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = signal.signal(signal.SIGINT, interrupt.receive)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
