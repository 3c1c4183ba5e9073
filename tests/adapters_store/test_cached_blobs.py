"""The cache: one fetch however many ask, a budget in bytes, copies that heal themselves."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from adapters_store.blobs import cache_folder
from adapters_store.blobs.cache_folder import CacheFolder
from adapters_store.blobs.cached import CachedBlobs
from adapters_store.blobs.local import LocalBlobs
from adapters_store.blobs.memory import MemoryBlobs
from adapters_store.blobs.s3 import S3Blobs
from adapters_store.errors import CorruptStoreError, NotFoundError, UsageError

READER = """
import sys, threading
from adapters_store.blobs.cached import CachedBlobs
from adapters_store.blobs.s3 import S3Blobs

location, url, folder, digest = sys.argv[1:]
blobs = CachedBlobs(S3Blobs(location, endpoint_url=url), folder, max_bytes=10_000_000)
print("ready", flush=True)
sys.stdin.readline()
sizes = []
threads = [
    threading.Thread(target=lambda: sizes.append(len(blobs.get(digest)))) for _ in range(4)
]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sizes, flush=True)
"""

STUCK = """
import sys, time
from adapters_store.blobs.cached import CachedBlobs
from adapters_store.blobs.local import LocalBlobs

class Stuck(LocalBlobs):
    def copy_to(self, digest, target):
        target.write(b"half of it")
        target.flush()
        print("fetching", flush=True)
        time.sleep(600)

