"""Admission in the engine: floods, caps on distinct adapters, and shares of the queue."""

from __future__ import annotations

import pytest

from adapters_store.errors import OverloadedError, UsageError
from benchmarks.drive import Outcome, drain
from serving.engine import EngineConfig, Request, Sampling

IDS = (5, 6, 7)


def _request(name, adapter=None, tenant="", max_tokens=4, priority=0):
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    return Request(name, "generate", adapter, IDS, sampling, tenant=tenant, priority=priority)


def _finishing_order(engine):
    order, outcomes = [], {}
    while engine.has_work:
        drain(engine, outcomes, num_steps=1)
        order += [n for n, o in outcomes.items() if o.reason and n not in order]
    return order


def test_a_flooding_tenant_leaves_the_others_their_share(t5_world):
    engine = t5_world.engine(max_rows=2)
    for number in range(20):
        engine.submit(_request(f"flood-{number}", tenant="flood"))
    for number in range(3):
        engine.submit(_request(f"calm-{number}", tenant="calm"))
    order = _finishing_order(engine)
    assert max(order.index(f"calm-{n}") for n in range(3)) <= 7
    fifo = t5_world.engine(max_rows=2, policy="fifo")
    for number in range(20):
        fifo.submit(_request(f"flood-{number}", tenant="flood"))
    fifo.submit(_request("calm-0", tenant="calm"))
    assert _finishing_order(fifo)[-1] == "calm-0"


def test_distinct_adapters_of_a_step_are_capped_at_admission(t5_world):
    engine = t5_world.engine(max_step_adapters=2)
    for number, adapter in enumerate([*t5_world.loras[:4], None]):
        engine.submit(_request(f"r{number}", adapter, max_tokens=6))
    seen: dict[str, Outcome] = {}
    most = 0
    while engine.has_work:
        drain(engine, seen, num_steps=1)
        most = max(most, engine.stats().last_num_adapters)
    assert most == 2
    assert all(o.reason == "length" for o in seen.values())
    assert len(seen) == 5


def test_a_row_over_the_cap_is_skipped_not_waited_for(t5_world):
    engine = t5_world.engine(max_step_adapters=1)
    first, second = t5_world.loras[:2]
    outcomes: dict[str, Outcome] = {}
    for name, adapter in (("warm-0", first), ("warm-1", second)):
        engine.submit(_request(name, adapter, max_tokens=1))
        drain(engine, outcomes)
    engine.submit(_request("a", first, max_tokens=20))
    engine.submit(_request("blocked", second))
    engine.submit(_request("b", first, max_tokens=2))
    engine.submit(_request("bare", None, max_tokens=2))
    order = _finishing_order(engine)
    assert order.index("b") < order.index("blocked")
    assert order.index("bare") < order.index("blocked")


def test_a_row_that_waited_too_long_for_a_place_keeps_later_rows_out(t5_world):
    engine = t5_world.engine(max_step_adapters=1, max_wait_s=1e-6)
    first, second = t5_world.loras[:2]
    engine.submit(_request("a", first, max_tokens=500))
    outcomes: dict[str, Outcome] = {}
    while not engine.stats().num_running:
        engine.wait(1.0)
        drain(engine, outcomes, num_steps=1)
    engine.submit(_request("blocked", second))
    while engine.stats().cache.num_resident < 2:
        drain(engine, outcomes, num_steps=1)
    assert engine.stats().num_running == 1
    for number in range(20):
        engine.submit(_request(f"late-{number}", first))
    order = _finishing_order(engine)
    assert order.index("blocked") <= 1


def test_one_tenant_cannot_fill_the_queue(t5_world):
    engine = t5_world.engine(max_waiting=8)
    for number in range(6):
        engine.submit(_request(f"flood-{number}", tenant="flood"))
    with pytest.raises(OverloadedError, match=r"6 requests of tenant 'flood'.*2 of 8 places"):
        engine.submit(_request("flood-6", tenant="flood"))
    engine.submit(_request("calm", tenant="calm"))
    assert engine.stats().num_waiting == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "luck"}, "policy is 'luck'; known: fair, fifo"),
        ({"tenant_weights": {"a": 0.0}}, "tenant_weights.a is 0.0"),
        ({"max_step_adapters": 0}, "max_step_adapters is 0"),
        ({"max_wait_s": 0.0}, "max_wait_s is 0.0"),
    ],
)
def test_impossible_scheduling_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        EngineConfig(**values)
