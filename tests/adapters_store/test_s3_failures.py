"""Failing object stores: every failure is a typed error with a hint, and nothing is torn."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError
from services.faulty_s3 import breaking_proxy, refusing_server
from services.s3 import S3Server, new_bucket, use_credentials

from adapters_store.blobs import s3_client
from adapters_store.blobs.s3 import S3Blobs
from adapters_store.blobs.s3_upload import MIN_PART_BYTES, Upload
from adapters_store.canonical import digest_of
from adapters_store.errors import (
    CorruptStoreError,
    ForbiddenError,
    NotFoundError,
    PatchbayError,
    UnavailableError,
    UsageError,
)

DIGEST = digest_of(b"hello")
DATA = os.urandom(3 * 2**20)
CALLS: dict[str, Callable[[S3Blobs], object]] = {
    "put": lambda blobs: blobs.put(b"hello"),
    "put_many": lambda blobs: blobs.put_many([b"hello", b"world"]),
    "put in parts": lambda blobs: blobs.put(bytes(MIN_PART_BYTES + 1)),
    "get": lambda blobs: blobs.get(DIGEST),
    "copy_to": lambda blobs: blobs.copy_to(DIGEST, io.BytesIO()),
    "size": lambda blobs: blobs.size(DIGEST),
    "delete": lambda blobs: blobs.delete(DIGEST),
    "entries": lambda blobs: list(blobs.entries()),
    "uploads": lambda blobs: blobs.uploads(0),
}
every_call = pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))


@pytest.fixture(autouse=True)
def one_quick_retry(monkeypatch):
    """Two attempts instead of four: retries wait longer each time."""
    monkeypatch.setattr(s3_client, "NUM_ATTEMPTS", 2)


def opened(bucket, url: str = "") -> S3Blobs:
    return S3Blobs(bucket.location, endpoint_url=url or bucket.server.url, part_bytes=1)


@every_call
def test_a_missing_bucket_is_named(s3_bucket, call):
    blobs = S3Blobs("s3://no-such-bucket/x", endpoint_url=s3_bucket.server.url, part_bytes=1)
    with pytest.raises(UsageError, match="no bucket at s3://no-such-bucket/x") as caught:
        call(blobs)
    assert "Make the bucket" in caught.value.hint


@every_call
def test_missing_credentials_are_a_usage_error(s3_bucket, monkeypatch, call):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UsageError, match="no usable credentials for s3://") as caught:
        call(opened(s3_bucket))
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "code", "error", "hint"),
    [
        (403, "AccessDenied", ForbiddenError, "s3:ListBucket"),
        (403, "InvalidAccessKeyId", ForbiddenError, "s3:GetObject"),
        (503, "SlowDown", UnavailableError, "repeat"),
        (500, "InternalError", UnavailableError, "repeat"),
        (400, "ExpiredToken", UsageError, "still valid"),
        (400, "AuthorizationHeaderMalformed", UsageError, "s3"),
    ],
)
def test_refusals_are_typed_errors_with_hints(monkeypatch, status, code, error, hint):
    use_credentials(monkeypatch)
    with refusing_server(status, code) as url:
        blobs = S3Blobs("s3://bucket/x", endpoint_url=url, part_bytes=1)
        for call in CALLS.values():
            with pytest.raises(PatchbayError, match="s3://bucket/x") as caught:
                call(blobs)
            assert type(caught.value) is error
            assert hint in caught.value.hint


@pytest.mark.parametrize("url", ["no url", "localhost:9000", "http://"])
def test_an_endpoint_that_is_no_url_is_a_usage_error(s3_bucket, url):
    with pytest.raises(UsageError) as caught:
        opened(s3_bucket, url).get(DIGEST)
    assert "endpoint_url" in caught.value.message + caught.value.hint


def test_a_server_that_stopped_is_unavailable(monkeypatch):
    server = S3Server()
    bucket = new_bucket(server, monkeypatch)
    blobs = opened(bucket)
    digest = blobs.put(b"hello")
    assert blobs.get(digest) == b"hello"
    server.stop()
    for call in CALLS.values():
        with pytest.raises(UnavailableError, match="cannot be reached"):
            call(blobs)


def test_a_download_that_breaks_is_taken_up_where_it_broke(s3_bucket):
    digest = opened(s3_bucket).put(DATA)
    with breaking_proxy(s3_bucket.server.url) as proxy:
        blobs = opened(s3_bucket, proxy.url)
        proxy.answer_bytes = [1_500_000]
        s3_bucket.forget()
        assert blobs.get(digest) == DATA
        assert proxy.num_broken == 1
        assert len(s3_bucket.requests("GET")) == 2


def test_a_download_that_keeps_breaking_is_unavailable(s3_bucket):
    digest = opened(s3_bucket).put(DATA)
    with breaking_proxy(s3_bucket.server.url) as proxy:
        proxy.answer_bytes = [1_500_000, 100_000]
        with pytest.raises(UnavailableError, match="cannot be reached"):
            opened(s3_bucket, proxy.url).get(digest)


def test_an_object_that_changes_while_a_broken_download_is_taken_up(s3_bucket):
    digest = opened(s3_bucket).put(DATA)
    with breaking_proxy(s3_bucket.server.url) as proxy:
        blobs = opened(s3_bucket, proxy.url)
        proxy.answer_bytes = [1_500_000]
        seen: list[int] = []

        def replace(request, **_kwargs):
            seen.append(1)
            if len(seen) == 2:
                s3_bucket.client.put_object(
                    Bucket=s3_bucket.name, Key=blobs.key(digest), Body=DATA[::-1]
                )

        blobs._client.meta.events.register("before-send.s3.GetObject", replace)
        with pytest.raises(UnavailableError, match="changed while it was read"):
            blobs.get(digest)


def test_an_upload_that_breaks_is_repeated(s3_bucket):
    with breaking_proxy(s3_bucket.server.url) as proxy:
        blobs = opened(s3_bucket, proxy.url)
        blobs.size(DIGEST)
        proxy.request_bytes = [100_000, 1_000_000]  # the question whether it is there passes
        digest = blobs.put(DATA)
    assert proxy.num_broken == 1
    assert opened(s3_bucket).get(digest) == DATA


def test_an_upload_that_keeps_breaking_leaves_no_object(s3_bucket):
    with breaking_proxy(s3_bucket.server.url) as proxy:
        blobs = opened(s3_bucket, proxy.url)
        blobs.size(DIGEST)
        proxy.request_bytes = [10_000] * 10
        with pytest.raises(UnavailableError):
            blobs.put(DATA)
    sound = opened(s3_bucket)
    assert list(sound.entries()) == []
    with pytest.raises(NotFoundError):
        sound.get(digest_of(DATA))


@pytest.mark.parametrize(
    "bad",
    [DATA[:-1], DATA[:-1] + b"\0\1", b"", DATA[:100]],
    ids=["a-byte-short", "a-byte-long", "empty", "its-beginning"],
)
def test_an_object_altered_behind_our_back_is_refused(s3_bucket, bad):
    blobs = opened(s3_bucket)
    digest = blobs.put(DATA)
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=blobs.key(digest), Body=bad)
    with pytest.raises(CorruptStoreError, match=f"{digest} in s3://.* is damaged"):
        blobs.get(digest)
    assert blobs.put(DATA) == digest
    assert blobs.get(digest) == DATA


def test_two_writers_of_one_large_blob_both_succeed(s3_bucket):
    data = os.urandom(2 * MIN_PART_BYTES + 1)
    answers: list[str] = []
    barrier = threading.Barrier(2)

    def write() -> None:
        blobs = opened(s3_bucket)
        barrier.wait()
        answers.append(blobs.put(data))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [digest_of(data)] * 2
    assert opened(s3_bucket).get(digest_of(data)) == data


def test_an_upload_that_another_writer_gave_up_is_sent_anew(s3_bucket, monkeypatch):
    """As S3 answers a completion whose upload was aborted; moto's server has no such answer."""
    data = os.urandom(2 * MIN_PART_BYTES + 1)
    attempts = []

    def gone_once(upload: Upload) -> None:
        attempts.append(upload.key)
        if len(attempts) == 1:
            raise ClientError({"Error": {"Code": "NoSuchUpload"}}, "CompleteMultipartUpload")
        send(upload)

    send = Upload.send
    monkeypatch.setattr(Upload, "send", gone_once)
    blobs = opened(s3_bucket)
    assert blobs.put(data) == digest_of(data)
    assert len(attempts) == 2
    assert blobs.get(digest_of(data)) == data


def test_a_deletion_does_not_wait_long_for_a_silent_service(s3_bucket, monkeypatch):
    monkeypatch.setattr(s3_client, "_BRIEF_READ_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began_s = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            opened(s3_bucket, url).delete(DIGEST)
        assert time.monotonic() - began_s < 30
