"""Gates, shared routers and the other methods' effects, each against the sums written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters_store.errors import UsageError
from adapters_store.families import Site
from training.methods import MethodConfig, build_methods, build_site_method
from training.methods.effects import Scales, TokenMixture
from training.methods.mhr import MhrSite, average
from training.methods.routing import GATES, Router, bin_of

IN, OUT = 12, 8
SITES = [
    Site(f"{stack}.{layer}.{role}", f"{stack}{layer}{role}", IN, OUT)
    for stack in ("encoder", "decoder")
    for layer in range(2)
    for role in ("self.q", "self.v", "ffn.in")
]
SITE = SITES[0]


@pytest.mark.parametrize("gate", list(GATES))
@pytest.mark.parametrize("is_training", [False, True])
def test_every_gate_gives_weights_that_sum_to_one_and_carry_a_gradient(gate, is_training) -> None:
    torch.manual_seed(0)
    router = Router(3, 2, 5, gate).train(is_training)
    weights = router(torch.tensor([0, 2]))
    assert weights.shape == (2, 2, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2))
    (weights * torch.arange(5.0)).sum().backward()
    gradient = router.logits.grad
    assert gradient is not None
    assert gradient[[0, 2]].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_the_relaxed_gate_draws_while_training_and_is_the_sigmoid_otherwise() -> None:
    router = Router(1, 1, 6, "relaxed_bernoulli")
    task = torch.tensor([0])
    assert not torch.equal(router.train()(task), router.train()(task))
    plain = Router(1, 1, 6, "sigmoid")
    plain.load_state_dict(router.state_dict())
    torch.testing.assert_close(router.eval()(task), plain(task), atol=0, rtol=0)


def test_the_straight_through_gate_switches_skills_on_and_off() -> None:
    router = Router(1, 1, 4, "straight_through")
    with torch.no_grad():
        router.logits.copy_(torch.tensor([[[3.0, -1.0, 0.5, -2.0]]]))
    weights = router(torch.tensor([0]))[0, 0]
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.0, 0.5, 0.0]))


def test_the_relaxed_gate_is_a_logistic_draw_at_temperature_one() -> None:
    router = Router(1, 2, 3, "relaxed_bernoulli").train()
    with torch.no_grad():
        router.logits.normal_(0, 2)
    torch.manual_seed(7)
    found = router(torch.tensor([0]))
    torch.manual_seed(7)
    u = torch.rand(1, 2, 3)
    noisy = torch.exp(router.logits) * u / (1 - u)  # the odds of a gate, noise included
    gates = noisy / (1 + noisy)
    torch.testing.assert_close(found, gates / gates.sum(-1, keepdim=True), atol=1e-6, rtol=1e-5)


def test_the_straight_through_gradient_is_the_sigmoids_at_the_hard_gates() -> None:
    router = Router(1, 1, 4, "straight_through")
    with torch.no_grad():
        router.logits.copy_(torch.tensor([[[3.0, -1.0, 0.5, -2.0]]]))
    costs = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (router(torch.tensor([0]))[0, 0] * costs).sum().backward()
    hard, soft = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.sigmoid(router.logits.detach()[0, 0])
    weights = hard / hard.sum()
    by_gate = (costs - (costs * weights).sum()) / hard.sum()
    assert router.logits.grad is not None
    torch.testing.assert_close(router.logits.grad[0, 0], by_gate * soft * (1 - soft))


def test_a_random_router_is_drawn_once_and_never_trained() -> None:
    torch.manual_seed(1)
    method = build_site_method(SITE, MethodConfig("mhr", num_tasks=4, has_random_routing=True))
    assert not method.router.logits.requires_grad
    assert method.router.logits.std() > 1


@pytest.mark.parametrize(
    ("granularity", "num_routers"),
    [("site", 12), ("block", 8), ("layer", 4), ("stack", 2), ("global", 1)],
)
def test_sites_of_a_bin_share_one_router(granularity, num_routers: int) -> None:
    methods = build_methods(SITES, MethodConfig("mhr", rank=2, granularity=granularity))
    by_bin: dict[str, set[int]] = {}
    for site in SITES:
        by_bin.setdefault(bin_of(site, granularity), set()).add(id(methods[site.name].router))
    assert len(by_bin) == num_routers
    assert all(len(routers) == 1 for routers in by_bin.values())


def test_an_unknown_gate_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'softmax'"):
        build_site_method(SITE, MethodConfig("mhr", gate="softmx"))


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_scale_multiplies_the_side_it_names(side) -> None:
    base, x = nn.Linear(IN, OUT), torch.randn(3, 4, IN)
    v = torch.randn(2, IN if side == "input" else OUT)
    rows = torch.tensor([1, 0, 1])
    found = Scales(v, side).of_rows(rows).apply(x, base)
    for row, task in enumerate(rows.tolist()):
        expected = base(x[row] * v[task]) if side == "input" else base(x[row]) * v[task]
        torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("num_heads", [1, 4])
def test_a_bank_of_scales_mixes_per_head(num_heads: int) -> None:
    config = MethodConfig("mhr_ia3", num_skills=3, num_heads=num_heads, num_tasks=2)
    method = build_site_method(SITE, config)
    with torch.no_grad():
        method.v.normal_()
        method.router.logits.normal_()
    tasks = torch.tensor([1, 0])
    weights, found = method.weights(tasks), method.effect(tasks).v
    width = OUT // num_heads
    for row in range(2):
        for head in range(num_heads):
            expected = sum(weights[row, head, k] * method.v[head, k] for k in range(3))
            part = found[row, head * width : (head + 1) * width]
            torch.testing.assert_close(part, expected)


def test_ia3_scales_the_input_of_the_second_feed_forward_map_by_default() -> None:
    out = Site("encoder.0.ffn.out", "o", IN, OUT)
    assert build_site_method(out, MethodConfig("ia3")).effect(torch.tensor([0])).side == "input"
    assert build_site_method(SITE, MethodConfig("ia3")).effect(torch.tensor([0])).side == "output"


@pytest.mark.parametrize("name", ["ia3", "poly_ia3", "hyper", "lora", "mhr"])
def test_a_fresh_method_changes_nothing(name: str) -> None:
    base, x = nn.Linear(IN, OUT), torch.randn(2, 3, IN)
    method = build_site_method(SITE, MethodConfig(name, rank=2, num_tasks=2))
    rows = torch.tensor([0, 1])
    found = method.effect(rows).of_rows(rows).apply(x, base)
    torch.testing.assert_close(found, base(x), atol=1e-6, rtol=0)


def test_generated_factors_share_the_task_embedding_and_differ_by_task() -> None:
    methods = build_methods(SITES[:2], MethodConfig("hyper", rank=2, num_tasks=3))
    first, second = methods.values()
    assert first.task is second.task
    factors = first.factors(torch.tensor([0, 2]))
    assert factors.a.shape == (2, IN, 2)
    assert factors.b.shape == (2, 2, OUT)
    assert not torch.equal(factors.a[0], factors.a[1])


def test_token_mixture_chooses_by_prototype_and_is_compiled_by_none() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(IN, OUT), torch.randn(2, 3, IN)
    a, b = torch.randn(4, IN, 2), torch.randn(4, 2, OUT)
    prototypes = nn.functional.normalize(torch.randn(4, IN), dim=-1)
    found = TokenMixture(a, b, prototypes, 2, 0.5).apply(x, base)
    for row in range(2):
        for token in range(3):
            vector = x[row, token]
            scores = [abs(float(vector @ p)) for p in prototypes]
            best = sorted(range(4), key=lambda k: -scores[k])[:2]
            total = sum(torch.exp(torch.tensor(scores[k])) for k in best)
            delta = sum(
                torch.exp(torch.tensor(scores[k])) / total * (vector @ a[k] @ b[k]) for k in best
            )
            torch.testing.assert_close(
                found[row, token], base(vector) + 0.5 * delta, atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize(("bank_name", "one_name"), [("mhr", "lora"), ("mhr_ia3", "ia3")])
def test_tuning_the_average_equals_tuning_every_skill_under_uniform_routing(
    bank_name: str, one_name: str
) -> None:
    """Under AdamW, K copies under weights 1/K move as their average does when it is tuned alone."""
    torch.manual_seed(0)
    bank = build_site_method(SITE, MethodConfig(bank_name, rank=2, num_skills=4, num_heads=2))
    alone = build_site_method(SITE, MethodConfig(one_name, rank=2))
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.normal_()
        bank.router.logits.zero_()
        if isinstance(bank, MhrSite):
            mean_a, mean_b = average(bank.a, bank.b)
            alone.load_state_dict({"a": mean_a[None], "b": mean_b[None]})
        else:
            alone.load_state_dict({"v": bank.v.mean(1).flatten()[None]})
    bank.router.logits.requires_grad_(False)
    x, target, base = torch.randn(5, 3, IN), torch.randn(5, 3, OUT), nn.Linear(IN, OUT)
    tasks = torch.tensor([0])
    for method in (bank, alone):
        trained = [p for p in method.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01, eps=1e-12)
        for _ in range(20):
            optimizer.zero_grad()
            found = method.effect(tasks).apply(x, base)
            (found - target).square().mean().backward()
            optimizer.step()
    for found, expected in zip(bank.effect(tasks), alone.effect(tasks), strict=True):
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
        else:
            assert found == expected


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("lora", {"granularity": "layer"}),
        ("ia3", {"gate": "softmax"}),
        ("hyper", {"has_random_routing": True}),
        ("mhr", {"is_private": True}),
        ("poly", {"side": "input"}),
        ("mhr", {"embedding_size": 4}),
    ],
)
def test_a_choice_without_effect_on_the_method_is_refused(name: str, option) -> None:
    with pytest.raises(UsageError, match=f"takes no {next(iter(option))}"):
        build_methods(SITES[:1], MethodConfig(name, rank=2, **option))
