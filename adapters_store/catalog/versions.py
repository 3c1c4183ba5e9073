"""Reading versions: a reference is resolved by one query that walks indexes only."""

from __future__ import annotations

import difflib
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    ScalarSelect,
    Select,
    bindparam,
    func,
    literal_column,
    select,
)

from adapters_store.catalog.schema import ALIASES, ARTEFACTS, NAMES, VERSIONS
from adapters_store.errors import DeletedError, NotFoundError
from adapters_store.names import DEFAULT_ALIAS, LATEST_ALIAS, Reference
from adapters_store.records import Version

# Part of the statement's text: a bound separator would be rendered anew at every execution.
_COMMA: Any = literal_column("','")


def _aliases() -> ScalarSelect[Any]:
    return (
        select(func.aggregate_strings(ALIASES.c.alias, _COMMA))
        .where(ALIASES.c.name_id == VERSIONS.c.name_id, ALIASES.c.number == VERSIONS.c.number)
        .correlate(VERSIONS)
        .scalar_subquery()
    )


def _pointed_at() -> ScalarSelect[Any]:
    return (
        select(ALIASES.c.number)
        .where(ALIASES.c.name_id == NAMES.c.id, ALIASES.c.alias == bindparam("alias"))
        .correlate(NAMES)
        .scalar_subquery()
    )


def select_versions(names: FromClause, *, number: ColumnElement[int] | None = None) -> Select[Any]:
    """Rows for ``as_version`` of the versions of ``names``, of one number each if one is given."""
    is_theirs = VERSIONS.c.name_id == names.c.id
    if number is not None:
        is_theirs &= VERSIONS.c.number == number
    return (
        select(
            names.c.tenant,
            names.c.name,
            VERSIONS,
            ARTEFACTS.c.kind,
            ARTEFACTS.c.backbone,
            ARTEFACTS.c.bank,
            ARTEFACTS.c.data_bytes,
            _aliases().label("aliases"),
        )
        .join_from(names, VERSIONS, is_theirs)
        .join(ARTEFACTS, ARTEFACTS.c.digest == VERSIONS.c.digest)
    )


VERSION_ROWS = select_versions(NAMES)
_OF_NAME = VERSION_ROWS.where(
    NAMES.c.tenant == bindparam("tenant"), NAMES.c.name == bindparam("name")
)
_BY_ALIAS = _OF_NAME.where(VERSIONS.c.number == _pointed_at())
# Numbers have no gaps, so the last one stands for a name without a live version.
_NEWEST = func.coalesce(NAMES.c.newest, NAMES.c.num_versions)
_BY_DEFAULT = _OF_NAME.where(VERSIONS.c.number == func.coalesce(_pointed_at(), _NEWEST))
_BY_LATEST = _OF_NAME.where(VERSIONS.c.number == _NEWEST)
_BY_NUMBER = _OF_NAME.where(VERSIONS.c.number == bindparam("number"))
_BY_DIGEST = (
    _OF_NAME.where(VERSIONS.c.digest == bindparam("digest"))
    .order_by(
        VERSIONS.c.deleted_at.isnot(None),
        VERSIONS.c.purged_at.isnot(None),
        VERSIONS.c.number.desc(),
    )
    .limit(1)
)


def find(connection: Connection, reference: Reference) -> Version:
    """The version that a reference means, deleted or not; raises NotFoundError."""
    values = {
        "tenant": reference.tenant,
        "name": reference.name,
        "alias": reference.alias or DEFAULT_ALIAS,
        "number": reference.version,
        "digest": reference.digest,
    }
    query = _query_for(reference)
    row = connection.execute(query, values).first()
    if row is None:
        raise _not_found(connection, reference)
    version = as_version(row)
    if reference.digest is not None and version.digest != reference.digest:
        raise NotFoundError(
            f"{reference.full_name}:{version.number} has digest {version.digest}; "
            f"asked for {reference.digest}"
        )
    return version


def resolve(connection: Connection, reference: Reference) -> Version:
    """The live version that a reference means; raises NotFoundError or DeletedError."""
    version = find(connection, reference)
    if version.is_purged:
        raise collected_error(version)
    if version.is_deleted:
        alias = reference.alias or (DEFAULT_ALIAS if DEFAULT_ALIAS in version.aliases else None)
        pointer = f" (alias {alias!r} still points there)" if alias in version.aliases else ""
        because = f" for the reason {version.delete_reason!r}" if version.delete_reason else ""
        raise DeletedError(
            f"{reference.full_name}:{version.number} was deleted at {version.deleted_at} "
            f"by {version.deleted_by}{because}{pointer}",
            hint="Restore it, move the alias, publish a new version, or name another version.",
        )
    return version


