"""Reaching an object store: its location, a boto3 client with bounded retries, a steady read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from adapters_store.blobs.protocol import check_size
from adapters_store.blobs.s3_errors import code_of
from adapters_store.errors import UnavailableError, UsageError
from adapters_store.limits import MIB

NUM_ATTEMPTS = 4
_CHUNK_BYTES = MIB
_NUM_CONNECTIONS = 64
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5.0, 60.0
# Two requests that each take every attempt end within the minute after which PostgreSQL ends a
# silent session, and gives away the lock under which blobs are deleted.
_BRIEF_ATTEMPTS, _BRIEF_READ_TIMEOUT_S = 2, 8.0
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[^?#]*))?")


def parse_location(location: str) -> tuple[str, str]:
    """Bucket and prefix (without slashes at its ends) of ``s3://bucket/prefix``.

    Raises UsageError for anything else.
    """
    found = _URL.fullmatch(location)
    prefix = (found["prefix"] or "").strip("/") if found else ""
    if found is None or "//" in prefix:
        raise UsageError(f"blob location {location!r}; expected s3://bucket/prefix")
    return found["bucket"], prefix


def make_client(endpoint_url: str | None, region: str | None, *, is_brief: bool = False) -> Any:
    """A boto3 client for S3 that may be shared by threads; raises UsageError for a bad endpoint.

    ``endpoint_url`` names another service than AWS and turns on path-style addressing. With
    ``is_brief`` a request gives up within half a minute.
    """
    import boto3
    from botocore.config import Config

    num_attempts = _BRIEF_ATTEMPTS if is_brief else NUM_ATTEMPTS
    config = Config(
        retries={"mode": "standard", "total_max_attempts": num_attempts},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_BRIEF_READ_TIMEOUT_S if is_brief else _READ_TIMEOUT_S,
        max_pool_connections=_NUM_CONNECTIONS,
        # A sha256 of our own goes along and is checked on reading; not every service knows more.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint_url else {},
    )
    # A session of its own: boto3's default session is not safe for threads.
    session = boto3.session.Session()
    try:
        return session.client(
            "s3",
            region_name=region or ("us-east-1" if endpoint_url else None),
            endpoint_url=endpoint_url,
            config=config,
        )
    except ValueError as error:
        raise UsageError(f"s3.endpoint_url {endpoint_url!r} cannot be used: {error}") from error


def read_object(client: Any, bucket: str, key: str, max_bytes: int) -> Iterator[bytes]:
    """The object's bytes in pieces of at most 1 MiB; goes on where a connection broke.

    Raises ArtefactTooLargeError before anything is read, UnavailableError where the object was
    replaced meanwhile, and botocore's errors.
    """
    from botocore import exceptions as boto

    offset = 0
    condition: dict[str, str] = {}
    for attempt in range(1, NUM_ATTEMPTS + 1):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, **condition)
        except boto.ClientError as error:
            if condition and code_of(error) in ("PreconditionFailed", "InvalidRange"):
                raise UnavailableError(f"{key} in {bucket} changed while it was read") from error
            raise
        with closing(answer["Body"]) as body:
            check_size(offset + answer["ContentLength"], max_bytes)
            try:
                for piece in body.iter_chunks(_CHUNK_BYTES):
                    offset += len(piece)
                    yield piece
                return
            except (boto.HTTPClientError, boto.IncompleteReadError):
                if attempt == NUM_ATTEMPTS:
                    raise
        if offset:
            condition = {"Range": f"bytes={offset}-", "IfMatch": answer["ETag"]}
