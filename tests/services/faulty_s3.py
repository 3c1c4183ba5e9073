"""Object stores that fail: connections that break after some bytes, servers that only refuse."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_CHUNK_BYTES = 65536


@dataclass
class BreakingProxy:
    """Forwards connections to a server and breaks some of them.

    ``answer_bytes`` and ``request_bytes`` are how many bytes of the answer or request pass before
    the connection ends, for the next connections in turn; later connections pass whole.
    """

    server_url: str
    answer_bytes: list[int] = field(default_factory=list)
    request_bytes: list[int] = field(default_factory=list)
    num_broken: int = 0
    url: str = ""

    def serve(self, connection: socket.socket) -> None:
        """Forward one connection until either side ends it or its bytes are used up."""
        parts = urlsplit(self.server_url)
        answer_left = self.answer_bytes.pop(0) if self.answer_bytes else None
        request_left = self.request_bytes.pop(0) if self.request_bytes else None
        with socket.create_connection((parts.hostname, parts.port)) as upstream, connection:
            pumps = [
                threading.Thread(target=self._pump, args=(connection, upstream, request_left)),
                threading.Thread(target=self._pump, args=(upstream, connection, answer_left)),
            ]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()

    def _pump(self, source: socket.socket, target: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if left is not None and len(data) >= left:
                    target.sendall(data[:left])
                    self.num_broken += 1
                    break
                target.sendall(data)
                left = None if left is None else left - len(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def breaking_proxy(server_url: str) -> Iterator[BreakingProxy]:
    """A proxy on a free port, forwarding until the end of the block."""
    proxy = BreakingProxy(server_url)
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=proxy.serve, args=(connection,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join(timeout=5)


@contextmanager
def refusing_server(status: int, code: str) -> Iterator[str]:
    """The URL of a server that answers every request with that status and error code."""

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
