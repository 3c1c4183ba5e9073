"""The reading half of a store: references to versions, digests to manifests and tensors.

What only some calls need (pydantic, torch) is imported by those calls, so that listing is quick.
"""

from __future__ import annotations

import builtins
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from adapters_store.blobs import Blobs
from adapters_store.catalog import aliases as alias_rows
from adapters_store.catalog import backbones as backbone_rows
from adapters_store.catalog import history, listing, lookups
from adapters_store.catalog import versions as version_rows
from adapters_store.catalog.clock import moment
from adapters_store.catalog.database import Database
from adapters_store.catalog.schema import GENERATION
from adapters_store.catalog.tagged import list_tagged
from adapters_store.errors import (
    CorruptStoreError,
    DeletedError,
    NotFoundError,
    PatchbayError,
    UsageError,
)
from adapters_store.ledger.audit import Audit
from adapters_store.ledger.tags import parse_tag
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.names import Reference, parse_name, parsed
from adapters_store.records import AliasEvent, Finding, Version

if TYPE_CHECKING:
    import torch

    from adapters_store.artefact import Artefact
    from adapters_store.backbone import BackboneRecord
    from adapters_store.manifest import Kind, Manifest

_MAX_CACHED_MANIFESTS = 4096
_ARTEFACTS_AT_ONCE = 500


