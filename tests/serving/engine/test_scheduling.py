"""Admission in the engine: floods, caps on distinct adapters, and shares of the queue."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_store.errors import OverloadedError, UsageError
from benchmarks.drive import Outcome, drain
from serving.engine import EngineConfig, Request, Sampling
from serving.engine.row import Row
from serving.engine.step_tokens import StepTokens

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


PLACE = 64 * 2 * 2 * 4 * 8 * 4
"""Bytes of the smallest place of a row in one of the T5's two stores."""


def test_a_row_without_room_is_skipped_not_waited_for(t5_world):
    engine = t5_world.engine(max_kv_bytes=7 * PLACE)
    engine.submit(_request("running", max_tokens=30))
    outcomes: dict[str, Outcome] = {}
    drain(engine, outcomes, num_steps=1)
    sampling = Sampling(max_tokens=8, num_beams=3)
    engine.submit(Request("wide", "generate", None, IDS, sampling))
    engine.submit(_request("small", max_tokens=4))
    order = _finishing_order(engine)
    assert order == ["small", "running", "wide"]


@pytest.mark.parametrize("tenant", ["", "other"])
def test_a_row_that_waited_too_long_for_room_keeps_later_rows_out(t5_world, tenant):
    engine = t5_world.engine(max_kv_bytes=6 * PLACE, max_wait_s=1e-6)
    engine.submit(_request("running", max_tokens=20, tenant=tenant))
    outcomes: dict[str, Outcome] = {}
    drain(engine, outcomes, num_steps=1)
    engine.submit(Request("wide", "generate", None, IDS, Sampling(max_tokens=8, num_beams=3)))
    for number in range(12):
        engine.submit(_request(f"late-{number}", max_tokens=6, tenant=tenant))
    engine.submit(Request("scored", "embed", None, IDS))
    drain(engine, outcomes, num_steps=2)
    assert outcomes["scored"].vector
    order = _finishing_order(engine)
    assert order.index("wide") <= 1


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_row_gets_its_room_while_others_keep_coming(t5_world, data):
    """Rows of any width and length, in any order, behind which small ones never cease to come."""
    engine = t5_world.engine(
        max_kv_bytes=data.draw(st.integers(8, 14), label="places") * PLACE,
        max_wait_s=1e-6,
        max_step_tokens=data.draw(st.sampled_from([8, 64]), label="step"),
        policy=data.draw(st.sampled_from(["fair", "fifo"]), label="policy"),
    )
    shapes = st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([3, 40]), st.booleans())
    drawn = data.draw(st.lists(shapes, min_size=1, max_size=6), label="rows")
    outcomes: dict[str, Outcome] = {}
    for number, (beams, length, is_calm) in enumerate(drawn):
        sampling = Sampling(max_tokens=6, num_beams=beams)
        tenant = "calm" if is_calm else ""
        ids = tuple(range(3, 3 + length % 30)) * 2
        engine.submit(Request(f"{number}", "generate", None, ids, sampling, tenant=tenant))
    wanted = {f"{number}" for number in range(len(drawn))}
    num_steps = 0
    while any(name not in outcomes or not outcomes[name].reason for name in wanted):
        engine.submit(_request(f"late-{num_steps}", max_tokens=3, tenant="flood"))
        drain(engine, outcomes, num_steps=1)
        assert engine.stats().kv_bytes <= engine.config.max_kv_bytes
        num_steps += 1
        assert num_steps < 40 * len(drawn)
    drain(engine, outcomes)
    assert engine.stats().kv_bytes == 0


def _row(length, token=5):
    return Row(Request("r", "generate", None, (token,) * length))


def _taken(tokens, *rows):
    found = []
    for row in rows:
        cost = tokens.cost(row)
        fits = tokens.fits(cost)
        if fits:
            tokens.take(row, cost)
        found.append((cost, fits))
    return found


def test_the_inputs_of_a_step_stay_within_its_tokens():
    rows = [_row(6, 5), _row(6, 5), _row(5, 6), _row(4, 7)]
    assert _taken(StepTokens(10), *rows) == [(6, True), (0, True), (5, False), (4, True)]
    known = StepTokens(10, is_read=lambda row: row.num_read == 5)
    assert _taken(known, *rows) == [(6, True), (0, True), (0, True), (4, True)]
    assert _taken(StepTokens(10, num_unread=90), *rows) == [
        (6, False),
        (6, False),
        (5, True),
        (4, False),
    ]


def test_a_long_input_has_a_step_of_its_own_or_is_read_beside_others():
    rows = [_row(4), _row(30, 6), _row(40, 7), _row(2)]
    alone = StepTokens(10)
    assert _taken(alone, *rows) == [(4, True), (30, False), (40, False), (2, True)]
    assert _taken(StepTokens(10), *rows[1:]) == [(30, True), (40, False), (2, False)]
    beside = StepTokens(10, is_read=lambda _row: False)
    assert _taken(beside, *rows) == [(4, True), (30, True), (40, False), (2, False)]
    busy = StepTokens(10, num_unread=3, is_read=lambda _row: False)
    assert _taken(busy, *rows) == [(4, True), (30, False), (40, False), (2, True)]


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
