"""Where a store may stand: a folder, by its path or its URL."""

from __future__ import annotations

import pytest
from store_kit import low_rank, open_store

from adapters_store.errors import NotFoundError, UsageError
from adapters_store.location import location_path
from adapters_store.store import Store


def test_a_store_opens_again_by_its_url(store, store_folder, t5):
    published = store.publish("acme/task", low_rank(t5))
    with Store.open(f"file://{store_folder}") as again:
        assert again.resolve("acme/task") == published


def test_locations_are_folders_or_file_urls(tmp_path):
    assert location_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert location_path(tmp_path) == tmp_path
    with pytest.raises(UsageError, match="s3://"):
        Store.open("s3://bucket/store")
    with pytest.raises(UsageError, match="postgresql://") as caught:
        Store.open("postgresql://user:secret@host/database")
    assert "secret" not in caught.value.message
    with pytest.raises(NotFoundError, match="no store"):
        Store.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot make a store"):
        Store.open(tmp_path / "file" / "store")


def test_a_store_with_a_strange_folder_name_works(tmp_path, t5):
    with open_store(tmp_path / "a b?c=d#e%20", t5) as store:
        store.publish("acme/task", low_rank(t5))
        assert store.resolve("acme/task").number == 1
