"""One small application with two backbones, shared by the API tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer, LoopThread
from serve_kit import fill_store, save_byte_t5, save_word_bert, serve_config

from adapters_store.backbone import Backbone


@pytest.fixture(scope="session")
def byte_t5(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("backbones") / "tiny-t5"
    return Backbone.from_folder(save_byte_t5(folder))


@pytest.fixture(scope="session")
def word_bert(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("backbones") / "tiny-bert"
    return Backbone.from_folder(save_word_bert(folder))


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="package")
def server(
    tmp_path_factory: pytest.TempPathFactory, byte_t5: Backbone, word_bert: Backbone, sources: Path
) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("served") / "store"
    fill_store(store, byte_t5, word_bert)
    config = serve_config(
        store,
        byte_t5.folder,
        word_bert.folder,
        sources=[sources],
        limits={"max_body_bytes": 200_000, "max_artefact_bytes": 2_000_000, "max_prompts": 32},
    )
    with LiveServer(config) as live:
        yield live


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()
