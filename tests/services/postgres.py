"""A PostgreSQL server for the tests, and a schema of its own for each test that asks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from benchmarks.services import ServiceMissingError, new_database, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server where databases may be made. Skips without one, but never in CI."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres_server())
        except ServiceMissingError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield url


@pytest.fixture(scope="session")
def new_postgres_url(postgres: str) -> Iterator[Callable[[], str]]:
    """A function that gives the URL of a catalog in a new schema, in a database of this run."""
    with new_database(postgres) as database:
        separator = "&" if urlsplit(database).query else "?"
        yield lambda: f"{database}{separator}schema=test_{uuid.uuid4().hex}"


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """The URL of a catalog that no other test sees."""
    return new_postgres_url()
