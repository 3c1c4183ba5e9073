"""What PostgreSQL adds: a server that can be absent, refuse, break, and be shared by schemas."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import text

from adapters_store.catalog import database as database_module
from adapters_store.catalog import open_catalog
from adapters_store.catalog.schema import COUNTERS, GENERATION
from adapters_store.errors import NotFoundError, PatchbayError, UnavailableError, UsageError

SECRET = "s3cr3t-w0rd"


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", f":{password}@")


def everything_told(error: PatchbayError) -> str:
    return "".join(traceback.format_exception(error)) + error.hint


def test_a_wrong_password_is_refused_and_never_shown(postgres_url, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UnavailableError, match="password authentication failed") as caught:
        open_catalog(with_password(postgres_url, SECRET))
    assert "password" in caught.value.hint
    assert SECRET not in everything_told(caught.value) + caplog.text


def test_a_password_that_the_server_repeats_is_masked(postgres_url):
    user = urlsplit(postgres_url).username
    with pytest.raises(UnavailableError, match=r"user \"\*\*\*\"") as caught:
        open_catalog(with_password(postgres_url, str(user)))
    assert caught.value.hint


def test_a_server_that_is_not_there_is_unavailable(postgres_url):
    url = f"postgresql://a:{SECRET}@127.0.0.1:1/d"
    with pytest.raises(UnavailableError, match=r"a@127.0.0.1:1/d.*refused") as caught:
        open_catalog(url)
    assert SECRET not in everything_told(caught.value)


def test_a_missing_database_is_unavailable(postgres_url):
    path = urlsplit(postgres_url).path
    with pytest.raises(UnavailableError, match='database "absent" does not exist'):
        open_catalog(postgres_url.replace(f"{path}?", "/absent?"))


def test_a_database_of_another_encoding_is_refused(postgres, postgres_url):
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE patchbay_test_latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
        )
        try:
            path = urlsplit(postgres_url).path
            with pytest.raises(UsageError, match="encoding LATIN1; expected UTF8"):
                open_catalog(postgres_url.replace(f"{path}?", "/patchbay_test_latin1?"))
        finally:
            connection.execute("DROP DATABASE patchbay_test_latin1 WITH (FORCE)")


def test_a_user_who_may_not_create_is_told_what_to_grant(postgres, postgres_url):
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE patchbay_guest LOGIN PASSWORD '{SECRET}'")
        try:
            parts = urlsplit(postgres_url)
            guest = postgres_url.replace(
                f"{parts.username}:{parts.password}@", f"patchbay_guest:{SECRET}@"
            )
            with pytest.raises(UnavailableError, match="permission denied") as caught:
                open_catalog(guest)
        finally:
            connection.execute("DROP ROLE patchbay_guest")
    assert "Grant" in caught.value.hint
    assert SECRET not in everything_told(caught.value)


def test_an_absent_catalog_is_not_made_on_request(postgres_url):
    with pytest.raises(NotFoundError, match="no catalog at postgresql://"):
        open_catalog(postgres_url, create=False)
    open_catalog(postgres_url).close()
    open_catalog(postgres_url, create=False).close()


def test_schemas_are_catalogs_of_their_own(new_postgres_url):
    first, second = open_catalog(new_postgres_url()), open_catalog(new_postgres_url())
    with first.write() as connection:
        connection.execute(COUNTERS.update().values(value=7))
        # A writer of one schema does not hold up the writer of another.
        with second.write() as other:
            assert other.execute(GENERATION).scalar_one() == 0
    first.close()
    second.close()


def test_a_broken_connection_is_told_and_the_next_one_works(postgres, postgres_url):
    catalog = open_catalog(postgres_url)

    def write_while_the_connection_is_cut() -> None:
        with catalog.write() as connection:
            connection.execute(COUNTERS.update().values(value=7))
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(postgres, autocommit=True) as server:
                server.execute("SELECT pg_terminate_backend(%s)", [pid])

    with pytest.raises(UnavailableError, match="cannot be used") as caught:
        write_while_the_connection_is_cut()
    assert "may or may not" in caught.value.hint
    with catalog.read() as connection:
        assert connection.execute(GENERATION).scalar_one() == 0
    catalog.close()


def test_an_idle_connection_that_the_server_closed_costs_no_request(postgres, postgres_url):
    catalog = open_catalog(postgres_url)
    with catalog.read() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute("SELECT pg_terminate_backend(%s)", [pid])
    with catalog.read() as connection:
        assert connection.execute(GENERATION).scalar_one() == 0
    catalog.close()


def test_a_writer_that_waits_too_long_is_told(postgres_url, monkeypatch):
    monkeypatch.setattr("adapters_store.catalog.postgres.LOCK_TIMEOUT_S", 1.0)
    first, second = open_catalog(postgres_url), open_catalog(postgres_url)
    with (
        first.write(),
        pytest.raises(UnavailableError, match="another writer") as caught,
        second.write(),
    ):
        pass
    assert "Repeat" in caught.value.hint
    first.close()
    second.close()


def test_readers_never_write_and_commits_are_durable(postgres, postgres_url):
    catalog = open_catalog(postgres_url.replace("?", "?application_name=durable&"))
    schema = postgres_url.rpartition("schema=")[2]
    with catalog.write() as connection:
        settings = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("synchronous_commit", "application_name", "lock_timeout", "search_path")
        }
    assert settings == {
        "synchronous_commit": "on",
        "application_name": "durable",
        "search_path": f'"{schema}"',
        "lock_timeout": f"{database_module.LOCK_TIMEOUT_S:.0f}s",
    }
    with pytest.raises(UnavailableError, match="read-only"), catalog.read() as connection:
        connection.execute(COUNTERS.update().values(value=7))
    catalog.close()


def test_a_writer_sees_what_the_one_before_it_did_whatever_the_default_isolation(postgres_url):
    name = urlsplit(postgres_url).path[1:]
    setting = f"ALTER DATABASE {name} %s default_transaction_isolation"
    with psycopg.connect(postgres_url.partition("?")[0], autocommit=True) as connection:
        connection.execute(setting % "SET" + " TO 'repeatable read'")
        catalog = open_catalog(postgres_url)
        seen: list[int] = []

        def write() -> None:
            with catalog.write() as waiting:
                seen.append(waiting.execute(GENERATION).scalar_one())

        second = threading.Thread(target=write)
        try:
            with catalog.write() as first:
                second.start()
                wait_for_a_waiting_writer(connection)
                first.execute(COUNTERS.update().values(value=41))
            second.join()
        finally:
            connection.execute(setting % "RESET")
    assert seen == [41]
    catalog.close()


def wait_for_a_waiting_writer(connection: psycopg.Connection) -> None:
    """Until some session waits for an advisory lock."""
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    give_up_at_s = time.monotonic() + 30
    while connection.execute(waiting).fetchone() is None:
        assert time.monotonic() < give_up_at_s
        time.sleep(0.02)


def test_a_pool_with_every_connection_in_use_is_told(postgres_url, monkeypatch):
    monkeypatch.setattr("adapters_store.catalog.postgres._POOL_SIZE", 1)
    monkeypatch.setattr("adapters_store.catalog.postgres._MAX_OVERFLOW", 0)
    catalog = open_catalog(postgres_url)
    monkeypatch.setattr(catalog._reader.pool, "_timeout", 0.1)
    failures: list[UnavailableError] = []

    def read() -> None:
        try:
            with catalog.read():
                pass
        except UnavailableError as error:
            failures.append(error)

    with catalog.read():
        other = threading.Thread(target=read)
        other.start()
        other.join()
    [failure] = failures
    assert "all connections are busy" in failure.message
    catalog.close()
