"""Blobs in S3 or an object store that speaks its protocol: ``<prefix>/sha256/ab/<hex>``."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import IO, Any

from adapters_store.blobs.batches import batches, side_by_side
from adapters_store.blobs.protocol import RENEW_AFTER_S, BlobEntry, check_digest, check_size
from adapters_store.blobs.s3_client import (
    NUM_ATTEMPTS,
    make_client,
    parse_location,
    read_object,
)
from adapters_store.blobs.s3_errors import code_of, status_of, typed_errors
from adapters_store.blobs.s3_upload import MAX_PARTS, MIN_PART_BYTES, Upload, encoded
from adapters_store.canonical import digest_of
from adapters_store.errors import (
    CorruptStoreError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from adapters_store.limits import DEFAULT_LIMITS, GIB, MIB
from adapters_store.names import is_digest

PART_BYTES = 16 * MIB
_MAX_COPY_BYTES = 5 * GIB
_PUT_THREADS = 16
# Answers after which another writer or a collector has changed the object: look again.
_LOST_RACE = frozenset(
    {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "NoSuchKey"}
)


class S3Blobs:
    """Objects under a bucket and prefix. The client is made at the first call, by boto3.

    Credentials are boto3's own: environment, profile or role. ``endpoint_url`` names another
    service than AWS. Blobs over ``part_bytes`` (at least 5 MiB) are uploaded in parts. Raises
    UsageError for a location that is no ``s3://bucket/prefix``.
    """

    def __init__(
        self,
        location: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        max_bytes: int = DEFAULT_LIMITS.max_data_bytes,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.bucket, self.prefix = parse_location(location)
        self.location = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self.max_bytes = max_bytes
        self._part_bytes = max(part_bytes, MIN_PART_BYTES)
        self._endpoint_url, self._region = endpoint_url, region
        self._folder = f"{self.prefix}/sha256/" if self.prefix else "sha256/"
        self._clients: dict[bool, Any] = {}
        self._has_bucket = False
        self._is_conditional = True
        self._lock = threading.Lock()
        if find_spec("boto3") is None:
            raise UsageError(
                f"{self.location} needs boto3, which is not installed",
                hint="Install it with `pip install 'patchbay[s3]'`.",
            )

    @property
    def origin(self) -> S3Blobs:
        """This store itself."""
        return self

    def key(self, digest: str) -> str:
        """The object's key for a digest."""
        name = check_digest(digest)
        return f"{self._folder}{name[:2]}/{name}"

    def put(self, data: bytes) -> str:
        """Look for a sound copy, else upload; the service checks the sha256 that is sent along.

        An object without a recorded sha256 counts as sound only after it was read.
        """
        from botocore.exceptions import ClientError

        check_size(len(data), self.max_bytes)
        digest = digest_of(data)
        with typed_errors(self.location):
            for _ in range(NUM_ATTEMPTS):
                try:
                    found = self._head(digest)
                    if found is not None and self._is_sound(found, digest, data):
                        self._renew(found, digest, data)
                    else:
                        self._send(digest, data, is_new=found is None)
                    return digest
                except ClientError as error:
                    if code_of(error) == "NotImplemented" and self._is_conditional:
                        self._is_conditional = False
                    elif code_of(error) not in _LOST_RACE:
                        raise
        raise UnavailableError(f"{self.location}: blob {digest} keeps changing while it is put")

    def put_many(self, items: Iterable[bytes]) -> list[str]:
        """``put`` sixteen side by side."""
        digests: list[str] = []
        for batch in batches(items):
            digests += side_by_side(self.put, batch, num_threads=_PUT_THREADS)
        return digests

    def get(self, digest: str) -> bytes:
        """Download and verify; a connection that breaks is taken up where it broke."""
        buffer = io.BytesIO()
        self.copy_to(digest, buffer)
        return buffer.getvalue()

    def copy_to(self, digest: str, target: IO[bytes]) -> int:
        """Download, hash and write piece by piece."""
        from botocore.exceptions import ClientError

        hasher, num_bytes = hashlib.sha256(), 0
        with typed_errors(self.location):
            try:
                for piece in self._pieces(digest):
                    hasher.update(piece)
                    num_bytes += target.write(piece)
            except ClientError as error:
                if code_of(error) != "NoSuchKey":
                    raise
                raise NotFoundError(f"blob {digest} is missing in {self.location}") from error
        found = f"sha256:{hasher.hexdigest()}"
        if found != digest:
            raise CorruptStoreError(
                f"blob {digest} in {self.location} is damaged: its {num_bytes} bytes give {found}"
            )
        return num_bytes

    def size(self, digest: str) -> int | None:
        """The object's size in bytes, or None if there is none."""
        with typed_errors(self.location):
            found = self._head(digest)
            return None if found is None else int(found["ContentLength"])

    def delete(self, digest: str, *, put_before_s: float | None = None) -> bool:
        """Look at the object's time, then delete it; a put between these two requests is lost.

        A publication looks after its blobs where a collection ran meanwhile. Gives up in a minute.
        """
        with typed_errors(self.location):
            found = self._head(digest, is_brief=True)
            if found is None:
                return False
            put_at_s = found["LastModified"].timestamp()
            if put_before_s is not None and put_at_s >= put_before_s:
                return False
            client = self._client_for(is_brief=True)
            client.delete_object(Bucket=self.bucket, Key=self.key(digest))
        return True

    def entries(self) -> Iterator[BlobEntry]:
        """Every object under the prefix, a page of a thousand at a time."""
        for listed in self._listed("list_objects_v2", "Contents"):
            digest = f"sha256:{listed['Key'].rpartition('/')[2]}"
            if is_digest(digest) and listed["Key"] == self.key(digest):
                yield BlobEntry(digest, listed["Size"], listed["LastModified"].timestamp())

    def uploads(self, older_than_s: float, *, remove: bool = True) -> int:
        """Uploads in parts that were never completed; their parts cost storage until then."""
        from botocore.exceptions import ClientError

        oldest_s = time.time() - older_than_s
        num_found = 0
        for upload in self._listed("list_multipart_uploads", "Uploads"):
            if upload["Initiated"].timestamp() >= oldest_s:
                continue
            num_found += 1
            if remove:
                with typed_errors(self.location):
                    try:
                        self._client.abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                    except ClientError as error:
                        if code_of(error) != "NoSuchUpload":
                            raise
        return num_found

    @property
    def _client(self) -> Any:
        return self._client_for(is_brief=False)

    def _client_for(self, *, is_brief: bool) -> Any:
        with self._lock:
            if is_brief not in self._clients:
                client = make_client(self._endpoint_url, self._region, is_brief=is_brief)
                self._clients[is_brief] = client
            return self._clients[is_brief]

    def _head(self, digest: str, *, is_brief: bool = False) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        client = self._client_for(is_brief=is_brief)
        try:
            found: dict[str, Any] = client.head_object(
                Bucket=self.bucket, Key=self.key(digest), ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if status_of(error) != 404:
                raise
            self._check_bucket()
            return None
        return found

    def _check_bucket(self) -> None:
        """Tell a missing bucket from a missing object, which a HEAD does not: once per store."""
        if not self._has_bucket:
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._folder, MaxKeys=1)
            self._has_bucket = True

    def _is_sound(self, found: dict[str, Any], digest: str, data: bytes) -> bool:
        if found["ContentLength"] != len(data):
            return False
        recorded = found.get("ChecksumSHA256")
        if recorded is None:
            hasher = hashlib.sha256()
            for piece in self._pieces(digest):
                hasher.update(piece)
            return f"sha256:{hasher.hexdigest()}" == digest
        checksum = str(recorded).partition("-")[0]
        return checksum == _checksum(digest) or checksum == self._upload(digest, data).checksum()

    def _renew(self, found: dict[str, Any], digest: str, data: bytes) -> None:
        """Let an object that is there count as put now; the service copies it onto itself."""
        sent_at = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        now_s = parsedate_to_datetime(sent_at).timestamp() if sent_at else time.time()
        if now_s - found["LastModified"].timestamp() < RENEW_AFTER_S / 2:
            return
        if len(data) > _MAX_COPY_BYTES:
            self._send(digest, data, is_new=False)
            return
        key = self.key(digest)
        self._client.copy_object(
            Bucket=self.bucket,
            Key=key,
            CopySource={"Bucket": self.bucket, "Key": key},
            MetadataDirective="REPLACE",
            ChecksumAlgorithm="SHA256",
        )

    def _send(self, digest: str, data: bytes, *, is_new: bool) -> None:
        if len(data) > self._part_bytes:
            self._send_parts(digest, data)
            return
        # A copy that is damaged is overwritten; only a new one may lose against another writer.
        condition = {"IfNoneMatch": "*"} if is_new and self._is_conditional else {}
        self._client.put_object(
            Bucket=self.bucket,
            Key=self.key(digest),
            Body=data,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=_checksum(digest),
            **condition,
        )

    def _send_parts(self, digest: str, data: bytes) -> None:
        def is_there() -> bool:
            found = self._head(digest)
            return found is not None and self._is_sound(found, digest, data)

        self._upload(digest, data).send_beside_others(is_there)

    def _upload(self, digest: str, data: bytes) -> Upload:
        part_bytes = max(self._part_bytes, -(-len(data) // MAX_PARTS))
        return Upload(self._client, self.bucket, self.key(digest), data, part_bytes)

    def _pieces(self, digest: str) -> Iterator[bytes]:
        return read_object(self._client, self.bucket, self.key(digest), self.max_bytes)

    def _listed(self, operation: str, key: str) -> Iterator[dict[str, Any]]:
        with typed_errors(self.location):
            pages = self._client.get_paginator(operation).paginate(
                Bucket=self.bucket, Prefix=self._folder
            )
            for page in pages:
                yield from page.get(key, ())


def _checksum(digest: str) -> str:
    return encoded(bytes.fromhex(digest.removeprefix("sha256:")))
