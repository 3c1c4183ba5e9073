"""Leases: what running servers have in memory, kept for as long as they say so."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from adapters_store.catalog.clock import now, shifted
from adapters_store.catalog.database import Database
from adapters_store.catalog.schema import LEASE_OWNERS, LEASES
from adapters_store.errors import InvalidNameError, NotFoundError, UsageError
from adapters_store.ledger.events import check_note
from adapters_store.names import is_digest

MAX_TTL_S = 30 * 86400.0
MAX_OWNER_CHARACTERS = 200
_CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Lease:
    """One owner's hold on one artefact digest, until ``expires_at`` unless it is renewed."""

    owner: str
    digest: str
    expires_at: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return asdict(self)


class Leases:
    """``store.leases``. They are heartbeats, not changes: the audit log does not record them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, owner: str, digests: Iterable[str], ttl_s: float) -> None:
        """From now on ``owner`` holds exactly these digests, for ``ttl_s`` seconds.

        Costs one small write where the digests are those it holds already. Raises UsageError for
        a time outside (0, ``MAX_TTL_S``], InvalidNameError for what is no digest.
        """
        check_note(owner, "owner", max_characters=MAX_OWNER_CHARACTERS)
        wanted = set(digests)
        for digest in wanted:
            if not is_digest(digest):
                raise InvalidNameError(f"{digest[:100]!r} is not a digest", param="digests")
        with self._database.write() as connection:
            _drop_expired(connection)
            if not _extend(connection, owner, ttl_s):
                row = {"owner": owner, "expires_at": _expiry(ttl_s)}
                connection.execute(insert(LEASE_OWNERS).values(row))
            query = select(LEASES.c.digest).where(LEASES.c.owner == owner)
            present = set(connection.execute(query).scalars())
            for chunk in _chunks(present - wanted):
                connection.execute(
                    delete(LEASES).where(LEASES.c.owner == owner, LEASES.c.digest.in_(chunk))
                )
            for chunk in _chunks(wanted - present):
                rows = [{"owner": owner, "digest": digest} for digest in chunk]
                connection.execute(insert(LEASES), rows)

    def renew(self, owner: str, ttl_s: float) -> None:
        """Keep everything that ``owner`` holds for ``ttl_s`` seconds from now.

        Raises NotFoundError where its lease has expired or was released; then ``hold`` again.
        """
        with self._database.write() as connection:
            _drop_expired(connection)
            if not _extend(connection, owner, ttl_s):
                raise NotFoundError(
                    f"{owner!r} holds no lease, or it has expired",
                    hint="Hold the digests again.",
                )

    def release(self, owner: str) -> None:
        """Give back everything that ``owner`` holds; nothing where it holds nothing."""
        with self._database.write() as connection:
            _drop(connection, [owner])

    def list(self, owner: str | None = None) -> builtins.list[Lease]:
        """The leases that have not expired, by owner and digest."""
        query = (
            select(LEASES.c.owner, LEASES.c.digest, LEASE_OWNERS.c.expires_at)
            .join(LEASE_OWNERS, LEASE_OWNERS.c.owner == LEASES.c.owner)
            .where(LEASE_OWNERS.c.expires_at > now())
            .order_by(LEASES.c.owner, LEASES.c.digest)
        )
        if owner is not None:
            query = query.where(LEASES.c.owner == owner)
        with self._database.read() as connection:
            return [Lease(**row._mapping) for row in connection.execute(query)]


def _extend(connection: Connection, owner: str, ttl_s: float) -> bool:
    extended = connection.execute(
        update(LEASE_OWNERS).where(LEASE_OWNERS.c.owner == owner).values(expires_at=_expiry(ttl_s))
    )
    return extended.rowcount == 1


def _expiry(ttl_s: float) -> str:
    if not 0 < ttl_s <= MAX_TTL_S:
        raise UsageError(f"ttl_s is {ttl_s}; expected more than 0, at most {MAX_TTL_S:.0f}")
    return shifted(now(), ttl_s)


def _drop_expired(connection: Connection) -> None:
    query = select(LEASE_OWNERS.c.owner).where(LEASE_OWNERS.c.expires_at <= now())
    _drop(connection, list(connection.execute(query).scalars()))


def _drop(connection: Connection, owners: list[str]) -> None:
    for chunk in _chunks(owners):
        connection.execute(delete(LEASES).where(LEASES.c.owner.in_(chunk)))
        connection.execute(delete(LEASE_OWNERS).where(LEASE_OWNERS.c.owner.in_(chunk)))


def _chunks(items: Iterable[str]) -> builtins.list[builtins.list[str]]:
    ordered = sorted(items)
    return [ordered[at : at + _CHUNK_ROWS] for at in range(0, len(ordered), _CHUNK_ROWS)]
