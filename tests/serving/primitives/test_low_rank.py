"""``low_rank``: prefill segments and decode tables against the row-by-row reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import CPU, LAYOUT, OUT, SITES, WIDTH, join_and_leave

from adapters_store.errors import IncompatibleError
from adapters_store.families.site import Site
from serving.primitives.factors import pack_factors
from serving.primitives.layout import SiteLayout
from serving.primitives.low_rank import RowTable, Segments, reference

QKV = LAYOUT.packed[0]

adapters = st.one_of(
    st.none(),
    st.tuples(
        st.sets(st.integers(0, 2), min_size=1),
        st.integers(1, 6),
        st.integers(0, 10**6),
    ),
)


def _factors(adapter, dtype=torch.float32):
    if adapter is None:
        return None
    members, rank, seed = adapter
    generator = torch.Generator().manual_seed(seed)
    pairs = {
        m: (
            torch.randn(WIDTH, max(1, rank - m), generator=generator),
            torch.randn(max(1, rank - m), OUT, generator=generator),
            0.5 + m,
        )
        for m in members
    }
    return pack_factors(QKV, pairs, dtype)


def _inputs(count, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, WIDTH, generator=generator)
    return x.to(dtype), torch.randn(count, 3 * OUT, generator=generator).to(dtype)


def _expected(rows, x, y):
    expected = y.clone()
    reference(QKV, x, expected, rows)
    return expected


def test_packed_sites_share_their_input():
    assert [p.name for p in LAYOUT.packed] == ["decoder.0.self.q+k+v", "decoder.0.self.o"]
    assert LAYOUT.place("decoder.0.self.v") == (0, 2)
    with pytest.raises(IncompatibleError, match=r"decoder\.9"):
        LAYOUT.place("decoder.9.self.q")


def test_sites_of_unlike_width_are_not_packed():
    narrow = (
        SITES[0],
        Site("decoder.0.self.k", "k", WIDTH, 5),
        Site("decoder.0.self.v", "v", WIDTH, 5),
    )
    assert [p.num_members for p in SiteLayout(narrow).packed] == [1, 2]


def test_packing_folds_the_scale_and_pads_the_rank():
    a, b = torch.randn(WIDTH, 2), torch.randn(2, OUT)
    a1, b1 = torch.randn(WIDTH, 4), torch.randn(4, OUT)
    factors = pack_factors(QKV, {2: (a1, b1, 1.0), 0: (a, b, 3.0)}, torch.float32)
    assert (factors.members, factors.rank) == ((0, 2), 4)
    assert torch.allclose(factors.a[:, :4] @ factors.b[0], 3.0 * a @ b, atol=1e-5)
    assert torch.allclose(factors.a[:, 4:] @ factors.b[1], a1 @ b1, atol=1e-5)


@given(runs=st.lists(st.tuples(st.integers(1, 5), adapters), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_segments_equal_the_reference(runs):
    rows, ranges, start = [], [], 0
    for length, adapter in runs:
        factors = _factors(adapter)
        rows += [factors] * length
        if factors is not None:
            ranges.append((start, start + length, {0: factors}))
        start += length
    x, y = _inputs(start)
    expected = _expected(rows, x, y)
    Segments(LAYOUT.packed, ranges).apply(0, x, y)
    assert torch.allclose(y, expected, atol=1e-4)


def test_segments_leave_other_sites_alone():
    factors = _factors(({0}, 2, 1))
    y = torch.zeros(3, WIDTH)
    Segments(LAYOUT.packed, [(0, 3, {0: factors})]).apply(1, torch.randn(3, OUT), y)
    assert not y.any()


@given(
    joins=st.lists(adapters, min_size=1, max_size=12),
    leaves=st.lists(st.integers(0, 11), max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_a_row_table_equals_the_reference_through_joins_and_leaves(joins, leaves):
    brought = [_factors(adapter) for adapter in joins]
    join_and_leave(RowTable(QKV, torch.float32, CPU), brought, leaves, _check)


@given(
    joins=st.lists(adapters, min_size=1, max_size=12),
    leaves=st.lists(st.integers(0, 11), max_size=10),
)
@settings(max_examples=30, deadline=None)
def test_a_row_table_of_bfloat16_equals_the_reference_within_its_rounding(joins, leaves):
    brought = [_factors(adapter, torch.bfloat16) for adapter in joins]
    join_and_leave(RowTable(QKV, torch.bfloat16, CPU), brought, leaves, _check_bfloat16)


def _check_bfloat16(table, batch):
    if not table.rows:
        return
    x, y = _inputs(len(batch), seed=len(batch), dtype=torch.bfloat16)
    expected = y.double()
    wide = [None if f is None else replace(f, a=f.a.double(), b=f.b.double()) for f in batch]
    reference(QKV, x.double(), expected, wide)
    bare = [i for i, factors in enumerate(batch) if factors is None]
    before = y.clone()
    table.apply(x, y)
    assert torch.equal(y[bare], before[bare])
    size = expected.abs().max().item()
    assert (y.double() - expected).abs().max().item() <= 0.02 * size


def _check(table, batch):
    if not table.rows:
        return
    x, y = _inputs(len(batch), seed=len(batch))
    expected = _expected(batch, x, y)
    table.apply(x, y)
    assert torch.allclose(y, expected, atol=1e-4)


def test_an_empty_table_gives_its_memory_back():
    table = RowTable(QKV, torch.float32, CPU)
    table.join(0, _factors(({0, 1}, 4, 1)))
    assert table.num_bytes > 0
    table.leave(0, 0)
    assert table.num_bytes == 0
    table.join(0, _factors(({2}, 1, 2)))
    _check(table, [_factors(({2}, 1, 2))])
