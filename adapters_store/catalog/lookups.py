"""Rows by many keys at once, in statements of a bounded number of parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, column, func, select, values

from adapters_store.catalog.schema import ALIASES, ARTEFACTS, NAMES, VERSIONS
from adapters_store.catalog.versions import VERSION_ROWS, as_version
from adapters_store.names import Reference
from adapters_store.records import Version

_MAX_KEYS = 200


def known_artefacts(connection: Connection, digests: Iterable[str]) -> dict[str, bool]:
    """Those of the digests whose artefact was ever published, and whether it was collected."""
    query = select(ARTEFACTS.c.digest, ARTEFACTS.c.collected_at)
    rows = rows_by_keys(connection, query, [ARTEFACTS.c.digest], ((digest,) for digest in digests))
    return {row.digest: row.collected_at is not None for row in rows}


def live_artefacts(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Those of the digests that a live version holds."""
    query = select(VERSIONS.c.digest).distinct().where(VERSIONS.c.deleted_at.is_(None))
    rows = rows_by_keys(connection, query, [VERSIONS.c.digest], ((digest,) for digest in digests))
    return {row.digest for row in rows}


def known_names(
    connection: Connection, references: Iterable[Reference]
) -> dict[Reference, tuple[int, int]]:
    """Key and number of versions of those names that exist."""
    query = select(NAMES.c.tenant, NAMES.c.name, NAMES.c.id, NAMES.c.num_versions)
    pairs = ((reference.tenant, reference.name) for reference in references)
    rows = rows_by_keys(connection, query, [NAMES.c.tenant, NAMES.c.name], pairs)
    return {Reference(row.tenant, row.name): (row.id, row.num_versions) for row in rows}


def live_numbers(
    connection: Connection, held: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], int]:
    """The newest live version for those pairs of a name's key and a digest that have one."""
    query = (
        select(VERSIONS.c.name_id, VERSIONS.c.digest, func.max(VERSIONS.c.number).label("number"))
        .where(VERSIONS.c.deleted_at.is_(None))
        .group_by(VERSIONS.c.name_id, VERSIONS.c.digest)
    )
    rows = rows_by_keys(connection, query, [VERSIONS.c.name_id, VERSIONS.c.digest], held)
    return {(row.name_id, row.digest): row.number for row in rows}


def alias_numbers(
    connection: Connection, pointers: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], int]:
    """Where those pairs of a name's key and an alias point that are set."""
    query = select(ALIASES.c.name_id, ALIASES.c.alias, ALIASES.c.number)
    rows = rows_by_keys(connection, query, [ALIASES.c.name_id, ALIASES.c.alias], pointers)
    return {(row.name_id, row.alias): row.number for row in rows}


def holders(connection: Connection, digests: Iterable[str]) -> dict[str, Version]:
    """The first version that has its content, by name, for those of the digests that have one."""
    query = VERSION_ROWS.where(VERSIONS.c.purged_at.is_(None)).order_by(
        NAMES.c.tenant, NAMES.c.name, VERSIONS.c.number
    )
    found: dict[str, Version] = {}
    for row in rows_by_keys(connection, query, [VERSIONS.c.digest], ((one,) for one in digests)):
        if row.digest not in found:
            found[row.digest] = as_version(row)
    return found


def versions_of(
    connection: Connection, numbered: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Version]:
    """The versions of those pairs of a name's key and a number."""
    key = [VERSIONS.c.name_id, VERSIONS.c.number]
    rows = rows_by_keys(connection, VERSION_ROWS, key, numbered)
    return {(row.name_id, row.number): as_version(row) for row in rows}


def rows_by_keys(
    connection: Connection,
    query: Select[Any],
    columns: Sequence[Column[Any]],
    keys: Iterable[tuple[Any, ...]],
) -> Iterator[Row[Any]]:
    """The rows of a query whose columns equal one of the keys, some keys at a time.

    The keys are joined as a table: SQLite walks no index for ``(a, b) IN (VALUES ...)``. One key
    alone is compared with the columns, for a table of keys is compiled anew every time.
    """
    wanted = iter(dict.fromkeys(keys))
    names = [column(one.name, one.type) for one in columns]
    while part := list(islice(wanted, _MAX_KEYS)):
        if len(part) == 1:
            key = zip(columns, part[0], strict=True)
            yield from connection.execute(query.where(*(one == value for one, value in key)))
            continue
        table = values(*names, name="wanted").data(part).cte("wanted")
        yield from connection.execute(query.where(*(one == table.c[one.name] for one in columns)))
