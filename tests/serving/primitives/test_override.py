"""``override``: norms and linear biases of a row's own in both plans, against the formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import LAYOUT, TARGET, decode_plan, run_plan
from torch.nn import functional

from adapters_store.families.architecture import Norm
from adapters_store.primitives.override import OverridePart
from serving.engine.transformer.linear_site import LinearSite
from serving.engine.transformer.norm import Normalisation
from serving.primitives.override import prepare, reference
from serving.primitives.prepared import Prepared

WIDTH = 12
NORM = "decoder.0.self.norm"
BIASES = {"decoder.0.self.q.bias": torch.linspace(-1, 1, 10), "decoder.0.self.o.bias": None}
BARE = Prepared()
FROZEN = {
    f"{NORM}.gain": torch.linspace(0.5, 1.5, WIDTH),
    f"{NORM}.bias": torch.linspace(-0.2, 0.2, WIDTH),
    **{name: value for name, value in BIASES.items() if value is not None},
}
SIZES = {
    f"{NORM}.gain": WIDTH,
    f"{NORM}.bias": WIDTH,
    "decoder.0.self.q.bias": 10,
    "decoder.0.self.o.bias": 12,
}

changes = st.dictionaries(
    st.sampled_from(sorted(SIZES)), st.sampled_from(["replace", "add"]), min_size=1
)
adapters = st.one_of(st.none(), st.tuples(changes, st.integers(0, 99)))


def _own(adapter):
    """Every vector as the adapter leaves it."""
    if adapter is None:
        return FROZEN
    chosen, seed = adapter
    values = {
        name: reference(FROZEN.get(name), op, _value(name, seed)) for name, op in chosen.items()
    }
    return FROZEN | values


def _value(name, seed):
    generator = torch.Generator().manual_seed(seed + len(name))
    return torch.randn(SIZES[name], generator=generator)


def _prepared(adapter, target):
    if adapter is None:
        return BARE
    chosen, seed = adapter
    parts = [OverridePart(vector=name, operation=op) for name, op in chosen.items()]
    tensors = {f"{name}/override/value": _value(name, seed) for name in chosen}
    return prepare(parts, tensors, target)


def _check(plan, adapters, kind):
    x = torch.randn(len(adapters), WIDTH, generator=torch.Generator().manual_seed(5))
    gain, bias = FROZEN[f"{NORM}.gain"], FROZEN[f"{NORM}.bias"]
    norm = Normalisation(NORM, Norm(kind, 1e-5, "pre"), gain, bias if kind == "layer" else None)
    found = norm(x, plan)
    for i, adapter in enumerate(adapters):
        own = _own(adapter)
        g, b = own[f"{NORM}.gain"], own[f"{NORM}.bias"]
        if kind == "rms":
            expected = functional.rms_norm(x[i], (WIDTH,), g, 1e-5)
        else:
            expected = functional.layer_norm(x[i], (WIDTH,), g, b, 1e-5)
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
    bare = [i for i, adapter in enumerate(adapters) if adapter is None]
    assert torch.equal(found[bare], norm(x)[bare])


def _check_biases(plan, adapters):
    for packed in LAYOUT.packed:
        width = packed.num_members * packed.member_width
        names = [f"{member.name}.bias" for member in packed.members]
        zeros = torch.zeros(packed.member_width)
        frozen = torch.cat([FROZEN.get(name, zeros) for name in names])
        site = LinearSite([packed], torch.zeros(packed.in_features, width), frozen)
        found = site(torch.ones(len(adapters), packed.in_features), plan)
        expected = [torch.cat([_own(a).get(name, zeros) for name in names]) for a in adapters]
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=1e-5)


@given(chosen=st.lists(adapters, min_size=1, max_size=7), through=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_both_plans_equal_the_reference(kind, chosen, through):
    frozen = {n: v for n, v in FROZEN.items() if kind == "layer" or n != f"{NORM}.bias"}
    if kind == "rms":
        chosen = [a if a is None or f"{NORM}.bias" not in a[0] else None for a in chosen]
    target = replace(TARGET, vectors=frozen)
    rows = [_prepared(adapter, target) for adapter in chosen]
    decode = decode_plan(rows, through=through)
    _check(decode, chosen, kind)
    _check_biases(decode, chosen)
    repeated = [1 + i % 3 for i in range(len(rows))]
    tokens = [row for row, times in zip(rows, repeated) for _ in range(times)]
    adapters_of = [adapter for adapter, times in zip(chosen, repeated) for _ in range(times)]
    prefill = run_plan(tokens)
    _check(prefill, adapters_of, kind)
    _check_biases(prefill, adapters_of)


def test_vectors_spread_over_heads():
    norm = Normalisation(NORM, Norm("rms", 1e-6, "pre"), torch.ones(4), None)
    target = replace(TARGET, vectors={f"{NORM}.gain": torch.ones(4)})
    part = OverridePart(vector=f"{NORM}.gain", operation="add")
    row = prepare([part], {f"{NORM}.gain/override/value": torch.arange(4.0)}, target)
    x = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    for plan in (decode_plan([BARE, row, BARE]), run_plan([BARE, row, BARE])):
        found = norm(x, plan)
        expected = functional.rms_norm(x[1], (4,), 1 + torch.arange(4.0), 1e-6)
        torch.testing.assert_close(found[1], expected)
        assert torch.equal(found[[0, 2]], norm(x)[[0, 2]])
