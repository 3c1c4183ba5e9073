"""Methods: composition against a slow reference, starts that are exact, sizes that misfit."""

from __future__ import annotations

import re

import pytest
import torch
from training_kit import SCRATCH

from adapters_store.errors import UsageError
from adapters_store.families import Site, load_family
from training.injection import select_sites
from training.methods import MethodConfig, build_site_method
from training.methods.mhr import MhrSite, average, compose
from training.methods.routing import softmax_gate

SITE = Site("encoder.0.self.q", "q", 12, 8)


def mhr_site(num_heads: int, num_tasks: int = 3) -> MhrSite:
    """A site with random skills and logits."""
    torch.manual_seed(0)
    config = MethodConfig("mhr", rank=2, num_skills=5, num_heads=num_heads, num_tasks=num_tasks)
    method = MhrSite(SITE, config)
    with torch.no_grad():
        method.b.normal_()
        method.logits.normal_()
    return method


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_composition_equals_the_sums_written_out(num_heads: int) -> None:
    method = mhr_site(num_heads)
    tasks = torch.tensor([2, 0])
    a, b, scale = method.factors(tasks)
    assert scale == 1.0
    for row, task in enumerate(tasks.tolist()):
        for h in range(num_heads):
            gates = [1 / (1 + torch.exp(-z)) for z in method.logits[task, h]]
            weights = [g / sum(gates) for g in gates]
            width_in, width_out = 12 // num_heads, 8 // num_heads
            expected_a = sum(w * method.a[h, k] for k, w in enumerate(weights))
            expected_b = sum(w * method.b[h, k] for k, w in enumerate(weights))
            found_a = a[row, h * width_in : (h + 1) * width_in]
            found_b = b[row, :, h * width_out : (h + 1) * width_out]
            torch.testing.assert_close(found_a, expected_a, atol=1e-6, rtol=0)
            torch.testing.assert_close(found_b, expected_b, atol=1e-6, rtol=0)


def test_the_softmax_gate_is_softmax() -> None:
    logits = torch.randn(2, 3, 5)
    torch.testing.assert_close(softmax_gate(logits), torch.softmax(logits, -1))


def test_the_average_of_a_bank_is_the_plain_mean_of_its_skills() -> None:
    method = mhr_site(4)
    a, b = average(method.a, method.b)
    bank_a, bank_b = method.a.detach(), method.b.detach()
    torch.testing.assert_close(a, bank_a.mean(1).reshape(12, 2), atol=1e-7, rtol=0)
    torch.testing.assert_close(b, torch.cat(list(bank_b.mean(1)), dim=-1), atol=5e-7, rtol=0)


def test_heads_that_do_not_divide_a_width_are_refused() -> None:
    with pytest.raises(UsageError, match=r"num_heads 5 does not divide the input width 12"):
        build_site_method(SITE, MethodConfig("mhr", num_heads=5))
    with pytest.raises(UsageError, match=r"num_heads 3 does not divide the output width 8"):
        build_site_method(SITE, MethodConfig("mhr", num_heads=3))
    where = rf"the output width 8 of site {re.escape(SITE.name)}; choose a divisor of 8"
    with pytest.raises(UsageError, match=where):
        build_site_method(SITE, MethodConfig("mhr_ia3", num_heads=3))


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'poly'"):
        build_site_method(SITE, MethodConfig("polly"))


def test_private_lora_keeps_tasks_apart_and_shared_lora_does_not() -> None:
    tasks = torch.tensor([0, 1])
    private = build_site_method(SITE, MethodConfig("lora", num_tasks=2, is_private=True))
    shared = build_site_method(SITE, MethodConfig("lora", num_tasks=2))
    a, _, _ = private.factors(tasks)
    assert not torch.equal(a[0], a[1])
    a, _, _ = shared.factors(tasks)
    assert len(a) == 1


def test_alpha_sets_the_scale() -> None:
    assert MethodConfig("lora", rank=4, alpha=2.0).scale == 0.5
    assert MethodConfig("lora", rank=4).scale == 1.0


def test_gradients_of_the_router_reach_only_the_batch_tasks() -> None:
    method = mhr_site(2)
    a, b, _ = method.factors(torch.tensor([1]))
    (a.square().sum() + b.square().sum()).backward()
    assert method.logits.grad is not None
    touched = method.logits.grad.abs().sum((1, 2)) > 0
    assert touched.tolist() == [False, True, False]


def test_site_patterns_choose_by_name_and_role_and_refuse_what_matches_nothing() -> None:
    sites = load_family("t5").sites(SCRATCH)
    chosen = select_sites(sites, ["self.q", "decoder.0.cross.*"])
    assert [site.name for site in chosen] == [
        "encoder.0.self.q",
        "encoder.1.self.q",
        "decoder.0.self.q",
        "decoder.0.cross.q",
        "decoder.0.cross.k",
        "decoder.0.cross.v",
        "decoder.0.cross.o",
    ]
    assert select_sites(sites, ["all"]) == sites
    with pytest.raises(UsageError, match=r"'self\.z' matches no site; roles here"):
        select_sites(sites, ["self.z"])


def test_compose_is_linear_in_the_weights() -> None:
    method = mhr_site(2)
    ones = torch.rand(1, 2, 5)
    a, b = compose(ones, method.a, method.b)
    twice_a, twice_b = compose(2 * ones, method.a, method.b)
    torch.testing.assert_close(twice_a, 2 * a)
    torch.testing.assert_close(twice_b, 2 * b)
