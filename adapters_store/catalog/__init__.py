"""The catalog: names, versions and aliases in SQL. Rules live in transactions, not in callers.

Functions here take an open connection of a :class:`~adapters_store.catalog.database.Database`; the
store composes them. One file per kind of database, found through a lazy table. Nothing in this
package imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from adapters_store.errors import UsageError
from adapters_store.lazy import resolve

if TYPE_CHECKING:
    from adapters_store.catalog.database import Database

CATALOGS: dict[str, str] = {
    "sqlite": "adapters_store.catalog.sqlite:SqliteDatabase",
    "postgresql": "adapters_store.catalog.postgres:PostgresDatabase",
}

__all__ = ["CATALOGS", "open_catalog"]


def open_catalog(url: str | Path, *, create: bool = True) -> Database:
    """Open the catalog at a URL, made and migrated where needed.

    A path or ``file:///path`` is a SQLite file; ``postgresql://user:${VARIABLE}@host:port/database``
    is PostgreSQL (environment variables are filled in; ``?schema=name`` chooses a schema). With
    ``create`` False an absent catalog raises NotFoundError. Raises UsageError for a URL that cannot
    be understood, UnavailableError where the database cannot be used, CorruptStoreError where it
    is damaged.
    """
    text = str(url)
    scheme, separator, _ = text.partition("://")
    if not separator:
        scheme, text = "sqlite", str(Path(text).expanduser())
    elif scheme == "file":
        scheme, text = "sqlite", _path_of(text)
    database: Database = resolve(CATALOGS, scheme, "catalog")(text, create=create)
    return database


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
        raise UsageError(f"catalog location {url!r}; expected a path or file:///absolute/path")
    return unquote(parts.path)
