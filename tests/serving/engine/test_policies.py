"""Who is asked first: shares of tenants, priorities, bounded waits."""

from __future__ import annotations

from itertools import count

import pytest

from serving.engine.policies import POLICIES, build_policy
from serving.engine.request import Request
from serving.engine.row import Row

_NUMBERS = count()


def _row(tenant="", num_input=10, priority=0, arrived_at=None):
    number = next(_NUMBERS)
    request = Request(
        str(number), "generate", None, (1,) * num_input, tenant=tenant, priority=priority
    )
    return Row(request, arrived_at=float(number) if arrived_at is None else arrived_at)


def _policy(name="fair", weights=None, max_wait_s=1e9, burst_tokens=0):
    return build_policy(name, weights or {}, max_wait_s, burst_tokens)


def _run(policy, num_rows, num_output=5):
    """Admit rows one by one, charge for them, and return their tenants in order."""
    tenants = []
    for _ in range(num_rows):
        row = next(policy.order(0.0), None)
        if row is None:
            break
        policy.charge_input(row)
        policy.remove(row)
        for _ in range(num_output):
            policy.charge_output([row])
        tenants.append(row.request.tenant)
    return tenants


@pytest.mark.parametrize("name", POLICIES)
def test_every_waiting_row_is_offered_once(name):
    policy = _policy(name)
    rows = [_row(tenant) for tenant in "abcab"]
    for row in rows:
        policy.add(row)
    offered = list(policy.order(0.0))
    assert sorted(r.request.id for r in offered) == sorted(r.request.id for r in rows)
    policy.remove(rows[0])
    assert rows[0] not in list(policy.order(0.0))


@pytest.mark.parametrize("name", POLICIES)
def test_one_tenants_rows_keep_their_order(name):
    policy = _policy(name)
    rows = [_row("a") for _ in range(4)]
    for row in rows:
        policy.add(row)
    assert list(policy.order(0.0)) == rows


@pytest.mark.parametrize("name", POLICIES)
def test_priority_goes_first_until_somebody_waited_too_long(name):
    policy = _policy(name, max_wait_s=10.0)
    patient, urgent = _row("a", arrived_at=0.0), _row("a", priority=5, arrived_at=5.0)
    policy.add(patient)
    policy.add(urgent)
    assert list(policy.order(6.0)) == [urgent, patient]
    assert list(policy.order(11.0)) == [patient, urgent]


@pytest.mark.parametrize("name", POLICIES)
def test_a_row_that_ran_before_goes_back_to_its_place(name):
    policy = _policy(name)
    rows = [_row("a") for _ in range(3)]
    for row in rows[1:]:
        policy.add(row)
    policy.add(rows[0])
    assert list(policy.order(0.0)) == rows


def test_a_flood_does_not_delay_the_other_tenants():
    policy = _policy()
    for _ in range(100):
        policy.add(_row("flood"))
    for tenant in ("a", "b"):
        for _ in range(5):
            policy.add(_row(tenant))
    assert sorted(_run(policy, 15)[:15]) == ["a"] * 5 + ["b"] * 5 + ["flood"] * 5


def test_a_share_of_two_gets_twice_the_work():
    policy = _policy(weights={"big": 2.0})
    for tenant in ("big", "small"):
        for _ in range(40):
            policy.add(_row(tenant))
    served = _run(policy, 30)
    assert served.count("big") == pytest.approx(20, abs=1)


def test_long_inputs_and_outputs_count_for_more():
    policy = _policy()
    for _ in range(40):
        policy.add(_row("long", num_input=100))
        policy.add(_row("short", num_input=10))
    served = _run(policy, 22, num_output=0)
    assert served.count("short") == pytest.approx(20, abs=1)


@pytest.mark.parametrize("burst_tokens", [0, 60])
def test_idleness_saves_a_burst_up_and_no_more(burst_tokens):
    policy = _policy(burst_tokens=burst_tokens)
    policy.add(_row("late"))
    assert _run(policy, 1) == ["late"]
    for _ in range(60):
        policy.add(_row("busy"))
    _run(policy, 30)
    for _ in range(20):
        policy.add(_row("late"))
    served = _run(policy, 20)
    num_saved = burst_tokens // 20
    assert served[:num_saved] == ["late"] * num_saved
    assert served.count("busy") == pytest.approx((20 - num_saved) / 2, abs=1)


def test_a_short_pause_does_not_clear_a_debt():
    policy = _policy()
    for _ in range(10):
        policy.add(_row("a"))
        policy.add(_row("b"))
    heavy = _row("a", num_input=1000)
    policy.add(heavy)
    policy.charge_input(heavy)
    policy.remove(heavy)
    for row in [r for r in policy.order(0.0) if r.request.tenant == "a"]:
        policy.remove(row)
    policy.add(_row("a"))
    assert _run(policy, 10) == ["b"] * 10


def test_counters_of_thousands_of_tenants_are_bounded():
    policy = _policy()
    for number in range(10_000):
        row = _row(f"t{number}")
        policy.add(row)
        policy.remove(row)
    assert len(policy._served) <= 4097
