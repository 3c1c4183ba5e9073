"""The half of a store that remembers: tags, pins, leases, webhooks, evaluations, lineage."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from adapters_store.catalog import lineage as lineage_rows
from adapters_store.catalog import versions as version_rows
from adapters_store.errors import DeletedError
from adapters_store.ledger.ancestry import LINEAGE_KEY, Ancestry
from adapters_store.ledger.collection import Collection
from adapters_store.ledger.evaluations import Evaluation, EvaluationRecord, Evaluations
from adapters_store.ledger.leases import Leases
from adapters_store.ledger.pins import Pin, Pins
from adapters_store.ledger.retention import DEFAULT_UPLOAD_AGE_S, Retention
from adapters_store.ledger.signatures import Signatures
from adapters_store.ledger.tags import Tags
from adapters_store.names import Reference, parsed
from adapters_store.reader import StoreReader
from adapters_store.records import Finding

if TYPE_CHECKING:
    from adapters_store.signing import SignatureRecord
    from adapters_store.webhooks.registry import Webhooks


class LedgerStore(StoreReader):
    """What :class:`~adapters_store.store.Store` offers beside versions and aliases."""

    @cached_property
    def tags(self) -> Tags:
        """Small words on names and versions."""
        return Tags(self._database)

    @cached_property
    def pins(self) -> Pins:
        """Content that is kept for as long as somebody wants it."""
        return Pins(self._database)

    @cached_property
    def leases(self) -> Leases:
        """What running servers have in memory."""
        return Leases(self._database)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Who is told of which events."""
        from adapters_store.webhooks.registry import Webhooks

        return Webhooks(self._database)

    @cached_property
    def retention(self) -> Retention:
        """How long deletions can be undone."""
        return Retention(self._database, self._blobs, self._restore_window_s)

    def collect(
        self,
        *,
        dry_run: bool = False,
        restore_window_s: float | None = None,
        upload_age_s: float = DEFAULT_UPLOAD_AGE_S,
        actor: str = "local",
    ) -> Collection:
        """Give up what was deleted before the restore window and remove what nothing needs.

        See :meth:`~adapters_store.ledger.retention.Retention.collect`.
        """
        return self.retention.collect(
            dry_run=dry_run,
            restore_window_s=restore_window_s,
            upload_age_s=upload_age_s,
            actor=actor,
        )

    @cached_property
    def signatures(self) -> Signatures:
        """Who vouches for which artefact."""
        return Signatures(self._database)

    def verify(self, reference: str | Reference | None = None) -> builtins.list[Finding]:
        """What the reader's ``verify`` finds, and signatures that do not fit their artefact."""
        findings = super().verify(reference)
        for one in self._signatures_of(reference):
            if not one.signature.is_valid(one.digest):
                message = f"the signature by key {one.signature.key.id} does not fit the artefact"
                findings.append(Finding(one.digest, "signature", one.digest, "forged", message))
        return findings

    def _signatures_of(self, reference: str | Reference | None) -> Iterator[SignatureRecord]:
        if reference is None:
            yield from self.signatures.walk()
        else:
            for digest in sorted(version.digest for version in self._to_verify(reference)):
                yield from self.signatures.list(digest)

    def pin(
        self, reference: str | Reference, owner: str, reason: str = "", *, actor: str = "local"
    ) -> Pin:
        """Keep the content of a version until the owner unpins it; raises as ``pins.add``."""
        return self.pins.add(reference, owner, reason, actor=actor)

    def unpin(self, reference: str | Reference, owner: str, *, actor: str = "local") -> None:
        """Remove a pin, by reference or artefact digest; raises NotFoundError."""
        self.pins.remove(reference, owner, actor=actor)

    def add_evaluation(
        self, reference: str | Reference, evaluation: Evaluation, *, actor: str = "local"
    ) -> EvaluationRecord:
        """Add a measured number to a live version; raises NotFoundError or DeletedError."""
        return Evaluations(self._database).add(reference, evaluation, actor=actor)

    def evaluations(self, reference: str | Reference) -> builtins.list[EvaluationRecord]:
        """The measured numbers of one version, oldest first; raises NotFoundError."""
        return Evaluations(self._database).list(reference)

    def lineage(self, reference: str | Reference, *, tenant: str | None = None) -> Ancestry:
        """What a version was made from and what was made from it; raises NotFoundError.

        With ``tenant``, other tenants' versions are not named and their artefacts not listed as
        children.
        """
        with self._database.read() as connection:
            found = version_rows.find(connection, parsed(reference))
            above, is_cut_above = lineage_rows.ancestors(connection, found.digest, tenant)
            below, is_cut_below = lineage_rows.children(connection, found.digest, tenant)
        try:
            stated = self.manifest(found.digest).provenance.get(LINEAGE_KEY)
        except DeletedError:
            stated = None
        return Ancestry(
            reference=found.reference,
            digest=found.digest,
            bank=found.bank,
            stated=stated if isinstance(stated, dict) else None,
            ancestors=tuple(above),
            children=tuple(below),
            is_cut=is_cut_above or is_cut_below,
        )
