"""Verification: read every stored byte again and say what no longer holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from adapters_store.blobs import Blobs
from adapters_store.errors import CorruptStoreError, InvalidArtefactError, NotFoundError
from adapters_store.fingerprint import content_digest
from adapters_store.manifest import Manifest, parse_manifest
from adapters_store.records import Finding, Problem, Version
from adapters_store.tensor_file import read_header


def verify_version(version: Version, blobs: Blobs) -> Iterator[Finding]:
    """Findings over a version's manifest, data and the presence of its bank, in that order."""
    manifest_bytes, finding = _read(version, blobs, "manifest", version.digest, None)
    if finding is not None:
        yield finding
    if version.bank is not None and blobs.size(version.bank) is None:
        message = f"the bank {version.bank} of {version.reference} is missing"
        yield Finding(version.reference, "bank", version.bank, "bank_missing", message)
    if manifest_bytes is None:
        return
    try:
        manifest = parse_manifest(manifest_bytes)
    except InvalidArtefactError as error:
        yield Finding(version.reference, "manifest", version.digest, "unreadable", error.message)
        return
    data, finding = _read(version, blobs, "data", manifest.data.digest, manifest.data.size_bytes)
    if finding is not None:
        yield finding
    if data is not None:
        yield from _check_content(version, manifest, data)


def _read(
    version: Version,
    blobs: Blobs,
    blob: Literal["manifest", "data"],
    digest: str,
    size_bytes: int | None,
) -> tuple[bytes | None, Finding | None]:
    found = blobs.size(digest)
    problem: Problem
    try:
        return blobs.get(digest), None
    except NotFoundError as error:
        problem, message = "missing", error.message
    except CorruptStoreError as error:
        is_short = found is not None and size_bytes is not None and found < size_bytes
        problem, message = ("truncated" if is_short else "altered"), error.message
        if is_short:
            message = f"blob {digest} is truncated: {found} of {size_bytes} bytes"
    return None, Finding(version.reference, blob, digest, problem, message)


def _check_content(version: Version, manifest: Manifest, data: bytes) -> Iterator[Finding]:
    try:
        found = content_digest(data, read_header(data))
    except InvalidArtefactError as error:
        yield Finding(version.reference, "data", manifest.data.digest, "unreadable", error.message)
        return
    if found != manifest.content_digest:
        message = f"content digest {found}; the manifest says {manifest.content_digest}"
        yield Finding(version.reference, "data", manifest.data.digest, "altered", message)
