"""Many processes and threads share one store: numbers are gapless, no change is lost."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from services.blobs import every_durable_blobs
from services.places import StorePlace, answers
from store_kit import bank, low_rank, routing

from adapters_store.artefact import Artefact, write_artefact
from adapters_store.errors import ConflictError

pytestmark = every_durable_blobs

NUM_PROCESSES, NUM_EACH = 8, 5
PUBLISHER_AND_MOVER = """
from adapters_store.artefact import read_artefact
from adapters_store.errors import ConflictError

me, *folders = arguments
artefacts = [read_artefact(folder) for folder in folders]
store = place.open()
assert "torch" not in sys.modules
print("ready", flush=True)
sys.stdin.readline()
for artefact in artefacts:
    version = store.publish("acme/shared", artefact, aliases=(), actor=me)
    print("published", version.number, version.digest, flush=True)
    is_moved = False
    while not is_moved:
        present = store.aliases("acme/shared").get("prod", 0)
        target = version.number if version.number != present else 1
        try:
            store.set_alias("acme/shared", "prod", target, expected_version=present, actor=me)
        except ConflictError:
            continue
        is_moved = True
        print("moved", present, target, flush=True)
"""


def test_publishers_and_movers_in_eight_processes_lose_nothing(store, store_place, t5, tmp_path):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    processes = []
    for process in range(NUM_PROCESSES):
        folders = [str(tmp_path / f"{process}-{item}") for item in range(NUM_EACH)]
        for item, folder in enumerate(folders):
            write_artefact(routing(t5, shared, seed=100 * process + item), Path(folder))
        processes.append(store_place.start(PUBLISHER_AND_MOVER, f"worker-{process}", *folders))
    for started in processes:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
    told = [[line.split() for line in text.splitlines()] for text in answers(processes)]

    published = [(int(n), d) for lines in told for kind, n, d in lines if kind == "published"]
    stored = {version.number: version.digest for version in store.versions("acme/shared")}
    assert sorted(stored) == list(range(1, NUM_PROCESSES * NUM_EACH + 1))
    assert dict(published) == stored
    assert len(published) == len(set(stored.values())) == len(stored)

    events = store.alias_history("acme/shared")
    assert events[0].from_version is None
    assert all(after.from_version == before.to_version for before, after in pairwise(events))
    assert store.aliases("acme/shared") == {"prod": events[-1].to_version}
    for process, lines in enumerate(told):
        moved = [(int(old), int(new)) for kind, old, new in lines if kind == "moved"]
        assert moved == [
            (event.from_version or 0, event.to_version)
            for event in events
            if event.actor == f"worker-{process}"
        ]
    assert len(events) == NUM_PROCESSES * NUM_EACH
    assert store.verify() == []


def test_threads_publishing_the_same_artefact_make_one_version(store, t5):
    artefact = low_rank(t5)
    numbers = _in_threads(8, lambda _: store.publish("acme/same", artefact).number)
    assert numbers == [1] * 8


def test_of_racing_alias_moves_exactly_one_wins(store, t5):
    for seed in range(4):
        store.publish("acme/task", low_rank(t5, seed=seed), aliases=())
    store.set_alias("acme/task", "prod", 1)

    def move(index: int) -> bool:
        try:
            store.set_alias("acme/task", "prod", index % 3 + 2, expected_version=1)
        except ConflictError:
            return False
        return True

    assert sum(_in_threads(6, move)) == 1


def test_readers_see_whole_batches_only(store, t5, bert):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    batch: list[tuple[str, Artefact]] = [
        (f"many/{i}", routing(t5, shared, seed=i)) for i in range(20)
    ]
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(len(store.list(tenant="many")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        store.publish_many(batch)
    finally:
        done.set()
        watcher.join()
    assert set(seen) <= {0, 20}
    assert len(store.list(tenant="many")) == 20


def test_a_process_that_dies_before_the_catalog_leaves_nothing_visible(
    store, store_place, t5, tmp_path
):
    write_artefact(low_rank(t5), tmp_path / "artefact")
    publisher = store_place.start(
        """
import os
from adapters_store.artefact import read_artefact
from adapters_store.catalog import publishing

publishing.publish_many = lambda *args, **options: os._exit(9)
place.open().publish("acme/task", read_artefact(arguments[0]))
""",
        str(tmp_path / "artefact"),
    )
    publisher.communicate(timeout=60)
    assert publisher.returncode == 9
    assert store.list() == []
    assert store.generation() == 0
    assert store.publish("acme/task", low_rank(t5)).number == 1
    assert store.verify() == []


def _in_threads(count: int, work) -> list:
    results: list = [None] * count
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        barrier.wait()
        results[index] = work(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("attempt", range(3))
def test_racing_openers_make_one_catalog(store_place: StorePlace, attempt: int, t5):
    def open_and_register(_: int) -> str:
        with store_place.open() as store:
            return store.add_backbone(t5).fingerprint

    assert _in_threads(6, open_and_register) == [t5.fingerprint] * 6
