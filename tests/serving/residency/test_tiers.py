"""The host tier, routing tables, eviction by worth, and dropping what was unloaded."""

from __future__ import annotations

import pytest
import torch

from serving.residency.host import HostTier
from serving.residency.item import WEIGHTS, Item
from serving.residency.routings import RoutingTable
from serving.residency.victims import Victims

SHAPE = torch.Size((3, 2, 4))


def _adapter(num_floats=100):
    return Item("adapter", None, ("part",), {"x": torch.ones(num_floats)})


def _routing(value, bank="bank", **others):
    return Item("routing", bank, ("sites",), {WEIGHTS: torch.full(SHAPE, float(value)), **others})


def test_a_table_gives_every_task_its_own_weights_while_it_grows_and_shrinks():
    table = RoutingTable(SHAPE, torch.float32)
    rows = {value: table.add(torch.full(SHAPE, float(value))) for value in range(500)}
    for value in range(0, 500, 2):
        table.remove(rows.pop(value))
    size = table.num_bytes
    rows |= {value: table.add(torch.full(SHAPE, float(value))) for value in range(500, 700)}
    assert table.num_bytes == size
    assert len(table) == 450
    for value, row in rows.items():
        assert torch.equal(table.weights(row), torch.full(SHAPE, float(value)))


def test_what_a_table_gave_out_is_unmoved_by_its_later_tasks():
    table = RoutingTable(SHAPE, torch.float32)
    row = table.add(torch.ones(SHAPE))
    weights = table.weights(row)
    table.remove(row)
    assert table.add(torch.zeros(SHAPE)) == row
    assert torch.equal(weights, torch.ones(SHAPE))


def test_the_least_recently_used_of_equals_goes_first():
    victims = Victims()
    for key in "abc":
        victims.offer(key, 100)
    victims.offer("a", 100)
    victims.withdraw("c")
    assert [victims.pop(), victims.pop(), victims.pop()] == ["b", "a", None]


def test_small_things_stay_longer_than_large_ones_but_not_for_ever():
    victims = Victims()
    victims.offer("small", 1000)
    for number in range(3):
        victims.offer(f"large-{number}", 10**9)
    assert victims.pop() == "large-0"
    popped = []
    for number in range(3, 5000):
        victims.offer(f"medium-{number}", 2000)
        popped.append(victims.pop())
    assert "small" in popped


def test_offers_of_the_same_keys_do_not_pile_up():
    victims = Victims()
    for number in range(10_000):
        victims.offer(str(number % 10), 100)
    assert len(victims._heap) < 200


def test_an_item_comes_back_as_it_was_put():
    tier = HostTier(10**6)
    tier.put("plain", _adapter())
    tier.put("routed", _routing(7, head=torch.ones(5)))
    assert torch.equal(tier.get("plain").tensors["x"], torch.ones(100))
    found = tier.get("routed")
    assert torch.equal(found.tensors[WEIGHTS], torch.full(SHAPE, 7.0))
    assert torch.equal(found.tensors["head"], torch.ones(5))
    assert (found.bank, found.parts) == ("bank", ("sites",))
    assert tier.get("absent") is None


def test_the_tier_stays_within_its_bytes():
    tier = HostTier(1000)
    for number in range(10):
        tier.put(str(number), _adapter(100))
        assert tier.used_bytes <= 1000
    assert len(tier) == 2
    assert tier.num_evictions == 8
    tier.put("too large", _adapter(1000))
    assert "too large" not in tier
    assert len(tier) == 2


def test_dropping_the_last_task_of_a_bank_frees_its_table():
    tier = HostTier(10**6)
    for number in range(3):
        tier.put(str(number), _routing(number))
    assert tier.table_bytes > 0
    for number in range(3):
        tier.drop(str(number))
    assert (tier.table_bytes, tier.used_bytes, len(tier)) == (0, 0, 0)


def test_a_hundred_thousand_routings_are_resident_at_once():
    tier = HostTier(10**9)
    weights = torch.zeros(SHAPE)
    for number in range(100_000):
        tier.put(str(number), Item("routing", "bank", ("sites",), {WEIGHTS: weights + number}))
    assert len(tier) == 100_000
    assert tier.used_bytes == 100_000 * weights.nbytes
    assert tier.table_bytes <= 1.3 * tier.used_bytes
    for number in (0, 12_345, 99_999):
        assert torch.equal(tier.get(str(number)).tensors[WEIGHTS], weights + number)


@pytest.mark.parametrize("bank", ["bank", "other"])
def test_parts_that_differ_from_the_banks_other_tasks_are_kept(bank):
    tier = HostTier(10**6)
    tier.put("a", _routing(1))
    tier.put("b", Item("routing", bank, ("sites", "head"), {WEIGHTS: torch.ones(SHAPE)}))
    assert tier.get("a").parts == ("sites",)
    assert tier.get("b").parts == ("sites", "head")
