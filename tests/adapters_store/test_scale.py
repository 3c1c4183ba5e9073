"""An embedded store with very many versions, and how it keeps what it was told."""

from __future__ import annotations

import statistics
import time

import pytest
from sqlalchemy import insert, select, text, update
from store_kit import bank, routing

from adapters_store.catalog.schema import NAMES, VERSIONS
from adapters_store.store import Store
from benchmarks.registry_rows import Population

NUM_VERSIONS, NUM_TENANTS = 100_000, 1_000


@pytest.fixture(scope="module")
def large(tmp_path_factory, t5):
    """100,000 versions over 1,000 tenants, written straight into the tables."""
    with Store.open(tmp_path_factory.mktemp("large")) as store:
        store.add_backbone(t5)
        shared = bank(t5)
        store.publish("zoo/bank", shared)
        population = Population(NUM_VERSIONS, NUM_TENANTS, t5.record.fingerprint, shared.digest)
        population.load(store._database)
        yield store, population


def test_references_resolve_in_about_a_millisecond(large):
    store, population = large
    durations_s = []
    for index in range(500):
        start = time.thread_time()
        version = store.resolve(population.name(index))
        durations_s.append(time.thread_time() - start)
        assert version.number == (2 if index % 2 == 0 else 4)
    assert statistics.median(durations_s) < 2e-3


def test_a_name_with_very_many_versions_is_deleted_and_restored_whole(store, t5):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    store.publish("acme/other", routing(t5, shared, seed=1))
    first = store.publish("acme/task", routing(t5, shared))
    many = 33_000
    with store._database.write() as connection:
        key = connection.execute(select(NAMES.c.id).where(NAMES.c.name == "task")).scalar_one()
        row = {"name_id": key, "digest": first.digest, "actor": "x", "created_at": first.created_at}
        numbers = range(2, many + 1)
        connection.execute(insert(VERSIONS), [row | {"number": number} for number in numbers])
        counts = {"num_versions": many, "newest": many}
        connection.execute(update(NAMES).where(NAMES.c.id == key).values(counts))
    assert len(store.delete("acme/task", reason="all of it")) == many
    assert [version.name for version in store.list()] == ["bank", "other"]
    assert len(store.restore("acme/task")) == many
    assert store.resolve("acme/task@latest").number == many
    assert store.audit.verify().is_sound


def test_the_catalog_keeps_its_durability_settings(store):
    with store._database.read() as connection:
        settings = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert settings == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "synchronous": 2,
    }
