"""``mixture``: both exact forms against the formula written as a loop."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters_store.errors import InvalidArtefactError
from adapters_store.families.site import Site
from adapters_store.manifest import BankPart, RoutingPart
from serving.primitives.layout import SiteLayout
from serving.primitives.mixture import (
    BankTable,
    is_shared_cheaper,
    prepare_bank,
    prepare_routing,
    reference,
    shared_bank,
)
from serving.primitives.prepared import Target

WIDTH, OUT = 12, 24
NAMES = ("decoder.0.self.q", "decoder.0.self.k", "decoder.0.self.v")
LAYOUT = SiteLayout(Site(name, name, WIDTH, OUT) for name in NAMES)
TARGET = Target(LAYOUT, torch.float32, torch.device("cpu"))


@dataclass
class Case:
    parts: list
    tensors: dict
    weights: list

    @property
    def bank(self):
        return prepare_bank(self.parts, self.tensors, TARGET).bank

    def routing(self, task):
        part = RoutingPart(
            sites=tuple(p.site for p in self.parts),
            num_skills=self.parts[0].num_skills,
            num_heads=self.parts[0].num_heads,
        )
        return prepare_routing([part], {"routing/weights": self.weights[task]}, TARGET, self.bank)

    def expected(self, tasks, x):
        y = torch.zeros(len(tasks), 3 * OUT)
        for order, part in enumerate(self.parts):
            member = NAMES.index(part.site)
            w = torch.stack([self.weights[t][order] for t in tasks])
            a = self.tensors[f"{part.site}/mixture/a"]
            b = self.tensors[f"{part.site}/mixture/b"]
            y[:, member * OUT : (member + 1) * OUT] += reference(a, b, w, x, part.scale)
        return y


def _case(heads, skills, ranks, members, tasks, seed):
    generator = torch.Generator().manual_seed(seed)
    parts, tensors = [], {}
    for member, rank in zip(members, ranks):
        site = NAMES[member]
        parts.append(
            BankPart(site=site, rank=rank, num_skills=skills, num_heads=heads, scale=0.5 + member)
        )
        shape_a = (heads, skills, WIDTH // heads, rank)
        tensors[f"{site}/mixture/a"] = torch.randn(shape_a, generator=generator)
        shape_b = (heads, skills, rank, OUT // heads)
        tensors[f"{site}/mixture/b"] = torch.randn(shape_b, generator=generator)
    weights = [torch.rand(len(parts), heads, skills, generator=generator) for _ in range(tasks)]
    return Case(parts, tensors, weights)


cases = st.builds(
    _case,
    heads=st.sampled_from([1, 2, 4]),
    skills=st.integers(1, 4),
    ranks=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    members=st.sampled_from([(0,), (0, 2), (2, 0), (0, 1, 2), (1, 2, 0)]),
    tasks=st.just(5),
    seed=st.integers(0, 10**6),
)


@given(case=cases)
@settings(max_examples=40, deadline=None)
def test_composed_and_shared_bank_equal_the_formula(case):
    tasks = list(range(5))
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = case.expected(tasks, x)
    composed = torch.zeros(5, 3 * OUT)
    for t in tasks:
        for factors in case.routing(t).factors.values():
            r = factors.rank
            for i, member in enumerate(factors.members):
                a = factors.a[:, i * r : (i + 1) * r]
                composed[t, member * OUT : (member + 1) * OUT] += x[t] @ a @ factors.b[i]
    shared = torch.zeros(5, 3, OUT)
    weights = torch.stack(case.weights)
    for site in case.bank.sites[0]:
        delta = shared_bank(site, weights[:, list(site.order)], x)
        for i, member in enumerate(site.members):
            shared[:, member] += delta[:, i]
    assert torch.allclose(composed, expected, atol=1e-3, rtol=1e-4)
    assert torch.allclose(shared.flatten(1), expected, atol=1e-3, rtol=1e-4)


@example(case=_case(1, 1, (1, 1, 1), (0,), 5, 0), leaves=[0, 0, 0, 2, 2])
@given(case=cases, leaves=st.lists(st.integers(0, 6), max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_bank_table_equals_the_formula_beside_bare_rows(case, leaves):
    batch = [0, None, 3, 1, None, 4, 2]
    table = BankTable(case.bank, LAYOUT.packed)
    for row, task in enumerate(batch):
        if task is not None:
            table.join(row, case.routing(task).mixture)
    for number in [None, *leaves]:
        if number is not None:
            row = number % len(batch)
            table.leave(row, len(batch) - 1)
            batch[row] = batch[-1]
            batch.pop()
        x = torch.randn(len(batch), WIDTH, generator=torch.Generator().manual_seed(7))
        y = torch.zeros(len(batch), 3 * OUT)
        table.apply(0, x, y)
        routed = [i for i, task in enumerate(batch) if task is not None]
        expected = torch.zeros_like(y)
        if routed:
            expected[routed] = case.expected([batch[i] for i in routed], x[routed])
        assert torch.allclose(y, expected, atol=1e-3, rtol=1e-4)


def test_a_routing_over_other_sites_is_refused():
    case = _case(2, 3, (2, 2, 2), (0, 1), 1, 0)
    part = RoutingPart(sites=(NAMES[0],), num_skills=3, num_heads=2)
    with pytest.raises(InvalidArtefactError, match="1 sites that differ"):
        prepare_routing([part], {"routing/weights": torch.ones(1, 2, 3)}, TARGET, case.bank)


def test_one_head_is_polytropon_and_one_hot_weights_choose_a_skill():
    case = _case(1, 3, (2,), (0,), 1, 5)
    case.weights[0] = torch.tensor([[[0.0, 1.0, 0.0]]])
    factors = case.routing(0).factors[0]
    assert torch.allclose(factors.a, case.tensors[f"{NAMES[0]}/mixture/a"][0, 1])
    assert torch.allclose(factors.b[0], 0.5 * case.tensors[f"{NAMES[0]}/mixture/b"][0, 1])


@pytest.mark.parametrize(
    ("num_rows", "balance", "expected"),
    [(1, 1e9, False), (8, 1e9, False), (9, 1e9, True), (128, 4.0, False), (128, 200.0, True)],
)
def test_the_crossover_follows_from_bytes_and_flops(num_rows, balance, expected):
    assert is_shared_cheaper(num_rows, 8, 4, balance) is expected
