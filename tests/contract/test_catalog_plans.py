"""However many versions a catalog holds, what serving asks walks indexes and reads few rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from services.catalogs import new_catalog_url
from services.places import StorePlace
from sqlalchemy import Connection, Engine, event
from store_kit import bank

from adapters_store.catalog import CATALOGS
from adapters_store.errors import NotFoundError
from adapters_store.names import Reference
from adapters_store.store import Store
from benchmarks.registry_rows import Population

NUM_VERSIONS, NUM_TENANTS, PAGE = 20_000, 100, 50
# The rows that a plan may read: a page, with what belongs to each of its names.
MAX_ROWS = 16 * PAGE
MAX_OPCODES = 500 * PAGE

Statement = tuple[str, Any]


@pytest.fixture(scope="module", params=list(CATALOGS))
def catalog(request, tmp_path_factory, t5) -> Iterator[tuple[Store, Population]]:
    """20,000 versions of routings over 100 tenants, and one bank of another."""
    folder = tmp_path_factory.mktemp("large")
    url = new_catalog_url(request.param, request, folder)
    with StorePlace(url, str(folder / "blobs")).open() as store:
        store.add_backbone(t5)
        shared = bank(t5)
        store.publish("zoo/bank", shared)
        population = Population(
            NUM_VERSIONS, NUM_TENANTS, backbone=t5.record.fingerprint, bank=shared.digest
        )
        population.load(store._database)
        yield store, population


def resolve_by(**values: Any) -> Callable[[Store, Population], object]:
    def call(store: Store, population: Population) -> object:
        name = population.name(2_222)
        given = {
            key: value(population) if callable(value) else value for key, value in values.items()
        }
        return store.resolve(Reference(name.tenant, name.name, **given))

    return call


def unknown(store: Store, population: Population) -> object:
    name = population.name(2_222)
    with pytest.raises(NotFoundError, match="Did you mean"):
        store.resolve(Reference(name.tenant, name.name[:-1] + "x"))
    return None


CALLS: dict[str, Callable[[Store, Population], object]] = {
    "resolve bare": resolve_by(),
    "resolve alias": resolve_by(alias="prod"),
    "resolve latest": resolve_by(alias="latest"),
    "resolve number": resolve_by(version=3),
    "resolve digest": resolve_by(digest=lambda population: population.digest(2_222, 3)),
    "resolve unknown": unknown,
    "list": lambda store, _: store.list(limit=PAGE),
    "list after": lambda store, p: store.list(limit=PAGE, after=p.name(2_222).full_name),
    "list tenant": lambda store, p: store.list(limit=PAGE, tenant=p.name(2_222).tenant),
    "list tenant after": lambda store, p: store.list(
        limit=PAGE, tenant=p.name(2_222).tenant, after=p.name(2_222).full_name
    ),
    "list common kind": lambda store, _: store.list(limit=PAGE, kind="routing"),
    "list common kind after": lambda store, p: store.list(
        limit=PAGE, kind="routing", after=p.name(2_222).full_name
    ),
    "list rare kind": lambda store, _: store.list(limit=PAGE, kind="bank"),
    "list rare kind after": lambda store, p: store.list(
        limit=PAGE, kind="bank", after=p.name(2_222).full_name
    ),
    "list absent kind": lambda store, _: store.list(limit=PAGE, kind="adapter"),
    "list kind of tenant": lambda store, p: store.list(
        limit=PAGE, kind="bank", tenant=p.name(2_222).tenant
    ),
    "versions": lambda store, p: store.versions(p.name(2_222).full_name),
    "versions page": lambda store, p: store.versions(p.name(2_222).full_name, limit=2, before=4),
    "aliases": lambda store, p: store.aliases(p.name(2_222).full_name),
    "backbones": lambda store, _: store.backbones(),
    "generation": lambda store, _: store.generation(),
}


@contextmanager
def recording() -> Iterator[list[Statement]]:
    """Every statement that any engine is about to execute, with its parameters."""
    statements: list[Statement] = []

    def record(_connection, _cursor, statement, parameters, *_rest) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


def check_on_sqlite(connection: Connection, statement: str, parameters: Any) -> None:
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    steps = [row.detail for row in plan]
    for step in steps:
        if step.startswith("SCAN") and "CONSTANT" not in step:
            assert step in SMALL_SCANS or "USING INDEX names_live" in step, (statement, steps)
    num_opcodes = 0

    def count() -> None:
        nonlocal num_opcodes
        num_opcodes += 100

    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(count, 100)
    connection.exec_driver_sql(statement, parameters).all()
    driver.set_progress_handler(None, 0)
    assert num_opcodes < MAX_OPCODES, (statement, steps)


SMALL_SCANS = ("SCAN page", "SCAN backbones USING INDEX sqlite_autoindex_backbones_2")


def check_on_postgresql(connection: Connection, statement: str, parameters: Any) -> None:
    explained = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
    ).scalar_one()
    [document] = explained if isinstance(explained, list) else json.loads(explained)
    num_rows = 0
    for node in nodes(document["Plan"]):
        touched = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        num_rows += touched * node["Actual Loops"]
        if node["Node Type"] == "Seq Scan":
            assert node["Relation Name"] in {"backbones", "counters"}, (statement, document)
    assert num_rows < MAX_ROWS, (statement, document)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


CHECKS = {"sqlite": check_on_sqlite, "postgresql": check_on_postgresql}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_scans_a_table(catalog, call: str):
    store, population = catalog
    CALLS[call](store, population)
    with recording() as statements:
        CALLS[call](store, population)
    asked = [(text, given) for text, given in statements if text.startswith("SELECT")]
    assert asked
    with store._database.read() as connection:
        for text, given in asked:
            CHECKS[connection.dialect.name](connection, text, given)
