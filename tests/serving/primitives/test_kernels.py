"""Fused kernels against the formulas: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from adapters_store.families.site import Site
from serving.primitives import low_rank, mixture
from serving.primitives.backend import Backend, backend_for
from serving.primitives.factors import Factors
from serving.primitives.layout import PackedSite, SiteLayout

pytest.importorskip("triton")

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2}
RANKS = (1, 4, 8, 16, 64)
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])


def layout_of(width: int, out: int) -> SiteLayout:
    names = ("q", "k", "v")
    packed = [Site(f"decoder.0.self.{name}", name, width, out) for name in names]
    return SiteLayout([*packed, Site("decoder.0.self.o", "o", out, width)])


def random(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, dtype=torch.float32) * scale).to(DEVICE, dtype)


def factors_of(site: PackedSite, members: Sequence[int], rank: int, dtype: torch.dtype) -> Factors:
    a = random(site.in_features, len(members) * rank, dtype=dtype, scale=site.in_features**-0.5)
    b = random(len(members), rank, site.member_width, dtype=dtype, scale=rank**-0.5)
    return Factors(tuple(members), rank, a, b)


def triton(dtype: torch.dtype) -> Backend:
    backend = backend_for("triton", DEVICE, dtype)
    assert backend.name == "triton"
    return backend


def wide(factors: Factors) -> Factors:
    return Factors(factors.members, factors.rank, factors.a.double(), factors.b.double())


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Within the dtype's rounding of the largest value: sums are rounded once, at the end."""
    limit = TOLERANCE[found.dtype] * max(1.0, float(expected.abs().max()))
    assert float((found.double() - expected).abs().max()) <= limit


@DTYPES
@pytest.mark.parametrize("width", [16, 600])
def test_rows_of_any_rank_and_of_none_get_their_own_products(
    dtype: torch.dtype, width: int
) -> None:
    torch.manual_seed(width)
    layout = layout_of(width, width + 7)
    qkv, o = layout.packed
    products = triton(dtype).products(layout.packed, {0, 1}, dtype, DEVICE, 16)
    adapters: list[dict[int, Factors]] = [
        {0: factors_of(qkv, members, rank, dtype), 1: factors_of(o, (0,), rank, dtype)}
        for members, rank in zip([(0,), (0, 2), (0, 1, 2), (1,), (2,)], RANKS)
    ]
    rows = [adapters[0], {}, *adapters[1:], {1: adapters[2][1]}, {}]
    for number, own in enumerate(rows):
        products.join(number, own)
    for gone in (None, 1, 0):
        if gone is not None:
            products.leave(gone, len(rows) - 1)
            rows[gone] = rows[-1]
            rows.pop()
        for index, site in enumerate(layout.packed):
            x = random(len(rows), site.in_features, dtype=dtype)
            y = random(len(rows), site.width + 5, dtype=dtype)[:, : site.width]
            expected = y.double()
            own = [wide(row[index]) if index in row else None for row in rows]
            low_rank.reference(site, x.double(), expected, own)
            products.apply(index, x, y)
            assert_close(y, expected)
    for last in reversed(range(len(rows))):
        products.leave(0, last)
    assert products.is_empty
    assert products.shape == ()


def test_a_rank_above_the_kernels_runs_beside_them() -> None:
    layout = layout_of(16, 12)
    site = layout.packed[0]
    backend = triton(torch.float32)
    rows = [factors_of(site, (0, 1, 2), rank, torch.float32) for rank in (4, 200)]
    x, y = random(2, 16), random(2, 36)
    expected, z = y.double(), y.clone()
    low_rank.reference(site, x.double(), expected, [wide(one) for one in rows])
    products = backend.products(layout.packed, {0}, torch.float32, DEVICE, 4)
    for number, own in enumerate(rows):
        products.join(number, {0: own})
    assert products.shape is None
    products.apply(0, x, y)
    assert_close(y, expected)
    backend.runs(layout.packed, [(0, 1, {0: rows[0]}), (1, 2, {0: rows[1]})]).apply(0, x, z)
    assert_close(z, expected)


