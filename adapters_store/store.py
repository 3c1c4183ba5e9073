"""The store: a catalog and blobs, shared by any number of processes.

Publication order is data blob, manifest blob, one catalog transaction: nothing is visible before
everything is durable, and a refused artefact leaves nothing behind.
"""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from adapters_store.batches import in_chunks
from adapters_store.catalog import aliases as alias_rows
from adapters_store.catalog import backbones as backbone_rows
from adapters_store.catalog import deletion, publishing
from adapters_store.catalog import versions as version_rows
from adapters_store.catalog.journal import Journal, journal
from adapters_store.catalog.schema import bump_generation
from adapters_store.errors import IncompatibleError
from adapters_store.ledger.collecting import collections_so_far, may_have_lost_blobs
from adapters_store.ledger.evaluations import check_evidence
from adapters_store.ledger.facade import LedgerStore
from adapters_store.ledger.lost_blobs import put_lost_blobs
from adapters_store.ledger.signatures import keep as keep_signatures
from adapters_store.limits import Limits
from adapters_store.location import find_config, open_parts
from adapters_store.names import (
    DEFAULT_ALIAS,
    Reference,
    check_alias,
    check_name,
    parse_name,
    parsed,
)
from adapters_store.records import Version

if TYPE_CHECKING:
    from adapters_store.artefact import Artefact
    from adapters_store.backbone import Backbone, BackboneRecord
    from adapters_store.manifest import Manifest
    from adapters_store.signing import Signature

DAY_S = 86400.0


