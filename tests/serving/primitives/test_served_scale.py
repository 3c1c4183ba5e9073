"""``scale``: both plans, over packed maps and maps that stand alone, against the formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import LAYOUT, SITES, decode_plan, prepared_of, run_plan

from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.scale import ScalePart
from serving.engine.transformer.linear_site import LinearSite
from serving.primitives.low_rank import reference as low_rank_reference
from serving.primitives.prepared import Prepared
from serving.primitives.scale import reference

NAMES = {site.name: site for site in SITES}
BARE = Prepared()

adapters = st.one_of(
    st.none(),
    st.tuples(
        st.sets(st.tuples(st.sampled_from(sorted(NAMES)), st.sampled_from(["input", "output"]))),
        st.sets(st.sampled_from(sorted(NAMES))),
        st.integers(0, 99),
    ),
)


def _prepared(adapter):
    if adapter is None:
        return BARE
    scaled, low_rank, seed = adapter
    generator = torch.Generator().manual_seed(seed)
    parts, tensors = [], {}
    for name, side in sorted(scaled):
        site = NAMES[name]
        parts.append(ScalePart(site=name, side=side))
        size = site.in_features if side == "input" else site.out_features
        tensors[f"{name}/scale/{side}"] = torch.randn(size, generator=generator)
    for name in sorted(low_rank):
        site = NAMES[name]
        parts.append(LowRankPart(site=name, rank=2, scale=0.7))
        tensors[f"{name}/low_rank/a"] = torch.randn(site.in_features, 2, generator=generator)
        tensors[f"{name}/low_rank/b"] = torch.randn(2, site.out_features, generator=generator)
    return prepared_of(parts, tensors)


def _check(plan, rows):
    generator = torch.Generator().manual_seed(len(rows))
    for packed in LAYOUT.packed:
        width = packed.num_members * packed.member_width
        x = torch.randn(len(rows), packed.in_features, generator=generator)
        weight = torch.randn(packed.in_features, width, generator=generator)
        bias = torch.randn(width, generator=generator)
        before = x.clone()
        found = LinearSite([packed], weight, bias)(x, plan)
        added = bias.expand(len(rows), -1).clone()
        low_rank_reference(packed, x, added, [row.factors.get(packed.index) for row in rows])
        scales = [row.scales.get(packed.index) for row in rows]
        expected = reference(packed, x, weight, added, scales)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(x, before)
        bare = [i for i, row in enumerate(rows) if row is BARE]
        assert torch.equal(found[bare], LinearSite([packed], weight, bias)(x, None)[bare])


@given(chosen=st.lists(adapters, min_size=1, max_size=7), through=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_both_plans_equal_the_reference(chosen, through):
    rows = [_prepared(adapter) for adapter in chosen]
    _check(decode_plan(rows, through=through), rows)
    tokens = [row for i, row in enumerate(rows) for _ in range(1 + i % 3)]
    _check(run_plan(tokens), tokens)


@pytest.mark.parametrize("side", ["input", "output"])
def test_ones_change_nothing_but_rounding(side):
    parts = [ScalePart(site=name, side=side) for name in NAMES]
    sizes = {"input": lambda s: s.in_features, "output": lambda s: s.out_features}
    tensors = {f"{n}/scale/{side}": torch.ones(sizes[side](s)) for n, s in NAMES.items()}
    row = prepared_of(parts, tensors)
    x, weight = torch.randn(2, 12), torch.randn(12, 30)
    site = LinearSite([LAYOUT.packed[0]], weight, None)
    torch.testing.assert_close(site(x, decode_plan([row, BARE])), x @ weight)


def test_a_scaled_input_enters_the_products_of_the_same_adapter():
    name = "decoder.0.self.o"
    tensors = {
        f"{name}/scale/input": torch.full((10,), 3.0),
        f"{name}/low_rank/a": torch.ones(10, 1),
        f"{name}/low_rank/b": torch.ones(1, 12),
    }
    parts = [ScalePart(site=name, side="input"), LowRankPart(site=name, rank=1, scale=1.0)]
    row = prepared_of(parts, tensors)
    site = LinearSite([LAYOUT.packed[1]], torch.zeros(10, 12), None)
    found = site(torch.ones(1, 10), decode_plan([row]))
    assert torch.equal(found, torch.full((1, 12), 30.0))


def test_an_adapter_counts_the_bytes_of_its_vectors():
    names = ("decoder.0.self.q", "decoder.0.self.o")
    parts = [ScalePart(site=name, side="output") for name in names]
    row = prepared_of(
        parts, {f"{n}/scale/output": torch.ones(NAMES[n].out_features) for n in names}
    )
    assert row.num_bytes == 4 * (30 + 12)
