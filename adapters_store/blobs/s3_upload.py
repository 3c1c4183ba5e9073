"""Large objects in parts: an interrupted upload goes on with the parts that arrived."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters_store.blobs.batches import side_by_side
from adapters_store.limits import MIB

MIN_PART_BYTES = 5 * MIB
MAX_PARTS = 10_000
_PART_THREADS = 4
_UPLOAD_IS_GONE = frozenset({"NoSuchUpload", "InvalidPart"})


@dataclass(frozen=True, slots=True)
class Upload:
    """One object's parts: ``data`` is cut every ``part_bytes``, the same way at every attempt."""

    client: Any
    bucket: str
    key: str
    data: bytes
    part_bytes: int

    @property
    def num_parts(self) -> int:
        """How many parts the data has; at least one."""
        return max(1, -(-len(self.data) // self.part_bytes))

    def part(self, number: int) -> memoryview:
        """The bytes of part ``number``, counted from 1."""
        start = (number - 1) * self.part_bytes
        return memoryview(self.data)[start : start + self.part_bytes]

    def send(self) -> None:
        """Send the parts that are not there yet and complete the object.

        When this raises, the upload stays open for the next attempt to continue.
        """
        upload_id = self._find_open() or self._begin()
        arrived = self._arrived(upload_id)
        missing = [number for number in range(1, self.num_parts + 1) if number not in arrived]

        def send_part(number: int) -> dict[str, Any]:
            return self._send_part(upload_id, number)

        for sent in side_by_side(send_part, missing, num_threads=_PART_THREADS):
            arrived[sent["PartNumber"]] = sent
        self.client.complete_multipart_upload(
            Bucket=self.bucket,
            Key=self.key,
            UploadId=upload_id,
            MultipartUpload={"Parts": [arrived[number] for number in sorted(arrived)]},
        )

    def send_beside_others(self, is_there: Callable[[], bool]) -> None:
        """As ``send``, where other writers of the same object share the open upload.

        They may have completed it, which ``is_there`` tells, or given it up: then send anew.
        """
        from botocore.exceptions import ClientError

        try:
            self.send()
        except ClientError as error:
            if is_there():
                return
            if error.response.get("Error", {}).get("Code") not in _UPLOAD_IS_GONE:
                raise
            self.send()

    def checksum(self) -> str:
        """The checksum that S3 keeps for the completed object, without its ``-<parts>`` suffix."""
        digests = [hashlib.sha256(self.part(n + 1)).digest() for n in range(self.num_parts)]
        return encoded(hashlib.sha256(b"".join(digests)).digest())

    def _find_open(self) -> str | None:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.key
        )
        found = [
            upload
            for page in pages
            for upload in page.get("Uploads", ())
            if upload["Key"] == self.key and upload.get("ChecksumAlgorithm", "SHA256") == "SHA256"
        ]
        newest = max(found, key=lambda upload: upload["Initiated"], default=None)
        return None if newest is None else str(newest["UploadId"])

    def _begin(self) -> str:
        begun = self.client.create_multipart_upload(
            Bucket=self.bucket, Key=self.key, ChecksumAlgorithm="SHA256"
        )
        return str(begun["UploadId"])

    def _arrived(self, upload_id: str) -> dict[int, dict[str, Any]]:
        """The parts of an open upload that equal ours, as the completion names them."""
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=self.key, UploadId=upload_id
        )
        listed = [part for page in pages for part in page.get("Parts", ())]
        return {
            part["PartNumber"]: self._named(part["PartNumber"], part["ETag"])
            for part in listed
            if part["PartNumber"] <= self.num_parts and self._equals(part)
        }

    def _equals(self, listed: dict[str, Any]) -> bool:
        ours = self.part(listed["PartNumber"])
        if listed["Size"] != len(ours):
            return False
        checksum = listed.get("ChecksumSHA256")
        if checksum is not None:
            return bool(checksum == encoded(hashlib.sha256(ours).digest()))
        # Without a checksum the ETag tells: the MD5 of the part, unless the bucket has its own key.
        return bool(
            listed["ETag"].strip('"') == hashlib.md5(ours, usedforsecurity=False).hexdigest()
        )

    def _send_part(self, upload_id: str, number: int) -> dict[str, Any]:
        body = self.part(number).tobytes()
        sent = self.client.upload_part(
            Bucket=self.bucket,
            Key=self.key,
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ChecksumSHA256=encoded(hashlib.sha256(body).digest()),
        )
        return self._named(number, sent["ETag"])

    def _named(self, number: int, etag: str) -> dict[str, Any]:
        checksum = encoded(hashlib.sha256(self.part(number)).digest())
        return {"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum}


def encoded(digest: bytes) -> str:
    """A checksum as S3 writes it: base64."""
    return base64.b64encode(digest).decode()
