"""The blob stores that suites run over: one empty store per test and row of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters_store.blobs import BLOBS, Blobs
from adapters_store.blobs.local import LocalBlobs
from adapters_store.lazy import resolve

# The rows whose blobs outlive their process, without a cache in front.
every_durable_blobs = pytest.mark.parametrize("blobs_row", ["local", "s3"])


def new_blobs(row: str, request: pytest.FixtureRequest, folder: Path, *, max_bytes: int) -> Blobs:
    """A new blob store of that row of the table."""
    blob_store = resolve(BLOBS, row, "blob store")
    if row == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        made = blob_store(bucket.location, endpoint_url=bucket.server.url, max_bytes=max_bytes)
    elif row == "local":
        made = blob_store(folder / "blobs", max_bytes=max_bytes)
    elif row == "cached":
        origin = LocalBlobs(folder / "blobs", max_bytes=max_bytes)
        made = blob_store(origin, folder / "cache", max_bytes=10 * max_bytes)
    else:
        made = blob_store(max_bytes=max_bytes)
    checked: Blobs = made
    return checked
