"""More adapters than fit: traffic over working sets of half to four times the slots.

A random T5 (512 wide, 4+4 layers), LoRAs of rank 8 at every linear site in a store on disk, and
an engine whose memory holds 16 of them ready to run and 32 as they were read. Closed-loop clients
ask for one of the working set, uniformly or by Zipf(1). Then: does the step care how many
routings are in memory, and how long after its registration does a routing vector answer?
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.store import Store
from benchmarks.cells import T5
from benchmarks.report import Report, Target, choose_parts
from benchmarks.synthetic import make_bank, make_lora, make_routing, make_t5
from benchmarks.traffic import Driver, closed_loop, percentile, zipf
from serving.core.loader import StoreLoader
from serving.engine import Engine, EngineConfig, Request, Sampling, Weights, load_weights

NUM_SLOTS, NUM_ROWS, NUM_INPUT, NUM_OUTPUT = 16, 16, 32, 16
FACTORS = (0.5, 1.0, 2.0, 4.0)
SPREADS = {"uniform": 0.0, "zipf": 1.0}
FEW, MANY = 32, 10_000
BANK = {"num_skills": 8, "num_heads": 8, "rank": 8}

PARTS = (*SPREADS, "registration", "routings")
TARGETS = (
    Target("ttft_p95_2x_over_1x", at_most=3.0),
    Target("ttft_p95_2x_over_1x_zipf", at_most=3.0),
    Target("step_10000_over_32", at_most=1.02),
    Target("first_token_after_register_over_warm", at_most=2.0),
)


class _World:
    def __init__(self, folder: Path, model: dict[str, Any]) -> None:
        self.backbone: Backbone = make_t5(folder / "backbone", liveliness=2.0, **model)
        self.weights: Weights = load_weights(self.backbone, torch.float32)
        self.store = Store.open(folder / "store")
        self.store.add_backbone(self.backbone)

    def engine(self, **limits: int) -> Engine:
        config = EngineConfig(
            max_rows=NUM_ROWS,
            max_step_tokens=NUM_ROWS * NUM_INPUT,
            num_threads=torch.get_num_threads(),
            **limits,
        )
        return Engine(self.backbone, StoreLoader(self.store), config, weights=self.weights)

    def publish(self, name: str, artefact: Artefact) -> str:
        return self.store.publish(f"bench/{name}", artefact).digest

    def request(self, number: int | str, adapter: str, num_output: int = NUM_OUTPUT) -> Request:
        generator = random.Random(f"input/{number}")
        vocab = self.backbone.architecture.vocab_size
        ids = tuple(generator.randrange(2, vocab) for _ in range(NUM_INPUT))
        sampling = Sampling(max_tokens=num_output, ignore_eos=True)
        return Request(str(number), "generate", adapter, ids, sampling)


def run(
    *,
    quick: bool,
    parts: Sequence[str] = (),
    model: dict[str, Any] | None = None,
    num_many: int = MANY,
) -> Report:
    """Measure ``parts``, or all; ``quick`` sends fewer requests and leaves Zipf traffic out."""
    num_requests = 96 if quick else 480
    report = Report(
        "residency",
        {
            "slots": NUM_SLOTS,
            "rows": NUM_ROWS,
            "input": NUM_INPUT,
            "output": NUM_OUTPUT,
            "requests": num_requests,
            "routings": num_many,
        },
        targets=TARGETS,
    )
    chosen = choose_parts(parts, PARTS)
    if quick and not parts:
        chosen = tuple(part for part in chosen if part != "zipf")
    with tempfile.TemporaryDirectory() as folder:
        world = _World(Path(folder), {**T5[512], "num_layers": 4, **(model or {})})
        for spread in (part for part in chosen if part in SPREADS):
            with report.timed(spread):
                _working_sets(world, report, spread, num_requests)
        if "registration" in chosen:
            with report.timed("registration"):
                _registration(world, report, 5 if quick else 25)
        if "routings" in chosen:
            with report.timed("routings"):
                _many_routings(world, report, num_many, 24 if quick else 96)
        world.store.close()
    return report


def _working_sets(world: _World, report: Report, spread: str, num_requests: int) -> None:
    most = int(max(FACTORS) * NUM_SLOTS)
    artefacts = [make_lora(world.backbone, rank=8, seed=i) for i in range(most)]
    digests = [world.publish(f"lora-{i}", one) for i, one in enumerate(artefacts)]
    size = _prepared_bytes(world, digests[0])
    rows: dict[float, dict[str, Any]] = {}
    for factor in FACTORS:
        chosen = digests[: int(factor * NUM_SLOTS)]
        engine = world.engine(
            max_adapter_bytes=NUM_SLOTS * size, max_host_bytes=2 * NUM_SLOTS * size
        )
        rows[factor] = {
            "part": spread,
            "factor": factor,
            **_traffic(world, engine, chosen, spread, num_requests),
        }
        engine.close()
    report.rows += rows.values()
    suffix = "" if spread == "uniform" else f"_{spread}"
    for factor in (2.0, 4.0):
        one, more = rows[1.0], rows[factor]
        name = f"{factor:g}x_over_1x{suffix}"
        report.ratios[f"ttft_p95_{name}"] = more["ttft_p95_ms"] / one["ttft_p95_ms"]
        report.ratios[f"throughput_{name}"] = more["tokens_s"] / one["tokens_s"]


def _prepared_bytes(world: _World, digest: str) -> int:
    engine = world.engine()
    closed_loop(engine, lambda n: world.request(n, digest), num_clients=1, num_requests=1)
    size = engine.stats().cache.resident_bytes
    engine.close()
    return size


def _traffic(
    world: _World, engine: Engine, digests: list[str], spread: str, num_requests: int
) -> dict[str, Any]:
    generator = random.Random(spread)
    weights = zipf(len(digests), SPREADS[spread])
    order = generator.choices(digests, weights, k=num_requests + len(digests))

    def make(number: int) -> Request:
        return world.request(number, order[number])

    def warm(number: int) -> Request:
        return world.request(f"warm-{number}", digests[number])

    closed_loop(engine, warm, num_clients=NUM_ROWS, num_requests=len(digests))
    before = engine.stats().cache
    seen, seconds = closed_loop(engine, make, num_clients=NUM_ROWS, num_requests=num_requests)
    after = engine.stats().cache
    hits, host, misses = (
        getattr(after, name) - getattr(before, name)
        for name in ("num_hits", "num_host_hits", "num_misses")
    )
    first_ms = [1000 * one.first_s for one in seen]
    return {
        "adapters": len(digests),
        "tokens_s": sum(one.num_tokens for one in seen) / seconds,
        "ttft_median_ms": median(first_ms),
        "ttft_p95_ms": percentile(first_ms, 0.95),
        "ready": hits / num_requests,
        "from_host": host / num_requests,
        "from_store": misses / num_requests,
    }


def _registration(world: _World, report: Report, num_times: int) -> None:
    """A routing vector from its registration to its first token, over a warm one's."""
    bank = make_bank(world.backbone, **BANK)
    world.publish("bank", bank)
    engine = world.engine()
    fresh_s, published_s, warm_s = [], [], []
    for number in range(num_times + 2):
        routing = make_routing(world.backbone, bank, seed=number)
        start = time.perf_counter()
        digest = world.publish(f"task-{number}", routing)
        published = time.perf_counter() - start
        fresh = published + _first_token_s(world, engine, digest, number)
        warm = _first_token_s(world, engine, digest, number)
        if number >= 2:
            fresh_s.append(fresh)
            published_s.append(published)
            warm_s.append(warm)
    engine.close()
    ratio = median(fresh_s) / median(warm_s)
    report.rows.append(
        {
            "part": "registration",
            "registered_to_first_token_ms": 1000 * median(fresh_s),
            "published_ms": 1000 * median(published_s),
            "warm_ms": 1000 * median(warm_s),
        }
    )
    report.ratios["first_token_after_register_over_warm"] = ratio


