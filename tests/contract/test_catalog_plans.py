"""However many versions a catalog holds, what serving asks walks indexes and reads few rows."""

from __future__ import annotations

import json
import random
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from services.catalogs import new_catalog_url
from services.places import StorePlace
from sqlalchemy import Connection, Engine, event, insert, literal, select
from store_kit import bank, routing

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.catalog import CATALOGS, reachability
from adapters_store.catalog.clock import now
from adapters_store.catalog.schema import NAMES, TAGS
from adapters_store.errors import NotFoundError
from adapters_store.names import Reference
from adapters_store.store import Store
from benchmarks.registry_rows import Population

NUM_VERSIONS, NUM_TENANTS, PAGE = 20_000, 100, 50
# The rows that a plan may read: a page, with what belongs to each of its names.
MAX_ROWS = 16 * PAGE
MAX_OPCODES = 500 * PAGE
MAX_VERIFY_BYTES = 3 * 2**20

# What may be read whole: tables of a few rows, the keys that a query was given, and the page that
# it has cut out already.
SMALL = {"backbones", "counters", "event_head", "lease_owners", "leases", "pins"}
SMALL |= {"CONSTANT", "page", "wanted"}

Statement = tuple[str, Any]


@dataclass(frozen=True)
class Large:
    """A store, what was loaded into it, and what routings for it are made of."""

    store: Store
    population: Population
    material: tuple[Backbone, Artefact]

    @property
    def name(self) -> Reference:
        """One of the names."""
        return self.population.name(2_222)

    def digest(self) -> str:
        """The digest of one of that name's versions."""
        return self.population.digest(2_222, 3)


@pytest.fixture(scope="module", params=list(CATALOGS))
def large(request, tmp_path_factory, t5) -> Iterator[Large]:
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
        for number in (1, 2_222, 4_000):
            store.tags.set(population.name(number).full_name, "rare", "yes")
        with store._database.write() as connection:
            tag_every_name(connection)
        yield Large(store, population, (t5, shared))


def tag_every_name(connection: Connection) -> None:
    """Give every name ``common=yes``, counted as PostgreSQL's autovacuum soon would."""
    everyone = select(
        NAMES.c.id,
        literal(0),
        literal("common"),
        literal("yes"),
        NAMES.c.tenant,
        NAMES.c.name,
        literal("local"),
        NAMES.c.created_at,
    )
    columns = ["name_id", "number", "key", "value", "tenant", "name", "actor", "at"]
    connection.execute(insert(TAGS).from_select(columns, everyone))
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE tags")


def resolve(large: Large, **values: Any) -> object:
    return large.store.resolve(Reference(large.name.tenant, large.name.name, **values))


def resolve_unknown(large: Large) -> object:
    with pytest.raises(NotFoundError, match="Did you mean"):
        large.store.resolve(Reference(large.name.tenant, large.name.name[:-1] + "x"))
    return None


def list_names(
    large: Large, *, after: bool = False, tenant: bool = False, **options: Any
) -> object:
    return large.store.list(
        limit=PAGE,
        after=large.name.full_name if after else None,
        tenant=large.name.tenant if tenant else None,
        **options,
    )


def publish(large: Large) -> object:
    """A batch as large as a page, every other artefact under a name that exists."""
    items = [
        (
            large.population.name(number).full_name if number % 2 else f"fresh/{uuid.uuid4().hex}",
            routing(*large.material, seed=random.getrandbits(32)),
        )
        for number in range(PAGE)
    ]
    return large.store.publish_many(items)


