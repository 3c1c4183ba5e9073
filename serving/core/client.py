"""The replica's side of an engine core: requests in, events out, on one asyncio loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from adapters_store.errors import PatchbayError, UnavailableError
from serving.config import BackboneConfig, EngineSection
from serving.core.child import CoreChild
from serving.core.codec import decode, encode
from serving.core.failures import error_from
from serving.core.messages import Cancel, Fatal, Heartbeat, Ready, Stats, StepReport, Stop, Submit
from serving.engine.events import Embedded, Event, Failed, Last, Scored
from serving.engine.request import Request

Observer = Callable[[StepReport | Heartbeat], None]


class CoreClient:
    """Owns one core process. ``observer`` sees every step report and heartbeat.

    When the process ends unexpectedly, every waiting request fails with
    :class:`UnavailableError`, and so does :meth:`check`.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        engine: EngineSection,
        store: Path,
        observer: Observer | None = None,
    ) -> None:
        self.name = backbone.name
        self._child = CoreChild(backbone, engine, store)
        self._observer = observer
        self._waiting: dict[str, asyncio.Queue[Event | PatchbayError]] = {}
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: asyncio.Future[Ready] | None = None
        self._failure: PatchbayError | None = None
        self._heard_at = time.monotonic()
        self._stats: Stats | None = None
        self._is_closing = False

    async def start(self, timeout_s: float) -> Ready:
        """Spawn the core and wait until its backbone is loaded and warm.

        Raises :class:`UnavailableError` after ``timeout_s``, or the error that ended the core.
        """
        self._ready = asyncio.get_running_loop().create_future()
        self._socket.bind(self._child.address)
        self._child.start()
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._watch())]
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            await self.close()
            raise UnavailableError(
                f"the core of backbone {self.name!r} was not ready within {timeout_s:g} s"
            ) from None
        except PatchbayError:
            await self.close()
            raise

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the core and fail what still waits; safe to call twice."""
        if self._is_closing:
            return
        self._is_closing = True
        if not self._child.gone.is_set():
            await self._send(Stop())
        await self._child.stop(timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(UnavailableError(f"the core of backbone {self.name!r} is stopping"))
        self._socket.close(linger=0)
        self._context.term()

    @property
    def pid(self) -> int:
        """Process id of the core."""
        return self._child.pid

    @property
    def num_waiting(self) -> int:
        """Requests of this client that are not finished."""
        return len(self._waiting)

    def stats(self) -> Stats | None:
        """The engine's state as last reported; None before the first report."""
        return self._stats

    def check(self, stall_timeout_s: float) -> None:
        """Raise :class:`UnavailableError` when the core is gone or silent for so long."""
        if self._failure is not None:
            raise self._failure
        silent_s = time.monotonic() - self._heard_at
        if silent_s > stall_timeout_s:
            raise UnavailableError(
                f"the core of backbone {self.name!r} has been silent for {silent_s:.0f} s"
            )

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Events of one request up to its last one; leaving early cancels it in the core.

        Raises the typed error of a :class:`Failed` event, and :class:`UnavailableError` when the
        core goes away.
        """
        if self._failure is not None:
            raise self._failure
        queue: asyncio.Queue[Event | PatchbayError] = asyncio.Queue()
        self._waiting[request.id] = queue
        is_over = False
        try:
            await self._send(Submit(request))
            while not is_over:
                event = await queue.get()
                is_over = isinstance(event, Last | PatchbayError)
                if isinstance(event, PatchbayError):
                    raise event
                if isinstance(event, Failed):
                    raise error_from(event.code, event.message, event.param)
                yield event
        finally:
            del self._waiting[request.id]
            if not is_over and self._failure is None and not self._is_closing:
                self._socket.send(encode(Cancel(request.id)))

    async def score(self, request: Request) -> Scored | Embedded:
        """The single event of a ``classify`` or ``embed`` request; raises as generate does."""
        stream = self.generate(request)
        try:
            async for event in stream:
                if isinstance(event, Scored | Embedded):
                    return event
        finally:
            await stream.aclose()
        raise UnavailableError(f"request {request.id} ended without a result")

    async def _send(self, message: Any) -> None:
        """Hand a message to the socket, or give up once the core is gone.

        A pair socket without a peer would hold the sender for ever; whoever waits for an answer
        of a core that went away is told by :meth:`_fail`.
        """
        sending = asyncio.ensure_future(self._socket.send(encode(message)))
        gone = asyncio.ensure_future(self._child.gone.wait())
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not sending.done():
                sending.cancel()

    async def _receive(self) -> None:
        while True:
            self._dispatch(decode(await self._socket.recv()))

    def _dispatch(self, message: Any) -> None:
        self._heard_at = time.monotonic()
        assert self._ready is not None
        if isinstance(message, StepReport | Heartbeat):
            self._stats = message.stats or self._stats
            if self._observer is not None:
                self._observer(message)
        if isinstance(message, StepReport):
            for event in message.events:
                queue = self._waiting.get(event.id)
                if queue is not None:
                    queue.put_nowait(event)
        elif isinstance(message, Ready) and not self._ready.done():
            self._ready.set_result(message)
        elif isinstance(message, Fatal):
            self._fail(error_from(message.code, message.message))

    async def _watch(self) -> None:
        await self._child.gone.wait()
        if not self._is_closing:
            await asyncio.sleep(0.05)
            code = self._child.exit_code
            self._fail(
                UnavailableError(
                    f"the core of backbone {self.name!r} ended (exit code {code})",
                    hint="The replica is being replaced; retry in a moment.",
                )
            )

    def _fail(self, error: PatchbayError) -> None:
        if self._failure is None:
            self._failure = error
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(self._failure)
            self._ready.exception()
        for queue in self._waiting.values():
            queue.put_nowait(self._failure)
