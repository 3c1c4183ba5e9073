"""Retention: what a collection gives up, what it keeps and why, and that the rest is whole."""

from __future__ import annotations

import dataclasses

import pytest
from services.blobs import every_durable_blobs
from store_kit import bank, low_rank, routing

from adapters_store.artefact import Artefact
from adapters_store.errors import ConflictError, DeletedError, NotFoundError, UsageError
from adapters_store.manifest import make_manifest
from adapters_store.store import Store

pytestmark = every_durable_blobs

NOW = {"restore_window_s": 0, "upload_age_s": 0}
"""A collection for which everything is old enough."""


@pytest.fixture
def two(store, t5) -> Store:
    """acme/task with versions 1 and 2; prod at 2."""
    for seed in (1, 2):
        store.publish("acme/task", low_rank(t5, seed=seed))
    return store


def blob_digests(store: Store) -> set[str]:
    return {entry.digest for entry in store._blobs.entries()}


def blobs_of(*artefacts: Artefact) -> set[str]:
    return {one for a in artefacts for one in (a.digest, a.manifest.data.digest)}


def provenance_twin(artefact: Artefact) -> Artefact:
    """Another artefact with the same data blob."""
    document = artefact.manifest.model_dump() | {"provenance": {"twin": True}}
    return dataclasses.replace(artefact, manifest=make_manifest(document))


def test_what_was_deleted_before_the_window_is_given_up(two, t5):
    first, second = low_rank(t5, seed=1), low_rank(t5, seed=2)
    two.delete("acme/task:1", actor="ann", reason="leak")
    size = sum(
        entry.size_bytes for entry in two._blobs.entries() if entry.digest in blobs_of(first)
    )
    report = two.collect(actor="gc", **NOW)
    assert [one.reference for one in report.purged] == [f"acme/task:1@{first.digest}"]
    assert report.purged[0].delete_reason == "leak"
    assert {(blob.digest, blob.why) for blob in report.blobs} == {
        (digest, "purged") for digest in blobs_of(first)
    }
    assert report.bytes_freed == size > 0
    assert blob_digests(two) == blobs_of(second)
    assert two.verify() == []
    gone = two.versions("acme/task")[-1]
    assert gone.is_purged
    assert gone.is_deleted
    assert (gone.digest, gone.deleted_by) == (first.digest, "ann")
    purged, collected = two.audit.events()[-2:]
    assert (purged.type, purged.actor) == ("adapter_version.purged", "gc")
    assert purged.subject.digest == first.digest
    assert (collected.type, collected.payload["num_purged"]) == ("gc.collected", 1)
    assert two.collect(**NOW).purged == ()


def test_what_was_collected_says_so_everywhere(two, t5):
    digest = two.resolve("acme/task:2").digest
    two.delete("acme/task:2")
    with Store(two._database, two._blobs) as fresh:
        two.collect(**NOW)
        for ask in (
            lambda: fresh.resolve("acme/task:2"),
            lambda: fresh.resolve("acme/task@prod"),
            lambda: fresh.restore("acme/task:2"),
            lambda: fresh.verify("acme/task:2"),
            lambda: fresh.manifest(digest),
            lambda: fresh.artefact(digest),
            lambda: fresh.pin("acme/task:2", "ann"),
        ):
            with pytest.raises(DeletedError, match="collected at"):
                ask()
        assert fresh.lineage("acme/task:2").stated is None
        with pytest.raises(NotFoundError):
            fresh.manifest("sha256:" + "0" * 64)
        again = fresh.publish("acme/task", low_rank(t5, seed=2))
        assert again.number == 3
        assert again.manifest.digest == digest
        assert fresh.verify() == []


def test_within_the_window_everything_stays_restorable(two):
    two.delete("acme/task")
    before = blob_digests(two)
    report = two.collect(upload_age_s=0)
    assert (report.purged, report.kept, report.blobs) == ((), (), ())
    assert blob_digests(two) == before
    assert len(two.restore("acme/task")) == 2
    assert two.verify() == []


