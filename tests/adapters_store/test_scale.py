"""Resolution stays one indexed query however many versions a catalog holds."""

from __future__ import annotations

import statistics
import time

import pytest
from sqlalchemy import insert, text
from store_kit import low_rank

from adapters_store.catalog.schema import ALIASES, ARTEFACTS, NAMES, VERSIONS
from adapters_store.catalog.versions import _BY_ALIAS, _BY_DEFAULT, _BY_DIGEST, _BY_LATEST
from adapters_store.store import Store

NUM_NAMES, NUM_EACH = 2_000, 50
WHEN = "2026-01-01T00:00:00.000+00:00"


def digest_for(number: int) -> str:
    return f"sha256:{number:064x}"


@pytest.fixture(scope="module")
def large(tmp_path_factory, t5):
    """100,000 versions over 2,000 names, written straight into the tables."""
    with Store.open(tmp_path_factory.mktemp("large")) as store:
        store.add_backbone(t5)
        real = store.publish("real/task", low_rank(t5))
        keys = range(10, 10 + NUM_NAMES)
        pairs = [(key, number) for key in keys for number in range(1, NUM_EACH + 1)]
        names = [
            {"id": k, "tenant": f"t{k % 100}", "name": f"n{k}", "num_versions": NUM_EACH,
             "created_at": WHEN}
            for k in keys
        ]  # fmt: skip
        artefacts = [
            {"digest": digest_for(k * 1000 + n), "kind": "adapter", "backbone": real.backbone,
             "data_digest": real.digest, "data_bytes": 1, "manifest_bytes": 1,
             "content_digest": real.digest, "created_at": WHEN}
            for k, n in pairs
        ]  # fmt: skip
        versions = [
            {"name_id": k, "number": n, "digest": digest_for(k * 1000 + n), "actor": "x",
             "created_at": WHEN}
            for k, n in pairs
        ]  # fmt: skip
        aliases = [{"name_id": k, "alias": "prod", "number": 20} for k in keys if k % 2]
        with store._database.write() as connection:
            for table, rows in (
                (NAMES, names),
                (ARTEFACTS, artefacts),
                (VERSIONS, versions),
                (ALIASES, aliases),
            ):
                connection.execute(insert(table), rows)
        yield store


def test_references_resolve_in_under_a_millisecond(large):
    assert large.resolve("t11/n111").number == 20
    assert large.resolve("t12/n112").number == 50
    digest = digest_for(112 * 1000 + 7)
    assert large.resolve(f"t12/n112@{digest}").number == 7
    references = [f"t{k % 100}/n{k}" for k in range(10, 1010)]
    durations_s = []
    for reference in references:
        start = time.thread_time()
        large.resolve(reference)
        durations_s.append(time.thread_time() - start)
    assert statistics.median(durations_s) < 1e-3


def test_a_page_of_names_is_quick_anywhere(large):
    large.list(limit=10)
    start = time.thread_time()
    page = large.list(limit=100, after="t50/n950")
    assert len(page) == 100
    assert page[0].full_name > "t50/n950"
    assert time.thread_time() - start < 0.1


def test_a_name_with_very_many_versions_is_deleted_and_restored_whole(large):
    many = 33_000
    row = {"name_id": 11, "digest": digest_for(11_001), "actor": "x", "created_at": WHEN}
    with large._database.write() as connection:
        rows = [row | {"number": number} for number in range(NUM_EACH + 1, many + 1)]
        connection.execute(insert(VERSIONS), rows)
    assert len(large.delete("t11/n11", reason="all of it")) == many
    assert large.list(tenant="t11", limit=1)[0].name != "n11"
    assert len(large.restore("t11/n11")) == many
    assert large.resolve("t11/n11@latest").number == many


@pytest.mark.parametrize("query", [_BY_ALIAS, _BY_DEFAULT, _BY_LATEST, _BY_DIGEST])
def test_no_query_for_a_reference_scans_a_table(large, query):
    values = {"tenant": "t11", "name": "n111", "alias": "prod", "digest": digest_for(1)}
    with large._database.read() as connection:
        compiled = query.compile(connection.engine)
        known = compiled.params | values
        ordered = [known[name] for name in compiled.positiontup or []]
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + str(compiled), tuple(ordered))
        steps = [row.detail for row in plan]
    assert len(steps) >= 3
    assert [step for step in steps if step.startswith("SCAN")] == []


def test_the_catalog_keeps_its_durability_settings(large):
    with large._database.read() as connection:
        settings = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert settings == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "synchronous": 2,
    }
