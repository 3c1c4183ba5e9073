"""Tables of row-ordered tensors, through joins and leaves, against a plain list of rows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import CPU, join_and_leave

from serving.primitives.rows import Picked, Run, Runs, Stacked, Whole

WIDTH = 4


def _tensors(rank):
    generator = torch.Generator().manual_seed(rank)
    down = torch.randn(WIDTH, rank, generator=generator)
    return down, torch.randn(rank, generator=generator)


@given(
    joins=st.lists(st.one_of(st.none(), st.integers(1, 9)), min_size=1, max_size=20),
    leaves=st.lists(st.integers(0, 19), max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_a_stack_holds_each_rows_tensors_through_joins_and_leaves(joins, leaves):
    brought = [None if rank is None else _tensors(rank) for rank in joins]
    join_and_leave(Stacked(torch.float32, CPU), brought, leaves, _check)


def _check(table, batch):
    assert sorted(table.rows) == [i for i, own in enumerate(batch) if own is not None]
    if not table.rows:
        assert table.num_bytes == 0 or batch == []
        return
    ((rows, (down, bias)),) = table.entries(torch.empty(len(batch)))
    found = rows.take(torch.arange(len(batch)))
    assert found.tolist() == table.rows
    assert isinstance(rows, Whole if table.rows == list(range(len(batch))) else Picked)
    for position, row in enumerate(table.rows):
        r = len(batch[row][1])
        own_down, own_bias = _tensors(r)
        assert torch.equal(down[position, :, :r], own_down)
        assert torch.equal(bias[position, :r], own_bias)
        assert not down[position, :, r:].any()
        assert not bias[position, r:].any()


def test_an_empty_stack_gives_its_memory_back():
    table = Stacked(torch.float32, CPU)
    table.join(3, _tensors(2))
    assert table.num_bytes > 0
    table.leave(3, 3)
    assert (table.num_bytes, table.rows) == (0, [])


def test_rows_take_put_and_add_their_own():
    x = torch.arange(10.0).view(5, 2)
    for rows, chosen in ((Run(1, 3), [1, 2]), (Picked(torch.tensor([4, 0])), [4, 0])):
        y = x.clone()
        assert torch.equal(rows.take(y), x[chosen])
        rows.add(y, rows.take(x) + 1)
        assert torch.equal(y[chosen], 2 * x[chosen] + 1)
        rows.put(y, -x[chosen])
        assert torch.equal(y[chosen], -x[chosen])
        others = [i for i in range(5) if i not in chosen]
        assert torch.equal(y[others], x[others])
    y = x.clone()
    Whole().add(y, Whole().take(x))
    assert torch.equal(y, 2 * x)
    Whole().put(y, x)
    assert torch.equal(y, x)


def test_runs_stand_for_every_token_of_the_run():
    runs = Runs()
    v = torch.tensor([2.0, 3.0])
    runs.append(Run(1, 4), (v,))
    ((rows, (found,)),) = runs.entries(torch.empty(6, 2))
    x = torch.ones(6, 2)
    assert (rows, found.shape) == (Run(1, 4), (1, 2))
    assert torch.equal(rows.take(x) * found, v.expand(3, 2))
