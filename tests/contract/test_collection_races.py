"""Collections against publications, restores and each other, stopped at every step that matters.

One side is stopped inside its blob store, where a test lets the other side go on; every time the
store must be whole afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from services.blobs import every_durable_blobs
from services.places import StorePlace
from sqlalchemy import Connection, Engine, event
from store_kit import bank, low_rank, routing

from adapters_store import batches
from adapters_store.blobs import Blobs
from adapters_store.catalog import open_catalog
from adapters_store.errors import ConflictError, DeletedError, UnavailableError
from adapters_store.ledger import collecting
from adapters_store.store import Store

pytestmark = every_durable_blobs

NOW = {"restore_window_s": 0, "upload_age_s": 0}


class StoppingBlobs:
    """A real blob store that calls ``before`` and ``after`` around some of its methods, once."""

    def __init__(self, inner: Blobs) -> None:
        self._inner = inner
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self.before and name not in self.after:
            return method

        def stopping(*arguments: Any, **options: Any) -> Any:
            self.before.pop(name, _nothing)()
            result = method(*arguments, **options)
            if name == "put_many":
                result = list(result)
            self.after.pop(name, _nothing)()
            return result

        return stopping


def _nothing() -> None:
    return None


@pytest.fixture
def pair(store_place: StorePlace, t5) -> Iterator[tuple[Store, Store, StoppingBlobs]]:
    """Two stores over one place; the first one's blobs can be stopped."""
    with ExitStack() as stack:
        blobs = StoppingBlobs(store_place.open_blobs())
        stopped = Store(open_catalog(store_place.catalog), blobs)
        other = stack.enter_context(store_place.open())
        stack.enter_context(stopped)
        stopped.add_backbone(t5)
        yield stopped, other, blobs


def assert_whole(store: Store, *names: str) -> None:
    """Every version that is not purged has sound blobs, and these names resolve."""
    assert store.verify() == []
    assert store.audit.verify().is_sound
    for name in names:
        assert store.tensors(store.resolve(name).digest)


def test_blobs_that_are_collected_before_the_catalog_knows_them_are_put_again(pair, t5):
    publisher, collector, blobs = pair
    reports = []
    blobs.after["put_many"] = lambda: reports.append(collector.collect(**NOW))
    version = publisher.publish("acme/task", low_rank(t5))
    assert {blob.why for blob in reports[0].blobs} == {"orphan"}
    assert len(reports[0].blobs) == 2
    assert version.number == 1
    assert_whole(collector, "acme/task")


def test_a_publication_without_a_collection_asks_for_no_blob_twice(pair, t5):
    publisher, collector, blobs = pair
    collector.collect(**NOW)
    asked = []
    blobs.before["size"] = lambda: asked.append("size")
    publisher.publish("acme/task", low_rank(t5))
    assert asked == []


def test_a_batch_too_large_to_keep_is_refused_whole_and_can_be_repeated(pair, t5, monkeypatch):
    publisher, collector, blobs = pair
    monkeypatch.setattr(batches, "MAX_ITEMS", 2)
    items = [(f"acme/task-{i}", low_rank(t5, seed=i)) for i in range(4)]
    blobs.after["put_many"] = lambda: collector.collect(**NOW)
    with pytest.raises(ConflictError, match="collected while"):
        publisher.publish_many(items)
    assert collector.list() == []
    assert len(publisher.publish_many(items)) == 4
    assert_whole(collector, *(name for name, _ in items))


def test_a_purged_artefact_that_is_published_again_during_the_sweep_keeps_its_blobs(pair, t5):
    collector, publisher, blobs = pair
    artefact = low_rank(t5)
    publisher.publish("acme/task", artefact)
    publisher.delete("acme/task")
    blobs.before["entries"] = lambda: publisher.publish("acme/task", artefact)
    report = collector.collect(**NOW)
    assert len(report.purged) == 1
    assert report.blobs == ()
    assert publisher.resolve("acme/task").number == 2
    assert_whole(publisher, "acme/task")