CachedBlobs(Stuck(sys.argv[1]), sys.argv[2], max_bytes=1000).get(sys.argv[3])
"""


class CountedBlobs(MemoryBlobs):
    """Counts reads, and takes a while over each."""

    def __init__(self) -> None:
        super().__init__()
        self.num_reads = 0
        self.delay_s = 0.0

    def copy_to(self, digest: str, target: IO[bytes]) -> int:
        self.num_reads += 1
        time.sleep(self.delay_s)
        return super().copy_to(digest, target)


@pytest.fixture
def origin() -> CountedBlobs:
    return CountedBlobs()


def cached(origin, tmp_path: Path, max_bytes: int = 1_000_000) -> CachedBlobs:
    return CachedBlobs(origin, tmp_path / "cache", max_bytes=max_bytes)


def kept(tmp_path: Path) -> dict[str, int]:
    """Every cached copy with its size."""
    files = (tmp_path / "cache" / "sha256").glob("??/*")
    return {f"sha256:{path.name}": path.stat().st_size for path in files}


def test_a_cold_blob_is_fetched_once_for_sixteen_threads(origin, tmp_path):
    data = os.urandom(100_000)
    digest = origin.put(data)
    origin.delay_s = 0.1
    blobs = cached(origin, tmp_path)
    barrier = threading.Barrier(16)
    answers: list[bytes] = []

    def read() -> None:
        barrier.wait()
        answers.append(blobs.get(digest))

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [data] * 16
    assert origin.num_reads == 1
    assert list((tmp_path / "cache" / "fetching").iterdir()) == []


def test_a_cold_blob_is_fetched_once_for_four_processes(s3_bucket, tmp_path):
    url = s3_bucket.server.url
    digest = S3Blobs(s3_bucket.location, endpoint_url=url).put(os.urandom(3_000_000))
    s3_bucket.forget()
    arguments = [s3_bucket.location, url, str(tmp_path / "cache"), digest]
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    for reader in readers:
        assert reader.communicate(timeout=60)[0] == f"{[3_000_000] * 4}\n"
    assert len(s3_bucket.requests("GET")) == 1


def test_different_blobs_are_fetched_side_by_side(origin, tmp_path):
    digests = origin.put_many([b"one", b"two"])
    both = threading.Barrier(2, timeout=30)
    read = origin.copy_to

    def wait_for_the_other(digest: str, target: IO[bytes]) -> int:
        both.wait()
        return read(digest, target)

    origin.copy_to = wait_for_the_other
    blobs = cached(origin, tmp_path)
    threads = [threading.Thread(target=blobs.get, args=(digest,)) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(kept(tmp_path)) == set(digests)


def test_copies_survive_a_restart(origin, tmp_path):
    digest = origin.put(b"hello")
    assert cached(origin, tmp_path).get(digest) == b"hello"
    assert cached(origin, tmp_path).get(digest) == b"hello"
    assert origin.num_reads == 1


@pytest.mark.parametrize("bad", [b"jello", b"hell", b""])
def test_a_damaged_copy_is_fetched_again(origin, tmp_path, bad):
    digest = origin.put(b"hello")
    blobs = cached(origin, tmp_path)
    blobs.get(digest)
    path = blobs._cache.path(digest)
    path.write_bytes(bad)
    assert blobs.get(digest) == b"hello"
    assert path.read_bytes() == b"hello"
    assert origin.num_reads == 2
    path.write_bytes(bad)
    origin.items[digest] = b"jello"
    with pytest.raises(CorruptStoreError):
        blobs.get(digest)
    assert kept(tmp_path) == {}


def test_a_damaged_copy_is_fetched_once_for_many_readers(origin, tmp_path):
    data = os.urandom(3_000_000)
    digest = origin.put(data)
    blobs = cached(origin, tmp_path, max_bytes=10_000_000)
    blobs.get(digest)
    blobs._cache.path(digest).write_bytes(data[:-1] + b"?")
    barrier = threading.Barrier(16)
    answers: list[bool] = []

    def read() -> None:
        barrier.wait()
        answers.append(blobs.get(digest) == data)

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 16
    assert origin.num_reads == 2


def test_least_recently_used_copies_leave_over_the_budget(origin, tmp_path):
    digests = origin.put_many([bytes([number]) * 100 for number in range(12)])
    blobs = cached(origin, tmp_path, max_bytes=1000)
    for digest in digests[:10]:
        blobs.get(digest)
    assert set(kept(tmp_path)) == set(digests[:10])
    blobs.get(digests[0])
    blobs.get(digests[10])
    assert set(kept(tmp_path)) == {digests[0], *digests[3:11]}
    assert origin.num_reads == 11


def test_the_budget_holds_whatever_is_read(origin, tmp_path):
    chance = random.Random(0)
    digests = origin.put_many([os.urandom(chance.randint(1, 400)) for _ in range(60)])
    blobs = cached(origin, tmp_path, max_bytes=2000)
    for _ in range(400):
        digest = chance.choice(digests)
        assert blobs.get(digest) == origin.items[digest]
        assert sum(kept(tmp_path).values()) <= 2000
    assert int((tmp_path / "cache" / "usage").read_text()) == sum(kept(tmp_path).values())


def test_the_budget_holds_for_threads_and_a_lost_count(origin, tmp_path):
    digests = origin.put_many([os.urandom(100) for _ in range(40)])
    blobs = cached(origin, tmp_path, max_bytes=1500)
    for bad in ("", "nonsense"):
        (tmp_path / "cache" / "usage").write_text(bad)

        def read(seed: int) -> None:
            for digest in random.Random(seed).choices(digests, k=60):
                assert blobs.get(digest) == origin.items[digest]

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(kept(tmp_path).values()) <= 1500
        assert int((tmp_path / "cache" / "usage").read_text()) == sum(kept(tmp_path).values())


def test_what_is_being_read_is_not_evicted(origin, tmp_path):
    digests = origin.put_many([bytes([number]) * 400 for number in range(6)])
    blobs = cached(origin, tmp_path, max_bytes=1000)
    with blobs._copy(digests[0]) as file:
        assert file is not None
        for digest in digests[1:]:
            blobs.get(digest)
            assert digests[0] in kept(tmp_path)
        assert file.read() == bytes([0]) * 400
    blobs.get(digests[1])
    blobs.get(digests[2])
    assert digests[0] not in kept(tmp_path)


def test_a_blob_over_the_whole_budget_is_read_but_not_kept(origin, tmp_path):
    small, large = origin.put(b"small"), origin.put(bytes(2000))
    blobs = cached(origin, tmp_path, max_bytes=1000)
    blobs.get(small)
    assert blobs.get(large) == bytes(2000)
    assert set(kept(tmp_path)) == {small}


def test_a_failing_fetch_keeps_nothing_and_may_be_repeated(origin, tmp_path):
    blobs = cached(origin, tmp_path)
    digest = "sha256:" + "0" * 64
    with pytest.raises(NotFoundError):
        blobs.get(digest)
    hello = origin.put(b"hello")
    origin.items[hello] = b"jello"
    with pytest.raises(CorruptStoreError):
        blobs.get(hello)
    assert kept(tmp_path) == {}
    origin.items[hello] = b"hello"
    assert blobs.get(hello) == b"hello"


def test_a_killed_fetch_holds_up_nobody_and_is_cleaned_up(tmp_path):
    origin = LocalBlobs(tmp_path / "blobs")
    digest = origin.put(b"hello")
    arguments = [str(tmp_path / "blobs"), str(tmp_path / "cache"), digest]
    command = [sys.executable, "-c", STUCK, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "fetching\n"
        stuck.send_signal(signal.SIGKILL)
    assert len(kept(tmp_path)) == 1
    blobs = cached(origin, tmp_path)
    assert blobs.get(digest) == b"hello"
    assert kept(tmp_path) == {digest: 5}


def test_puts_go_through_and_are_read_from_the_cache(origin, tmp_path):
    blobs = cached(origin, tmp_path)
    digests = [blobs.put(b"one"), *blobs.put_many([b"two", b"three"])]
    assert [origin.items[digest] for digest in digests] == [b"one", b"two", b"three"]
    assert [blobs.get(digest) for digest in digests] == [b"one", b"two", b"three"]
    assert origin.num_reads == 0
    assert blobs.delete(digests[0]) is True
    with pytest.raises(NotFoundError):
        blobs.get(digests[0])


def test_a_folder_that_refuses_is_bypassed_with_a_warning(origin, tmp_path, monkeypatch, caplog):
    blobs = cached(origin, tmp_path)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_folder.tempfile, "mkstemp", full)
    with caplog.at_level(logging.WARNING, "patchbay.cache"):
        digest = blobs.put(b"hello")
        assert blobs.get(digest) == b"hello"
    assert "is bypassed: [Errno 28] No space left" in caplog.text


def test_a_disk_that_gives_other_bytes_back_is_bypassed(origin, tmp_path, monkeypatch, caplog):
    digest = origin.put(b"hello")
    monkeypatch.setattr(cache_folder, "_digest_of_file", lambda file: "sha256:" + "0" * 64)
    assert cached(origin, tmp_path).get(digest) == b"hello"
    assert "gives other bytes back" in caplog.text
    assert kept(tmp_path) == {}


def test_a_budget_below_one_byte_is_refused(tmp_path):
    with pytest.raises(UsageError, match="expected at least 1"):
        CacheFolder(tmp_path, 0)
