"""Inputs that begin like one read before: exact, and never across adapters or versions."""

from __future__ import annotations

import pytest
import torch
from world_kit import World

from adapters_store.errors import UsageError
from benchmarks.drive import answers
from benchmarks.synthetic import make_lora
from serving.engine import Engine, EngineConfig, Request, Sampling, Token
from serving.engine.prefix_cache import BLOCK_TOKENS, PrefixCache

GREEDY = Sampling(max_tokens=6, ignore_eos=True, logprobs=1)


@pytest.fixture(scope="module")
def world(llama_world: World) -> World:
    return llama_world


def inputs(length: int, seed: int, shared: int = 0) -> tuple[int, ...]:
    """``shared`` tokens that every seed has, then its own."""
    common = torch.randint(3, 48, (shared,), generator=torch.Generator().manual_seed(99))
    own = torch.randint(3, 48, (length - shared,), generator=torch.Generator().manual_seed(seed))
    return tuple(common.tolist() + own.tolist())


def request(name: str, adapter: str | None, ids: tuple[int, ...]) -> Request:
    return Request(name, "generate", adapter, ids, GREEDY)


def run(engine: Engine, requests: list[Request]) -> dict[str, tuple[list[int], list[float]]]:
    found = {}
    for name, outcome in answers(engine, requests).items():
        tokens = [event for event in outcome.events if isinstance(event, Token)]
        found[name] = (outcome.tokens, [one.logprob or 0.0 for one in tokens])
    return found


def assert_same(
    found: dict[str, tuple[list[int], list[float]]],
    expected: dict[str, tuple[list[int], list[float]]],
) -> None:
    for name, (tokens, logprobs) in found.items():
        assert tokens == expected[name][0], name
        assert logprobs == pytest.approx(expected[name][1], abs=1e-4)


def test_inputs_that_begin_alike_are_read_from_where_they_part(world: World) -> None:
    tasks = world.tasks
    requests = [
        request(f"{i}-{n}", task, inputs(length, seed=n, shared=70))
        for i, task in enumerate(tasks)
        for n, length in enumerate((80, 100, 71))
    ]
    expected = run(world.engine(prefix_cache_bytes=0), requests)
    engine = world.engine()
    firsts = [one for one in requests if one.id.endswith("-0")]
    assert_same(run(engine, firsts), expected)
    assert engine.stats().num_reused_tokens_total == 0
    assert_same(run(engine, requests), expected)
    found = engine.stats().num_reused_tokens_total
    assert found == len(tasks) * 3 * (70 // BLOCK_TOKENS) * BLOCK_TOKENS
    assert engine.stats().prefix_bytes > 0
    assert engine.stats().kv_bytes == 0


def test_the_same_tokens_under_another_adapter_or_version_are_read_anew(world: World) -> None:
    ids = inputs(90, seed=1)
    older = make_lora(world.backbone, rank=4, seed=50, effect=0.5)
    newer = make_lora(world.backbone, rank=4, seed=51, effect=0.5)
    digests = [world.loader.add(one) for one in (older, newer)]
    tasks = [*digests, world.loras[0], world.routings[0], None]
    requests = [request(f"{i}", task, ids) for i, task in enumerate(tasks)]
    expected = run(world.engine(prefix_cache_bytes=0), requests)
    assert len({tuple(tokens) for tokens, _ in expected.values()}) == len(tasks)
    engine = world.engine()
    for one in requests:
        assert_same(run(engine, [one]), expected)
    assert engine.stats().num_reused_tokens_total == 0
    assert_same(run(engine, requests), expected)
    assert engine.stats().num_reused_tokens_total == len(tasks) * 64


def test_reuse_parts_and_dropped_keys_together_change_nothing(world: World) -> None:
    requests = [
        request(f"{i}", task, inputs(60 + 7 * i, seed=i % 3, shared=40))
        for i, task in enumerate(world.tasks[:8])
    ]
    expected = run(world.engine(prefix_cache_bytes=0), requests)
    place = 128 * 2 * 2 * 2 * 8 * 4
    engine = world.engine(max_step_tokens=24, max_kv_bytes=5 * place)
    for _ in range(2):
        assert_same(run(engine, requests), expected)
    assert engine.stats().num_reused_tokens_total > 0


def test_an_input_that_was_read_before_still_reads_its_last_tokens(world: World) -> None:
    engine = world.engine()
    ids = inputs(2 * BLOCK_TOKENS, seed=8)
    first = run(engine, [request("a", None, ids)])
    assert_same(run(engine, [request("a", None, ids)]), first)
    assert engine.stats().num_reused_tokens_total == BLOCK_TOKENS


def test_what_is_kept_stays_within_its_bytes_and_goes_with_its_adapter(world: World) -> None:
    block_bytes = BLOCK_TOKENS * 2 * 2 * 2 * 8 * 4
    engine = world.engine(prefix_cache_bytes=5 * block_bytes)
    for seed in range(6):
        run(engine, [request("a", world.loras[0], inputs(100, seed=seed))])
        assert engine.stats().prefix_bytes <= 5 * block_bytes
    assert engine.stats().prefix_bytes == 5 * block_bytes
    latest = request("a", world.loras[0], inputs(100, seed=5))
    run(engine, [latest])
    assert engine.stats().num_reused_tokens_total == 96
    engine.unload(world.loras[0], 1.0)
    while engine.has_work:
        engine.step()
    engine.step()
    assert engine.stats().prefix_bytes == 0


def test_states_that_are_not_finite_are_not_kept(world: World) -> None:
    wild = world.loader.add(make_lora(world.backbone, rank=2, seed=1, effect=1e30))
    engine = world.engine()
    outcome = answers(engine, [request("wild", wild, inputs(80, seed=1))])["wild"]
    assert outcome.code == "not_finite"
    assert engine.stats().prefix_bytes == 0


def test_nothing_is_kept_without_bytes_for_it(world: World) -> None:
    engine = world.engine(prefix_cache_bytes=0)
    run(engine, [request("a", None, inputs(100, seed=1))])
    assert engine.stats().prefix_bytes == 0
    with pytest.raises(UsageError, match="prefix_cache_bytes is -1"):
        EngineConfig(prefix_cache_bytes=-1)


def test_the_blocks_used_least_recently_go_first() -> None:
    layers = [torch.arange(96 * 4, dtype=torch.float32).view(96, 4)]
    cache = PrefixCache(max_bytes=4 * BLOCK_TOKENS * 16)
    one, two, three = (tuple([seed] * 64) for seed in (1, 2, 3))
    for ids in (one, two):
        cache.keep(None, ids, layers)
    target = [torch.zeros(65, 4)]
    assert cache.read(None, (*one, 9), target) == 64
    assert torch.equal(target[0][:64], layers[0][:64])
    cache.keep(None, three, layers)
    assert cache.num_known(None, (*one, 9)) == 64
    assert cache.num_known(None, (*three, 9)) == 64
    assert cache.num_known(None, (*two, 9)) == 0
    assert cache.num_known("digest", (*one, 9)) == 0
