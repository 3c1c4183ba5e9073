"""Random traffic for a while: loads, unloads, cancels and bad rows beside rows of every kind.

``PATCHBAY_SOAK_S`` seconds a backbone, 10 unless it is set.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from world_kit import World

from adapters_store.errors import OverloadedError, UnavailableError
from benchmarks.drive import Outcome, answers
from benchmarks.synthetic import make_bottleneck, make_lora, make_prefix, make_scale
from serving.engine import Engine, Request, Sampling

SOAK_S = float(os.environ.get("PATCHBAY_SOAK_S", "10"))
POOL = 96
MISSING = "0" * 64
LIMITS = {
    "max_rows": 12,
    "max_step_tokens": 48,
    "max_waiting": 60,
    "max_lookahead": 16,
    "max_step_adapters": 6,
    "max_adapter_bytes": 300_000,
    "max_host_bytes": 300_000,
    "prefix_cache_bytes": 60_000,
    "max_wait_s": 0.2,
}

KV_BYTES = {"llama": 200_000, "t5": 500_000}

pytestmark = pytest.mark.slow


def _sampling(random_: random.Random) -> Sampling:
    own: dict[str, object] = {"max_tokens": random_.choice((1, 4, 12, 60))}
    own["ignore_eos"] = random_.random() < 0.5
    kind = random_.randrange(5)
    if kind == 0:
        temperature = random_.choice((0.7, 1.5, 1e-300))
        own |= {"temperature": temperature, "seed": random_.randrange(99), "top_p": 0.9}
    elif kind == 1:
        own |= {"repetition_penalty": 1.3, "presence_penalty": 0.5, "logprobs": 3}
    elif kind == 2:
        penalty = random_.choice((-10.0, 0.5, 10.0))
        own |= {"num_beams": 3, "max_tokens": 9, "length_penalty": penalty}
    return Sampling(**own)


def _pool(world: World, tasks: list[str | None], random_: random.Random) -> list[Request]:
    """Requests of all tasks; a third of the inputs begin alike."""
    common = world.inputs(1, seed=9, longest=40)[0] * 3
    made = []
    for i, ids in enumerate(world.inputs(POOL, seed=4, longest=40)):
        kind = "embed" if i % 12 == 5 else "generate"
        ids = common[:70] + ids if i % 3 == 0 else ids
        made.append(Request(f"{i}", kind, tasks[i % len(tasks)], ids, _sampling(random_)))
    return made


def _assert_right(
    found: Outcome, alone: Outcome, *, was_cancelled: bool, was_unloaded: bool
) -> None:
    if found.reason == "cancelled" or (found.code == "unavailable" and was_unloaded):
        assert was_cancelled or was_unloaded
        assert found.tokens == alone.tokens[: len(found.tokens)]
        return
    assert (found.code, found.reason, found.tokens) == (alone.code, alone.reason, alone.tokens)
    assert found.vector == (None if alone.vector is None else pytest.approx(alone.vector, abs=1e-4))


def _last(outcome: Outcome) -> bool:
    return bool(outcome.reason or outcome.code or outcome.vector)


class _Traffic:
    """One engine under random traffic, each answer checked when it is whole."""

    def __init__(self, engine: Engine, pool: list[Request], expected: dict[str, Outcome]) -> None:
        self.engine, self._pool, self._expected = engine, pool, expected
        self._random = random.Random(7)
        self._open: dict[str, Outcome] = {}
        self._cancelled: set[str] = set()
        self._cut: set[str] = set()
        self._count = 0
        self.num_checked = 0

    def submit(self) -> None:
        request = self._random.choice(self._pool)
        self._count += 1
        name = f"{self._count}/{request.id}"
        own = Request(
            name,
            request.kind,
            request.adapter,
            request.input_ids,
            request.sampling,
            tenant=self._random.choice("abc"),
            priority=self._random.randrange(3),
        )
        try:
            self.engine.submit(own)
        except (OverloadedError, UnavailableError):
            return
        self._open[name] = Outcome()

    def act(self) -> None:
        draw = self._random.random()
        if draw < 0.05 and self._open:
            name = self._random.choice(list(self._open))
            if self.engine.cancel(name):
                self._cancelled.add(name)
        elif draw < 0.07:
            digest = self._random.choice(self._pool).adapter
            if digest is not None:
                self._cut |= {
                    name
                    for name in self._open
                    if self._pool[int(name.split("/")[1])].adapter == digest
                }
                self.engine.unload(digest, self._random.choice((0.0, 0.01, 1.0)))
        elif draw < 0.09:
            digest = self._random.choice(self._pool).adapter
            self.engine.preload([] if digest is None else [digest])

    def step(self) -> None:
        self.engine.wait(0.5)
        for event in self.engine.step():
            outcome = self._open[event.id]
            assert not _last(outcome), "nothing comes after the last event"
            outcome.take(event)
            if _last(outcome):
                del self._open[event.id]
                alone = self._expected[event.id.split("/")[1]]
                is_cut = event.id in self._cut
                is_cancelled = event.id in self._cancelled
                _assert_right(outcome, alone, was_cancelled=is_cancelled, was_unloaded=is_cut)
                self.num_checked += 1
        stats = self.engine.stats()
        assert 0 <= stats.kv_used_bytes <= stats.kv_bytes <= self.engine.config.max_kv_bytes

    def drain(self) -> None:
        while self.engine.has_work:
            self.step()
        assert not self._open


def test_every_answer_under_random_traffic_is_that_of_its_row_alone(world: World) -> None:
    backbone, loader = world.backbone, world.loader
    bad = loader.add(make_lora(backbone, rank=2, seed=77, effect=1e30))
    others = [
        loader.add(make(backbone, seed=5)) for make in (make_scale, make_bottleneck, make_prefix)
    ]
    tasks = [None, *world.loras[:6], *world.routings[:4], *others, bad, MISSING]
    pool = _pool(world, tasks, random.Random(3))
    alone = world.engine(prefix_cache_bytes=0)
    expected = {one.id: answers(alone, [one])[one.id] for one in pool}
    assert {one.code for one in expected.values()} >= {None, "not_finite"}
    kv_bytes = KV_BYTES["llama" if backbone.family.name == "llama" else "t5"]
    traffic = _Traffic(world.engine(**LIMITS, max_kv_bytes=kv_bytes), pool, expected)
    random_, stop = random.Random(1), time.monotonic() + SOAK_S
    while time.monotonic() < stop:
        for _ in range(random_.choice((0, 0, 1, 1, 2, 8))):
            traffic.submit()
        traffic.act()
        traffic.step()
    traffic.drain()
    engine = traffic.engine
    assert traffic.num_checked > 20
    assert engine.stats().num_preempted_total > 0
    for digest in {*tasks, *engine.resident()} - {None}:
        engine.unload(str(digest), 0.0)
    stats = engine.stats()
    assert (stats.kv_bytes, stats.kv_used_bytes, stats.table_bytes) == (0, 0, 0)
    assert (stats.num_running, stats.num_waiting) == (0, 0)
    assert stats.prefix_bytes <= LIMITS["prefix_cache_bytes"]
