"""``s3://bucket/prefix``: an adapter in an S3 bucket, read in ranges.

Credentials, region and endpoint are those of boto3's own settings (``AWS_ACCESS_KEY_ID``,
``AWS_PROFILE``, ``AWS_REGION``, ``AWS_ENDPOINT_URL_S3`` and so on).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapters_store.errors import (
    ArtefactTooLargeError,
    ForbiddenError,
    InvalidArtefactError,
    NotFoundError,
    PatchbayError,
    UnavailableError,
    UsageError,
)
from adapters_store.formats.source import MAX_FILES
from adapters_store.formats.sources.refusals import checked_name, forbidden, is_hidden

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

MAX_LISTED = 10_000
_HINT = "Give the prefix of the adapter alone."
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_REFUSED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


def open_s3(text: str, roots: Sequence[str] | None) -> S3Source:
    """The objects below a prefix; roots are ``s3://bucket`` or ``s3://bucket/prefix``."""
    bucket, prefix = _parse(text)
    if roots is not None:
        allowed = [_parse(root) for root in roots if root.startswith("s3://")]
        if not any(bucket == b and _is_below(prefix, p) for b, p in allowed):
            raise forbidden(text)
    return S3Source(bucket, prefix, text, _client())


class S3Source:
    """The objects below one prefix, each pinned to the ETag that it had when it was listed."""

    revision = ""

    def __init__(self, bucket: str, prefix: str, location: str, client: Any) -> None:
        self._bucket, self._location, self._client = bucket, location, client
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def location(self) -> str:
        """The address as it was given."""
        return self._location

    def sizes(self) -> Mapping[str, int]:
        """Every object below the prefix, three levels deep."""
        return {name: size for name, (size, _) in self._objects.items()}

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)`` of an object that ``sizes`` lists."""
        if name not in self._objects:
            raise NotFoundError(f"{self.location} has no file {name!r}")
        if begin >= end:
            return b""
        with self._typed(name):
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Range=f"bytes={begin}-{end - 1}",
                IfMatch=self._objects[name][1],
            )
            data: bytes = answer["Body"].read(end - begin + 1)
        if len(data) != end - begin:
            raise InvalidArtefactError(
                f"{name!r} in {self.location} gave {len(data)} bytes; expected {end - begin}"
            )
        return data

    @cached_property
    def _objects(self) -> dict[str, tuple[int, str]]:
        """Size and ETag of every object by its name below the prefix."""
        found: dict[str, tuple[int, str]] = {}
        num_listed = 0
        with self._typed(""):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                num_listed += page.get("KeyCount", 0)
                if num_listed > MAX_LISTED:
                    raise ArtefactTooLargeError(
                        f"{self.location} lists more than {MAX_LISTED} objects", hint=_HINT
                    )
                for item in page.get("Contents", ()):
                    name = item["Key"][len(self._prefix) :]
                    if not name or name.endswith("/"):
                        continue
                    if is_hidden(checked_name(name, self.location)):
                        continue
                    found[name] = (item["Size"], item["ETag"])
                    if len(found) > MAX_FILES:
                        raise ArtefactTooLargeError(
                            f"{self.location} holds more than {MAX_FILES} files", hint=_HINT
                        )
        if not found:
            raise NotFoundError(
                f"no adapter at {self.location}: the prefix holds no objects",
                hint="Give the prefix that holds the adapter's configuration and weights.",
            )
        return found

    @contextmanager
    def _typed(self, name: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"{name!r} in {self.location}" if name else self.location
        try:
            yield
        except ClientError as error:
            raise _as_typed(error, where) from error
        except BotoCoreError as error:
            raise UnavailableError(
                f"cannot read {where}: {error}",
                hint="Check the endpoint and the credentials (AWS_* variables or a profile).",
            ) from error


def _as_typed(error: ClientError, where: str) -> PatchbayError:
    code = error.response.get("Error", {}).get("Code", "")
    if code in _ABSENT:
        return NotFoundError(f"{where} does not exist")
    if code in _REFUSED:
        return ForbiddenError(f"reading {where} is not allowed: {code}", hint="Check the policy.")
    if code in ("412", "PreconditionFailed"):
        return InvalidArtefactError(f"{where} changed while it was read")
    return UnavailableError(f"cannot read {where}: {code or error}")


def _parse(text: str) -> tuple[str, str]:
    """Bucket and prefix without slashes around it."""
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"source {text[:200]!r}; expected s3://bucket/prefix", param="source")
    prefix = prefix.rstrip("/")
    return bucket, checked_name(prefix, text) if prefix else ""


def _is_below(prefix: str, root: str) -> bool:
    return not root or prefix == root or prefix.startswith(f"{root}/")


def _client() -> Any:
    try:
        from adapters_store.blobs.s3_client import make_client

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return make_client(endpoint, os.environ.get("AWS_REGION"))
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "reading s3:// needs the Python package boto3",
            hint="Install Patchbay with its extra: pip install 'patchbay[s3]'.",
        ) from error