CALLS: dict[str, Callable[[Large], object]] = {
    "resolve bare": resolve,
    "resolve alias": partial(resolve, alias="prod"),
    "resolve latest": partial(resolve, alias="latest"),
    "resolve number": partial(resolve, version=3),
    "resolve digest": lambda large: resolve(large, digest=large.digest()),
    "resolve pinned": lambda large: resolve(large, version=3, digest=large.digest()),
    "resolve unknown": resolve_unknown,
    "list": list_names,
    "list after": partial(list_names, after=True),
    "list tenant": partial(list_names, tenant=True),
    "list tenant after": partial(list_names, tenant=True, after=True),
    "list common kind": partial(list_names, kind="routing"),
    "list common kind after": partial(list_names, kind="routing", after=True),
    "list rare kind": partial(list_names, kind="bank"),
    "list rare kind after": partial(list_names, kind="bank", after=True),
    "list absent kind": partial(list_names, kind="adapter"),
    "list rare kind of tenant": partial(list_names, kind="bank", tenant=True),
    "list rare tag": partial(list_names, tag="rare=yes"),
    "list rare tag after": partial(list_names, tag="rare=yes", after=True),
    "list rare key": partial(list_names, tag="rare"),
    "list absent tag": partial(list_names, tag="rare=no"),
    "list common tag": partial(list_names, tag="common=yes"),
    "list common tag after": partial(list_names, tag="common=yes", after=True),
    "list common tag of tenant": partial(list_names, tag="common=yes", tenant=True),
    "list common key after": partial(list_names, tag="common", after=True),
    "tags": lambda large: large.store.tags.list(large.name.full_name),
    "versions": lambda large: large.store.versions(large.name.full_name),
    "versions page": lambda large: large.store.versions(large.name.full_name, limit=2, before=4),
    "aliases": lambda large: large.store.aliases(large.name.full_name),
    "backbones": lambda large: large.store.backbones(),
    "generation": lambda large: large.store.generation(),
    "publish": publish,
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


@contextmanager
def opcodes(connection: Connection) -> Iterator[list[int]]:
    """The steps that SQLite takes, in hundreds; PostgreSQL does not count them."""
    counted: list[int] = []
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        driver.set_progress_handler(lambda: counted.append(100), 100)
    yield counted
    if connection.dialect.name == "sqlite":
        driver.set_progress_handler(None, 0)


def check_on_sqlite(connection: Connection, statement: str, parameters: Any) -> None:
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    steps = [row.detail for row in plan]
    for step in steps:
        if step.startswith("SCAN") and SMALL.isdisjoint(step.split()[1:3]):
            assert "USING INDEX names_live" in step, (statement, steps)
    with opcodes(connection) as counted:
        connection.exec_driver_sql(statement, parameters).all()
    assert sum(counted) < MAX_OPCODES, (statement, steps)


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
            assert node["Relation Name"] in SMALL, (statement, document)
    assert num_rows < MAX_ROWS, (statement, document)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


CHECKS = {"sqlite": check_on_sqlite, "postgresql": check_on_postgresql}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_scans_a_table(large: Large, call: str):
    CALLS[call](large)
    with recording() as statements:
        CALLS[call](large)
    asked = [(text, given) for text, given in statements if text.startswith("SELECT")]
    assert asked
    with large.store._database.read() as connection:
        for text, given in asked:
            CHECKS[connection.dialect.name](connection, text, given)


def test_a_batch_of_purges_reads_what_it_purges(large: Large):
    with large.store._database.write() as connection, recording() as statements:
        keys = reachability.past_window(connection, now())[:PAGE]
        found = reachability.collectable(connection, keys, deleted_before=now(), at=now())
        assert list(found) == keys
        if connection.dialect.name == "sqlite":
            check_on_sqlite(connection, *statements[-1])
        with opcodes(connection) as counted:
            reachability.mark_purged(connection, keys, at=now(), actor="me", reason="")
        assert sum(counted) < MAX_OPCODES
        connection.rollback()


def test_a_verification_of_everything_holds_few_versions_in_memory(large: Large, monkeypatch):
    seen: list[int] = [0]

    def sound(_version, _blobs) -> tuple[()]:
        seen[0] += 1
        return ()

    monkeypatch.setattr("adapters_store.verify.verify_version", sound)
    tracemalloc.start()
    try:
        assert large.store.verify() == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen[0] >= NUM_VERSIONS
    assert peak < MAX_VERIFY_BYTES
