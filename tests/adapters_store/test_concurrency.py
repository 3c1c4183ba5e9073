"""Many processes and threads share one store: numbers are gapless, opening races are harmless."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store_kit import low_rank, open_store, routing, save_t5

from adapters_store.artefact import Artefact, write_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import ConflictError
from adapters_store.store import Store

NUM_PROCESSES, NUM_EACH = 4, 6
PUBLISHER = """
import sys
from pathlib import Path
from adapters_store.artefact import read_artefact
from adapters_store.backbone import Backbone
from adapters_store.store import Store

location, backbone, *folders = sys.argv[1:]
sys.stdin.readline()
with Store.open(location) as store:
    store.add_backbone(Backbone.from_folder(backbone))
    for folder in folders:
        version = store.publish("acme/shared", read_artefact(folder), aliases=("canary",))
        print(version.number, version.digest, flush=True)
"""


def test_four_processes_publish_one_name_without_gaps(tmp_path):
    model = save_t5(tmp_path / "model")
    backbone = Backbone.from_folder(model)
    store_folder = tmp_path / "store"
    processes = []
    digests: list[str] = []
    for process in range(NUM_PROCESSES):
        folders = []
        for item in range(NUM_EACH):
            artefact = low_rank(backbone, seed=100 * process + item)
            digests.append(artefact.digest)
            folder = tmp_path / f"{process}-{item}"
            write_artefact(artefact, folder)
            folders.append(str(folder))
        command = [sys.executable, "-c", PUBLISHER, str(store_folder), str(model), *folders]
        processes.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for publisher in processes:
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    outputs = [publisher.communicate(timeout=120)[0] for publisher in processes]
    assert [publisher.returncode for publisher in processes] == [0] * NUM_PROCESSES
    answered = [line.split() for output in outputs for line in output.splitlines()]
    expected = list(range(1, NUM_PROCESSES * NUM_EACH + 1))
    assert sorted(int(number) for number, _ in answered) == expected
    with Store.open(store_folder) as store:
        stored = {version.number: version.digest for version in store.versions("acme/shared")}
        assert stored == {int(number): digest for number, digest in answered}
        assert sorted(stored.values()) == sorted(digests)
        events = store.alias_history("acme/shared")
        assert [event.from_version for event in events[1:]] == [e.to_version for e in events[:-1]]
        assert len(events) == len(expected)
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
    from store_kit import bank

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


def test_a_process_killed_between_blobs_and_catalog_leaves_nothing_visible(tmp_path, t5):
    write_artefact(low_rank(t5), tmp_path / "artefact")
    script = """
import os, sys
from adapters_store.artefact import read_artefact
from adapters_store.catalog import publishing
from adapters_store.store import Store
publishing.publish = lambda *args, **options: os._exit(9)
with Store.open(sys.argv[1]) as store:
    store.publish("acme/task", read_artefact(sys.argv[2]))
"""
    with open_store(tmp_path / "store", t5) as store:
        command = [
            sys.executable,
            "-c",
            script,
            str(tmp_path / "store"),
            str(tmp_path / "artefact"),
        ]
        assert subprocess.run(command, timeout=60, check=False).returncode == 9
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
def test_racing_openers_make_one_catalog(tmp_path: Path, attempt: int, t5):
    def open_and_register(_: int) -> str:
        with Store.open(tmp_path / "store") as store:
            return store.add_backbone(t5).fingerprint

    assert _in_threads(6, open_and_register) == [t5.fingerprint] * 6
