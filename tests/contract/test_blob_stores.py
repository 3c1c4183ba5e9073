"""One suite for every row of the table of blob stores."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time

import pytest
from services.blobs import new_blobs

from adapters_store.blobs import BLOBS, RENEW_AFTER_S, Blobs
from adapters_store.blobs.cached import CachedBlobs
from adapters_store.blobs.local import LocalBlobs
from adapters_store.blobs.memory import MemoryBlobs
from adapters_store.blobs.s3 import S3Blobs
from adapters_store.errors import (
    ArtefactTooLargeError,
    CorruptStoreError,
    InvalidNameError,
    NotFoundError,
)

LIMIT_BYTES = 100_000
CLOCK_SLACK_S = 2.0


@pytest.fixture(params=list(BLOBS))
def blobs(request, tmp_path) -> Blobs:
    return new_blobs(request.param, request, tmp_path, max_bytes=LIMIT_BYTES)


def damage(blobs: Blobs, digest: str, data: bytes) -> None:
    """Replace stored bytes behind the store's back, a cached copy too."""
    if isinstance(blobs, CachedBlobs):
        path = blobs._cache.path(digest)
        path.chmod(0o644)
        path.write_bytes(data)
        blobs = blobs.origin
    if isinstance(blobs, MemoryBlobs):
        blobs.items[digest] = data
    elif isinstance(blobs, LocalBlobs):
        path = blobs.path(digest)
        path.chmod(0o644)
        path.write_bytes(data)
    else:
        assert isinstance(blobs, S3Blobs)
        blobs._client.put_object(Bucket=blobs.bucket, Key=blobs.key(digest), Body=data)


def age(request, blobs: Blobs, digest: str, seconds: float) -> None:
    """Make a blob look as if its last put was so long ago."""
    blobs = blobs.origin
    if isinstance(blobs, MemoryBlobs):
        blobs._put_at_s[digest] -= seconds
    elif isinstance(blobs, LocalBlobs):
        past_s = time.time() - seconds
        os.utime(blobs.path(digest), (past_s, past_s))
    else:
        assert isinstance(blobs, S3Blobs)
        request.getfixturevalue("s3_bucket").age(blobs.key(digest), seconds)


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 1000])
def test_bytes_come_back_under_their_own_digest(blobs: Blobs, data: bytes):
    digest = blobs.put(data)
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert blobs.get(digest) == data
    assert blobs.size(digest) == len(data)


def test_putting_again_changes_nothing(blobs: Blobs):
    assert blobs.put(b"same") == blobs.put(b"same")
    blobs.put(b"other")
    assert len(list(blobs.entries())) == 2


def test_an_absent_blob_is_not_found(blobs: Blobs):
    digest = "sha256:" + "0" * 64
    assert blobs.size(digest) is None
    with pytest.raises(NotFoundError, match=digest):
        blobs.get(digest)
    assert list(blobs.entries()) == []


@pytest.mark.parametrize("digest", ["", "../x", "sha256:", "sha256:" + "G" * 64, "md5:" + "0" * 64])
def test_only_digests_are_looked_up(blobs: Blobs, digest: str):
    with pytest.raises(InvalidNameError):
        blobs.get(digest)
    with pytest.raises(InvalidNameError):
        blobs.size(digest)
    with pytest.raises(InvalidNameError):
        blobs.delete(digest)
    with pytest.raises(InvalidNameError):
        blobs.copy_to(digest, io.BytesIO())


@pytest.mark.parametrize("bad", [b"", b"hell", b"hello!", b"jello"])
def test_damage_is_refused_on_reading_and_repaired_by_putting(blobs: Blobs, bad: bytes):
    digest = blobs.put(b"hello")
    damage(blobs, digest, bad)
    with pytest.raises(CorruptStoreError, match=digest):
        blobs.get(digest)
    with pytest.raises(CorruptStoreError, match=digest):
        blobs.copy_to(digest, io.BytesIO())
    assert blobs.put(b"hello") == digest
    assert blobs.get(digest) == b"hello"