def test_an_artefact_put_again_before_the_purge_and_catalogued_after_the_sweep_is_whole(pair, t5):
    publisher, collector, blobs = pair
    artefact = low_rank(t5)
    publisher.publish("acme/task", artefact)
    publisher.delete("acme/task")
    reports = []
    blobs.after["put_many"] = lambda: reports.append(collector.collect(**NOW))
    assert publisher.publish("acme/task", artefact).number == 2
    assert len(reports[0].blobs) == 2
    assert_whole(collector, "acme/task")


def test_a_publication_waits_for_a_batch_of_removals_and_then_puts_again(pair, t5):
    collector, publisher, blobs = pair
    artefact = low_rank(t5)
    publisher.publish("acme/task", artefact)
    publisher.delete("acme/task")
    published: list[int] = []
    thread = threading.Thread(
        target=lambda: published.append(publisher.publish("acme/task", artefact).number)
    )

    def start_and_go_on() -> None:
        thread.start()
        thread.join(timeout=1)
        assert published == []

    blobs.before["delete"] = start_and_go_on
    collector.collect(**NOW)
    thread.join(timeout=60)
    assert published == [2]
    assert_whole(publisher, "acme/task")


def test_a_restore_that_comes_first_wins(pair, t5):
    collector, other, _ = pair
    other.publish("acme/task", low_rank(t5))
    other.delete("acme/task")
    from adapters_store.ledger.collecting import CollectionRun

    purge = CollectionRun._purge

    def restored_before(run, keys):
        other.restore("acme/task")
        return purge(run, keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CollectionRun, "_purge", restored_before)
        report = collector.collect(**NOW)
    assert report.purged == ()
    assert [one.why for one in report.kept] == [("restored meanwhile",)]
    assert_whole(other, "acme/task")


def test_a_restore_that_comes_second_is_told(pair, t5):
    collector, other, blobs = pair
    other.publish("acme/task", low_rank(t5))
    other.delete("acme/task")
    told: list[str] = []

    def restore() -> None:
        with pytest.raises(DeletedError) as caught:
            other.restore("acme/task")
        told.append(caught.value.message)

    blobs.before["entries"] = restore
    collector.collect(**NOW)
    assert "can no longer be restored" in told[0]
    assert_whole(other)


def test_a_lease_or_a_pin_that_comes_between_is_respected(pair, t5):
    collector, other, _ = pair
    shared = bank(t5)
    other.publish_many([("acme/bank", shared), ("acme/route", routing(t5, shared))])
    digest = other.resolve("acme/route").digest
    other.delete("acme/route")
    other.delete("acme/bank")
    from adapters_store.ledger.collecting import CollectionRun

    purge = CollectionRun._purge

    def leased_before(run, keys):
        other.leases.hold("replica", [digest], 60)
        return purge(run, keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CollectionRun, "_purge", leased_before)
        report = collector.collect(**NOW)
    assert report.purged == ()
    assert report.blobs == ()
    assert_whole(other)


def test_a_verification_does_not_take_a_collection_for_damage(pair, t5):
    reader, collector, _ = pair
    collector.publish("acme/kept", low_rank(t5, seed=1))
    collector.publish("acme/gone", low_rank(t5, seed=2))
    collector.delete("acme/gone")
    from adapters_store import verify as verify_module

    verify_version = verify_module.verify_version

    def collected_before(version, of):
        if version.name == "gone":
            collector.collect(**NOW)
        return verify_version(version, of)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_module, "verify_version", collected_before)
        assert reader.verify() == []
    assert collector.versions("acme/gone")[0].is_purged
    kept = collector.resolve("acme/kept")
    collector._blobs.delete(kept.manifest.data.digest)
    assert [finding.problem for finding in reader.verify()] == ["missing"]


