"""A PostgreSQL catalog: one schema of a database, shared by processes on many machines."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.schema import CreateSchema

from adapters_store.catalog.database import IS_WRITE, LOCK_TIMEOUT_S, Database
from adapters_store.catalog.postgres_url import PostgresUrl, parse_postgres_url
from adapters_store.errors import CorruptStoreError, PatchbayError, UnavailableError, UsageError

_POOL_SIZE = 4
_MAX_OVERFLOW = 12
_CONNECT_TIMEOUT_S = 10
_LOCK_NAMESPACE = "patchbay catalog writer"
# A client that is gone loses its locks within two minutes. One that is there may do much between
# two statements, such as removing blobs, for which it must keep the writer's lock.
_KEEPALIVES = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 6}
_IDLE_IN_TRANSACTION_S = 1800
_DENIED = "42501"
_LOCK_TIMEOUT = "55P03"
_DAMAGED = ("XX001", "XX002")


class PostgresDatabase(Database):
    """The catalog in one schema; the schema is made with the tables, the database is not."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._url = parse_postgres_url(url)
        engine = _engine(self._url)
        lock_key = _lock_key(self._url.schema)

        def begin(connection: Connection) -> None:
            if connection.get_execution_options().get(IS_WRITE, False):
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock_key})")

        event.listen(engine, "connect", self._configure)
        event.listen(engine, "begin", begin)
        super().__init__(
            self._url.location,
            reader=engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            ),
            # Whatever the server's default is: a snapshot taken before the lock would be stale.
            writer=engine.execution_options(isolation_level="READ COMMITTED", **{IS_WRITE: True}),
        )
        try:
            self.prepare(create=create)
        except PatchbayError:
            self.close()
            raise

    def prepare(self, *, create: bool) -> None:
        """As every database does, in a schema that is made first."""
        if create:
            self._make_schema()
        super().prepare(create=create)

    def as_typed(self, error: DBAPIError) -> PatchbayError | None:
        """Connections that fail or break, refusals of the server and damage of its files."""
        state = getattr(error.orig, "sqlstate", None)
        told = f"the catalog {self.location} cannot be used: {self._told(error)}"
        if state in _DAMAGED:
            return CorruptStoreError(f"the catalog {self.location} is damaged: {self._told(error)}")
        if state == _DENIED:
            return UnavailableError(
                told,
                hint="Grant the user CREATE on the schema or the database, or name a schema of "
                "its own as ?schema=name.",
            )
        if state == _LOCK_TIMEOUT:
            return UnavailableError(
                f"{told} (another writer kept it for {LOCK_TIMEOUT_S:.0f} s)",
                hint="Repeat the change in a moment.",
            )
        if error.connection_invalidated:
            return UnavailableError(
                told,
                hint="The connection broke: a change may or may not have been stored; read the "
                "present state before repeating it.",
            )
        if isinstance(error, OperationalError | InterfaceError | InternalError):
            return UnavailableError(
                told,
                hint="Check that PostgreSQL is up there, and the URL's host, port, user, password "
                "and database.",
            )
        return None

    def _configure(self, connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise UsageError(
                f"the catalog {self._url.location} is in a database of encoding {encoding}; "
                "expected UTF8",
                hint="Create a database for it with ENCODING 'UTF8' TEMPLATE template0.",
            )
        settings = {
            "search_path": f'"{self._url.schema}"',
            "lock_timeout": f"{LOCK_TIMEOUT_S:.0f}s",
            "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_S}s",
            **_KEEPALIVES,
        }
        # Within the session, so that a pooler that hands out sessions may stand between.
        chosen = ", ".join(f"set_config('{name}', %({name})s, false)" for name in settings)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {chosen}, CASE current_setting('synchronous_commit') "
                "WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END",
                {name: str(value) for name, value in settings.items()},
            )
        connection.commit()

    def _make_schema(self) -> None:
        with self.read() as connection:
            if connection.dialect.has_schema(connection, self._url.schema):
                return
        with self.write() as connection:
            connection.execute(CreateSchema(self._url.schema, if_not_exists=True))

    def _told(self, error: DBAPIError) -> str:
        """The server's or the driver's own words, on one line, without the password."""
        text = " ".join(str(error.orig).split())
        return text.replace(self._url.password, "***") if self._url.password else text


def _engine(url: PostgresUrl) -> Engine:
    defaults = {"application_name": "patchbay", "connect_timeout": _CONNECT_TIMEOUT_S}
    try:
        return create_engine(
            url.driver_url,
            connect_args=defaults | url.driver_options,
            pool_size=_POOL_SIZE,
            max_overflow=_MAX_OVERFLOW,
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except ImportError as error:
        raise UnavailableError(
            "a PostgreSQL catalog needs the Python package 'psycopg', which cannot be imported",
            hint="Install it: pip install 'patchbay[postgres]'.",
        ) from error


def _lock_key(schema: str) -> int:
    """The advisory lock of a schema's writer, a signed 64-bit number."""
    digest = hashlib.sha256(f"{_LOCK_NAMESPACE}/{schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
