"""The registry at size: resolve, list, open and publish over each catalog, one client, one thread.

The catalog's rows are bulk-loaded through the schema's tables (``registry_rows``), without blobs
and without events; everything that is timed goes through the public ``Store``. Publications are
fresh routing artefacts, validated, with durable blobs in a local folder, ``BATCH`` to a call of
``publish_many``; making them is not timed. The blobs lie where temporary files do (``TMPDIR``).
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.blobs.local import LocalBlobs
from adapters_store.catalog import open_catalog
from adapters_store.manifest import Kind
from adapters_store.store import Store
from benchmarks.registry_rows import VERSIONS_PER_NAME, Population
from benchmarks.report import Report
from benchmarks.services import ServiceMissingError, new_database, postgres_server
from benchmarks.synthetic import make_bank, make_routing, make_t5

NUM_TENANTS = 1_000
PAGE, BATCH = 100, 100
BANK = "zoo/bank"
MODEL = {"vocab_size": 64, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "num_layers": 2}
FULL = {"num_versions": 1_000_000, "resolves": 20_000, "pages": 2_000, "publishes": 2_000}
QUICK = {"num_versions": 20_000, "resolves": 2_000, "pages": 300, "publishes": 400}
_NUM_WARM_UPS = 100
_NUM_OPENS = 22


def run(*, quick: bool) -> Report:
    """Every catalog that is here; without PostgreSQL the report says so and has SQLite alone."""
    sizes = QUICK if quick else FULL
    config: dict[str, Any] = {
        **sizes,
        "num_tenants": NUM_TENANTS,
        "num_names": sizes["num_versions"] // VERSIONS_PER_NAME,
        "page": PAGE,
        "batch": BATCH,
        "rows": "bulk-loaded",
        "sqlite": sqlite3.sqlite_version,
    }
    report = Report("registry", config, ratios={"num_versions": sizes["num_versions"]})
    with tempfile.TemporaryDirectory(prefix="patchbay-registry-") as folder:
        material = _Material(Path(folder), sizes["publishes"])
        _measure(report, "sqlite", f"{folder}/catalog.sqlite", material, sizes)
        try:
            with postgres_server() as server, new_database(server) as url:
                config["postgres"] = _server_version(url)
                _measure(report, "postgres", url, material, sizes)
        except ServiceMissingError as error:
            config["postgres"] = "absent"
            print(f"no PostgreSQL figures: {error}", file=sys.stderr)
    return report


class _Material:
    """A tiny backbone, a bank over it, and fresh routings to publish."""

    def __init__(self, folder: Path, num_routings: int) -> None:
        self.folder = folder
        self.backbone: Backbone = make_t5(folder / "backbone", **MODEL)
        self.bank: Artefact = make_bank(self.backbone, rank=4, num_skills=8, num_heads=4)
        self.routings = [
            make_routing(self.backbone, self.bank, seed=seed) for seed in range(num_routings)
        ]


def _measure(
    report: Report, catalog: str, url: str, material: _Material, sizes: dict[str, int]
) -> None:
    blobs = LocalBlobs(material.folder / f"blobs-{catalog}")
    rng = random.Random(0)
    with Store(open_catalog(url), blobs) as store:
        store.add_backbone(material.backbone)
        store.publish(BANK, material.bank)
    empty_ms = _open_ms(url)
    fingerprint, bank = material.backbone.record.fingerprint, material.bank.digest
    population = Population(sizes["num_versions"], NUM_TENANTS, fingerprint, bank)
    began = time.perf_counter()
    database = open_catalog(url)
    population.load(database)
    database.close()
    print(f"{catalog}: loaded in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    open_ms = _open_ms(url)
    with Store(open_catalog(url), blobs) as store:
        resolve_ms = _timed(
            partial(store.resolve, population.reference(rng)) for _ in range(sizes["resolves"])
        )
        list_ms = _timed(_page_call(store, population, rng) for _ in range(sizes["pages"]))
        publish_ms = _timed(_batch_calls(store, population, material), num_warm_ups=0)
    per_s = 1000 * len(material.routings) / sum(publish_ms)
    for operation, times_ms in (
        ("resolve", resolve_ms),
        ("list a page", list_ms),
        (f"publish {BATCH}", publish_ms),
        ("open", open_ms),
        ("open when empty", empty_ms),
    ):
        report.rows.append(_row(catalog, operation, times_ms))
    report.ratios |= {
        f"{catalog}_resolve_p99_ms": _percentile(resolve_ms, 99),
        f"{catalog}_list_p99_ms": _percentile(list_ms, 99),
        f"{catalog}_publish_per_s": per_s,
        f"{catalog}_open_ms": median(open_ms),
        f"{catalog}_open_over_empty": median(open_ms) / median(empty_ms),
    }


def _page_call(store: Store, population: Population, rng: random.Random) -> Callable[[], object]:
    """A page from anywhere: of all, of one tenant, of a kind that is common, rare or absent."""
    start = population.name(rng.randrange(population.num_names))
    options: dict[str, Any] = {
        "tenant": rng.choice((None, start.tenant)),
        "kind": rng.choice((None, *get_args(Kind))),
        "after": rng.choice((None, start.full_name)),
    }
    return partial(store.list, limit=PAGE, **options)


def _batch_calls(
    store: Store, population: Population, material: _Material
) -> Iterator[Callable[[], object]]:
    """Batches of fresh routings: every other one under a name that exists, the rest under new."""
    for first in range(0, len(material.routings), BATCH):
        items = []
        for index, artefact in enumerate(material.routings[first : first + BATCH], start=first):
            known = population.name(index * 7 % population.num_names)
            name = known.full_name if index % 2 else f"{known.tenant}/fresh-{index}"
            items.append((name, artefact))
        yield partial(store.publish_many, items)


def _timed(
    calls: Iterator[Callable[[], object]], *, num_warm_ups: int = _NUM_WARM_UPS
) -> list[float]:
    """Milliseconds of each call after the first ones."""
    times_ms = []
    for number, call in enumerate(calls):
        began = time.perf_counter()
        call()
        if number >= num_warm_ups:
            times_ms.append((time.perf_counter() - began) * 1000)
    return times_ms


def _open_ms(url: str) -> list[float]:
    return _timed((lambda: open_catalog(url).close() for _ in range(_NUM_OPENS)), num_warm_ups=1)


def _row(catalog: str, operation: str, times_ms: list[float]) -> dict[str, Any]:
    return {
        "catalog": catalog,
        "operation": operation,
        "calls": len(times_ms),
        "p50_ms": _percentile(times_ms, 50),
        "p99_ms": _percentile(times_ms, 99),
        "max_ms": max(times_ms),
    }


def _percentile(values: list[float], percent: int) -> float:
    """The smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _server_version(url: str) -> str:
    database = open_catalog(url)
    with database.read() as connection:
        version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    database.close()
    return str(version).split()[0]