def test_the_window_is_a_setting_of_the_store(two, store_place, open_store_at):
    assert two.retention.restore_window_s() == 30 * 86400
    two.retention.set_restore_window(0, actor="root")
    event = two.audit.events(type="store.configured")[0]
    assert dict(event.payload) == {"restore_window_s": 0, "previous": 30 * 86400}
    two.delete("acme/task:1")
    assert len(open_store_at(store_place).collect(upload_age_s=0).purged) == 1
    for wrong in (-1, float("nan"), 1e12):
        with pytest.raises(UsageError):
            two.collect(restore_window_s=wrong)
        with pytest.raises(UsageError):
            two.retention.set_restore_window(wrong)


def test_a_dry_run_tells_what_a_run_then_does_and_changes_nothing(two, t5):
    shared = bank(t5)
    two.publish_many([("acme/bank", shared), ("acme/route", routing(t5, shared))])
    two.pin("acme/task:1", "ann")
    for name in ("acme/task:1", "acme/route", "acme/bank"):
        two.delete(name)
    two._blobs.put(b"left behind")
    before, head = blob_digests(two), two.audit.head()
    planned = two.collect(dry_run=True, **NOW)
    assert planned.is_dry_run
    assert (blob_digests(two), two.audit.head()) == (before, head)
    done = two.collect(**NOW)
    assert planned.as_json() | {"is_dry_run": False, "at": done.at} == done.as_json() | {
        "deleted_before": planned.deleted_before
    }
    assert len(done.purged) == 2
    assert [one.why for one in done.kept] == [("pinned by ann",)]
    assert len(done.blobs) == 5


def test_pins_keep_content_until_they_are_removed(two, t5):
    shared = bank(t5)
    two.publish_many([("acme/bank", shared), ("acme/route", routing(t5, shared))])
    two.pin("acme/route", "ann")
    two.delete("acme/route")
    two.delete("acme/bank")
    report = two.collect(**NOW)
    assert report.purged == ()
    why = {one.reference.split("@")[0]: one.why for one in report.kept}
    assert why == {"acme/route:1": ("pinned by ann",), "acme/bank:1": ("bank of acme/route:1",)}
    assert two.restore("acme/bank")[0].digest == shared.digest
    two.delete("acme/bank")
    two.unpin("acme/route:1", "ann")
    assert {one.kind for one in two.collect(**NOW).purged} == {"bank", "routing"}


def test_what_a_running_server_leases_serves_on_until_it_is_given_back(two, t5):
    shared = bank(t5)
    route = routing(t5, shared)
    two.publish_many([("acme/bank", shared), ("acme/route", route)])
    two.leases.hold("replica-1", [route.digest], 60)
    two.delete("acme/route")
    two.delete("acme/bank")
    report = two.collect(**NOW)
    assert report.purged == ()
    leased = next(one for one in report.kept if one.reference.startswith("acme/route"))
    assert leased.why[0].startswith("leased by replica-1 until ")
    assert two.artefact(route.digest).digest == route.digest
    assert two.tensors(shared.digest)
    two.leases.release("replica-1")
    assert len(two.collect(**NOW).purged) == 2


def test_an_expired_lease_keeps_nothing(two, monkeypatch):
    from adapters_store.ledger import leases as lease_module

    digest = two.resolve("acme/task:1").digest
    two.delete("acme/task:1")
    long_ago = lease_module.shifted(lease_module.now(), -600)
    with monkeypatch.context() as earlier:
        earlier.setattr(lease_module, "now", lambda: long_ago)
        two.leases.hold("crashed", [digest], 120)
    assert len(two.collect(**NOW).purged) == 1


