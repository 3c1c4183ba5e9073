"""Writing versions: numbers are given out inside the transaction, without gaps per name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from adapters_store.catalog import aliases as alias_rows
from adapters_store.catalog import versions
from adapters_store.catalog.clock import now
from adapters_store.catalog.schema import ARTEFACTS, NAMES, VERSIONS
from adapters_store.errors import IncompatibleError
from adapters_store.names import Reference
from adapters_store.records import Version

if TYPE_CHECKING:
    from adapters_store.manifest import Manifest


def publish(
    connection: Connection,
    reference: Reference,
    manifest: Manifest,
    *,
    aliases: Sequence[str],
    actor: str,
) -> Version:
    """Record an artefact whose blobs are stored as a version of a name, and move aliases to it.

    A live version of that name with the same digest is answered instead of a new one. Raises
    IncompatibleError where a routing's bank has no live version.
    """
    if manifest.bank is not None:
        check_bank_is_live(connection, manifest.bank)
    _add_artefact(connection, manifest)
    name_id = _name_id(connection, reference)
    number = _live_number(connection, name_id, manifest.digest)
    if number is None:
        number = _add_version(connection, name_id, manifest.digest, actor)
    for alias in aliases:
        alias_rows.move(connection, name_id, alias, number, actor=actor, reason="published")
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


def _add_artefact(connection: Connection, manifest: Manifest) -> None:
    query = select(ARTEFACTS.c.digest).where(ARTEFACTS.c.digest == manifest.digest)
    if connection.execute(query).first() is not None:
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
            created_at=now(),
        )
    )


def _name_id(connection: Connection, reference: Reference) -> int:
    query = select(NAMES.c.id).where(
        NAMES.c.tenant == reference.tenant, NAMES.c.name == reference.name
    )
    found: int | None = connection.execute(query).scalar()
    if found is not None:
        return found
    added = connection.execute(
        insert(NAMES)
        .values(tenant=reference.tenant, name=reference.name, num_versions=0, created_at=now())
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


def _add_version(connection: Connection, name_id: int, digest: str, actor: str) -> int:
    counted = connection.execute(
        update(NAMES)
        .where(NAMES.c.id == name_id)
        .values(num_versions=NAMES.c.num_versions + 1)
        .returning(NAMES.c.num_versions)
    )
    number = int(counted.scalar_one())
    connection.execute(
        insert(VERSIONS).values(
            name_id=name_id, number=number, digest=digest, actor=actor, created_at=now()
        )
    )
    return number