class StoreReader:
    """Everything that changes nothing. Safe for many threads and processes.

    Methods that take a reference accept its text or a parsed
    :class:`~adapters_store.names.Reference`; every error is typed. ``restore_window_s`` stands
    over the catalog's own restore window where it is given.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        limits: Limits = DEFAULT_LIMITS,
        restore_window_s: float | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._limits = limits
        self._restore_window_s = restore_window_s
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the catalog's connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def audit(self) -> Audit:
        """The log of every change."""
        return Audit(self._database)

    def generation(self) -> int:
        """A counter that grows with every change of names, versions or aliases."""
        with self._database.read() as connection:
            return int(connection.execute(GENERATION).scalar_one())

    def backbones(self) -> builtins.list[BackboneRecord]:
        """Every registered backbone, by name."""
        with self._database.read() as connection:
            return backbone_rows.list_all(connection)

    def resolve(self, reference: str | Reference, *, at: str | datetime | None = None) -> Version:
        """The live version that a reference means; raises NotFoundError or DeletedError.

        With ``at``, an ISO time (UTC where it names no offset) or a datetime, the version that it
        meant then, which may be deleted by now; NotFoundError where it meant nothing.
        """
        target = parsed(reference)
        with self._database.read() as connection:
            if at is None:
                return self._bind(version_rows.resolve(connection, target))
            return self._bind(history.resolve_at(connection, target, moment(at)))

    def list(
        self,
        tenant: str | None = None,
        kind: Kind | None = None,
        limit: int = 100,
        after: str | None = None,
        tag: str | None = None,
    ) -> builtins.list[Version]:
        """The newest live version of each name, by tenant and name; ``after`` continues a page.

        ``after`` is the ``tenant/name`` that the page before ended with. ``tag`` keeps those that
        carry it, or whose listed version does: ``status=reviewed``, or ``status`` for any value.
        """
        _check_limit(limit)
        start = None if after is None else parse_name(after)
        with self._database.read() as connection:
            if tag is None:
                found = listing.list_names(
                    connection, tenant=tenant, kind=kind, limit=limit, after=start
                )
            else:
                key, value = parse_tag(tag)
                found = list_tagged(
                    connection, key, value, tenant=tenant, kind=kind, limit=limit, after=start
                )
        return [self._bind(version) for version in found]

    def versions(
        self, name: str, limit: int | None = None, before: int | None = None
    ) -> builtins.list[Version]:
        """Every version of a name, deleted ones too, newest first; raises NotFoundError.

        ``limit`` bounds the page and ``before`` continues it: the number that the page before
        ended with.
        """
        _check_limit(limit)
        with self._database.read() as connection:
            found = version_rows.list_versions(
                connection, parse_name(name), limit=limit, before=before
            )
        return [self._bind(version) for version in found]

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a name with its version number; raises NotFoundError."""
        with self._database.read() as connection:
            return alias_rows.read_all(connection, parse_name(name))

    def alias_history(self, name: str) -> builtins.list[AliasEvent]:
        """Every move of a name's aliases, oldest first; raises NotFoundError."""
        with self._database.read() as connection:
            return alias_rows.history(connection, parse_name(name))

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artefact digest.

        Raises NotFoundError, DeletedError once it was collected, or CorruptStoreError.
        """
        with self._lock:
            cached = self._manifests.get(digest)
            if cached is not None:
                self._manifests.move_to_end(digest)
                return cached
        from adapters_store.manifest import parse_manifest

        try:
            data = self._blobs.get(digest)
        except NotFoundError as error:
            raise self._missing(digest, "manifest") from error
        manifest = parse_manifest(data, limits=self._limits)
        with self._lock:
            self._manifests[digest] = manifest
            while len(self._manifests) > _MAX_CACHED_MANIFESTS:
                self._manifests.popitem(last=False)
        return manifest

    def data(self, digest: str) -> bytes:
        """The verified safetensors blob of an artefact digest; raises as ``manifest``."""
        manifest = self.manifest(digest)
        try:
            return self._blobs.get(manifest.data.digest)
        except NotFoundError as error:
            raise self._missing(digest, "data") from error

    def artefact(self, digest: str) -> Artefact:
        """Manifest and data of an artefact digest; raises as ``manifest``."""
        from adapters_store.artefact import Artefact

        return Artefact(self.manifest(digest), self.data(digest))

    def tensors(self, digest: str) -> dict[str, torch.Tensor]:
        """The tensors of an artefact digest on the CPU, in their stored dtypes."""
        from adapters_store.artefact import load_tensors

        return load_tensors(self.data(digest))

    def verify(self, reference: str | Reference | None = None) -> builtins.list[Finding]:
        """Read and hash every stored byte of one reference, or of all versions; empty is sound.

        A bare name stands for all its versions, deleted ones too. Each artefact is read once, from
        where it is stored and not from a cache.
        Raises NotFoundError for an unknown reference.
        """
        from adapters_store.verify import verify_version

        findings: builtins.list[Finding] = []
        for version in self._to_verify(reference):
            found = builtins.list(verify_version(version, self._blobs.origin))
            if found and not self._is_collected(version.digest):
                findings.extend(found)
        return findings

    def _is_collected(self, digest: str) -> bool:
        """True where a collection gave the content up, perhaps while it was being read."""
        with self._database.read() as connection:
            return version_rows.collected_at(connection, digest) is not None

    def _missing(self, digest: str, what: str) -> PatchbayError:
        """Why a blob of an artefact is not there; raises NotFoundError for an unknown artefact."""
        with self._database.read() as connection:
            at = version_rows.collected_at(connection, digest)
        if at is not None:
            return DeletedError(f"artefact {digest} was deleted, and collected at {at}")
        return CorruptStoreError(f"the {what} of artefact {digest} is missing")

    def _to_verify(self, reference: str | Reference | None) -> Iterable[Version]:
        """One version of each artefact with content that a reference, or any, stands for."""
        if reference is None:
            return self._everything()
        target = parsed(reference)
        with self._database.read() as connection:
            if target.is_bare:
                found = version_rows.list_versions(connection, target)
                # The newest version of an artefact stands for it.
                kept = reversed([version for version in found if not version.is_purged])
                return {version.digest: version for version in kept}.values()
            version = version_rows.find(connection, target)
            if version.is_purged:
                raise version_rows.collected_error(version)
            return [version]

    def _everything(self) -> Iterator[Version]:
        """One version of each artefact that has its content, a bounded number in memory."""
        after = ""
        while True:
            with self._database.read() as connection:
                digests = listing.list_artefacts(connection, limit=_ARTEFACTS_AT_ONCE, after=after)
                found = lookups.holders(connection, digests)
            if not digests:
                return
            yield from found.values()
            after = digests[-1]

    def _bind(self, version: Version) -> Version:
        return dataclasses.replace(version, read_manifest=self.manifest)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; expected at least 1", param="limit")
