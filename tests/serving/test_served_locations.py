"""A server whose store is elsewhere: blobs in S3 behind a cache that ingress and core share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer
from serve_kit import fill_store, serve_config, text_adapter
from services.s3 import S3Bucket, S3Server, new_bucket

from adapters_store.backbone import Backbone
from adapters_store.store import Store
from adapters_store.store_config import write_store_config


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Bucket]:
    """A bucket on a server that the test may stop."""
    server = S3Server()
    yield new_bucket(server, monkeypatch)
    server.stop()


def ask(http: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "hello", "max_tokens": 4}
    return http.post("/v1/completions", json=body)


def test_tasks_are_served_from_s3_and_warm_ones_outlive_it(
    tmp_path: Path, bucket: S3Bucket, byte_t5: Backbone
) -> None:
    file = write_store_config(
        tmp_path / "conf",
        catalog=str(tmp_path / "names.sqlite"),
        blobs=bucket.location,
        settings={"s3": {"endpoint_url": bucket.server.url}, "cache": {"folder": "../cache"}},
    )
    plain = tmp_path / "plain"
    fill_store(plain, byte_t5)
    fill_store(file, byte_t5)
    for path in (tmp_path / "cache" / "sha256").glob("??/*"):
        path.unlink()
    config = serve_config(plain, byte_t5.folder)
    with LiveServer(config) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        expected = ask(http, "acme/routed").json()["choices"][0]["text"]
    bucket.forget()
    config = serve_config(f"file://{file}", byte_t5.folder)  # type: ignore[arg-type]
    with LiveServer(config) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        assert ask(http, "acme/routed").json()["choices"][0]["text"] == expected
        fetched = bucket.requests("GET")
        assert len(fetched) == len(set(fetched)) == 4
        with Store.open(file) as store:
            store.publish("acme/cold", text_adapter(byte_t5, 9))
        for path in (tmp_path / "cache" / "sha256").glob("??/*"):
            path.unlink()
        bucket.server.stop()
        assert ask(http, "acme/routed").status_code == 200
        refused = ask(http, "acme/cold")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert ask(http, "acme/routed").status_code == 200