def test_a_bank_stays_as_long_as_a_routing_over_it_can_come_back(store, t5):
    shared = bank(t5)
    store.publish_many([("acme/bank", shared), ("acme/route", routing(t5, shared))])
    store.delete("acme/route")
    store.delete("acme/bank")
    with store._database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE versions SET deleted_at = '2020-01-01T00:00:00.000+00:00' "
            f"WHERE digest = '{shared.digest}'"
        )
    report = store.collect(restore_window_s=3600, upload_age_s=0)
    assert report.purged == ()
    assert [one.why for one in report.kept] == [("bank of acme/route:1",)]
    store.restore("acme/bank")
    store.restore("acme/route")
    assert store.verify() == []


def test_content_that_another_version_needs_keeps_its_blobs(two, t5):
    first = low_rank(t5, seed=1)
    two.publish("zed/copy", first)
    two.publish("zed/twin", provenance_twin(first))
    two.delete("acme/task:1")
    report = two.collect(**NOW)
    assert [one.reference.split("@")[0] for one in report.purged] == ["acme/task:1"]
    assert report.blobs == ()
    two.delete("zed/copy")
    assert {blob.digest for blob in two.collect(**NOW).blobs} == {first.digest}
    assert two.verify() == []
    assert two.tensors(two.resolve("zed/twin").digest)
    two.delete("zed/twin")
    assert first.manifest.data.digest in {blob.digest for blob in two.collect(**NOW).blobs}


def test_an_alias_on_a_collected_version_stays_and_says_so(two):
    two.delete("acme/task")
    two.collect(**NOW)
    assert two.aliases("acme/task") == {"prod": 2}
    assert two.list() == []
    with pytest.raises(DeletedError, match="can no longer be restored"):
        two.restore("acme/task")
    assert [version.is_purged for version in two.versions("acme/task")] == [True, True]


def test_a_bare_restore_brings_back_what_is_left(two):
    two.delete("acme/task:1")
    two.collect(**NOW)
    two.delete("acme/task:2")
    assert [version.number for version in two.restore("acme/task")] == [2]
    assert two.resolve("acme/task").number == 2
    assert two.versions("acme/task")[-1].is_purged


def test_orphans_go_once_they_are_old_and_catalogued_blobs_never(two):
    orphan = two._blobs.put(b"of a publication that ended early")
    before = blob_digests(two)
    assert two.collect().blobs == ()
    assert blob_digests(two) == before
    report = two.collect(upload_age_s=0)
    assert [(blob.digest, blob.why) for blob in report.blobs] == [(orphan, "orphan")]
    assert report.bytes_freed == len(b"of a publication that ended early")
    assert blob_digests(two) == before - {orphan}
    assert two.verify() == []


def test_many_versions_are_collected_in_batches(store, t5, monkeypatch):
    from adapters_store.ledger import collecting

    for name in ("_BATCH_VERSIONS", "_BATCH_ENTRIES"):
        monkeypatch.setattr(collecting, name, 3)
    shared = bank(t5)
    store.publish("acme/bank", shared)
    store.publish_many([(f"acme/r{i:02d}", routing(t5, shared, seed=i)) for i in range(10)])
    for number in range(10):
        store.delete(f"acme/r{number:02d}")
    store.delete("acme/bank")
    planned = store.collect(dry_run=True, **NOW)
    report = store.collect(**NOW)
    assert len(report.purged) == len(planned.purged) == 11
    assert report.purged[-1].kind == "bank"
    assert len(report.blobs) == 22
    assert blob_digests(store) == set()
    assert store.audit.verify().is_sound


def test_two_collections_do_not_run_at_once(two):
    from adapters_store.catalog.claims import Claim

    with two._database.write() as connection:
        Claim("collection", "elsewhere:1", 60).take(connection)
    with pytest.raises(ConflictError, match="elsewhere:1"):
        two.collect(**NOW)
    two.collect(dry_run=True, **NOW)
    with two._database.write() as connection:
        connection.exec_driver_sql("UPDATE claims SET expires_at = '2020'")
    two.collect(**NOW)
