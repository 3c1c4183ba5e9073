"""A real HTTP server that receives webhooks, verifies their signatures and answers as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from adapters_store.webhooks import verify_signature

SECRET = "a-secret-of-the-receiver"


@dataclass(slots=True)
class Receiver:
    """What arrived, in order.

    ``answer`` gives the status of a delivery by its number from 0 and its event's sequence number.
    """

    url: str
    answer: Callable[[int, int], int] = lambda number, sequence: 204
    delay_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    num_now: int = 0
    max_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def taken(self) -> list[int]:
        """Sequence numbers of the deliveries that were answered with success, in order."""
        return [
            body["sequence"]
            for body, status in zip(self.bodies, self.statuses, strict=True)
            if status < 300
        ]

    def wait(self, count: int, timeout_s: float = 60) -> None:
        """Wait until so many deliveries were answered."""
        give_up_at = time.monotonic() + timeout_s
        while len(self.statuses) < count:
            assert time.monotonic() < give_up_at, f"{len(self.statuses)} of {count} deliveries"
            time.sleep(0.02)


@contextmanager
def receiving(host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with receiver.lock:
                receiver.num_now += 1
                receiver.max_at_once = max(receiver.max_at_once, receiver.num_now)
            time.sleep(receiver.delay_s)
            is_signed = verify_signature(
                SECRET, headers["x-patchbay-timestamp"], body, headers["x-patchbay-signature"]
            )
            with receiver.lock:
                document = json.loads(body)
                number = len(receiver.statuses)
                status = receiver.answer(number, document["sequence"]) if is_signed else 401
                receiver.bodies.append(document)
                receiver.headers.append(headers)
                receiver.statuses.append(status)
                receiver.num_now -= 1
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", receiver.url)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer((host, 0), Handler)
    receiver = Receiver(f"http://{host}:{server.server_port}/hook?a=b")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
