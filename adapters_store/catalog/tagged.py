"""Pages of names by tag: a walk along the index of tags, then one look-up for each name on it.

The walk and the look-ups are statements of their own, so that no planner can choose to go through
every name or every tag for one page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, select, tuple_

from adapters_store.catalog.schema import ARTEFACTS, NAMES, TAGS
from adapters_store.catalog.versions import as_version, select_versions
from adapters_store.names import MAX_VERSION, Reference
from adapters_store.records import Version

if TYPE_CHECKING:
    from adapters_store.manifest import Kind

OF_NAME = 0
"""The version number under which the tags of a whole name stand."""

_MIN_ROWS, _MAX_ROWS = 16, 500
_NEWEST_VERSIONS = select_versions(NAMES, number=NAMES.c.newest)


class _Place(NamedTuple):
    """A row of tags in the order of the walk."""

    tenant: str
    name: str
    number: int
    name_id: int


def list_tagged(
    connection: Connection,
    key: str,
    value: str | None,
    *,
    tenant: str | None,
    kind: Kind | None,
    limit: int,
    after: Reference | None,
) -> list[Version]:
    """As ``listing.list_names``, of names that carry a tag or whose newest live version does.

    ``value`` None stands for any.
    """
    found: dict[int, Version] = {}
    for places in _walk(connection, key, value, tenant=tenant, after=after, limit=limit):
        query = _NEWEST_VERSIONS.where(NAMES.c.id.in_({place.name_id for place in places}))
        if kind is not None:
            query = query.where(ARTEFACTS.c.kind == kind)
        newest = {row.name_id: as_version(row) for row in connection.execute(query)}
        for place in places:
            version = newest.get(place.name_id)
            if version is not None and place.number in (OF_NAME, version.number):
                found[place.name_id] = version
        if len(found) >= limit:
            break
    return list(found.values())[:limit]


def _walk(
    connection: Connection,
    key: str,
    value: str | None,
    *,
    tenant: str | None,
    after: Reference | None,
    limit: int,
) -> Iterator[list[_Place]]:
    """Rows with the tag by tenant, name and number, some at a time."""
    order = (TAGS.c.tenant, TAGS.c.name, TAGS.c.number)
    query = select(*order, TAGS.c.name_id).where(TAGS.c.key == key).order_by(*order)
    if value is not None:
        query = query.where(TAGS.c.value == value)
    if tenant is not None:
        query = query.where(TAGS.c.tenant == tenant)
    num_rows = min(max(limit, _MIN_ROWS), _MAX_ROWS)
    last = None if after is None else (after.tenant, after.name, MAX_VERSION)
    while True:
        page = query if last is None else query.where(tuple_(*order) > last)
        places = [_Place(*row) for row in connection.execute(page.limit(num_rows))]
        if places:
            yield places
        if len(places) < num_rows:
            return
        last = places[-1][:3]
