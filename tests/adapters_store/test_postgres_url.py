"""URLs of PostgreSQL catalogs: what they mean, what is refused, what is never printed."""

from __future__ import annotations

import traceback

import pytest

from adapters_store.catalog import open_catalog
from adapters_store.catalog.postgres_url import parse_postgres_url
from adapters_store.errors import UnavailableError, UsageError

SECRET = "s3cr3t-w0rd"


def test_a_url_says_where_the_catalog_stands():
    url = parse_postgres_url("postgresql://ann:pw@db.example:5433/patchbay?schema=team_a")
    assert (url.user, url.password, url.host, url.port) == ("ann", "pw", "db.example", 5433)
    assert (url.database, url.schema) == ("patchbay", "team_a")
    assert url.location == "postgresql://ann@db.example:5433/patchbay?schema=team_a"


def test_what_a_url_leaves_out_is_left_to_the_driver():
    url = parse_postgres_url("postgresql:///patchbay?sslmode=require&host=/run/postgresql")
    assert (url.user, url.password, url.host, url.port) == (None, None, None, None)
    assert url.schema == "public"
    assert url.driver_options == {"sslmode": "require", "host": "/run/postgresql"}
    assert url.location == "postgresql:///run/postgresql/patchbay"


def test_variables_are_filled_in_and_their_values_stand_as_they_are(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "a/b?c#d@e%41:${HOME}")
    monkeypatch.setenv("PGHOST", "DB.example")
    monkeypatch.setenv("PGPORT", "6000")
    url = parse_postgres_url("postgresql://ann:${PGPASSWORD}@${PGHOST}:${PGPORT}/x%20y")
    assert url.password == "a/b?c#d@e%41:${HOME}"
    assert (url.host, url.port, url.database) == ("DB.example", 6000, "x y")


def test_a_literal_password_is_percent_decoded():
    assert parse_postgres_url("postgresql://a:p%40%2Fw@h/d").password == "p@/w"
    assert parse_postgres_url("postgresql://a@[::1]:5432/d").host == "::1"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://a:{SECRET}/x@h/d", "cannot be read"),
        (f"postgresql://a:{SECRET}@h:port/d", "cannot be read"),
        (f"postgresql://a:{SECRET}@h:99999/d", "cannot be read"),
        (f"postgresql://a:{SECRET}@[::1/d", "cannot be read"),
        (f"postgresql://a:{SECRET}@[::1]x/d", "cannot be read"),
        (f"postgresql://a:{SECRET}@h/d/e", "second path"),
        (f"postgresql://a:x#{SECRET}@h/d", "cannot be read"),
        (f"postgresql://a:{SECRET}@h/d#x", "fragment"),
        (f"postgresql://a@h/d?password={SECRET}", "option 'password'.*not known"),
        (f"postgresql://a:{SECRET}@h/d?shema=x", "option 'shema'"),
        (f"postgresql://a:{SECRET}@h/d?schema=a&schema=b", "stands twice"),
        (f"postgresql://a:{SECRET}@h/d?schema=Team-A", "schema 'Team-A'"),
        (f"postgresql://a:{SECRET}@h/d?schema=pg_x", "schema 'pg_x'"),
        (f"postgresql://a:{SECRET}${{NOT_SET_HERE}}@h/d", "'NOT_SET_HERE', which is not set"),
        (f"mysql://a:{SECRET}@h/d", "unknown catalog 'mysql'"),
        ("file://elsewhere/x", "expected a path"),
    ],
)
def test_a_url_that_cannot_be_understood_is_refused_without_repeating_it(url: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        open_catalog(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caught.value.hint


def test_the_password_is_in_no_text_of_the_parsed_url():
    url = parse_postgres_url(f"postgresql://a:{SECRET}@h/d")
    assert SECRET not in repr(url) + str(url) + url.location


def test_a_missing_driver_says_how_to_install_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UnavailableError, match="psycopg") as caught:
        open_catalog(f"postgresql://a:{SECRET}@127.0.0.1/d")
    assert "pip install 'patchbay[postgres]'" in caught.value.hint
