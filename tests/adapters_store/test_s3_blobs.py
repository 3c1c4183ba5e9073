"""What is particular to blobs in S3: requests that are made, uploads in parts, a lazy client."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys

import pytest
from botocore.awsrequest import AWSResponse
from urllib3 import HTTPResponse

from adapters_store.blobs import RENEW_AFTER_S
from adapters_store.blobs.s3 import S3Blobs
from adapters_store.blobs.s3_client import parse_location
from adapters_store.blobs.s3_upload import MIN_PART_BYTES, Upload
from adapters_store.canonical import digest_of
from adapters_store.errors import ArtefactTooLargeError, NotFoundError, UsageError
from adapters_store.limits import MIB

CENTURY_S = 100 * 365.25 * 86400
LARGE = os.urandom(MIN_PART_BYTES) * 3 + b"the rest"

KILLED = """
import os, sys
from adapters_store.blobs.s3 import S3Blobs
from adapters_store.blobs import s3_upload

location, url, file, num_parts = sys.argv[1:]
send_part = s3_upload.Upload._send_part

def send_and_die(self, upload_id, number):
    sent = send_part(self, upload_id, number)
    if number == int(num_parts):
        os._exit(9)
    return sent

s3_upload.Upload._send_part = send_and_die
s3_upload._PART_THREADS = 1
S3Blobs(location, endpoint_url=url, part_bytes=1).put(open(file, "rb").read())
"""


MEASURED = """
import resource, sys
from adapters_store.blobs.s3 import S3Blobs

location, url, digest = sys.argv[1:]
blobs = S3Blobs(location, endpoint_url=url)
list(blobs.entries())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open("/dev/null", "wb") as target:
    num_bytes = blobs.copy_to(digest, target)
print(num_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def blobs(s3_bucket) -> S3Blobs:
    """Blobs in the bucket; what is over 5 MiB goes in parts."""
    return S3Blobs(s3_bucket.location, endpoint_url=s3_bucket.server.url, part_bytes=1)


def sent_parts(bucket) -> list[int]:
    lines = bucket.requests("PUT")
    return sorted(int(line.split("partNumber=")[1].split("&")[0]) for line in lines)


def kill_upload(bucket, tmp_path, data: bytes, after_part: int) -> None:
    """Let a process begin the upload and die after it sent that part."""
    (tmp_path / "data").write_bytes(data)
    arguments = [bucket.location, bucket.server.url, str(tmp_path / "data"), str(after_part)]
    result = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=60)
    assert result.returncode == 9


def test_keys_are_sharded_like_the_files_of_a_folder(s3_bucket, blobs):
    digest = blobs.put(b"hello")
    name = digest.removeprefix("sha256:")
    [stored] = s3_bucket.client.list_objects_v2(Bucket=s3_bucket.name)["Contents"]
    assert stored["Key"] == f"store/sha256/{name[:2]}/{name}"


def test_a_put_asks_first_and_sends_only_what_is_absent(s3_bucket, blobs):
    blobs.size(digest_of(b"another"))
    s3_bucket.forget()
    blobs.put(b"hello")
    assert [line.split()[0] for line in s3_bucket.requests()] == ["HEAD", "PUT"]
    s3_bucket.forget()
    blobs.put(b"hello")
    assert [line.split()[0] for line in s3_bucket.requests()] == ["HEAD"]


def test_an_old_object_is_renewed_without_sending_it(s3_bucket, blobs):
    digest = blobs.put(LARGE)
    s3_bucket.age(blobs.key(digest), 2 * RENEW_AFTER_S)
    s3_bucket.forget()
    assert blobs.put(LARGE) == digest
    assert [line.split()[0] for line in s3_bucket.requests()] == ["HEAD", "PUT"]
    assert sent_bytes(s3_bucket) == 0
    [entry] = blobs.entries()
    assert blobs.delete(digest, put_before_s=entry.modified_at_s) is False
    assert blobs.get(digest) == LARGE
    s3_bucket.forget()
    assert blobs.put(LARGE) == digest
    assert [line.split()[0] for line in s3_bucket.requests()] == ["HEAD"]


