"""The newest live version of each name, kept beside the name so that pages walk one index."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from adapters_store.catalog.schema import ARTEFACTS, NAMES, VERSIONS


def refresh(connection: Connection, name_id: int) -> None:
    """Bring a name's ``newest`` and ``newest_kind`` up to date after versions came or went.

    Every change of which versions are live calls this within its transaction.
    """
    query = (
        select(VERSIONS.c.number, ARTEFACTS.c.kind)
        .join_from(VERSIONS, ARTEFACTS, ARTEFACTS.c.digest == VERSIONS.c.digest)
        .where(VERSIONS.c.name_id == name_id, VERSIONS.c.deleted_at.is_(None))
        .order_by(VERSIONS.c.number.desc())
        .limit(1)
    )
    number, kind = connection.execute(query).one_or_none() or (None, None)
    connection.execute(
        update(NAMES).where(NAMES.c.id == name_id).values(newest=number, newest_kind=kind)
    )
