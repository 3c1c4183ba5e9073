"""Blob stores: immutable bytes by digest. One file each, found through a lazy table."""

from __future__ import annotations

from adapters_store.blobs.protocol import RENEW_AFTER_S, BlobEntry, Blobs

BLOBS: dict[str, str] = {
    "cached": "adapters_store.blobs.cached:CachedBlobs",
    "local": "adapters_store.blobs.local:LocalBlobs",
    "memory": "adapters_store.blobs.memory:MemoryBlobs",
    "s3": "adapters_store.blobs.s3:S3Blobs",
}

__all__ = ["BLOBS", "RENEW_AFTER_S", "BlobEntry", "Blobs"]
