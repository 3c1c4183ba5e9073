"""More rows than the queue takes: some are told to come back, none is lost, none lingers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from live_server import LiveServer


def test_a_full_queue_answers_429_with_retry_after(http: httpx.Client, server: LiveServer) -> None:
    body = {"model": "acme/upper", "prompt": ["hello"] * 32, "max_tokens": 60}
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(http.post, "/v1/completions", json=body) for _ in range(8)]
        responses = [call.result() for call in calls]
    statuses = {response.status_code for response in responses}
    assert statuses <= {200, 429}
    assert 429 in statuses
    for response in responses:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert "x-should-retry" not in response.headers
            assert response.json()["error"]["type"] == "rate_limit_error"
        else:
            assert len(response.json()["choices"]) == 32
    deadline = time.monotonic() + 20
    while server.service.metrics.value("patchbay_rows_running", backbone="tiny-t5"):
        assert time.monotonic() < deadline, "rows of refused requests still run"
        time.sleep(0.1)
