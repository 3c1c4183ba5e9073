"""One place for a store per combination of the tables: catalogs by ``catalog_url``, blobs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from services.places import StorePlace

from adapters_store.backbone import Backbone
from adapters_store.store import Store


@pytest.fixture
def blobs_location(tmp_path: Path) -> str:
    """Where the blobs of ``store_place`` lie: the axis of blob stores."""
    return str(tmp_path / "blobs")


@pytest.fixture
def store_place(catalog_url: str, blobs_location: str) -> StorePlace:
    """A place without a store, for this test alone."""
    return StorePlace(catalog_url, blobs_location)


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
