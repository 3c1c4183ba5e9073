"""Writing versions: numbers are given out inside the transaction, without gaps per name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from adapters_store.catalog import aliases as alias_rows
from adapters_store.catalog import versions
from adapters_store.catalog.journal import Journal
from adapters_store.catalog.lineage import add_parents
from adapters_store.catalog.schema import ARTEFACTS, NAMES, VERSIONS
from adapters_store.errors import IncompatibleError
from adapters_store.ledger.events import Subject
from adapters_store.names import Reference
from adapters_store.records import Version

if TYPE_CHECKING:
    from adapters_store.manifest import Manifest


def publish(
    journal: Journal, reference: Reference, manifest: Manifest, *, aliases: Sequence[str]
) -> Version:
    """Record an artefact whose blobs are stored as a version of a name, and move aliases to it.

    A live version of that name with the same digest is answered instead of a new one. Raises
    IncompatibleError where a routing's bank has no live version.
    """
    connection = journal.connection
    if manifest.bank is not None:
        check_bank_is_live(connection, manifest.bank)
    _add_artefact(journal, manifest)
    name_id = _name_id(journal, reference)
    number = _live_number(connection, name_id, manifest.digest)
    if number is None:
        number = _add_version(journal, name_id, reference, manifest)
    for alias in aliases:
        target = Subject(reference.tenant, reference.name, number, alias, manifest.digest)
        alias_rows.move(journal, name_id, target, reason="published")
    return versions.find(connection, Reference(reference.tenant, reference.name, version=number))


def check_bank_is_live(connection: Connection, bank: str) -> None:
    """Raise IncompatibleError where no live version holds that bank."""
    query = select(VERSIONS.c.number).where(
        VERSIONS.c.digest == bank, VERSIONS.c.deleted_at.is_(None)
    )
    if connection.execute(query.limit(1)).first() is None:
        raise IncompatibleError(
            f"the routing's bank {bank} is not in the store, or was deleted",
            hint="Publish or restore the bank first.",
        )


def _add_artefact(journal: Journal, manifest: Manifest) -> None:
    from adapters_store.ledger.lineage import lineage_of

    connection = journal.connection
    is_it = ARTEFACTS.c.digest == manifest.digest
    row = connection.execute(select(ARTEFACTS.c.collected_at).where(is_it)).first()
    if row is not None:
        if row.collected_at is not None:
            connection.execute(update(ARTEFACTS).where(is_it).values(collected_at=None))
        return
    connection.execute(
        insert(ARTEFACTS).values(
            digest=manifest.digest,
            kind=manifest.kind,
            backbone=manifest.backbone,
            bank=manifest.bank,
            data_digest=manifest.data.digest,
            data_bytes=manifest.data.size_bytes,
            manifest_bytes=len(manifest.canonical),
            content_digest=manifest.content_digest,
            created_at=journal.at,
        )
    )
    stated = lineage_of(manifest.provenance)
    if stated is not None:
        add_parents(connection, manifest.digest, stated.parents)


def _name_id(journal: Journal, reference: Reference) -> int:
    connection = journal.connection
    query = select(NAMES.c.id).where(
        NAMES.c.tenant == reference.tenant, NAMES.c.name == reference.name
    )
    found: int | None = connection.execute(query).scalar()
    if found is not None:
        return found
    added = connection.execute(
        insert(NAMES)
        .values(tenant=reference.tenant, name=reference.name, num_versions=0, created_at=journal.at)
        .returning(NAMES.c.id)
    )
    return int(added.scalar_one())


def _live_number(connection: Connection, name_id: int, digest: str) -> int | None:
    query = (
        select(VERSIONS.c.number)
        .where(
            VERSIONS.c.name_id == name_id,
            VERSIONS.c.digest == digest,
            VERSIONS.c.deleted_at.is_(None),
        )
        .order_by(VERSIONS.c.number.desc())
        .limit(1)
    )
    number: int | None = connection.execute(query).scalar()
    return number


def _add_version(journal: Journal, name_id: int, reference: Reference, manifest: Manifest) -> int:
    counted = journal.connection.execute(
        update(NAMES)
        .where(NAMES.c.id == name_id)
        .values(
            num_versions=NAMES.c.num_versions + 1,
            newest=NAMES.c.num_versions + 1,
            newest_kind=manifest.kind,
        )
        .returning(NAMES.c.num_versions)
    )
    number = int(counted.scalar_one())
    journal.connection.execute(
        insert(VERSIONS).values(
            name_id=name_id,
            number=number,
            digest=manifest.digest,
            actor=journal.actor,
            created_at=journal.at,
        )
    )
    journal.record(
        "adapter_version.created",
        Subject(reference.tenant, reference.name, number, digest=manifest.digest),
        kind=manifest.kind,
        bank=manifest.bank,
        data_bytes=manifest.data.size_bytes,
    )
    return number