@DTYPES
@pytest.mark.parametrize("width", [16, 70])
def test_runs_of_tokens_get_their_own_products(dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(width)
    layout = layout_of(width, width + 7)
    site = layout.packed[0]
    own = [
        factors_of(site, members, rank, dtype)
        for members, rank in zip([(0,), (0, 2), (0, 1, 2), (1,), (2,)], RANKS)
    ]
    spans = [(0, 33), (33, 33), (33, 34), (40, 104), (104, 107)]
    runs = [(start, stop, {0: one}) for (start, stop), one in zip(spans, own)]
    x, y = random(110, width, dtype=dtype), random(110, site.width, dtype=dtype)
    expected = y.double()
    tokens: list[Factors | None] = [None] * 110
    for start, stop, factors in runs:
        tokens[start:stop] = [wide(factors[0])] * (stop - start)
    low_rank.reference(site, x.double(), expected, tokens)
    segments = triton(dtype).runs(layout.packed, runs)
    segments.apply(0, x, y)
    segments.apply(1, random(110, site.member_width, dtype=dtype), y)
    assert_close(y, expected)


def test_empty_runs_add_nothing() -> None:
    layout = layout_of(16, 12)
    own = factors_of(layout.packed[0], (0,), 4, torch.float32)
    x, y = random(3, 16), random(3, 36)
    before = y.clone()
    for runs in ([], [(1, 1, {0: own})]):
        triton(torch.float32).runs(layout.packed, runs).apply(0, x, y)
        torch.testing.assert_close(y, before, rtol=0, atol=0)


@DTYPES
@pytest.mark.parametrize(
    ("num_heads", "num_skills", "rank"), [(1, 3, 1), (4, 3, 4), (8, 8, 2), (1, 8, 16), (4, 8, 8)]
)
def test_routed_rows_get_their_own_mixtures(
    dtype: torch.dtype, num_heads: int, num_skills: int, rank: int
) -> None:
    torch.manual_seed(rank)
    width, out, n = 72 * (4 if num_heads == 1 else 1), 40, 5
    layout = layout_of(width, out)
    H, K, members = num_heads, num_skills, (0, 2)
    bank_site = mixture.BankSite(
        members,
        (1, 0),
        H,
        K,
        rank,
        random(H, width // H, 2 * K * rank, dtype=dtype, scale=width**-0.5),
        random(2 * H, K * rank, out // H, dtype=dtype, scale=rank**-0.5),
    )
    bank = mixture.Bank({0: (bank_site,)}, ("a", "b"))
    table = triton(dtype).mixtures(bank, layout.packed, 8)
    tasks = [mixture.Mixture(bank, torch.rand(2, H, K).to(DEVICE)) for _ in range(n)]
    rows: list[mixture.Mixture | None] = [tasks[0], None, *tasks[1:], None]
    for number, task in enumerate(rows):
        table.touch()
        if task is not None:
            table.join(number, task)
    a, b = bank_site.a.double(), bank_site.b.double()
    a_mHKdr = a.view(H, -1, 2, K, rank).permute(2, 0, 3, 1, 4)
    b_mHKrd = b.view(2, H, K, rank, -1)
    for gone in (None, 0, 2):
        if gone is not None:
            table.leave(gone, len(rows) - 1)
            rows[gone] = rows[-1]
            rows.pop()
        x, y = random(len(rows), width, dtype=dtype), random(len(rows), 3 * out, dtype=dtype)
        expected = y.double()
        for number, task in enumerate(rows):
            for place, (member, order) in enumerate(zip(members, (1, 0))):
                if task is not None:
                    w, row = task.weights[order].double(), x[number].double()
                    own = (row[None], w[None], a_mHKdr[place], b_mHKrd[place])
                    delta = mixture.reference(own[2], own[3], own[1], own[0], 1.0)
                    expected[number, member * out : (member + 1) * out] += delta[0]
        table.apply(0, x, y)
        table.apply(1, x, y)
        assert_close(y, expected)


def test_a_rows_bits_do_not_depend_on_its_mates() -> None:
    torch.manual_seed(0)
    layout = layout_of(70, 40)
    site = layout.packed[0]
    own = [factors_of(site, (0, 1, 2), rank, torch.float32) for rank in (4, 8, 16)]
    x, y = random(3, 70), random(3, site.width)
    alone = y.clone()
    products = triton(torch.float32).products(layout.packed, {0}, torch.float32, DEVICE, 4)
    for number, factors in enumerate(own):
        products.join(number, {0: factors})
    products.apply(0, x, y)
    for number, factors in enumerate(own):
        single = triton(torch.float32).products(layout.packed, {0}, torch.float32, DEVICE, 4)
        single.join(0, {0: factors})
        single.apply(0, x[number : number + 1], alone[number : number + 1])
    assert torch.equal(y, alone)
