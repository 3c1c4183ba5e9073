"""The step loop: drain the socket, step the engine, send one message for all rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

from adapters_store.errors import PatchbayError
from serving.core.codec import decode, encode
from serving.core.messages import Cancel, Heartbeat, Stats, StepReport, Stop, Submit, ToClient
from serving.core.stats import describe
from serving.engine.events import Event, Failed, Last
from serving.engine.request import Request

if TYPE_CHECKING:
    from serving.engine.engine import Engine

HEARTBEAT_S = 1.0
STATS_S = 0.2
LOADING_POLL_MS = 2


class CoreLoop:
    """Runs until a :class:`Stop` message or until ``stopping`` is set.

    Idle, it blocks on the socket and says a heartbeat every second; it never polls in a loop.
    ``take_loads`` gives the durations in seconds of the adapter loads since its last call, ``look``
    is called after every turn.
    """

    def __init__(
        self,
        engine: Engine,
        socket: zmq.Socket[bytes],
        stopping: threading.Event,
        take_loads: Callable[[], tuple[float, ...]],
        look: Callable[[], None],
    ) -> None:
        self._engine, self._socket, self._stopping = engine, socket, stopping
        self._take_loads, self._look = take_loads, look
        self._refused: list[Event] = []
        self._adapters: dict[str, str | None] = {}
        self._counted_at = 0.0
        self._said_at = time.monotonic()
        self._is_stalled = False

    def run(self) -> None:
        """Serve; returns after the step in which the end was asked for."""
        while not self._stopping.is_set():
            self._drain(self._timeout_ms())
            if self._engine.has_work or self._refused:
                self._step()
            if time.monotonic() - self._said_at >= HEARTBEAT_S:
                self._say(Heartbeat(self._stats()))
            self._look()

    def _timeout_ms(self) -> int:
        if not self._engine.has_work:
            return int(HEARTBEAT_S * 1000)
        return LOADING_POLL_MS if self._is_stalled else 0

    def _step(self) -> None:
        started = time.perf_counter()
        events = self._engine.step() if self._engine.has_work else []
        step_s = time.perf_counter() - started
        rows = {event.id for event in events if not isinstance(event, Failed)}
        distinct = {self._adapters.get(row) for row in rows} - {None}
        self._is_stalled = not events and self._engine.is_stalled
        events, self._refused = [*self._refused, *events], []
        for event in events:
            if isinstance(event, Last):
                self._adapters.pop(event.id, None)
        if events:
            is_due = started - self._counted_at >= STATS_S or not self._engine.has_work
            stats = self._stats() if is_due else None
            self._say(StepReport(tuple(events), step_s, len(rows), len(distinct), stats))

    def _drain(self, timeout_ms: int) -> None:
        if not self._socket.poll(timeout_ms):
            return
        while True:
            try:
                message = decode(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            if isinstance(message, Submit):
                self._submit(message.request)
            elif isinstance(message, Cancel):
                self._engine.cancel(message.id)
            elif isinstance(message, Stop):
                self._stopping.set()

    def _submit(self, request: Request) -> None:
        try:
            self._engine.submit(request)
            self._adapters[request.id] = request.adapter
        except PatchbayError as error:
            self._refused.append(Failed(request.id, error.code, error.message, error.param))

    def _stats(self) -> Stats:
        self._counted_at = time.perf_counter()
        return describe(self._engine.stats(), self._take_loads())

    def _say(self, message: ToClient) -> None:
        self._socket.send(encode(message))
        self._said_at = time.monotonic()
