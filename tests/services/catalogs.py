"""The catalogs that suites run over: one empty catalog per test and row of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters_store.catalog import CATALOGS


@pytest.fixture(params=list(CATALOGS))
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a catalog that is not made yet."""
    return new_catalog_url(request.param, request, tmp_path)


def new_catalog_url(row: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """A place for a new catalog of that row of the table."""
    if row == "postgresql":
        made: str = request.getfixturevalue("new_postgres_url")()
        return made
    return str(folder / f"catalog.{row}")