def _first_token_s(world: _World, engine: Engine, digest: str, number: int) -> float:
    driver = Driver(engine)
    driver.send(world.request(f"r{number}", digest, 2))
    while driver.num_waiting:
        driver.step()
    return driver.seen[f"r{number}"].first_s


def _many_routings(world: _World, report: Report, num_many: int, num_rounds: int) -> None:
    """Steps of 16 rows of as many tasks, with few and with many routings in memory, in turn."""
    bank = make_bank(world.backbone, **BANK)
    artefacts = [make_routing(world.backbone, bank, seed=i) for i in range(num_many)]
    digests = []
    for start in range(0, num_many, 500):
        batch = [(f"bench/r-{i}", artefacts[i]) for i in range(start, min(start + 500, num_many))]
        digests += [version.digest for version in world.store.publish_many(batch)]
    engines = {}
    for name, count in (("few", FEW), ("many", num_many)):
        engine = engines[name] = world.engine(max_host_bytes=2**33)
        engine.preload(digests[:count])
        while engine.stats().cache.num_host < count:
            engine.step()
            time.sleep(0.005)

        def once(number: int) -> Request:
            return world.request(f"once-{number}", digests[number], 1)

        closed_loop(engine, once, num_clients=NUM_ROWS, num_requests=NUM_ROWS)
        for i in range(NUM_ROWS):
            engine.submit(world.request(f"{name}-{i}", digests[i], num_rounds + 40))
        while engine.stats().num_running < NUM_ROWS:
            assert engine.has_work, "rows ended before all were running"
            engine.wait(0.1)
            engine.step()
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(num_rounds):
        for name, engine in engines.items():
            start_s = time.perf_counter()
            engine.step()
            times[name].append(time.perf_counter() - start_s)
    for name, engine in engines.items():
        stats = engine.stats().cache
        report.rows.append(
            {
                "part": "routings",
                "routings": stats.num_host,
                "step_ms": 1000 * median(times[name]),
                "host_bytes": stats.host_bytes,
            }
        )
        engine.close()
    report.ratios["step_10000_over_32"] = median(times["many"]) / median(times["few"])
