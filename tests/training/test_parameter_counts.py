"""Exact parameter counts at the shapes of T5-XL and T0-11B, on the meta device."""

from __future__ import annotations

import pytest
import torch

from adapters_store.families import load_family
from training.injection import select_sites
from training.methods import MethodConfig, build_methods
from training.methods.mhr import MhrSite, average
from training.methods.routing import RoutedSite

XL = {"d_model": 2048, "d_ff": 5120, "num_heads": 32}
LARGEST = {"d_model": 4096, "d_ff": 10240, "num_heads": 64}
SMALL = {"d_model": 512, "d_ff": 1024, "num_heads": 6, "num_layers": 8}
IA3_ROLES = ("self.k", "self.v", "cross.k", "cross.v", "ffn.in")
NUM_SEEN = 313


def sites(shape: dict[str, int], patterns: tuple[str, ...] = ("all",)):
    common = {"model_type": "t5", "d_kv": 64, "num_layers": 24, "vocab_size": 32128}
    config = common | {"feed_forward_proj": "gated-gelu"} | shape
    return select_sites(load_family("t5").sites(config), patterns)


def counts(shape, config: MethodConfig, patterns: tuple[str, ...] = ("all",)) -> tuple[int, int]:
    """(adapters or skills, routing) of the method over the sites; shared parameters count once."""
    with torch.device("meta"):
        methods = torch.nn.ModuleList(build_methods(sites(shape, patterns), config).values())
    routers = {id(m.router.logits): m.router.logits.numel() for m in methods if _is_routed(m)}
    routing = sum(routers.values())
    return sum(p.numel() for p in methods.parameters()) - routing, routing


def _is_routed(method: torch.nn.Module) -> bool:
    return isinstance(method, RoutedSite)


@pytest.mark.parametrize(
    ("shape", "num_sites", "total"), [(XL, 432, 2_211_840), (LARGEST, 432, 4_423_680)]
)
def test_low_rank_counts_of_rank_one(shape, num_sites: int, total: int) -> None:
    found = sites(shape)
    assert len(found) == num_sites
    assert sum(site.in_features + site.out_features for site in found) == total
    assert counts(shape, MethodConfig("lora", rank=1)) == (total, 0)


@pytest.mark.parametrize("num_heads", [1, 64])
@pytest.mark.parametrize(("shape", "total"), [(XL, 2_211_840), (LARGEST, 4_423_680)])
def test_a_collapsed_bank_counts_as_one_adapter(shape, num_heads: int, total: int) -> None:
    config = MethodConfig("mhr", rank=1, num_skills=8, num_heads=num_heads)
    with torch.device("meta"):
        methods = build_methods(sites(shape), config).values()
        pairs = [average(method.a, method.b) for method in methods if isinstance(method, MhrSite)]
    assert sum(a.numel() + b.numel() for a, b in pairs) == total


@pytest.mark.parametrize(("shape", "total"), [(XL, 540_672), (LARGEST, 1_081_344)])
def test_ia3_counts_on_keys_values_and_the_inner_layer(shape, total: int) -> None:
    assert len(sites(shape, IA3_ROLES)) == 192
    assert counts(shape, MethodConfig("ia3", side="output"), IA3_ROLES) == (total, 0)


@pytest.mark.parametrize(
    ("num_heads", "routing"),
    [(1, 3_456), (8, 27_648), (16, 55_296), (32, 110_592), (64, 221_184)],
)
@pytest.mark.parametrize(("shape", "skills"), [(XL, 17_694_720), (LARGEST, 35_389_440)])
def test_bank_and_routing_counts_per_task(shape, skills: int, num_heads: int, routing: int) -> None:
    config = MethodConfig("mhr", rank=1, num_skills=8, num_heads=num_heads)
    assert counts(shape, config) == (skills, routing)


@pytest.mark.parametrize(
    ("num_heads", "routing"), [(1, NUM_SEEN * 3_456), (64, NUM_SEEN * 221_184)]
)
def test_routing_counts_of_pretraining(num_heads: int, routing: int) -> None:
    config = MethodConfig("mhr", rank=1, num_heads=num_heads, num_tasks=NUM_SEEN)
    assert counts(XL, config)[1] == routing


def test_the_smallest_shape() -> None:
    assert counts(SMALL, MethodConfig("lora", rank=1)) == (159_744, 0)
    assert counts(SMALL, MethodConfig("mhr", rank=1, num_heads=16))[1] == 18_432


@pytest.mark.parametrize(
    ("granularity", "num_routers"),
    [("site", 432), ("block", 24 * 2 + 24 * 3), ("layer", 48), ("stack", 2), ("global", 1)],
)
def test_coarser_routing_shares_routers(granularity, num_routers: int) -> None:
    config = MethodConfig("mhr", rank=1, num_heads=4, granularity=granularity)
    assert counts(XL, config)[1] == num_routers * 4 * 8