def sent_bytes(bucket) -> int:
    """Copies name their source in a header; an upload in parts names the part."""
    return sum("partNumber" in line for line in bucket.requests("PUT"))


def test_a_large_blob_goes_in_parts_and_comes_back(s3_bucket, blobs):
    digest = blobs.put(LARGE)
    assert sent_parts(s3_bucket) == [1, 2, 3, 4]
    assert blobs.get(digest) == LARGE
    assert blobs.size(digest) == len(LARGE)
    s3_bucket.forget()
    blobs.put(LARGE)
    assert [line.split()[0] for line in s3_bucket.requests()] == ["HEAD"]
    assert blobs.uploads(0) == 0


def test_an_interrupted_upload_goes_on_with_the_parts_that_arrived(s3_bucket, blobs, tmp_path):
    kill_upload(s3_bucket, tmp_path, LARGE, after_part=2)
    assert sent_parts(s3_bucket) == [1, 2]
    assert list(blobs.entries()) == []
    s3_bucket.forget()
    digest = blobs.put(LARGE)
    assert sent_parts(s3_bucket) == [3, 4]
    assert blobs.get(digest) == LARGE
    assert blobs.uploads(0) == 0


def test_a_part_that_arrived_with_other_bytes_is_sent_again(s3_bucket, blobs, tmp_path):
    kill_upload(s3_bucket, tmp_path, LARGE, after_part=3)
    [upload] = s3_bucket.client.list_multipart_uploads(Bucket=s3_bucket.name)["Uploads"]
    for number, data in ((2, bytes(MIN_PART_BYTES)), (7, b"not ours")):
        s3_bucket.client.upload_part(
            Bucket=s3_bucket.name,
            Key=upload["Key"],
            UploadId=upload["UploadId"],
            PartNumber=number,
            Body=data,
        )
    s3_bucket.forget()
    digest = blobs.put(LARGE)
    assert sent_parts(s3_bucket) == [2, 4]
    assert blobs.get(digest) == LARGE


def test_an_upload_that_another_program_began_its_own_way_is_left_alone(s3_bucket, blobs):
    key = blobs.key(digest_of(LARGE))
    for algorithm in ({}, {"ChecksumAlgorithm": "CRC32"}):
        s3_bucket.client.create_multipart_upload(Bucket=s3_bucket.name, Key=key, **algorithm)
    digest = blobs.put(LARGE)
    assert blobs.get(digest) == LARGE
    assert blobs.uploads(0, remove=False) >= 1


def test_an_upload_that_another_writer_completed_is_enough(s3_bucket, blobs):
    other = S3Blobs(s3_bucket.location, endpoint_url=s3_bucket.server.url, part_bytes=1)
    num_sent: list[int] = []

    def overtake(**_kwargs):
        num_sent.append(1)
        if len(num_sent) == 1:
            other.put(LARGE)

    blobs._client.meta.events.register("before-send.s3.UploadPart", overtake)
    digest = blobs.put(LARGE)
    assert blobs.get(digest) == LARGE
    assert blobs.uploads(0) == 0


def test_uploads_of_other_blobs_are_left_alone(s3_bucket, blobs, tmp_path):
    other = LARGE[::-1]
    kill_upload(s3_bucket, tmp_path, other, after_part=1)
    s3_bucket.forget()
    blobs.put(LARGE)
    assert sent_parts(s3_bucket) == [1, 2, 3, 4]
    assert blobs.uploads(0, remove=False) == 1


def test_unfinished_uploads_are_collected_by_age(s3_bucket, blobs, tmp_path):
    kill_upload(s3_bucket, tmp_path, LARGE, after_part=2)
    assert blobs.uploads(CENTURY_S) == 0
    assert blobs.uploads(3600, remove=False) == 1
    assert blobs.uploads(3600) == 1
    assert blobs.uploads(0) == 0
    s3_bucket.forget()
    assert blobs.get(blobs.put(LARGE)) == LARGE
    assert sent_parts(s3_bucket) == [1, 2, 3, 4]


def test_a_damaged_large_blob_is_replaced_by_parts(s3_bucket, blobs):
    digest = blobs.put(LARGE)
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=blobs.key(digest), Body=LARGE[:-1])
    assert blobs.put(LARGE) == digest
    assert blobs.get(digest) == LARGE