COLLECT = """
import os
blobs_class = type(place.open_blobs())
delete = blobs_class.delete
left = int(arguments[0])

def dying(self, digest, **options):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return delete(self, digest, **options)

blobs_class.delete = dying
with place.open() as store:
    store.collect(restore_window_s=0, upload_age_s=0)
"""


@pytest.mark.parametrize("num_removed", [0, 1, 3])
def test_a_collecting_process_that_is_killed_leaves_a_whole_store(
    store, store_place, t5, num_removed: int
):
    kept = low_rank(t5, seed=0)
    store.publish("acme/kept", kept)
    for seed in (1, 2):
        store.publish(f"acme/gone-{seed}", low_rank(t5, seed=seed))
        store.delete(f"acme/gone-{seed}")
    process = store_place.start(COLLECT, str(num_removed))
    process.communicate(timeout=120)
    assert process.returncode == 9
    assert_whole(store, "acme/kept")
    assert len(list(store._blobs.entries())) == 6 - num_removed
    assert store.publish("acme/gone-1", low_rank(t5, seed=1)).number == 2
    assert_whole(store, "acme/kept", "acme/gone-1")
    with store._database.write() as connection:
        connection.exec_driver_sql("UPDATE claims SET expires_at = '2020'")
    store.collect(**NOW)
    assert len(list(store._blobs.entries())) == 4
    assert_whole(store, "acme/kept", "acme/gone-1")


class Killed(BaseException):
    """The end of a process, as far as the catalog can see it."""


@pytest.mark.parametrize("step", ["entries", "delete", "uploads"])
def test_a_collection_that_ends_early_leaves_a_whole_store_and_the_rest_for_the_next(
    pair, t5, step: str
):
    collector, other, blobs = pair
    kept, gone = low_rank(t5, seed=1), low_rank(t5, seed=2)
    other.publish("acme/kept", kept)
    other.publish("acme/gone", gone)
    other.delete("acme/gone")

    def end() -> None:
        raise Killed

    blobs.before[step] = end
    with pytest.raises(Killed):
        collector.collect(**NOW)
    assert_whole(other, "acme/kept")
    with pytest.raises(DeletedError):
        other.restore("acme/gone")
    assert other.publish("zed/again", gone).number == 1
    assert_whole(other, "zed/again")
    other.delete("zed/again")
    with pytest.raises(ConflictError, match="collection is being done by"):
        other.collect(**NOW)
    with other._database.write() as connection:
        connection.exec_driver_sql("UPDATE claims SET expires_at = '2020'")
    other.collect(**NOW)
    left = {entry.digest for entry in other._blobs.entries()}
    assert left == {kept.digest, kept.manifest.data.digest}
    assert_whole(other, "acme/kept")


def test_a_collection_that_slept_through_its_claim_does_nothing_more(pair, t5):
    collector, other, blobs = pair
    other.publish("acme/gone", low_rank(t5))
    other.delete("acme/gone")
    other._blobs.put(b"orphan")

    def sleep_too_long() -> None:
        with other._database.write() as connection:
            connection.exec_driver_sql("UPDATE claims SET expires_at = '2020'")
        other.collect(restore_window_s=0)

    blobs.before["entries"] = sleep_too_long
    before = {entry.digest for entry in other._blobs.entries()}
    with pytest.raises(ConflictError, match="taken over"):
        collector.collect(**NOW)
    assert {entry.digest for entry in other._blobs.entries()} == before
    version = other.publish("acme/new", low_rank(t5, seed=5))
    assert version.number == 1
    assert_whole(other, "acme/new")


@pytest.mark.parametrize("catalog_url", ["postgresql"], indirect=True)
def test_a_collection_whose_session_was_ended_removes_nothing_more(pair):
    collector, other, blobs = pair
    digests = {other._blobs.put(b"orphan %d" % number) for number in range(3)}

    def end_session() -> None:
        with other._database.read() as connection:
            ended = connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            assert ended.scalars().all() == [True]

    blobs.after["delete"] = end_session
    with pytest.raises(UnavailableError):
        collector.collect(**NOW)
    left = {entry.digest for entry in other._blobs.entries()}
    assert left < digests
    assert len(left) == 2


