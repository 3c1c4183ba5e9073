"""Random traffic on three engines of one process for a while: no wrong answer and no leak.

``PATCHBAY_SOAK_S`` seconds, 20 unless it is set; what happened goes to ``PATCHBAY_SOAK_JSON``.
"""

from __future__ import annotations

import gc
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from primitives_kit import World
from soak_traffic import Traffic

from adapters_store import reader
from benchmarks.report import machine, versions
from serving.engine.transformer.product import Packed

SOAK_S = float(os.environ.get("PATCHBAY_SOAK_S", "20"))
SEED = 7
ROUND_S = (2.0, 8.0)
MIN_SLOPE_S = 240.0
"""Shorter runs are all warm-up: their slope says nothing."""
MAX_BYTES_PER_1000 = 64 * 1024
WORLDS = (
    ("llama", {"max_position_embeddings": 256}, {"max_kv_bytes": 200_000}),
    ("t5", None, {"max_kv_bytes": 500_000, "max_adapter_bytes": 1_000_000}),
    ("bert", None, {}),
)

MOST_TOKENS = 128
"""More than any step of these engines multiplies at once."""

# oneDNN keeps a compiled product of every number of rows, half a megabyte each: of few of them
# here, and each is compiled before the first sample, so that only traffic moves what is sampled.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SOAK_S * 1.2 + 300)]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Traffic]]:
    # What the store keeps of manifests is full from the beginning, not after hours.
    monkeypatch.setattr(reader, "_MAX_CACHED_MANIFESTS", 64)
    found = [
        Traffic(World(name, saved), tmp_path / name, SEED, prefix_cache_bytes=60_000, **limits)
        for name, saved, limits in WORLDS
    ]
    compile_products()
    yield found
    for traffic in found:
        traffic.close()


@torch.inference_mode()
def compile_products() -> None:
    """Multiply every number of rows by every packed matrix that is alive."""
    for product in [one for one in gc.get_objects() if type(one) is Packed]:
        for num_rows in range(1, MOST_TOKENS + 1):
            product(torch.zeros(num_rows, product._weight.shape[1]))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sample(engines: list[Traffic], began: float) -> dict[str, float]:
    gc.collect()
    return {
        "seconds": round(time.monotonic() - began, 1),
        "requests": sum(one.counts["requests"] for one in engines),
        "resident_bytes": resident_bytes(),
        "num_tensors": sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()),
        "num_objects": len(gc.get_objects()),
    }


def slope(samples: list[dict[str, float]], key: str) -> float:
    """By least squares, of 1,000 requests."""
    x = torch.tensor([one["requests"] for one in samples], dtype=torch.float64) / 1000
    y = torch.tensor([one[key] for one in samples], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def test_no_answer_is_wrong_and_nothing_leaks_under_random_traffic(engines: list[Traffic]) -> None:
    chance, began = random.Random(SEED), time.monotonic()
    samples: list[dict[str, float]] = []
    while time.monotonic() < began + SOAK_S:
        stop = time.monotonic() + chance.uniform(*ROUND_S)
        while time.monotonic() < stop:
            for traffic in engines:
                traffic.act()
        for traffic in engines:
            traffic.drain()
        if chance.random() < 0.5 or not samples:
            for traffic in engines:
                traffic.empty()
            samples.append(sample(engines, began))
    for traffic in engines:
        traffic.empty()
    samples.append(sample(engines, began))
    settled = samples[len(samples) // 4 :]
    report = {
        "machine": machine(),
        "versions": versions(),
        "seed": SEED,
        "seconds": round(time.monotonic() - began),
        "engines": {
            name: traffic.totals for (name, *_), traffic in zip(WORLDS, engines, strict=True)
        },
        "num_samples": len(samples),
        "bytes_per_1000_requests": slope(settled, "resident_bytes"),
        "objects_per_1000_requests": slope(settled, "num_objects"),
        "num_tensors": sorted({int(one["num_tensors"]) for one in settled}),
        "samples": samples,
    }
    if path := os.environ.get("PATCHBAY_SOAK_JSON"):
        Path(path).write_text(json.dumps(report, indent=2) + "\n")
    for traffic in engines:
        assert traffic.counts["checked"] > 20
    assert sum(traffic.totals["preemptions"] for traffic in engines) > 0
    assert sum(traffic.totals["evictions"] for traffic in engines) > 0
    assert sum(traffic.totals["reused input tokens"] for traffic in engines) > 0
    if SOAK_S >= MIN_SLOPE_S:
        assert report["bytes_per_1000_requests"] < MAX_BYTES_PER_1000
        assert len(report["num_tensors"]) == 1