def test_parts_cover_the_data_and_give_its_composite_checksum():
    upload = Upload(None, "bucket", "key", b"abcdefg", 3)
    assert [bytes(upload.part(number)) for number in (1, 2, 3)] == [b"abc", b"def", b"g"]
    parts = b"".join(hashlib.sha256(part).digest() for part in (b"abc", b"def", b"g"))
    assert base64.b64decode(upload.checksum()) == hashlib.sha256(parts).digest()
    assert Upload(None, "bucket", "key", b"", 3).num_parts == 1


def test_a_service_without_conditional_writes_is_written_unconditionally(s3_bucket, blobs):
    refused: list[str] = []

    def refuse(request, **_kwargs):
        if "If-None-Match" not in request.headers:
            return None
        refused.append(request.url)
        body = io.BytesIO(b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>")
        return AWSResponse(request.url, 501, {}, HTTPResponse(body, preload_content=False))

    blobs._client.meta.events.register("before-send.s3.PutObject", refuse)
    digests = [blobs.put(b"one"), blobs.put(b"two")]
    assert [blobs.get(digest) for digest in digests] == [b"one", b"two"]
    assert len(refused) == 1


def test_entries_run_over_many_pages_and_skip_what_is_no_blob(s3_bucket, blobs):
    def small_pages(params, **_kwargs):
        params["MaxKeys"] = 3

    digests = blobs.put_many(b"%d" % number for number in range(10))
    blobs._client.meta.events.register("before-parameter-build.s3.ListObjectsV2", small_pages)
    for key in ("store/sha256/notes.txt", "store/readme", "elsewhere/sha256/aa/" + "a" * 64):
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=key, Body=b"x")
    s3_bucket.forget()
    assert sorted(entry.digest for entry in blobs.entries()) == sorted(digests)
    assert len(s3_bucket.requests("GET")) == 4


def test_two_prefixes_of_one_bucket_are_two_stores(s3_bucket):
    url = s3_bucket.server.url
    one = S3Blobs(f"s3://{s3_bucket.name}/one", endpoint_url=url)
    whole = S3Blobs(f"s3://{s3_bucket.name}", endpoint_url=url)
    digest = one.put(b"hello")
    assert whole.size(digest) is None
    with pytest.raises(NotFoundError, match=f"missing in s3://{s3_bucket.name}"):
        whole.get(digest)
    assert list(whole.entries()) == []


def test_a_download_to_a_file_takes_bounded_memory(s3_bucket, blobs):
    data = bytes(96 * MIB)
    arguments = [s3_bucket.location, s3_bucket.server.url, blobs.put(data)]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True
    )
    num_bytes, grown_kib = map(int, result.stdout.split())
    assert num_bytes == len(data)
    assert grown_kib < 32 * 1024


def test_an_object_over_the_limit_is_not_read(s3_bucket, blobs):
    digest = blobs.put(bytes(1000))
    tight = S3Blobs(s3_bucket.location, endpoint_url=s3_bucket.server.url, max_bytes=999)
    with pytest.raises(ArtefactTooLargeError, match="the limit is 999"):
        tight.get(digest)


def test_the_client_is_made_at_the_first_call():
    program = (
        "import sys; from adapters_store.blobs.s3 import S3Blobs; S3Blobs('s3://bucket/x');"
        "print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_without_boto3_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("adapters_store.blobs.s3.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs boto3") as caught:
        S3Blobs("s3://bucket/x")
    assert "patchbay[s3]" in caught.value.hint


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://my.bucket-1/a/b/", ("my.bucket-1", "a/b")),
    ],
)
def test_locations_name_a_bucket_and_a_prefix(location, expected):
    assert parse_location(location) == expected


@pytest.mark.parametrize(
    "location",
    ["s3://", "s3:///x", "s3://b", "s3://Bucket/x", "s3://bucket/a//b", "s3://bucket/x?y=1",
     "s3://key:secret@bucket/x", "https://bucket/x", "bucket/x"],
)  # fmt: skip
def test_other_locations_are_refused(location):
    with pytest.raises(UsageError, match="expected s3://bucket/prefix"):
        parse_location(location)
