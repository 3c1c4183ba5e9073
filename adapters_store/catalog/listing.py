"""Pages of names: a walk along one index, then one look-up for each name of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, Subquery, select, tuple_

from adapters_store.catalog.schema import ARTEFACTS, NAMES
from adapters_store.catalog.versions import as_version, select_versions
from adapters_store.names import Reference
from adapters_store.records import Version

if TYPE_CHECKING:
    from adapters_store.manifest import Kind


def list_names(
    connection: Connection,
    *,
    tenant: str | None,
    kind: Kind | None,
    limit: int,
    after: Reference | None,
) -> list[Version]:
    """The newest live version of each name, by tenant and name, after a name (exclusive)."""
    # The names are chosen, ordered and cut before anything is joined to them, so that no planner
    # can prefer to join first.
    names = select(NAMES.c.id, NAMES.c.tenant, NAMES.c.name, NAMES.c.newest)
    names = names.where(NAMES.c.newest.isnot(None))
    if kind is not None:
        names = names.where(NAMES.c.newest_kind == kind)
    if tenant is not None:
        names = names.where(NAMES.c.tenant == tenant)
    page = _page(names, limit, after)
    query = select_versions(page, number=page.c.newest).order_by(page.c.tenant, page.c.name)
    return [as_version(row) for row in connection.execute(query)]


def list_artefacts(connection: Connection, *, limit: int, after: str) -> list[str]:
    """Digests of artefacts whose content was not collected, after a digest (exclusive)."""
    query = select(ARTEFACTS.c.digest).where(
        ARTEFACTS.c.digest > after, ARTEFACTS.c.collected_at.is_(None)
    )
    return list(connection.execute(query.order_by(ARTEFACTS.c.digest).limit(limit)).scalars())


def _page(names: Select[Any], limit: int, after: Reference | None) -> Subquery:
    if after is not None:
        names = names.where(tuple_(NAMES.c.tenant, NAMES.c.name) > (after.tenant, after.name))
    return names.order_by(NAMES.c.tenant, NAMES.c.name).limit(limit).subquery("page")
