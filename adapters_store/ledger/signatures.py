"""Signatures of artefacts in the catalog: kept beside the artefact, told in the audit log."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Row, insert, select, tuple_

from adapters_store.catalog import versions as version_rows
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import Journal, journal
from adapters_store.catalog.schema import SIGNATURES, bump_generation
from adapters_store.ledger.events import Subject
from adapters_store.names import Reference, parsed
from adapters_store.signing import Signature, SignatureRecord

_PAGE_SIGNATURES = 500


class Signatures:
    """``store.signatures``: one per artefact and key. They are checked before they are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, reference: str | Reference, signature: Signature, *, actor: str = "local"
    ) -> SignatureRecord:
        """Keep a signature of the artefact that a live reference means now.

        The same key's signature again is answered from the store. Raises NotFoundError,
        DeletedError, and InvalidArtefactError where it does not fit the artefact.
        """
        with journal(self._database, actor) as change:
            found = version_rows.resolve(change.connection, parsed(reference))
            keep(change, found.subject, [signature])
            bump_generation(change.connection)
        return next(one for one in self.list(found.digest) if one.signature.key == signature.key)

    def list(self, digest: str | None = None) -> builtins.list[SignatureRecord]:
        """Every signature of an artefact digest, or of all, by digest and key id."""
        query = select(SIGNATURES).order_by(SIGNATURES.c.digest, SIGNATURES.c.key_id)
        if digest is not None:
            query = query.where(SIGNATURES.c.digest == digest)
        with self._database.read() as connection:
            return [_as_record(row) for row in connection.execute(query)]

    def walk(self) -> Iterator[SignatureRecord]:
        """Every signature, by digest and key id, a bounded number in memory."""
        place = ("", "")
        key = tuple_(SIGNATURES.c.digest, SIGNATURES.c.key_id)
        while True:
            query = select(SIGNATURES).where(key > place).order_by(*key).limit(_PAGE_SIGNATURES)
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            yield from (_as_record(row) for row in rows)
            place = (rows[-1].digest, rows[-1].key_id)


def keep(change: Journal, subject: Subject, signatures: Iterable[Signature]) -> None:
    """Write signatures of a version's artefact inside a transaction; raises InvalidArtefactError.

    ``subject`` is the version, with its digest.
    """
    digest = subject.digest or ""
    for signature in signatures:
        signature.check(digest)
        key_id = signature.key.id
        query = select(SIGNATURES.c.key_id).where(
            SIGNATURES.c.digest == digest, SIGNATURES.c.key_id == key_id
        )
        if change.connection.execute(query).first() is not None:
            continue
        row = {
            "digest": digest,
            "key_id": key_id,
            "signature": str(signature),
            "actor": change.actor,
            "at": change.at,
        }
        change.connection.execute(insert(SIGNATURES).values(row))
        change.record("signature.added", subject, key_id=key_id, signature=str(signature))


def _as_record(row: Row[Any]) -> SignatureRecord:
    return SignatureRecord(row.digest, Signature.parse(row.signature), row.actor, row.at)
