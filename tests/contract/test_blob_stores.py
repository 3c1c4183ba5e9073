"""One suite for every row of the table of blob stores."""

from __future__ import annotations

import hashlib
import threading

import pytest

from adapters_store.blobs import BLOBS, Blobs
from adapters_store.errors import (
    ArtefactTooLargeError,
    CorruptStoreError,
    InvalidNameError,
    NotFoundError,
)
from adapters_store.lazy import resolve

LIMIT_BYTES = 100_000


@pytest.fixture(params=list(BLOBS))
def blobs(request, tmp_path) -> Blobs:
    blob_store = resolve(BLOBS, request.param, "blob store")
    arguments = () if request.param == "memory" else (tmp_path / "blobs",)
    made: Blobs = blob_store(*arguments, max_bytes=LIMIT_BYTES)
    return made


def damage(blobs: Blobs, digest: str, data: bytes) -> None:
    """Replace stored bytes behind the store's back."""
    if hasattr(blobs, "items"):
        blobs.items[digest] = data
    else:
        path = blobs.path(digest)  # type: ignore[attr-defined]
        path.chmod(0o644)
        path.write_bytes(data)


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 1000])
def test_bytes_come_back_under_their_own_digest(blobs: Blobs, data: bytes):
    digest = blobs.put(data)
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert blobs.get(digest) == data
    assert blobs.size(digest) == len(data)


def test_putting_again_changes_nothing(blobs: Blobs):
    assert blobs.put(b"same") == blobs.put(b"same")
    blobs.put(b"other")
    assert len(list(blobs.digests())) == 2


def test_an_absent_blob_is_not_found(blobs: Blobs):
    digest = "sha256:" + "0" * 64
    assert blobs.size(digest) is None
    with pytest.raises(NotFoundError, match=digest):
        blobs.get(digest)
    assert list(blobs.digests()) == []


@pytest.mark.parametrize("digest", ["", "../x", "sha256:", "sha256:" + "G" * 64, "md5:" + "0" * 64])
def test_only_digests_are_looked_up(blobs: Blobs, digest: str):
    with pytest.raises(InvalidNameError):
        blobs.get(digest)
    with pytest.raises(InvalidNameError):
        blobs.size(digest)


@pytest.mark.parametrize("bad", [b"", b"hell", b"hello!", b"jello"])
def test_damage_is_refused_on_reading_and_repaired_by_putting(blobs: Blobs, bad: bytes):
    digest = blobs.put(b"hello")
    damage(blobs, digest, bad)
    with pytest.raises(CorruptStoreError, match=digest):
        blobs.get(digest)
    assert blobs.put(b"hello") == digest
    assert blobs.get(digest) == b"hello"


def test_the_size_limit_holds(blobs: Blobs):
    assert blobs.get(blobs.put(bytes(LIMIT_BYTES))) == bytes(LIMIT_BYTES)
    with pytest.raises(ArtefactTooLargeError, match="the limit is"):
        blobs.put(bytes(LIMIT_BYTES + 1))
    assert len(list(blobs.digests())) == 1


def test_racing_writers_of_one_blob_all_succeed(blobs: Blobs):
    data = bytes(range(256)) * 100
    barrier = threading.Barrier(8)
    answers: list[str] = []

    def write() -> None:
        barrier.wait()
        answers.append(blobs.put(data))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [blobs.put(data)] * 8
    assert list(blobs.digests()) == [answers[0]]


def test_the_local_store_shards_by_digest_and_leaves_no_temporary_files(tmp_path):
    local = resolve(BLOBS, "local", "blob store")(tmp_path)
    digest = local.put(b"hello").removeprefix("sha256:")
    files = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    assert files == [f"sha256/{digest[:2]}/{digest}"]
    assert (tmp_path / files[0]).stat().st_mode & 0o222 == 0
