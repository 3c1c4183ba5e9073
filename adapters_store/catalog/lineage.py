"""Lineage rows: parents as they were stated at publication, banks as they are bound."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, Select, insert, select

from adapters_store.catalog.schema import ARTEFACTS, NAMES, PARENTS, VERSIONS
from adapters_store.ledger.ancestry import Relation, Relative
from adapters_store.names import Reference

MAX_DEPTH = 32
MAX_RELATIVES = 500
MAX_REFERENCES = 8


def add_parents(connection: Connection, child: str, parents: Iterable[str]) -> None:
    """Record the parents of an artefact that this transaction adds."""
    rows = [{"child": child, "parent": parent} for parent in parents]
    if rows:
        connection.execute(insert(PARENTS), rows)


def ancestors(
    connection: Connection, digest: str, tenant: str | None
) -> tuple[list[Relative], bool]:
    """Bank and parents of an artefact, and theirs, nearest first; and whether some are left out.

    With ``tenant``, only its versions are named.
    """
    found: dict[str, tuple[Relation, int]] = {}
    frontier = [digest]
    for depth in range(1, MAX_DEPTH + 1):
        above = _above(connection, frontier)
        frontier = [one for one in above if one != digest and one not in found]
        found.update({one: (above[one], depth) for one in frontier})
        if not frontier or len(found) > MAX_RELATIVES:
            break
    is_cut = len(found) > MAX_RELATIVES or bool(frontier)
    return _described(connection, dict(list(found.items())[:MAX_RELATIVES]), tenant), is_cut


def children(
    connection: Connection, digest: str, tenant: str | None
) -> tuple[list[Relative], bool]:
    """What was made from an artefact directly: its children, then routings over it.

    With ``tenant``, only artefacts of which it has a live version.
    """
    found: dict[str, tuple[Relation, int]] = {}
    made = select(PARENTS.c.child).where(PARENTS.c.parent == digest)
    routed = select(ARTEFACTS.c.digest).where(ARTEFACTS.c.bank == digest)
    pairs: tuple[tuple[Relation, Select[tuple[str]]], ...] = (("child", made), ("routing", routed))
    for relation, query in pairs:
        column = query.selected_columns[0]
        if tenant is not None:
            query = query.where(column.in_(_digests_of(tenant)))
        query = query.order_by(column).limit(MAX_RELATIVES + 1)
        for one in connection.execute(query).scalars():
            found.setdefault(str(one), (relation, 1))
    kept = dict(list(found.items())[:MAX_RELATIVES])
    return _described(connection, kept, tenant), len(found) > MAX_RELATIVES


def _above(connection: Connection, digests: Sequence[str]) -> dict[str, Relation]:
    bound = select(ARTEFACTS.c.bank).where(
        ARTEFACTS.c.digest.in_(digests), ARTEFACTS.c.bank.isnot(None)
    )
    stated = select(PARENTS.c.parent).where(PARENTS.c.child.in_(digests))
    above: dict[str, Relation] = {}
    for bank in connection.execute(bound.distinct().order_by(ARTEFACTS.c.bank)).scalars():
        above[str(bank)] = "bank"
    for parent in connection.execute(stated.order_by(PARENTS.c.parent)).scalars():
        above.setdefault(str(parent), "parent")
    return above


def _described(
    connection: Connection, found: Mapping[str, tuple[Relation, int]], tenant: str | None
) -> list[Relative]:
    kinds = _kinds(connection, found)
    references = _references(connection, found, tenant)
    return [
        Relative(digest, relation, depth, kinds.get(digest), tuple(references.get(digest, ())))
        for digest, (relation, depth) in found.items()
    ]


def _kinds(connection: Connection, digests: Collection[str]) -> dict[str, str]:
    query = select(ARTEFACTS.c.digest, ARTEFACTS.c.kind).where(ARTEFACTS.c.digest.in_(digests))
    return {row.digest: row.kind for row in connection.execute(query)}


def _references(
    connection: Connection, digests: Collection[str], tenant: str | None
) -> dict[str, list[str]]:
    query = (
        select(VERSIONS.c.digest, NAMES.c.tenant, NAMES.c.name, VERSIONS.c.number)
        .join_from(VERSIONS, NAMES, NAMES.c.id == VERSIONS.c.name_id)
        .where(VERSIONS.c.digest.in_(digests), VERSIONS.c.deleted_at.is_(None))
        .order_by(NAMES.c.tenant, NAMES.c.name, VERSIONS.c.number)
    )
    if tenant is not None:
        query = query.where(NAMES.c.tenant == tenant)
    found: dict[str, list[str]] = {}
    for row in connection.execute(query):
        named = found.setdefault(row.digest, [])
        if len(named) < MAX_REFERENCES:
            named.append(str(Reference(row.tenant, row.name, version=row.number)))
    return found


def _digests_of(tenant: str) -> Select[tuple[str]]:
    return (
        select(VERSIONS.c.digest)
        .join_from(VERSIONS, NAMES, NAMES.c.id == VERSIONS.c.name_id)
        .where(NAMES.c.tenant == tenant, VERSIONS.c.deleted_at.is_(None))
    )
