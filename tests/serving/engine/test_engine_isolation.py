"""The isolation promise: an answer never depends on who shared the batch."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.drive import Outcome, answers, drain
from serving.engine import Request, Sampling

FORMS = ("composed", "shared")


def _requests(world, count, seed=0):
    chance = random.Random(seed)
    tasks = world.tasks
    return [
        Request(
            f"r{i}",
            "generate",
            tasks[i % len(tasks)],
            ids,
            Sampling(max_tokens=chance.randint(1, 14)),
        )
        for i, ids in enumerate(world.inputs(count, seed))
    ]


def _alone(engine, requests):
    return {r.id: answers(engine, [r])[r.id] for r in requests}


@pytest.fixture(scope="module")
def alone(t5_world):
    requests = _requests(t5_world, 64)
    return requests, _alone(t5_world.engine(mixture_form="composed"), requests)


@pytest.mark.parametrize("form", FORMS)
def test_64_requests_of_37_tasks_answer_as_if_alone(t5_world, alone, form):
    requests, expected = alone
    assert len({r.adapter for r in requests}) >= 32
    engine = t5_world.engine(mixture_form=form, max_rows=64)
    mixed = answers(engine, requests)
    assert {k: (v.tokens, v.reason) for k, v in mixed.items()} == {
        k: (v.tokens, v.reason) for k, v in expected.items()
    }
    assert {v.reason for v in mixed.values()} == {"stop", "length"}
    assert len({len(v.tokens) for v in mixed.values()}) > 5
    assert max(engine.stats().batch_rows) > 24


def test_adapters_change_the_answers(t5_world, alone):
    requests, expected = alone
    engine = t5_world.engine()
    adapted = [r for r in requests if r.adapter is not None]
    bare = [Request(r.id, r.kind, None, r.input_ids, r.sampling) for r in adapted]
    without = answers(engine, bare)
    same = sum(expected[r.id].tokens == without[r.id].tokens for r in adapted)
    assert same < len(adapted) / 4


def test_tasks_with_the_same_input_differ_from_each_other(t5_world):
    ids = t5_world.inputs(1, seed=5)[0]
    requests = [
        Request(f"t{i}", "generate", task, ids, Sampling(max_tokens=12, ignore_eos=True))
        for i, task in enumerate(t5_world.tasks)
    ]
    outcomes = answers(t5_world.engine(max_rows=64), requests)
    distinct = {tuple(o.tokens) for o in outcomes.values()}
    assert len(distinct) > 0.8 * len(requests)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_arrival_order_and_batch_size_change_nothing(t5_world, alone, seed, form):
    requests, expected = alone
    shuffled = requests.copy()
    random.Random(seed).shuffle(shuffled)
    engine = t5_world.engine(mixture_form=form, max_rows=7 * seed, max_step_tokens=40 * seed)
    mixed = answers(engine, shuffled)
    assert {k: v.tokens for k, v in mixed.items()} == {k: v.tokens for k, v in expected.items()}


@given(plan=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 3)), min_size=1, max_size=40))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_arrival_schedule_gives_the_same_answers(t5_world, alone, plan):
    requests, expected = alone
    engine = _shared_engine(t5_world)
    outcomes: dict[str, Outcome] = {}
    chosen = {}
    for number, steps in plan:
        if number in chosen:
            continue
        chosen[number] = requests[number]
        engine.submit(requests[number])
        drain(engine, outcomes, num_steps=steps)
    drain(engine, outcomes)
    for request in chosen.values():
        assert outcomes[request.id].tokens == expected[request.id].tokens


def _shared_engine(world):
    if not hasattr(world, "property_engine"):
        world.property_engine = world.engine(max_rows=9, max_step_tokens=60, mixture_form="auto")
    return world.property_engine


def test_a_seeded_row_samples_the_same_tokens_in_any_company(t5_world):
    ids = t5_world.inputs(12, seed=9)
    sampling = Sampling(max_tokens=10, temperature=1.3, top_k=20, top_p=0.9, seed=11)
    row = Request("sampled", "generate", t5_world.routings[0], ids[0], sampling)
    mates = [
        Request(f"m{i}", "generate", task, ids[i], Sampling(max_tokens=5, temperature=1.0))
        for i, task in enumerate(t5_world.tasks[:12])
    ]
    engine = t5_world.engine()
    first = answers(engine, [row])["sampled"].tokens
    second = answers(engine, [*mates, row])["sampled"].tokens
    assert first == second
    other = Request("sampled", "generate", row.adapter, ids[0], Sampling(max_tokens=10))
    assert answers(engine, [other])["sampled"].tokens != first


def test_64_classifications_with_different_label_counts_score_as_if_alone(bert_world):
    tasks = [*bert_world.loras, *bert_world.routings]
    requests = [
        Request(f"c{i}", "classify", tasks[i % len(tasks)], ids)
        for i, ids in enumerate(bert_world.inputs(64, seed=4))
    ]
    alone_scores = {k: v.scores for k, v in _alone(bert_world.engine(), requests).items()}
    mixed = answers(bert_world.engine(max_step_tokens=200), requests)
    assert len({len(v.scores) for v in mixed.values()}) >= 4
    for request in requests:
        assert mixed[request.id].scores == pytest.approx(alone_scores[request.id], abs=1e-5)


def test_generation_classification_and_embedding_share_a_step(bert_world, t5_world):
    ids = t5_world.inputs(6, seed=2)
    mixed = [
        Request("g", "generate", t5_world.loras[0], ids[0], Sampling(max_tokens=4)),
        Request("e1", "embed", None, ids[1]),
        Request("e2", "embed", t5_world.routings[1], ids[1]),
    ]
    engine = t5_world.engine()
    outcomes = answers(engine, mixed)
    assert outcomes["g"].tokens == answers(t5_world.engine(), mixed[:1])["g"].tokens
    assert sum(v * v for v in outcomes["e1"].vector) == pytest.approx(1.0, abs=1e-5)
    assert outcomes["e1"].vector != pytest.approx(outcomes["e2"].vector, abs=1e-2)
