"""Keys and values: long inputs in parts, a budget that holds, rows that are computed anew."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import pytest
import torch
from world_kit import World

from adapters_store.errors import UsageError
from benchmarks.drive import Outcome, answers, drain
from benchmarks.synthetic import make_lora
from serving.engine import Engine, Request, Sampling, Searched, Token
from serving.engine.policies.fair import INPUT_COST, OUTPUT_COST

POSITION_BYTES = {"llama": 2 * 2 * 2 * 8 * 4, "t5": 2 * 2 * 4 * 8 * 4}


def position_bytes(world: World) -> int:
    return POSITION_BYTES["llama" if world.backbone.family.name == "llama" else "t5"]


def requests_of(world: World, count: int, longest: int, **changes: object) -> list[Request]:
    """Greedy, penalised and sampled rows of all tasks, each with log-probabilities."""
    made = []
    tasks = world.tasks
    for i, ids in enumerate(world.inputs(count, seed=3, longest=longest)):
        own: dict[str, object] = {"max_tokens": 8, "ignore_eos": True, "logprobs": 2}
        if i % 3 == 1:
            own |= {"temperature": 0.9, "seed": i}
        if i % 3 == 2:
            own |= {"frequency_penalty": 0.7, "no_repeat_ngram_size": 3, "suppress_tokens": (5,)}
        sampling = Sampling(**(own | changes))
        made.append(Request(f"{i}", "generate", tasks[i % len(tasks)], ids, sampling))
    return made


def logprobs(outcome: Outcome) -> list[float]:
    found = [event.logprob for event in outcome.events if isinstance(event, Token)]
    return [one for one in found if one is not None]


def assert_same(found: dict[str, Outcome], expected: dict[str, Outcome]) -> None:
    assert {n: o.tokens for n, o in found.items()} == {n: o.tokens for n, o in expected.items()}
    assert {n: o.reason for n, o in found.items()} == {n: o.reason for n, o in expected.items()}
    for name, outcome in found.items():
        assert logprobs(outcome) == pytest.approx(logprobs(expected[name]), abs=1e-4)


def run_within(engine: Engine, requests: Sequence[Request]) -> dict[str, Outcome]:
    """Every outcome; after each step the budget holds."""
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        drain(engine, outcomes, num_steps=1)
        stats = engine.stats()
        assert stats.kv_used_bytes <= stats.kv_bytes <= engine.config.max_kv_bytes
    return outcomes


@pytest.mark.parametrize("max_step_tokens", [1, 7, 64])
def test_inputs_read_in_parts_are_answered_as_inputs_read_whole(
    llama_world: World, max_step_tokens: int
) -> None:
    requests = requests_of(llama_world, 22, longest=90)
    whole = llama_world.engine()
    expected = answers(whole, requests)
    found = run_within(llama_world.engine(max_step_tokens=max_step_tokens, max_rows=8), requests)
    assert_same(found, expected)


def test_others_go_on_decoding_while_a_long_input_is_read(llama_world: World) -> None:
    engine = llama_world.engine(max_step_tokens=16)
    short = Request("short", "generate", None, (5, 6), Sampling(max_tokens=40, ignore_eos=True))
    long = Request("long", "generate", llama_world.loras[0], (7,) * 120, Sampling(max_tokens=2))
    outcomes: dict[str, Outcome] = {}
    engine.submit(short)
    drain(engine, outcomes, num_steps=1)
    engine.submit(long)
    before = len(outcomes["short"].tokens)
    num_steps = 0
    while "long" not in outcomes:
        engine.wait(1.0)
        drain(engine, outcomes, num_steps=1)
        num_steps += 1
    assert num_steps >= 120 // 16
    assert len(outcomes["short"].tokens) == before + num_steps
    engine.submit(Request("new", "generate", None, (9, 9), Sampling(max_tokens=2)))
    drain(engine, outcomes)
    assert outcomes["new"].reason == "length"


def test_new_rows_join_while_a_long_input_is_read(llama_world: World) -> None:
    engine = llama_world.engine(max_step_tokens=16)
    engine.submit(Request("long", "generate", None, (7,) * 120, Sampling(max_tokens=2)))
    outcomes: dict[str, Outcome] = {}
    drain(engine, outcomes, num_steps=1)
    engine.submit(Request("new", "generate", None, (9, 9), Sampling(max_tokens=2, ignore_eos=True)))
    drain(engine, outcomes, num_steps=2)
    assert outcomes["new"].reason == "length"
    assert "long" not in outcomes
    drain(engine, outcomes)
    assert outcomes["long"].reason is not None


def test_a_row_that_is_read_in_parts_can_be_cancelled(llama_world: World) -> None:
    engine = llama_world.engine(max_step_tokens=8)
    engine.submit(Request("long", "generate", llama_world.loras[1], (7,) * 100, Sampling()))
    outcomes: dict[str, Outcome] = {}
    while not engine.stats().kv_bytes:
        engine.wait(1.0)
        drain(engine, outcomes, num_steps=1)
    assert engine.cancel("long")
    drain(engine, outcomes)
    stats = engine.stats()
    assert outcomes["long"].reason == "cancelled"
    assert (stats.num_running, stats.kv_bytes, stats.kv_used_bytes) == (0, 0, 0)


def test_a_part_that_is_not_finite_fails_its_row_alone(llama_world: World) -> None:
    bad = make_lora(llama_world.backbone, rank=2, seed=77, effect=1e30)
    llama_world.loader.add(bad)
    sampling = Sampling(max_tokens=4, ignore_eos=True)
    requests = [
        Request("bad", "generate", bad.digest, (7,) * 60, sampling),
        Request("good", "generate", llama_world.loras[2], (8,) * 60, sampling),
    ]
    expected = answers(llama_world.engine(), requests[1:])
    found = answers(llama_world.engine(max_step_tokens=16), requests)
    assert found["bad"].code == "not_finite"
    assert found["good"].tokens == expected["good"].tokens


@pytest.mark.parametrize("kind", ["generate", "embed"])
def test_a_long_input_of_an_encoder_is_read_by_layers(t5_world: World, kind: str) -> None:
    sampling = Sampling(max_tokens=5, ignore_eos=True)
    long = Request("long", kind, t5_world.loras[0], (7, 9, 8) * 30, sampling)
    mates = [
        Request(f"{i}", "generate", None, (5 + i,) * 9, Sampling(max_tokens=30, ignore_eos=True))
        for i in range(4)
    ]
    expected = answers(t5_world.engine(), [long]) | answers(t5_world.engine(), mates)
    engine = t5_world.engine(max_step_tokens=20)
    warm = Request("warm", "generate", t5_world.loras[0], (5,), Sampling(max_tokens=1))
    outcomes: dict[str, Outcome] = {}
    answers(engine, [warm])
    engine.submit(mates[0])
    drain(engine, outcomes, num_steps=2)
    for number, request in enumerate((long, *mates[1:])):
        assert "long" not in outcomes
        assert engine.stats().num_running == 1 + number
        engine.submit(request)
        drain(engine, outcomes, num_steps=1)
        assert len(outcomes["0"].tokens) == 3 + number
        if number:
            assert len(outcomes[request.id].tokens) == 1
    assert "long" in outcomes
    drain(engine, outcomes)
    assert_same(outcomes, expected)
    if kind == "embed":
        assert outcomes["long"].vector == pytest.approx(expected["long"].vector, abs=1e-4)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_rows_that_fail_together_leave_nothing_to_those_that_take_their_places(
    world: World, num_beams: int
) -> None:
    bad = make_lora(world.backbone, rank=2, seed=77, effect=1e30)
    world.loader.add(bad)
    failing = Sampling(max_tokens=4, num_beams=num_beams)
    sampling = Sampling(max_tokens=8, ignore_eos=True)
    first = Request("first", "generate", None, (9,) * 9, Sampling(max_tokens=40, ignore_eos=True))
    wild = [Request(f"bad-{i}", "generate", bad.digest, (7,) * 40, failing) for i in range(4)]
    later = [Request(f"{i}", "generate", None, (8 + i,) * 5, sampling) for i in range(8)]
    expected = answers(world.engine(), [first, *later])
    engine = world.engine()
    found = answers(engine, wild[:1])
    for request in (first, *wild[1:]):
        engine.submit(request)
    while engine.stats().num_failed_total < len(wild):
        engine.wait(1.0)
        drain(engine, found, num_steps=1)
    assert engine.stats().num_running == 1
    found |= answers(engine, later)
    assert {found[one.id].code for one in wild} == {"not_finite"}
    assert {found[one.id].code for one in later} == {None}
    assert [found[one.id].tokens for one in later] == [expected[one.id].tokens for one in later]


@pytest.mark.parametrize("max_step_tokens", [16, 2048])
def test_rows_whose_keys_were_dropped_go_on_as_if_they_had_not_been(
    world: World, max_step_tokens: int
) -> None:
    requests = requests_of(world, 9, longest=24, max_tokens=90)
    expected = answers(world.engine(max_step_tokens=4096), requests)
    budget = 6 * 64 * position_bytes(world) * (1 if world.backbone.family.name == "llama" else 2)
    engine = world.engine(max_kv_bytes=budget, max_step_tokens=max_step_tokens)
    assert_same(run_within(engine, requests), expected)
    assert engine.stats().num_preempted_total > 0
    assert engine.stats().kv_bytes == 0
    charged = sum(len(one.input_ids) * INPUT_COST + 90 * OUTPUT_COST for one in requests)
    assert engine._scheduler._policy._served == {"": charged}


def test_a_search_whose_keys_were_dropped_gives_the_same_answers(t5_world: World) -> None:
    sampling = Sampling(max_tokens=70, num_beams=2)
    ids = t5_world.inputs(3, seed=5)
    search = Request("search", "generate", t5_world.loras[0], ids[0], sampling)
    greedy = Sampling(max_tokens=90, ignore_eos=True)
    others = [Request(f"{i}", "generate", None, ids[i], greedy) for i in (1, 2)]
    expected = answers(t5_world.engine(), [*others, search])
    place = 64 * position_bytes(t5_world)
    engine = t5_world.engine(max_kv_bytes=(2 * 2 + 2 * 3 + 1) * place)
    found = run_within(engine, [*others, search])
    assert engine.stats().num_preempted_total > 0
    (one,), (other,) = found["search"].events, expected["search"].events
    assert isinstance(one, Searched)
    assert isinstance(other, Searched)
    for own, reference in zip(one.hypotheses, other.hypotheses, strict=True):
        assert [t.token for t in own.tokens] == [t.token for t in reference.tokens]
        assert own.score == pytest.approx(reference.score, abs=1e-4)
    assert all(found[name].tokens == expected[name].tokens for name in ("1", "2"))


def test_the_row_that_came_first_is_never_dropped(llama_world: World) -> None:
    requests = requests_of(llama_world, 6, longest=20, max_tokens=100)
    engine = llama_world.engine(max_kv_bytes=4 * 64 * POSITION_BYTES["llama"])
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        engine.submit(request)
    seen = 0
    while "0" not in outcomes or outcomes["0"].reason is None:
        engine.wait(1.0)
        drain(engine, outcomes, num_steps=1)
        found = len(outcomes["0"].tokens) if "0" in outcomes else 0
        assert found > seen or not outcomes
        seen = found
    drain(engine, outcomes)
    assert engine.stats().num_preempted_total > 0


def test_a_row_that_can_never_fit_is_refused_at_once(world: World) -> None:
    engine = world.engine(max_kv_bytes=64 * position_bytes(world))
    request = Request("big", "generate", None, (5,) * 60, Sampling(max_tokens=100))
    with pytest.raises(UsageError, match="max_kv_bytes is"):
        engine.submit(request)
    assert not engine.has_work


def test_what_slabs_really_take_goes_over_the_budget_by_a_layer_at_most(
    llama_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = 64 * POSITION_BYTES["llama"]
    engine = llama_world.engine(max_kv_bytes=9 * place, prefix_cache_bytes=0)
    alive: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()
    most = over = 0
    allocate = torch.Tensor.new_zeros

    def new_zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
        nonlocal most, over
        made = allocate(like, *shape)
        if math.prod(like.shape[1:]) % (64 * 32):
            return made  # no slab of 64 positions or more
        alive[id(made)] = made
        taken = sum(one.nbytes for one in alive.values())
        most = max(most, taken)
        over = max(over, taken - max(one.nbytes for one in alive.values()))
        return made

    monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)
    requests = requests_of(llama_world, 24, longest=20, max_tokens=60)
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        engine.submit(request)
        drain(engine, outcomes, num_steps=1)
    drain(engine, outcomes)
    assert len(outcomes) == 24
    assert most > 4 * place
    assert over <= engine.config.max_kv_bytes


def test_spare_places_are_given_back(llama_world: World) -> None:
    engine = llama_world.engine(max_rows=32)
    sampling = Sampling(max_tokens=3, ignore_eos=True)
    for i in range(32):
        engine.submit(Request(f"{i}", "generate", None, (5, 6), sampling))
    keep = Sampling(max_tokens=30, ignore_eos=True)
    outcomes: dict[str, Outcome] = {}
    drain(engine, outcomes, num_steps=1)
    most = engine.stats().kv_bytes
    drain(engine, outcomes)
    engine.submit(Request("last", "generate", None, (5, 6), keep))
    drain(engine, outcomes, num_steps=2)
    assert engine.stats().kv_bytes <= most // 3