def collected_error(version: Version) -> DeletedError:
    """What is to be said of a version whose content is gone for good."""
    return DeletedError(
        f"{version.full_name}:{version.number} was deleted at {version.deleted_at} by "
        f"{version.deleted_by}; its content was collected at {version.purged_at} and it can no "
        "longer be restored",
        hint="Move the alias, publish a new version, or name another version.",
    )


def list_versions(
    connection: Connection,
    reference: Reference,
    *,
    limit: int | None = None,
    before: int | None = None,
) -> list[Version]:
    """A page of a name's versions, deleted ones too, newest first, below a number (exclusive).

    Raises NotFoundError for an unknown name.
    """
    query = _OF_NAME.order_by(VERSIONS.c.number.desc())
    if limit is not None:
        query = query.limit(limit)
    if before is not None:
        query = query.where(VERSIONS.c.number < before)
    values = {"tenant": reference.tenant, "name": reference.name}
    found = [as_version(row) for row in connection.execute(query, values)]
    if not found:
        name_id(connection, reference)
    return found


def collected_at(connection: Connection, digest: str) -> str | None:
    """When the content of an artefact was collected, or None; raises NotFoundError."""
    query = select(ARTEFACTS.c.digest, ARTEFACTS.c.collected_at).where(ARTEFACTS.c.digest == digest)
    row = connection.execute(query).first()
    if row is None:
        raise NotFoundError(f"no artefact {digest} was ever published here")
    at: str | None = row.collected_at
    return at


def name_id(connection: Connection, reference: Reference) -> int:
    """The key of a name's row; raises NotFoundError."""
    query = select(NAMES.c.id).where(
        NAMES.c.tenant == reference.tenant, NAMES.c.name == reference.name
    )
    found: int | None = connection.execute(query).scalar()
    if found is None:
        raise _not_found(connection, reference)
    return found


def as_version(row: Row[Any]) -> Version:
    """A record from a row of ``VERSION_ROWS``."""
    fields = row._mapping
    aliases: str | None = fields["aliases"]
    return Version(
        tenant=fields["tenant"],
        name=fields["name"],
        number=fields["number"],
        digest=fields["digest"],
        kind=fields["kind"],
        backbone=fields["backbone"],
        bank=fields["bank"],
        data_bytes=fields["data_bytes"],
        created_at=fields["created_at"],
        actor=fields["actor"],
        aliases=tuple(sorted(aliases.split(","))) if aliases else (),
        deleted_at=fields["deleted_at"],
        deleted_by=fields["deleted_by"],
        delete_reason=fields["delete_reason"],
        purged_at=fields["purged_at"],
    )


def _query_for(reference: Reference) -> Select[Any]:
    if reference.version is not None:
        return _BY_NUMBER
    if reference.digest is not None:
        return _BY_DIGEST
    if reference.alias is None:
        return _BY_DEFAULT
    return _BY_LATEST if reference.alias == LATEST_ALIAS else _BY_ALIAS


def _not_found(connection: Connection, reference: Reference) -> NotFoundError:
    query = select(NAMES.c.id, NAMES.c.num_versions).where(
        NAMES.c.tenant == reference.tenant, NAMES.c.name == reference.name
    )
    name = connection.execute(query).first()
    if name is not None:
        aliases = connection.execute(
            select(ALIASES.c.alias).where(ALIASES.c.name_id == name.id).order_by(ALIASES.c.alias)
        ).scalars()
        known = ", ".join(aliases) or "none"
        return NotFoundError(
            f"{reference} does not exist; {reference.full_name} has versions 1 to "
            f"{name.num_versions} and aliases: {known}"
        )
    siblings = select(NAMES.c.name).where(NAMES.c.tenant == reference.tenant).limit(1000)
    near = difflib.get_close_matches(
        reference.name, connection.execute(siblings).scalars().all(), n=1
    )
    guess = f" Did you mean {reference.tenant}/{near[0]}?" if near else ""
    return NotFoundError(f"{reference.full_name} does not exist.{guess}")
