"""One input of several rows: read once, each answered as if it were alone."""

from __future__ import annotations

import pytest
from world_kit import World

from benchmarks.drive import Outcome, answers, drain
from benchmarks.synthetic import make_lora
from serving.engine import Engine, Prompt, Request, Sampling


def outputs_of(
    world: World, ids: tuple[int, ...], adapter: str | None, name: str = "", **changes: object
) -> list[Request]:
    """Greedy, sampled, penalised and long outputs of one input, with seeds of their own."""
    settings = [
        {},
        {"temperature": 1.3, "seed": 1},
        {"temperature": 1.3, "seed": 2, "top_k": 9},
        {"frequency_penalty": 0.8, "max_tokens": 70},
    ]
    defaults = {"max_tokens": 8, "ignore_eos": True, "logprobs": 1}
    return [
        Request(f"{name}{i}", "generate", adapter, ids, Sampling(**(defaults | one | changes)))
        for i, one in enumerate(settings)
    ]


def alone(world: World, requests: list[Request]) -> dict[str, Outcome]:
    engine = world.engine(prefix_cache_bytes=0)
    return {one.id: answers(engine, [one])[one.id] for one in requests}


def assert_same(found: dict[str, Outcome], expected: dict[str, Outcome]) -> None:
    assert {n: (o.tokens, o.reason) for n, o in found.items()} == {
        n: (o.tokens, o.reason) for n, o in expected.items()
    }


def inputs(world: World, length: int, seed: int = 1) -> tuple[int, ...]:
    return (world.inputs(1, seed=seed, longest=40)[0] * length)[:length]


def num_reused(engine: Engine) -> int:
    return engine.stats().num_reused_tokens_total


@pytest.mark.parametrize("length", [9, 90])
@pytest.mark.parametrize("max_step_tokens", [16, 2048])
def test_outputs_of_one_input_read_it_once(world: World, length: int, max_step_tokens: int) -> None:
    ids = inputs(world, length)
    tasks = (None, world.loras[0], world.routings[0])
    requests = [r for i, t in enumerate(tasks) for r in outputs_of(world, ids, t, f"{i}-")]
    expected = alone(world, requests)
    engine = world.engine(max_step_tokens=max_step_tokens, prefix_cache_bytes=0, max_rows=16)
    assert_same(answers(engine, requests), expected)
    assert num_reused(engine) == len(tasks) * 3 * length
    assert engine.stats().kv_bytes == 0


def test_rows_that_come_later_go_on_from_the_same_encoder(t5_world: World) -> None:
    ids = inputs(t5_world, 30)
    requests = outputs_of(t5_world, ids, t5_world.loras[1])
    expected = alone(t5_world, requests)
    engine = t5_world.engine(max_rows=4)
    found: dict[str, Outcome] = {}
    first, *others = sorted(requests, key=lambda one: -one.sampling.max_tokens)
    for request in (first, *others):
        engine.submit(request)
        drain(engine, found, num_steps=3)
        engine.wait(1.0)
    drain(engine, found)
    assert_same(found, expected)
    assert num_reused(engine) == 3 * len(ids)


def test_rows_join_an_input_that_is_being_read(world: World) -> None:
    ids = inputs(world, 120)
    requests = outputs_of(world, ids, None)
    expected = alone(world, requests)
    engine = world.engine(max_step_tokens=40, prefix_cache_bytes=0)
    found: dict[str, Outcome] = {}
    engine.submit(requests[0])
    drain(engine, found, num_steps=1)
    assert not found
    for request in requests[1:]:
        engine.submit(request)
    drain(engine, found)
    assert_same(found, expected)
    assert num_reused(engine) == 3 * len(ids)


def test_a_search_and_single_rows_share_an_input(world: World) -> None:
    ids = inputs(world, 50)
    search = Request("s", "generate", None, ids, Sampling(max_tokens=9, num_beams=3))
    requests = [search, *outputs_of(world, ids, None)]
    expected = alone(world, requests)
    for max_step_tokens in (16, 2048):
        engine = world.engine(max_step_tokens=max_step_tokens, prefix_cache_bytes=0)
        assert_same(answers(engine, requests), expected)
        assert num_reused(engine) == 4 * len(ids)


