"""A service behind a real HTTP server in a thread: what API tests talk to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvicorn

from serving.api.app import create_app
from serving.api.service import Service
from serving.config import ServeConfig

Result = TypeVar("Result")


class LoopThread:
    """An event loop in a thread of its own; ``run`` waits for a coroutine's result."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result], timeout_s: float = 240) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def close(self) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class LiveServer:
    """Starts on entering, with every backbone warm; ``url`` is where it listens."""

    def __init__(self, config: ServeConfig) -> None:
        self._loop = LoopThread()
        self.service = Service(config)
        self.url = ""

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the service's own event loop."""
        return self._loop.run(coroutine)

    def __enter__(self) -> LiveServer:
        self._loop.run(self.service.start())
        app = create_app(self.service)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._serving = asyncio.run_coroutine_threadsafe(self._server.serve(), self._loop.loop)
        while not self._server.started:
            threading.Event().wait(0.01)
            assert not self._serving.done(), self._serving.exception()
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._serving.result(30)
        self._loop.run(self.service.close())
        self._loop.close()
