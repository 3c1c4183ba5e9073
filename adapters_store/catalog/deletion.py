"""Deletion as a tombstone: who, when and why are kept, bytes and aliases stay, restore is exact."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Update, select, update

from adapters_store.catalog import newest, versions
from adapters_store.catalog.journal import Journal
from adapters_store.catalog.publishing import check_bank_is_live
from adapters_store.catalog.schema import ARTEFACTS, NAMES, VERSIONS
from adapters_store.errors import ConflictError, DeletedError, IncompatibleError
from adapters_store.ledger.events import check_note
from adapters_store.names import Reference
from adapters_store.records import Version

_MAX_SHOWN = 5


def delete(journal: Journal, reference: Reference, *, reason: str) -> list[Version]:
    """Delete one version, or every live version where the reference is a bare name.

    Aliases that point at a deleted version stay and answer DeletedError until they are moved.
    Raises NotFoundError, DeletedError where nothing is live, ConflictError where live routings
    depend on a bank that would have no live version left.
    """
    connection = journal.connection
    if reference.is_bare:
        doomed = [v for v in versions.list_versions(connection, reference) if not v.is_deleted]
        if not doomed:
            raise DeletedError(f"{reference.full_name} is already deleted")
    else:
        doomed = [versions.resolve(connection, reference)]
    name_id = versions.name_id(connection, reference)
    chosen = _these(name_id, reference, doomed).where(VERSIONS.c.deleted_at.is_(None))
    note = check_note(reason, "reason")
    stamp = {"deleted_at": journal.at, "deleted_by": journal.actor, "delete_reason": note}
    connection.execute(chosen.values(stamp))
    newest.refresh(connection, name_id)
    for digest in sorted({version.digest for version in doomed if version.kind == "bank"}):
        _check_no_dependents(connection, digest)
    for version in doomed:
        journal.record("adapter_version.deleted", version.subject, reason=note)
    return doomed


def restore(journal: Journal, reference: Reference) -> list[Version]:
    """Undo deletions: of one version, or of every deleted version of a bare name.

    Raises NotFoundError, ConflictError where nothing is deleted or a routing's bank is, and
    DeletedError where nothing is left to restore because it was collected.
    """
    connection = journal.connection
    if reference.is_bare:
        found = [v for v in versions.list_versions(connection, reference) if v.is_deleted]
    else:
        found = [v for v in (versions.find(connection, reference),) if v.is_deleted]
    if not found:
        raise ConflictError(f"{reference} is not deleted; there is nothing to restore")
    last = found[0]
    found = [version for version in found if not version.is_purged]
    if not found:
        raise versions.collected_error(last)
    name_id = versions.name_id(connection, reference)
    chosen = _these(name_id, reference, found)
    connection.execute(chosen.values(deleted_at=None, deleted_by=None, delete_reason=None))
    newest.refresh(connection, name_id)
    for bank in sorted({version.bank for version in found if version.bank is not None}):
        try:
            check_bank_is_live(connection, bank)
        except IncompatibleError as error:
            raise ConflictError(
                f"{reference} cannot come back: {error.message}", hint="Restore its bank first."
            ) from error
    for version in found:
        journal.record("adapter_version.restored", version.subject)
    return found


def _these(name_id: int, reference: Reference, found: Sequence[Version]) -> Update:
    """An update of a bare name's every version, or of the one version that was found."""
    chosen = update(VERSIONS).where(VERSIONS.c.name_id == name_id, VERSIONS.c.purged_at.is_(None))
    return chosen if reference.is_bare else chosen.where(VERSIONS.c.number == found[0].number)


def _check_no_dependents(connection: Connection, bank: str) -> None:
    is_live = VERSIONS.c.deleted_at.is_(None)
    same = select(VERSIONS.c.number).where(VERSIONS.c.digest == bank, is_live).limit(1)
    if connection.execute(same).first() is not None:
        return
    query = (
        select(NAMES.c.tenant, NAMES.c.name, VERSIONS.c.number)
        .join_from(ARTEFACTS, VERSIONS, VERSIONS.c.digest == ARTEFACTS.c.digest)
        .join(NAMES, NAMES.c.id == VERSIONS.c.name_id)
        .where(ARTEFACTS.c.bank == bank, is_live)
        .limit(_MAX_SHOWN + 1)
    )
    rows = connection.execute(query).all()
    if not rows:
        return
    shown = _shown([f"{row.tenant}/{row.name}:{row.number}" for row in rows])
    raise ConflictError(
        f"bank {bank} is used by live routings: {shown}",
        hint="Delete the routings that depend on the bank first.",
    )


def _shown(references: Sequence[str]) -> str:
    more = " and more" if len(references) > _MAX_SHOWN else ""
    return ", ".join(references[:_MAX_SHOWN]) + more
