"""One place for a store per combination of catalogs and blob stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from services.places import StorePlace

from adapters_store.backbone import Backbone
from adapters_store.store import Store


@pytest.fixture
def blobs_row() -> str:
    """The kind of blobs; what puts, reads and collects them is marked ``every_durable_blobs``."""
    return "local"


@pytest.fixture
def store_place(
    request: pytest.FixtureRequest, catalog_url: str, blobs_row: str, tmp_path: Path
) -> StorePlace:
    """A place without a store, for this test alone."""
    if blobs_row == "local":
        return StorePlace(catalog_url, str(tmp_path / "blobs"))
    bucket = request.getfixturevalue("s3_bucket")
    return StorePlace(catalog_url, bucket.location, bucket.server.url)


@pytest.fixture
def open_store_at() -> Iterator[Callable[[StorePlace], Store]]:
    """A function that opens the store at a place; each is closed after the test."""
    with ExitStack() as stack:
        yield lambda place: stack.enter_context(place.open())


@pytest.fixture
def store(
    store_place: StorePlace,
    open_store_at: Callable[[StorePlace], Store],
    t5: Backbone,
    bert: Backbone,
) -> Store:
    """A store with two backbones and no artefact."""
    opened = open_store_at(store_place)
    opened.add_backbone(t5)
    opened.add_backbone(bert)
    return opened
