"""Batches of publications: one transaction over blobs that were stored a bounded part at a time."""

from __future__ import annotations

import dataclasses

import pytest
from store_kit import bank, contents, routing

from adapters_store import batches
from adapters_store.errors import InvalidArtefactError


@pytest.fixture
def chunks_of_four(monkeypatch):
    monkeypatch.setattr(batches, "MAX_ITEMS", 4)


def test_a_batch_of_many_chunks_is_published_in_order(store, t5, chunks_of_four):
    shared = bank(t5)
    items = [("acme/bank", shared)]
    items += [(f"acme/task-{i:02d}", routing(t5, shared, seed=i)) for i in range(10)]
    before = store.generation()
    versions = store.publish_many(item for item in items)
    assert [version.full_name for version in versions] == [name for name, _ in items]
    assert [version.digest for version in versions] == [one.digest for _, one in items]
    assert store.generation() == before + 1
    assert store.verify() == []


def test_artefacts_are_taken_a_chunk_at_a_time(store, store_folder, t5, chunks_of_four):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    num_blobs_seen: list[int] = []

    def items():
        for number in range(9):
            num_blobs_seen.append(len(list(store._blobs.entries())) - 2)
            yield f"acme/task-{number}", routing(t5, shared, seed=number)

    store.publish_many(items())
    assert num_blobs_seen == [0] * 4 + [8] * 4 + [16]


def test_large_data_ends_a_chunk_early(store, t5, monkeypatch):
    monkeypatch.setattr(batches, "MAX_BYTES", 1)
    shared = bank(t5)
    calls: list[int] = []
    put_many = store._blobs.put_many

    def counted(items):
        calls.append(len(items))
        return put_many(items)

    monkeypatch.setattr(store._blobs, "put_many", counted)
    store.publish_many([("acme/bank", shared), ("acme/task", routing(t5, shared))])
    assert calls == [2, 2]


def test_a_refusal_in_a_later_chunk_publishes_nothing(store, store_folder, t5, chunks_of_four):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    items = [(f"acme/task-{i}", routing(t5, shared, seed=i)) for i in range(6)]
    broken = dataclasses.replace(items[5][1], data=items[5][1].data[:-1])
    before, generation = contents(store_folder), store.generation()
    with pytest.raises(InvalidArtefactError):
        store.publish_many([*items[:5], ("acme/broken", broken)])
    assert [version.full_name for version in store.list()] == ["acme/bank"]
    assert store.generation() == generation
    assert len(contents(store_folder)) == len(before) + 2 * 4
    assert len(store.publish_many(items)) == 6