@pytest.mark.parametrize("cancelled", [0, 2])
def test_outputs_are_cancelled_one_by_one(world: World, cancelled: int) -> None:
    ids = inputs(world, 120)
    requests = outputs_of(world, ids, world.loras[0])
    expected = alone(world, requests)
    engine = world.engine(max_step_tokens=30)
    found: dict[str, Outcome] = {}
    answers(engine, [Request("warm", "generate", world.loras[0], (5,), Sampling(max_tokens=1))])
    for request in requests:
        engine.submit(request)
    drain(engine, found, num_steps=1)
    assert engine.stats().num_running == 4
    assert engine.cancel(requests[cancelled].id)
    drain(engine, found)
    assert found.pop(f"{cancelled}").reason == "cancelled"
    assert_same(found, {n: o for n, o in expected.items() if n in found})
    assert engine.stats().kv_bytes == 0


def test_an_input_is_dropped_with_the_last_row_that_wants_it(world: World) -> None:
    engine = world.engine(max_step_tokens=30)
    for request in outputs_of(world, inputs(world, 120), None):
        engine.submit(request)
    engine.step()
    for i in range(4):
        assert engine.stats().kv_used_bytes > 0
        assert engine.cancel(f"{i}")
    assert engine.stats().kv_used_bytes == 0
    assert len(engine.step()) == 4
    assert not engine.has_work


def test_shared_inputs_stay_within_the_budget_and_survive_being_dropped(world: World) -> None:
    requests = [
        request
        for i, task in enumerate((None, world.loras[0]))
        for request in outputs_of(world, inputs(world, 40), task, f"{i}-", max_tokens=90)
    ]
    expected = alone(world, requests)
    width = 2 if world.backbone.family.name == "llama" else 2 * 4
    place = 64 * 2 * 2 * width * 8 * 4
    engine = world.engine(max_kv_bytes=8 * place, max_step_tokens=32)
    found: dict[str, Outcome] = {}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        engine.wait(1.0)
        drain(engine, found, num_steps=1)
        assert engine.stats().kv_bytes <= engine.config.max_kv_bytes
    assert_same(found, expected)
    assert engine.stats().num_preempted_total > 0
    assert engine.stats().kv_bytes == 0


def test_an_input_that_is_not_finite_fails_all_its_rows_and_no_other(world: World) -> None:
    bad = world.loader.add(make_lora(world.backbone, rank=2, seed=77, effect=1e30))
    ids = inputs(world, 40)
    wild = outputs_of(world, ids, bad, "bad-")
    good = outputs_of(world, ids, world.loras[0], "good-")
    expected = alone(world, good)
    for max_step_tokens in (16, 2048):
        found = answers(world.engine(max_step_tokens=max_step_tokens), [*wild, *good])
        assert {found.pop(one.id).code for one in wild} == {"not_finite"}
        assert_same(found, expected)


@pytest.mark.parametrize("max_step_tokens", [7, 32, 2048])
def test_prompts_are_scored_in_parts_as_they_are_whole(
    llama_world: World, max_step_tokens: int
) -> None:
    requests = [
        request
        for i, task in enumerate((None, llama_world.loras[0]))
        for request in outputs_of(
            llama_world, inputs(llama_world, 90), task, f"{i}-", prompt_logprobs=2
        )
    ]
    requests += outputs_of(llama_world, inputs(llama_world, 90), None, "plain-")
    expected = alone(llama_world, requests)
    engine = llama_world.engine(max_step_tokens=max_step_tokens)
    for _ in range(2):
        found = answers(engine, requests)
        assert_same(found, expected)
        for name, outcome in found.items():
            if name.startswith("plain"):
                assert not any(isinstance(event, Prompt) for event in outcome.events)
                continue
            first, reference = outcome.events[0], expected[name].events[0]
            assert isinstance(first, Prompt)
            assert isinstance(reference, Prompt)
            assert [one.token for one in first.tokens] == list(inputs(llama_world, 90))
            assert first.tokens[0].logprob is None
            for own, other in zip(first.tokens[1:], reference.tokens[1:], strict=True):
                assert own.logprob == pytest.approx(other.logprob, abs=1e-4)
                assert [t for t, _ in own.top] == [t for t, _ in other.top]
