"""What a store answers with: versions, alias events and findings, as plain frozen records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from adapters_store.ledger.events import Subject

if TYPE_CHECKING:
    from adapters_store.manifest import Kind, Manifest

Problem = Literal["missing", "truncated", "altered", "unreadable", "bank_missing", "forged"]


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version of a tenant's name.

    ``aliases`` are those that pointed here when it was read. Times are ISO 8601 in UTC, sizes are
    bytes. ``manifest`` is read from the store on first use.
    """

    tenant: str
    name: str
    number: int
    digest: str
    kind: Kind
    backbone: str
    bank: str | None
    data_bytes: int
    created_at: str
    actor: str
    aliases: tuple[str, ...]
    deleted_at: str | None = None
    deleted_by: str | None = None
    delete_reason: str | None = None
    purged_at: str | None = None
    read_manifest: Callable[[str], Manifest] | None = field(default=None, repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """``tenant/name``."""
        return f"{self.tenant}/{self.name}"

    @property
    def reference(self) -> str:
        """The pinned form ``tenant/name:7@sha256:<hex>``."""
        return f"{self.full_name}:{self.number}@{self.digest}"

    @property
    def subject(self) -> Subject:
        """What an event about this version is about."""
        return Subject(self.tenant, self.name, self.number, digest=self.digest)

    @property
    def is_deleted(self) -> bool:
        """True after a deletion that was not restored."""
        return self.deleted_at is not None

    @property
    def is_purged(self) -> bool:
        """True once a collection gave up the content of a deleted version."""
        return self.purged_at is not None

    @property
    def manifest(self) -> Manifest:
        """The artefact's manifest; raises CorruptStoreError where its blob is damaged."""
        if self.read_manifest is None:
            raise LookupError(f"{self.reference} was not read through a store")
        return self.read_manifest(self.digest)

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form of listings."""
        return {
            "tenant": self.tenant,
            "name": self.name,
            "version": self.number,
            "reference": self.reference,
            "digest": self.digest,
            "kind": self.kind,
            "backbone": self.backbone,
            "bank": self.bank,
            "data_bytes": self.data_bytes,
            "aliases": list(self.aliases),
            "created_at": self.created_at,
            "actor": self.actor,
            "deleted_at": self.deleted_at,
            "delete_reason": self.delete_reason,
            "purged_at": self.purged_at,
        }


@dataclass(frozen=True, slots=True)
class AliasEvent:
    """One move of an alias; ``from_version`` None is its birth, ``to_version`` None its removal.

    ``evidence`` are ids of the evaluations that the move was based on; ``sequence`` is the event's
    in the audit log.
    """

    tenant: str
    name: str
    alias: str
    from_version: int | None
    to_version: int | None
    actor: str
    reason: str
    at: str
    evidence: tuple[int, ...] = ()
    sequence: int = 0

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self) | {"evidence": list(self.evidence)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage: which version, which of its blobs, what is wrong with it."""

    reference: str
    blob: Literal["manifest", "data", "bank", "signature"]
    digest: str
    problem: Problem
    message: str

    def as_json(self) -> dict[str, str]:
        """The stable JSON form."""
        return {
            "reference": self.reference,
            "blob": self.blob,
            "digest": self.digest,
            "problem": self.problem,
            "message": self.message,
        }
