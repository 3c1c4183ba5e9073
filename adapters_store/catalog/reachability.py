"""Reachability: which deleted versions nothing needs any more, and which blobs.

A version deleted before the window's end is collectable unless its content is pinned or leased,
or it is a bank under a routing that is live, within its window, pinned or leased.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, bindparam, or_, select, update

from adapters_store.catalog.lookups import rows_by_keys
from adapters_store.catalog.schema import ARTEFACTS, LEASE_OWNERS, LEASES, PINS, VERSIONS
from adapters_store.catalog.versions import VERSION_ROWS, as_version
from adapters_store.names import Reference
from adapters_store.records import Version

Key = tuple[int, int]
"""A version's key: the name's id and the number."""

MAX_SHOWN = 3
_ROUTINGS = ARTEFACTS.alias("routings")
_ROUTED = VERSIONS.alias("routed")
_PURGE = update(VERSIONS).where(
    VERSIONS.c.name_id == bindparam("its_name_id"), VERSIONS.c.number == bindparam("its_number")
)


def past_window(connection: Connection, deleted_before: str) -> list[Key]:
    """Keys of the versions past their window that still have content, banks last."""
    query = (
        select(VERSIONS.c.name_id, VERSIONS.c.number)
        .join(ARTEFACTS, ARTEFACTS.c.digest == VERSIONS.c.digest)
        .where(VERSIONS.c.deleted_at <= deleted_before, VERSIONS.c.purged_at.is_(None))
        .order_by(ARTEFACTS.c.kind == "bank", VERSIONS.c.name_id, VERSIONS.c.number)
    )
    return [(name_id, number) for name_id, number in connection.execute(query)]


def collectable(
    connection: Connection, keys: Sequence[Key], *, deleted_before: str, at: str
) -> dict[Key, Version]:
    """Those of the versions that nothing needs."""
    query = VERSION_ROWS.where(
        VERSIONS.c.deleted_at <= deleted_before,
        VERSIONS.c.purged_at.is_(None),
        ~_is_held(VERSIONS.c.digest, at),
        ~_has_routings(VERSIONS.c.digest, deleted_before, at),
    )
    rows = rows_by_keys(connection, query, [VERSIONS.c.name_id, VERSIONS.c.number], keys)
    found = {(row.name_id, row.number): as_version(row) for row in rows}
    return {key: found[key] for key in keys if key in found}


def explain(
    connection: Connection, key: Key, *, deleted_before: str, at: str
) -> tuple[Version, tuple[str, ...]]:
    """A version that is kept past its window, and what needs it."""
    query = VERSION_ROWS.where(VERSIONS.c.name_id == key[0], VERSIONS.c.number == key[1])
    version = as_version(connection.execute(query).one())
    why = [f"pinned by {owner}" for owner in _pin_owners(connection, version.digest)]
    why += [
        f"leased by {owner} until {expires_at}"
        for owner, expires_at in _lease_owners(connection, version.digest, at)
    ]
    needed = (
        VERSION_ROWS.where(ARTEFACTS.c.bank == version.digest, VERSIONS.c.purged_at.is_(None))
        .where(
            or_(
                VERSIONS.c.deleted_at.is_(None),
                VERSIONS.c.deleted_at > deleted_before,
                _is_held(VERSIONS.c.digest, at),
            )
        )
        .limit(MAX_SHOWN)
    )
    for row in connection.execute(needed):
        routing = Reference(row.tenant, row.name, version=row.number)
        why.append(f"bank of {routing}")
    return version, tuple(why)


def mark_purged(
    connection: Connection, keys: Collection[Key], *, at: str, actor: str, reason: str
) -> None:
    """Give up the content of versions; their rows stay."""
    stamped = _PURGE.values(purged_at=at, purged_by=actor, purge_reason=reason)
    connection.execute(stamped, [{"its_name_id": key[0], "its_number": key[1]} for key in keys])


def mark_collected(connection: Connection, digests: Collection[str], *, at: str) -> None:
    """Mark those artefacts as collected of which no version has its content any more."""
    connection.execute(
        update(ARTEFACTS)
        .where(ARTEFACTS.c.digest.in_(digests), ~_has_content(ARTEFACTS.c.digest))
        .values(collected_at=at)
    )


def without_content(
    connection: Connection, digests: Collection[str], purged: Collection[Key]
) -> set[str]:
    """The artefacts that would have no version with content once those versions were purged."""
    query = select(VERSIONS.c.digest, VERSIONS.c.name_id, VERSIONS.c.number).where(
        VERSIONS.c.digest.in_(digests), VERSIONS.c.purged_at.is_(None)
    )
    gone = set(purged)
    kept = {digest for digest, *key in connection.execute(query) if (key[0], key[1]) not in gone}
    return set(digests) - kept


def needed_blobs(
    connection: Connection, digests: Collection[str], *, ignored: Collection[str] = ()
) -> set[str]:
    """Those of the blobs that an artefact needs which is not collected, nor among ``ignored``."""
    query = select(ARTEFACTS.c.digest, ARTEFACTS.c.data_digest).where(
        or_(ARTEFACTS.c.digest.in_(digests), ARTEFACTS.c.data_digest.in_(digests)),
        ARTEFACTS.c.collected_at.is_(None),
    )
    rows = connection.execute(query).all()
    return {blob for row in rows if row.digest not in ignored for blob in row}


def known_blobs(connection: Connection, digests: Collection[str]) -> set[str]:
    """Those of the blobs that an artefact ever needed."""
    query = select(ARTEFACTS.c.digest, ARTEFACTS.c.data_digest).where(
        or_(ARTEFACTS.c.digest.in_(digests), ARTEFACTS.c.data_digest.in_(digests))
    )
    return {blob for row in connection.execute(query) for blob in row}


def _is_held(digest: ColumnElement[str], at: str) -> ColumnElement[bool]:
    pinned = select(PINS.c.digest).where(PINS.c.digest == digest).exists()
    leased = (
        select(LEASES.c.digest)
        .join(LEASE_OWNERS, LEASE_OWNERS.c.owner == LEASES.c.owner)
        .where(LEASES.c.digest == digest, LEASE_OWNERS.c.expires_at > at)
        .exists()
    )
    return or_(pinned, leased)


def _has_routings(digest: ColumnElement[str], deleted_before: str, at: str) -> ColumnElement[bool]:
    stays = or_(_ROUTED.c.deleted_at.is_(None), _ROUTED.c.deleted_at > deleted_before)
    version = (
        select(_ROUTED.c.number)
        .where(_ROUTED.c.digest == _ROUTINGS.c.digest, _ROUTED.c.purged_at.is_(None), stays)
        .exists()
    )
    needs_it = or_(version, _is_held(_ROUTINGS.c.digest, at))
    return select(_ROUTINGS.c.digest).where(and_(_ROUTINGS.c.bank == digest, needs_it)).exists()


def _has_content(digest: ColumnElement[str]) -> ColumnElement[bool]:
    return (
        select(VERSIONS.c.number)
        .where(VERSIONS.c.digest == digest, VERSIONS.c.purged_at.is_(None))
        .exists()
    )


def _pin_owners(connection: Connection, digest: str) -> list[str]:
    query = select(PINS.c.owner).where(PINS.c.digest == digest).order_by(PINS.c.owner)
    return list(connection.execute(query.limit(MAX_SHOWN)).scalars())


def _lease_owners(connection: Connection, digest: str, at: str) -> list[tuple[str, str]]:
    query = (
        select(LEASES.c.owner, LEASE_OWNERS.c.expires_at)
        .join(LEASE_OWNERS, LEASE_OWNERS.c.owner == LEASES.c.owner)
        .where(LEASES.c.digest == digest, LEASE_OWNERS.c.expires_at > at)
        .order_by(LEASES.c.owner)
        .limit(MAX_SHOWN)
    )
    return [(owner, expires_at) for owner, expires_at in connection.execute(query)]
