"""One tenant floods the engine at ten times its share: what the others see of it.

A random T5, 512 wide, 4+4 layers, and four tenants with a LoRA each. Three send a Poisson stream at
their share of what the engine can do, first alone, then beside the fourth, which sends ten times
its own share. ``victim_p99_over_alone`` compares the p99 latency of the three; the same with the
policy ``fifo`` shows what it would be without shares.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from adapters_store.backbone import Backbone
from benchmarks.cells import T5
from benchmarks.report import Report, Target
from benchmarks.synthetic import MemoryLoader, make_lora, make_t5
from benchmarks.traffic import Seen, closed_loop, open_loop, percentile, poisson
from serving.engine import Engine, EngineConfig, Request, Sampling, Weights, load_weights

NUM_ROWS, NUM_INPUT, NUM_OUTPUT = 16, 24, 16
VICTIMS = ("a", "b", "c")
FLOOD, FLOOD_FACTOR = "flood", 10
LOAD = 0.9
"""Share of the measured capacity that the four tenants' shares add up to."""

TARGETS = (Target("victim_p99_over_alone", at_most=1.5),)


class _World:
    def __init__(self, folder: Path, model: dict[str, Any]) -> None:
        self.backbone: Backbone = make_t5(folder, liveliness=2.0, **model)
        self.loader = MemoryLoader()
        self.adapters = {
            tenant: self.loader.add(make_lora(self.backbone, rank=8, seed=seed))
            for seed, tenant in enumerate((*VICTIMS, FLOOD))
        }
        self.weights: Weights = load_weights(self.backbone, torch.float32)

    def engine(self, policy: str) -> Engine:
        config = EngineConfig(
            max_rows=NUM_ROWS,
            max_step_tokens=4 * NUM_INPUT,
            policy=policy,
            num_threads=torch.get_num_threads(),
        )
        return Engine(self.backbone, self.loader, config, weights=self.weights)

    def request(self, tenant: str, number: int) -> Request:
        generator = random.Random(f"{tenant}/{number}")
        vocab = self.backbone.architecture.vocab_size
        ids = tuple(generator.randrange(2, vocab) for _ in range(NUM_INPUT))
        sampling = Sampling(max_tokens=NUM_OUTPUT, ignore_eos=True)
        name = f"{tenant}-{number}"
        return Request(name, "generate", self.adapters[tenant], ids, sampling, tenant=tenant)


def run(
    *, quick: bool, model: dict[str, Any] | None = None, duration_s: float | None = None
) -> Report:
    """Measure alone and flooded, by policy; ``quick`` sends for 8 seconds each, else 40."""
    if duration_s is None:
        duration_s = 8.0 if quick else 40.0
    shape = {**T5[512], "num_layers": 4, **(model or {})}
    with tempfile.TemporaryDirectory() as folder:
        world = _World(Path(folder), shape)
        capacity = _capacity(world, 64 if quick else 256)
        report = Report(
            "fairness",
            {
                "rows": NUM_ROWS,
                "input": NUM_INPUT,
                "output": NUM_OUTPUT,
                "duration_s": duration_s,
                "capacity_per_s": round(capacity, 1),
                "load": LOAD,
                "flood_factor": FLOOD_FACTOR,
            },
            targets=TARGETS,
        )
        share = LOAD * capacity / (len(VICTIMS) + 1)
        alone = _victims(world, "fair", share, duration_s, flood=0.0)
        p99 = percentile([one.whole_s for one in alone], 0.99)
        report.rows.append(_row("fair", "alone", alone))
        for policy in ("fair", "fifo"):
            flooded = _victims(world, policy, share, duration_s, flood=FLOOD_FACTOR * share)
            report.rows.append(_row(policy, "flooded", flooded))
            ratio = percentile([one.whole_s for one in flooded], 0.99) / p99
            name = "victim_p99_over_alone" + ("" if policy == "fair" else f"_{policy}")
            report.ratios[name] = ratio
    return report


def _capacity(world: _World, num_requests: int) -> float:
    """Requests a second with every row taken, in turn by all tenants."""
    engine = world.engine("fair")
    tenants = list(world.adapters)

    def make(number: int) -> Request:
        return world.request(tenants[number % len(tenants)], number)

    closed_loop(engine, make, num_clients=NUM_ROWS, num_requests=2 * NUM_ROWS)
    seen, seconds = closed_loop(engine, make, num_clients=2 * NUM_ROWS, num_requests=num_requests)
    engine.close()
    return len(seen) / seconds


def _victims(
    world: _World, policy: str, share: float, duration_s: float, *, flood: float
) -> list[Seen]:
    engine = world.engine(policy)
    rates = dict.fromkeys(VICTIMS, share) | ({FLOOD: flood} if flood else {})
    arrivals = [
        (at, world.request(tenant, number))
        for tenant, rate in rates.items()
        for number, at in enumerate(poisson(rate, duration_s, tenant))
    ]
    seen = open_loop(engine, sorted(arrivals, key=lambda one: one[0]))
    engine.close()
    return [one for one in seen if one.tenant in VICTIMS]


def _row(policy: str, case: str, seen: list[Seen]) -> dict[str, Any]:
    whole = [1000 * one.whole_s for one in seen]
    return {
        "policy": policy,
        "case": case,
        "requests": len(seen),
        "median_ms": median(whole),
        "p99_ms": percentile(whole, 0.99),
        "first_p99_ms": 1000 * percentile([one.first_s for one in seen], 0.99),
    }