def test_the_size_limit_holds(blobs: Blobs):
    assert blobs.get(blobs.put(bytes(LIMIT_BYTES))) == bytes(LIMIT_BYTES)
    with pytest.raises(ArtefactTooLargeError, match="the limit is"):
        blobs.put(bytes(LIMIT_BYTES + 1))
    assert len(list(blobs.entries())) == 1


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
    assert [entry.digest for entry in blobs.entries()] == [answers[0]]


def test_many_blobs_are_put_at_once_and_answered_in_order(blobs: Blobs):
    items = [b"%d" % (number % 700) for number in range(1000)]
    first = blobs.put(b"7")
    digests = blobs.put_many(iter(items))
    assert digests == ["sha256:" + hashlib.sha256(data).hexdigest() for data in items]
    assert digests[7] == first
    assert {entry.digest for entry in blobs.entries()} == set(digests)
    assert blobs.get(digests[-1]) == items[-1]
    assert blobs.put_many([]) == []


def test_putting_many_replaces_damaged_copies(blobs: Blobs):
    digests = blobs.put_many([b"one", b"two"])
    damage(blobs, digests[0], b"eno")
    assert blobs.put_many([b"one", b"two", b"one"]) == [*digests, digests[0]]
    assert blobs.get(digests[0]) == b"one"


def test_the_size_limit_holds_for_each_of_many(blobs: Blobs):
    with pytest.raises(ArtefactTooLargeError, match="the limit is"):
        blobs.put_many([b"small", bytes(LIMIT_BYTES + 1)])
    assert {entry.size_bytes for entry in blobs.entries()} <= {5}


def test_a_blob_is_copied_to_a_file(blobs: Blobs):
    data = bytes(range(256)) * 300
    target = io.BytesIO()
    assert blobs.copy_to(blobs.put(data), target) == len(data)
    assert target.getvalue() == data
    with pytest.raises(NotFoundError):
        blobs.copy_to("sha256:" + "0" * 64, target)


def test_a_deleted_blob_is_gone_and_may_come_back(blobs: Blobs):
    digest = blobs.put(b"hello")
    assert blobs.delete(digest) is True
    assert blobs.delete(digest) is False
    assert blobs.size(digest) is None
    with pytest.raises(NotFoundError):
        blobs.get(digest)
    assert blobs.put(b"hello") == digest
    assert blobs.get(digest) == b"hello"


def test_an_entry_tells_size_and_time_of_the_last_put(blobs: Blobs):
    before_s = time.time() - CLOCK_SLACK_S
    digest = blobs.put(b"hello")
    [entry] = blobs.entries()
    assert (entry.digest, entry.size_bytes) == (digest, 5)
    assert before_s <= entry.modified_at_s <= time.time() + CLOCK_SLACK_S


def test_a_blob_put_since_a_time_is_not_deleted_for_it(blobs: Blobs):
    digest = blobs.put(b"hello")
    assert blobs.delete(digest, put_before_s=time.time() - 60) is False
    assert blobs.get(digest) == b"hello"
    assert blobs.delete(digest, put_before_s=time.time() + 60) is True
    assert blobs.size(digest) is None


def test_an_old_blob_counts_as_new_once_it_is_put_again(request, blobs: Blobs):
    digest = blobs.put(b"hello")
    age(request, blobs, digest, 2 * RENEW_AFTER_S)
    [entry] = blobs.entries()
    assert entry.modified_at_s < time.time() - RENEW_AFTER_S
    blobs.put(b"hello")
    [entry] = blobs.entries()
    assert entry.modified_at_s > time.time() - RENEW_AFTER_S
    assert blobs.delete(digest, put_before_s=time.time() - RENEW_AFTER_S) is False


def test_without_unfinished_uploads_there_is_nothing_to_remove(blobs: Blobs):
    blobs.put_many([b"one", b"two"])
    assert blobs.uploads(0) == 0
    assert len(list(blobs.entries())) == 2
