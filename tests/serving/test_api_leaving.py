"""A client that closes its connection frees its rows at once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from live_server import LiveServer


def num_running(server: LiveServer) -> int:
    stats = [one.core.stats() for one in server.service.resolver.served]
    return sum(one.num_running + one.num_waiting for one in stats if one is not None)


def wait_until(is_true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_true()


@pytest.mark.parametrize(
    ("more", "num_rows"),
    [
        ({"n": 4, "temperature": 1.0, "stream": True}, 4),
        ({"num_beams": 4, "n": 2, "stream": True}, 1),
        ({"num_beams": 4}, 1),
        ({"best_of": 3, "temperature": 1.0}, 3),
    ],
)
def test_a_client_that_leaves_frees_every_row(
    server: LiveServer, more: dict[str, Any], num_rows: int
) -> None:
    body = {"model": "tiny-t5", "prompt": "hello", "max_tokens": 2000, "ignore_eos": True} | more
    core = next(one.core for one in server.service.resolver.served if one.name == "tiny-t5")
    with ThreadPoolExecutor(1) as pool:
        url, leaving = f"{server.url}/v1/completions", threading.Event()
        asked = pool.submit(leave_when_told, url, body, leaving)
        wait_until(lambda: core.num_waiting == num_rows and num_running(server) > 0)
        leaving.set()
        asked.result(30)
        wait_until(lambda: core.num_waiting == 0)
        wait_until(lambda: num_running(server) == 0)


def leave_when_told(url: str, body: dict[str, Any], leaving: threading.Event) -> None:
    """Send a request, and close the connection without reading the answer."""
    content = json.dumps(body).encode()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        connection.sendall(head.encode() + content)
        assert leaving.wait(60)