class Store(LedgerStore):
    """Artefacts by digest, versions by name. Safe for many threads and processes."""

    @classmethod
    def open(
        cls, location: str | Path, *, create: bool = True, limits: Limits | None = None
    ) -> Self:
        """Open the store in a folder, or the one that a ``store.yaml`` describes.

        ``location`` is a folder (which may hold a ``store.yaml``), a YAML file, or the ``file://``
        URL of one of them; ``limits`` stand over those of the file. With ``create`` False an
        absent store raises NotFoundError. Raises UsageError for other locations and for a file
        that cannot be understood.
        """
        config = find_config(location)
        chosen = limits or config.limits
        database, blobs = open_parts(config, create=create, limits=chosen)
        window = config.restore_window_days
        return cls(
            database,
            blobs,
            limits=chosen,
            restore_window_s=None if window is None else window * DAY_S,
        )

    def add_backbone(
        self, backbone: Backbone, name: str | None = None, *, actor: str = "local"
    ) -> BackboneRecord:
        """Register a backbone under its name or ``name``; doing so again answers the record.

        Raises ConflictError where the name or the fingerprint is taken by another.
        """
        record = backbone.record
        if name is not None:
            record = dataclasses.replace(record, name=check_name(name, "backbone name"))
        with journal(self._database, actor) as opened:
            return backbone_rows.add(opened, record)

    def publish(
        self,
        name: str,
        artefact: Artefact,
        *,
        aliases: Sequence[str] = (DEFAULT_ALIAS,),
        actor: str = "local",
    ) -> Version:
        """Validate and store an artefact as the next version of ``tenant/name``; move aliases.

        The same digest under the same name answers its live version. Raises InvalidNameError,
        InvalidArtefactError, IncompatibleError; then nothing was stored.
        """
        return self.publish_many([(name, artefact)], aliases=aliases, actor=actor)[0]

    def publish_many(
        self,
        items: Iterable[tuple[str, Artefact]],
        *,
        aliases: Sequence[str] = (DEFAULT_ALIAS,),
        actor: str = "local",
        signatures: Sequence[Signature] = (),
    ) -> builtins.list[Version]:
        """Publish several artefacts in order, in one transaction: all of them or none.

        A routing may name a bank that stands earlier in the same list. Artefacts are taken from
        the iterable a bounded number at a time; where a later one is refused, the blobs of earlier
        ones stay, unseen, until they are collected. ``signatures`` are kept with every artefact
        and must fit it. Raises ConflictError where a collection took blobs of a batch that was too
        large to keep in memory; publish it again.
        """
        for alias in aliases:
            check_alias(alias)
        records = {record.fingerprint: record for record in self.backbones()}
        banks: dict[str, Manifest] = {}
        accepted: builtins.list[tuple[Reference, Manifest]] = []
        latest: builtins.list[Artefact] = []
        with self._database.read() as connection:
            since = collections_so_far(connection)
        for chunk in in_chunks(items):
            named = [(parse_name(name), artefact) for name, artefact in chunk]
            for _, artefact in named:
                self._validate(artefact, records, banks)
                for signature in signatures:
                    signature.check(artefact.digest)
            latest = [artefact for _, artefact in named]
            data = [artefact.data for artefact in latest]
            self._blobs.put_many(data + [artefact.manifest.canonical for artefact in latest])
            accepted += [(reference, artefact.manifest) for reference, artefact in named]
        with self._change(actor) as change:
            if may_have_lost_blobs(change.connection, since):
                manifests = [manifest for _, manifest in accepted]
                put_lost_blobs(change.connection, self._blobs, manifests, latest)
            published = publishing.publish_many(change, accepted, aliases=aliases)
            for version in published:
                keep_signatures(change, version.subject, signatures)
        return [self._bind(version) for version in published]

    def check_many(
        self, items: Iterable[tuple[str, Artefact]], *, backbones: Iterable[BackboneRecord] = ()
    ) -> None:
        """Raise what publishing the items would, and store nothing.

        ``backbones`` count as registered.
        """
        records = {one.fingerprint: one for one in (*self.backbones(), *backbones)}
        banks: dict[str, Manifest] = {}
        for name, artefact in items:
            parse_name(name)
            self._validate(artefact, records, banks)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        expected_version: int | None = None,
        actor: str = "local",
        reason: str = "",
        evidence: Sequence[int] = (),
    ) -> Version:
        """Point an alias at a live version; returns that version.

        ``expected_version`` is the one it must point at now, 0 for none; None does not compare.
        ``evidence`` are ids of evaluations of this name that speak for the move.
        Raises InvalidNameError, NotFoundError, DeletedError, ConflictError.
        """
        check_alias(alias)
        wanted = dataclasses.replace(parse_name(name), version=version)
        with self._change(actor) as change:
            found = version_rows.resolve(change.connection, wanted)
            name_id = version_rows.name_id(change.connection, wanted)
            target = dataclasses.replace(found.subject, alias=alias)
            check_evidence(change.connection, name_id, evidence)
            alias_rows.move(
                change,
                name_id,
                target,
                reason=reason,
                expected=expected_version,
                evidence=evidence,
            )
            return self._bind(version_rows.resolve(change.connection, wanted))

    def remove_alias(
        self,
        name: str,
        alias: str,
        *,
        expected_version: int | None = None,
        actor: str = "local",
        reason: str = "",
    ) -> None:
        """Remove an alias; raises NotFoundError or ConflictError."""
        reference = parse_name(name)
        with self._change(actor) as change:
            alias_rows.remove(
                change, reference, check_alias(alias), reason=reason, expected=expected_version
            )

    def delete(
        self,
        reference: str | Reference,
        *,
        actor: str = "local",
        reason: str = "",
        dry_run: bool = False,
    ) -> builtins.list[Version]:
        """Delete one version, or all of a bare ``tenant/name``; returns what was deleted.

        Bytes, aliases and history stay, so that ``restore`` is exact; a reference to a deleted
        version raises DeletedError. With ``dry_run`` everything is undone at once. Raises
        NotFoundError, DeletedError where nothing is left to delete, ConflictError where live
        routings depend on the bank.
        """
        if dry_run:
            with self._database.write() as connection:
                found = deletion.delete(
                    Journal(connection, actor), parsed(reference), reason=reason
                )
                connection.rollback()
            return found
        with self._change(actor) as change:
            return deletion.delete(change, parsed(reference), reason=reason)

    def restore(
        self, reference: str | Reference, *, actor: str = "local"
    ) -> builtins.list[Version]:
        """Undo the deletion of one version, or of all deleted versions of a bare name.

        Raises NotFoundError, ConflictError where nothing is deleted or a bank is missing, and
        DeletedError once a collection gave up the content.
        """
        with self._change(actor) as change:
            return deletion.restore(change, parsed(reference))

    @contextmanager
    def _change(self, actor: str) -> Iterator[Journal]:
        with journal(self._database, actor) as opened:
            yield opened
            bump_generation(opened.connection)

    def _validate(
        self,
        artefact: Artefact,
        records: Mapping[str, BackboneRecord],
        banks: dict[str, Manifest],
    ) -> None:
        """Validate one artefact of a batch; ``banks`` are those of the batch and those it named."""
        from adapters_store.validation import validate

        manifest = artefact.manifest
        record = records.get(manifest.backbone)
        if record is None:
            raise _unknown_backbone(manifest, records)
        bank_digest = manifest.bank
        if bank_digest is not None and bank_digest not in banks:
            with self._database.read() as connection:
                publishing.check_bank_is_live(connection, bank_digest)
            banks[bank_digest] = self.manifest(bank_digest)
        validate(artefact, record, banks.get(bank_digest or ""), self._limits)
        if manifest.kind == "bank":
            banks[manifest.digest] = manifest


def _unknown_backbone(
    manifest: Manifest, records: Mapping[str, BackboneRecord]
) -> IncompatibleError:
    known = ", ".join(f"{record.name} ({record.fingerprint})" for record in records.values())
    return IncompatibleError(
        f"the artefact is for another backbone: {manifest.backbone} is not registered here; "
        f"registered: {known or 'none'}",
        hint="Register its backbone first, as `patchbay adapters push --backbone FOLDER` does.",
    )
