"""Tags: small words on names and versions, set, removed and found by index."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from adapters_store.catalog import versions as version_rows
from adapters_store.catalog.database import Database
from adapters_store.catalog.journal import journal
from adapters_store.catalog.schema import TAGS
from adapters_store.catalog.tagged import OF_NAME
from adapters_store.errors import ConflictError, NotFoundError
from adapters_store.ledger.events import Subject, check_note
from adapters_store.names import Reference, check_name, parsed

MAX_TAGS = 64
MAX_VALUE_CHARACTERS = 200


class Tags:
    """``store.tags``. A bare ``tenant/name`` means the name itself, anything else a version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(
        self, reference: str | Reference, key: str, value: str, *, actor: str = "local"
    ) -> None:
        """Set a tag, replacing its value.

        Keys are names, values at most ``MAX_VALUE_CHARACTERS`` printable characters. Raises
        InvalidNameError, UsageError, NotFoundError, DeletedError, and ConflictError above
        ``MAX_TAGS`` tags.
        """
        check_name(key, "tag")
        check_note(value, "tag value", max_characters=MAX_VALUE_CHARACTERS)
        with journal(self._database, actor) as change:
            connection = change.connection
            name_id, subject = _target(connection, parsed(reference), is_live=True)
            number = subject.version or OF_NAME
            present = _read(connection, name_id, number)
            if present.get(key) == value:
                return
            if key not in present and len(present) >= MAX_TAGS:
                raise ConflictError(
                    f"{subject.reference} has {len(present)} tags; the limit is {MAX_TAGS}",
                    hint="Remove a tag that is no longer needed.",
                )
            columns = {"value": value, "actor": change.actor, "at": change.at}
            where = (TAGS.c.name_id == name_id, TAGS.c.number == number, TAGS.c.key == key)
            if key in present:
                connection.execute(update(TAGS).where(*where).values(columns))
            else:
                place = {"tenant": subject.tenant, "name": subject.name}
                row = {"name_id": name_id, "number": number, "key": key} | place | columns
                connection.execute(insert(TAGS).values(row))
            change.record("tag.set", subject, key=key, value=value, previous=present.get(key))

    def remove(self, reference: str | Reference, key: str, *, actor: str = "local") -> None:
        """Remove a tag; raises NotFoundError where it is not set."""
        with journal(self._database, actor) as change:
            connection = change.connection
            name_id, subject = _target(connection, parsed(reference), is_live=False)
            number = subject.version or OF_NAME
            present = _read(connection, name_id, number)
            if key not in present:
                known = ", ".join(present) or "none"
                raise NotFoundError(f"{subject.reference} has no tag {key[:80]!r}; set: {known}")
            connection.execute(
                delete(TAGS).where(
                    TAGS.c.name_id == name_id, TAGS.c.number == number, TAGS.c.key == key
                )
            )
            change.record("tag.removed", subject, key=key, previous=present[key])

    def list(self, reference: str | Reference) -> dict[str, str]:
        """The tags of a name or of a version, by key; raises NotFoundError."""
        with self._database.read() as connection:
            name_id, subject = _target(connection, parsed(reference), is_live=False)
            return _read(connection, name_id, subject.version or OF_NAME)


def parse_tag(text: str) -> tuple[str, str | None]:
    """``key=value`` or ``key`` alone, which stands for any value; raises InvalidNameError."""
    key, separator, value = text.partition("=")
    return check_name(key, "tag"), value if separator else None


def _target(connection: Connection, reference: Reference, *, is_live: bool) -> tuple[int, Subject]:
    if reference.is_bare:
        name_id = version_rows.name_id(connection, reference)
        return name_id, Subject(reference.tenant, reference.name)
    read = version_rows.resolve if is_live else version_rows.find
    found = read(connection, reference)
    return version_rows.name_id(connection, reference), found.subject


def _read(connection: Connection, name_id: int, number: int) -> dict[str, str]:
    query = select(TAGS.c.key, TAGS.c.value).where(
        TAGS.c.name_id == name_id, TAGS.c.number == number
    )
    return {row.key: row.value for row in connection.execute(query.order_by(TAGS.c.key))}
