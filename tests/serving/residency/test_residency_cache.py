"""The adapter cache: single flight, pins, eviction by bytes, and failures."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from adapters_store.errors import ArtefactTooLargeError, IncompatibleError, NotFoundError
from benchmarks.synthetic import MemoryLoader, make_bank, make_lora, make_routing, make_t5
from serving.primitives.layout import SiteLayout
from serving.primitives.prepared import Target
from serving.residency.cache import AdapterCache, code_of


@dataclass
class CountingLoader:
    inner: MemoryLoader
    loads: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)

    def load(self, digest):
        assert self.gate.wait(10)
        self.loads.append(digest)
        self.threads.add(threading.current_thread().name)
        return self.inner.load(digest)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = Path(tmp_path_factory.mktemp("residency"))
    backbone = make_t5(
        folder, d_model=16, d_kv=4, num_heads=2, d_ff=16, num_layers=1, vocab_size=20
    )
    loader = MemoryLoader()
    loras = [loader.add(make_lora(backbone, rank=2, seed=i)) for i in range(6)]
    bank = make_bank(backbone, rank=1, num_skills=2, num_heads=2)
    loader.add(bank)
    routings = [loader.add(make_routing(backbone, bank, seed=i)) for i in range(3)]
    return backbone, loader, loras, bank.digest, routings


@pytest.fixture
def make_cache(world):
    backbone, loader, *_ = world
    made = []

    def make(max_bytes=10**9, is_open=True, source=None, max_host_bytes=2**30):
        counting = CountingLoader(source or loader)
        if is_open:
            counting.gate.set()
        target = Target(SiteLayout(backbone.sites.values()), torch.float32, torch.device("cpu"))
        cache = AdapterCache(counting, target, backbone.fingerprint, max_bytes, max_host_bytes)
        made.append((cache, counting))
        return cache, counting

    yield make
    for cache, counting in made:
        counting.gate.set()
        cache.close()


def _settle(cache, entry):
    while entry.stage not in ("ready", "failed"):
        cache.wait(1.0)
        cache.poll()
    return entry


def _size(make_cache, digest):
    cache, _ = make_cache()
    return _settle(cache, cache.lease(digest)).num_bytes


def test_many_leases_read_once_in_the_loader_thread(world, make_cache):
    digest = world[2][0]
    cache, loader = make_cache(is_open=False)
    entries = [cache.lease(digest) for _ in range(4)]
    cache.poll()
    assert entries[0].stage == "reading"
    loader.gate.set()
    _settle(cache, entries[0])
    assert loader.loads == [digest]
    assert threading.current_thread().name not in loader.threads
    stats = cache.stats()
    assert (stats.num_misses, stats.num_joins, stats.num_hits) == (1, 3, 0)
    assert cache.lease(digest).stage == "ready"
    assert cache.stats().num_hits == 1


def test_a_routing_brings_its_bank_once(world, make_cache):
    *_, bank, routings = world
    cache, loader = make_cache()
    entries = [cache.lease(digest) for digest in routings]
    for entry in entries:
        _settle(cache, entry)
    assert loader.loads.count(bank) == 1
    banks = {id(entry.prepared.mixture.bank) for entry in entries}
    assert len(banks) == 1
    assert cache.stats().num_resident == 4


def test_the_least_recently_used_unleased_adapter_goes_first(world, make_cache):
    loras = world[2]
    size = _size(make_cache, loras[0])
    cache, loader = make_cache(max_bytes=2 * size)
    first, second = (_settle(cache, cache.lease(d)) for d in loras[:2])
    cache.release(first)
    cache.release(second)
    cache.release(cache.lease(loras[0]))
    third = _settle(cache, cache.lease(loras[2]))
    assert cache.stats().num_evictions == 1
    assert cache.stats().resident_bytes <= 2 * size
    assert cache.lease(loras[0]).stage == "ready"
    cache.release(third)
    again = cache.lease(loras[1])
    _settle(cache, again)
    assert loader.loads.count(loras[1]) == 1
    assert cache.stats().num_host_hits == 1


def test_what_neither_tier_holds_is_read_again(world, make_cache):
    loras = world[2]
    size = _size(make_cache, loras[0])
    cache, loader = make_cache(max_bytes=size, max_host_bytes=1)
    for digest in (loras[0], loras[1], loras[0]):
        cache.release(_settle(cache, cache.lease(digest)))
    assert loader.loads == [loras[0], loras[1], loras[0]]
    assert cache.stats().num_host == 0


def test_an_evicted_task_is_composed_again_without_a_read(world, make_cache):
    *_, bank, routings = world
    cache, loader = make_cache()
    first = _settle(cache, cache.lease(routings[0]))
    bank_size = cache.stats().resident_bytes - first.num_bytes
    small, loader = make_cache(max_bytes=bank_size + first.num_bytes)
    before = _settle(small, small.lease(routings[0]))
    kept = {index: f.a.clone() for index, f in before.prepared.factors.items()}
    small.release(before)
    small.release(_settle(small, small.lease(routings[1])))
    again = _settle(small, small.lease(routings[0]))
    assert again is not before
    assert all(torch.equal(f.a, kept[index]) for index, f in again.prepared.factors.items())
    assert sorted(loader.loads) == sorted([routings[0], routings[1], bank])


def test_a_leased_adapter_is_never_evicted_and_the_next_load_waits(world, make_cache):
    loras = world[2]
    size = _size(make_cache, loras[0])
    cache, loader = make_cache(max_bytes=size)
    held = _settle(cache, cache.lease(loras[0]))
    waiting = cache.lease(loras[1])
    for _ in range(3):
        cache.poll()
    assert (held.stage, waiting.stage, loader.loads) == ("ready", "queued", [loras[0]])
    cache.release(held)
    _settle(cache, waiting)
    assert waiting.stage == "ready"
    assert cache.stats().num_evictions == 1


def test_a_lease_ended_before_the_load_started_is_forgotten(world, make_cache):
    loras = world[2]
    size = _size(make_cache, loras[0])
    cache, loader = make_cache(max_bytes=size)
    _settle(cache, cache.lease(loras[0]))
    cache.release(cache.lease(loras[1]))
    cache.poll()
    assert not cache.has_pending
    assert loader.loads == [loras[0]]


def test_an_adapter_over_the_whole_budget_fails_with_its_size(world, make_cache):
    cache, _ = make_cache(max_bytes=100)
    entry = _settle(cache, cache.lease(world[2][0]))
    assert entry.stage == "failed"
    assert code_of(entry.error)[0] == ArtefactTooLargeError.code
    assert "max_adapter_bytes is 100" in code_of(entry.error)[1]


def test_a_failure_is_typed_and_the_next_lease_tries_again(world, make_cache):
    _backbone, loader, loras, *_ = world
    source = MemoryLoader()
    cache, counting = make_cache(source=source)
    entry = _settle(cache, cache.lease(loras[0]))
    assert code_of(entry.error)[0] == NotFoundError.code
    cache.release(entry)
    source.add(loader.artefacts[loras[0]])
    assert _settle(cache, cache.lease(loras[0])).stage == "ready"
    assert cache.stats().num_failures == 1
    assert len(counting.loads) == 2


def test_a_missing_bank_fails_its_routing(world, make_cache):
    *_, routings = world
    source = MemoryLoader({routings[0]: world[1].artefacts[routings[0]]})
    cache, _ = make_cache(source=source)
    entry = _settle(cache, cache.lease(routings[0]))
    assert code_of(entry.error)[0] == NotFoundError.code
    assert not cache.has_pending


def test_a_bank_that_is_no_bank_is_incompatible(world, make_cache):
    _backbone, loader, loras, bank, routings = world

    class Swapped:
        def load(self, digest):
            return loader.load(loras[0] if digest == bank else digest)

    cache, _ = make_cache(source=Swapped())
    entry = _settle(cache, cache.lease(routings[0]))
    assert code_of(entry.error)[0] == IncompatibleError.code
    assert "is not a bank" in code_of(entry.error)[1]


def test_evicting_every_task_frees_their_bank_too(world, make_cache):
    *_, _bank, routings = world
    loras = world[2]
    cache, _ = make_cache()
    for digest in routings:
        cache.release(_settle(cache, cache.lease(digest)))
    routed = cache.stats().resident_bytes
    size = _size(make_cache, loras[0])
    small, _ = make_cache(max_bytes=max(routed, size))
    for digest in routings:
        small.release(_settle(small, small.lease(digest)))
    for digest in loras:
        small.release(_settle(small, small.lease(digest)))
    stats = small.stats()
    assert stats.resident_bytes <= max(routed, size)
    assert stats.num_evictions >= 4
