"""Random traffic on one engine: every answer checked, and every byte given back in between."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from primitives_kit import World
from reference_kit import artefact_of, routing_over
from soak_pool import Expected, Pool, make_pool

from adapters_store.artefact import Artefact
from adapters_store.errors import OverloadedError, UnavailableError, UsageError
from adapters_store.store import Store
from benchmarks.drive import Outcome
from serving.core.loader import StoreLoader
from serving.engine import Engine, EngineConfig, Request, Sampling, Searched

LIMITS = {
    "max_rows": 12,
    "max_step_tokens": 48,
    "max_waiting": 60,
    "max_lookahead": 16,
    "max_step_adapters": 6,
    "max_adapter_bytes": 400_000,
    "max_host_bytes": 400_000,
    "max_wait_s": 0.2,
}
FRESH = Sampling(max_tokens=5, ignore_eos=True, logprobs=0)


class Traffic:
    """Submits, cancels, loads, unloads and registers at random; ``counts`` says how often.

    Names ``soak/0``, ``soak/1``, ... mean one of two versions each, by their alias; fresh names
    come and go.
    """

    def __init__(self, world: World, folder: Path, seed: int, **limits: int) -> None:
        self.world, self.counts = world, Counter[str]()
        self._folder = folder
        self._pool: Pool = make_pool(world, seed)
        self._store = Store.open(folder)
        self._chance = random.Random(seed)
        self._versions = self._publish()
        config = EngineConfig(**{**LIMITS, **limits})
        self.engine = Engine(
            world.backbone, StoreLoader(self._store), config, weights=world.weights
        )
        self._open: dict[str, tuple[Request, Expected, Outcome]] = {}
        self._cut: set[str] = set()
        self._fresh: dict[str, str] = {}
        self._bad = self._refused()

    def close(self) -> None:
        self.engine.close()
        self._store.close()
        shutil.rmtree(self._folder)

    def act(self) -> None:
        """Some submissions, perhaps something else, and one step."""
        for _ in range(self._chance.choice((0, 0, 0, 0, 0, 1, 1, 6))):
            self._submit_any()
        draw = self._chance.random()
        for below, what in (
            (0.04, self._cancel),
            (0.06, self._unload),
            (0.08, self._preload),
            (0.09, self._publish_again),
            (0.094, self._register),
            (0.11, self._submit_refused),
        ):
            if draw < below:
                what()
                break
        self.step()

    def step(self) -> None:
        self.engine.wait(0.5)
        for event in self.engine.step():
            request, expected, outcome = self._open[event.id]
            outcome.take(event)
            if not (outcome.reason or outcome.code or outcome.vector or outcome.scores):
                continue
            del self._open[event.id]
            is_cut = event.id in self._cut
            self._cut.discard(event.id)
            expected.check(outcome, is_cut=is_cut)
            self._count(request, outcome)
            if name := self._fresh.pop(event.id, None):
                self._unregister(name, str(request.adapter))
        stats = self.engine.stats()
        assert 0 <= stats.kv_used_bytes <= stats.kv_bytes <= self.engine.config.max_kv_bytes
        assert stats.prefix_bytes <= self.engine.config.prefix_cache_bytes

    def drain(self) -> None:
        """Let every row end; what only rows hold is free then."""
        while self.engine.has_work:
            self.step()
        assert not self._open
        assert not self._cut
        stats = self.engine.stats()
        assert (stats.num_running, stats.num_waiting) == (0, 0)
        assert (stats.kv_bytes, stats.kv_used_bytes, stats.table_bytes) == (0, 0, 0)
        entries = self.engine._cache._entries.values()
        pins = sum(entry.num_leases for entry in entries)
        assert pins == sum(entry.bank is not None for entry in entries), "tasks pin their banks"

    def empty(self) -> None:
        """Unload everything; every byte of adapters is free then."""
        host = self.engine._cache._host
        for digest in {*self._store_digests(), *self.engine.resident(), *host._kept}:
            self.engine.unload(digest, 0.0)
        cache = self.engine._cache
        stats = cache.stats()
        sizes = stats.num_resident, stats.resident_bytes, stats.num_host, stats.host_bytes
        assert sizes == (0, 0, 0, 0)
        assert host.table_bytes == 0
        for left in (cache._entries, cache._pending, cache._dropped, cache._preloads, host._parts):
            assert not left
        assert not self.engine._unloading
        if self.engine._generation is not None:
            known = self.engine._generation.known
            assert all(adapter is None for adapter, *_ in known._blocks)
            known.forget(None)
            assert known.num_bytes == 0

    @property
    def totals(self) -> dict[str, int]:
        """What happened: the engine's own counters beside ours."""
        stats = self.engine.stats()
        return {
            **dict(sorted(self.counts.items())),
            "steps": stats.num_steps_total,
            "output tokens": stats.num_output_tokens_total,
            "preemptions": stats.num_preempted_total,
            "reused input tokens": stats.num_reused_tokens_total,
            "reads from the store": stats.cache.num_loads,
            "evictions": stats.cache.num_evictions,
        }

    def _publish(self) -> dict[str, tuple[Artefact, Artefact]]:
        world, versions = self.world, {}
        self._store.add_backbone(world.backbone)
        self._store.add_backbone(World("gpt2").backbone)
        self._store.publish("soak/bank", world.bank)
        kinds = [kind for kind in world.artefacts if not kind.endswith(", newer")]
        for i, kind in enumerate(kinds):
            pair = world.artefacts[kind], world.artefacts[world.newer(kind)]
            versions[f"soak/{i}"] = pair
            for artefact in pair:
                self._store.publish(f"soak/{i}", artefact)
        known = {world.bank.digest, *(one.digest for one in world.artefacts.values())}
        for digest, artefact in world.loader.artefacts.items():
            if digest not in known:
                self._store.publish(f"soak/bad-{digest[-8:]}", artefact)
        return versions

    def _store_digests(self) -> set[str]:
        pairs = self._versions.values()
        return {self.world.bank.digest, *(one.digest for pair in pairs for one in pair)}

    def _submit_any(self) -> None:
        if self._chance.random() < 0.2:
            name = self._chance.choice(list(self._versions))
            digest = self._store.resolve(f"{name}@prod").digest
            one = self._chance.choice(self._pool.by_digest[digest])
            self.counts["resolved by name"] += 1
        else:
            one = self._chance.choice(list(self._pool.requests))
        request, expected = self._pool.requests[one], self._pool.expected[one]
        self._submit(request, expected)

    def _submit(self, request: Request, expected: Expected) -> str | None:
        number = self.counts["requests"]
        name = f"{number}/{request.id}"
        own = replace(
            request,
            id=name,
            tenant=f"t{number // 2000}-{self._chance.randrange(3)}",
            priority=self._chance.randrange(3),
        )
        self.counts["requests"] += 1
        try:
            self.engine.submit(own)
        except (OverloadedError, UnavailableError):
            self.counts["turned away"] += 1
            return None
        self._open[name] = own, expected, Outcome()
        return name

    def _cancel(self) -> None:
        if self._open:
            name = self._chance.choice(list(self._open))
            self.counts["cancelled"] += self.engine.cancel(name)
            self._cut.add(name)

    def _unload(self) -> None:
        digest = self._chance.choice([*self._store_digests(), self.world.bank.digest])
        own = {digest}
        if digest == self.world.bank.digest:
            own |= {one for one, a in self._artefacts().items() if a.manifest.bank == digest}
        self._cut |= {name for name, (row, *_) in self._open.items() if row.adapter in own}
        self.engine.unload(digest, self._chance.choice((0.0, 0.01, 0.2)))
        self.counts["unloads"] += 1

    def _artefacts(self) -> dict[str, Artefact]:
        fresh = {str(row.adapter) for name, (row, *_) in self._open.items() if name in self._fresh}
        found = {one.digest: one for pair in self._versions.values() for one in pair}
        return found | {digest: self.world.loader.artefacts[digest] for digest in fresh}

    def _preload(self) -> None:
        self.engine.preload(self._chance.sample(sorted(self._store_digests()), 3))
        self.counts["preloads"] += 1

    def _publish_again(self) -> None:
        name = self._chance.choice(list(self._versions))
        version = self._chance.choice((1, 2))
        self._store.set_alias(name, "prod", version, reason="soak")
        self.counts["aliases moved"] += 1

    def _register(self) -> None:
        """Publish a task that never was, and ask for it; its name goes with its last row."""
        number = self.counts["registered"]
        self.counts["registered"] += 1
        world, name, seed = self.world, f"soak/fresh-{number}", 1000 + number
        base = self._chance.choice(("routing", "routing", "low_rank", "everything"))
        parts = world.artefacts[base].manifest.parts
        if base == "routing":
            artefact = routing_over(world.backbone, world.bank, seed=seed)
        else:
            artefact = artefact_of(world.backbone, parts, seed=seed)
        kind = f"{base}, fresh"
        world.artefacts[kind] = artefact
        world.loader.add(artefact)
        digest = self._store.publish(name, artefact).digest
        ids = tuple(self._chance.randrange(3, 60) for _ in range(6))
        request = replace(world.request("fresh", kind, ids), sampling=FRESH)
        expected = self._pool.answer(kind, request)
        del world.artefacts[kind]
        sent = None if expected is None else self._submit(request, expected)
        if sent is None:
            self._unregister(name, digest)
        else:
            self._fresh[sent] = name

    def _unregister(self, name: str, digest: str) -> None:
        self.engine.unload(digest, 0.0)
        self._store.delete(name)
        del self.world.loader.artefacts[digest]
        self.counts["unregistered"] += 1

    def _refused(self) -> list[Request]:
        """Requests that the engine refuses when they are submitted."""
        world, task = self.world, "generate" if self.world.can_generate else "embed"
        bad = [
            Request("bad", task, None, ()),
            Request("bad", task, None, (5,) * 5000),
            Request("bad", task, None, (5, 64)),
            Request("bad", "classify", None, (5,)),
        ]
        if not world.can_generate:
            return [*bad, Request("bad", "generate", None, (5,))]
        wide = Sampling(num_beams=LIMITS["max_rows"] + 1)
        return [*bad, Request("bad", task, None, (5,), wide)]

    def _submit_refused(self) -> None:
        names: list[Any] = [row for row, *_ in self._open.values()]
        request = self._chance.choice([*self._bad, *names[:1]])
        try:
            self.engine.submit(request)
        except UsageError:
            self.counts["refused as invalid"] += 1
            return
        raise AssertionError(f"{request} was taken")

    def _count(self, request: Request, outcome: Outcome) -> None:
        self.counts["checked"] += 1
        if outcome.code is not None:
            self.counts[f"failed: {outcome.code}"] += 1
        elif outcome.reason == "cancelled":
            self.counts["cut short by cancelling"] += 1
        else:
            is_search = any(isinstance(event, Searched) for event in outcome.events)
            self.counts["whole: beams" if is_search else f"whole: {request.kind}"] += 1