def test_a_collection_gives_the_write_lock_back_before_it_has_removed_everything(pair, monkeypatch):
    collector, _, blobs = pair
    counts: list[int] = []

    def count(_connection: Connection) -> None:
        counts[-1] += 1

    event.listen(Engine, "commit", count)
    for held_s in (60.0, 0.0):
        monkeypatch.setattr(collecting, "_MAX_HELD_S", held_s)
        for number in range(4):
            blobs.put(b"orphan %d" % number)
        counts.append(0)
        assert len(collector.collect(**NOW).blobs) == 4
    event.remove(Engine, "commit", count)
    assert counts[1] == counts[0] + 3


def test_a_collection_keeps_its_claim_while_it_finds_nothing_to_remove(pair, t5, monkeypatch):
    collector, other, blobs = pair
    other.publish("acme/task", low_rank(t5))
    monkeypatch.setattr(collecting, "_RENEW_AFTER_S", 0.0)

    def sleep_too_long() -> None:
        with other._database.write() as connection:
            connection.exec_driver_sql("UPDATE claims SET expires_at = '2020'")

    def is_refused() -> None:
        with pytest.raises(ConflictError, match="collection is being done by"):
            other.collect(**NOW)

    blobs.before["entries"] = sleep_too_long
    blobs.before["uploads"] = is_refused
    assert collector.collect(**NOW).blobs == ()
    assert "uploads" not in blobs.before


def test_a_publication_beside_a_collection_asks_only_for_blobs_that_it_could_have_taken(pair, t5):
    publisher, collector, blobs = pair
    shared = bank(t5)
    publisher.publish("acme/bank", shared)
    asked: list[str] = []
    size = blobs._inner.size
    blobs._inner.size = lambda digest: asked.append(digest) or size(digest)
    blobs.after["put_many"] = lambda: collector.collect(restore_window_s=0)
    route = routing(t5, shared)
    publisher.publish_many([("acme/bank", shared), ("acme/route", route)])
    assert sorted(asked) == sorted([route.digest, route.manifest.data.digest])


def test_publishers_and_collectors_at_full_speed_never_tear_a_version(store_place, t5):
    artefacts = [low_rank(t5, seed=seed) for seed in range(4)]
    with store_place.open() as first:
        first.add_backbone(t5)
    problems: list[BaseException] = []
    done = threading.Event()

    def publish(number: int) -> None:
        try:
            with store_place.open() as store:
                for turn in range(12):
                    name = f"acme/task-{number}"
                    version = store.publish(name, artefacts[(turn + number) % 4])
                    assert store.tensors(version.digest)
                    store.delete(f"{name}:{version.number}")
        except BaseException as error:  # noqa: BLE001  told by the main thread
            problems.append(error)

    def collect() -> None:
        try:
            with store_place.open() as store, pytest.MonkeyPatch.context() as patch:
                # Everything is old enough here, but uploads that are under way are not.
                patch.setattr(store._blobs, "uploads", lambda older_than_s, remove=True: 0)
                while not done.is_set():
                    store.collect(**NOW)
        except BaseException as error:  # noqa: BLE001  told by the main thread
            problems.append(error)

    publishers = [threading.Thread(target=publish, args=(number,)) for number in range(2)]
    collector = threading.Thread(target=collect)
    for thread in (collector, *publishers):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    collector.join()
    assert problems == []
    with store_place.open() as store:
        assert_whole(store)
        for number in range(2):
            found = store.versions(f"acme/task-{number}")
            assert [version.number for version in found] == list(range(12, 0, -1))
        store.collect(**NOW)
        assert list(store._blobs.entries()) == []
