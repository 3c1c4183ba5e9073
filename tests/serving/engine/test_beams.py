"""Beam search against transformers' own, alone and beside other rows."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig
from world_kit import written

from adapters_store.errors import UsageError
from benchmarks.drive import Outcome, answers, drain
from benchmarks.synthetic import MemoryLoader, make_lora
from serving.engine import Engine, Request, Sampling, Searched

MAX_TOKENS = 12


@pytest.fixture(scope="module")
def inputs(t5_world):
    return t5_world.inputs(10, seed=31)


def expected(model, ids, num_beams, num_sequences, **options):
    """(tokens, score) of every sequence that ``generate`` returns, best first."""
    config = GenerationConfig(
        max_new_tokens=MAX_TOKENS,
        decoder_start_token_id=0,
        pad_token_id=0,
        num_beams=num_beams,
        num_return_sequences=num_sequences,
        output_scores=True,
        return_dict_in_generate=True,
        **{"eos_token_id": 1} | options,
    )
    with torch.inference_mode():
        answer = model.generate(torch.tensor([ids]), generation_config=config)
    ends = options.get("eos_token_id", [1])
    scored = zip(answer.sequences, answer.sequences_scores, strict=True)
    return [(written(sequence, ends), score.item()) for sequence, score in scored]


def search(name, ids, num_beams, num_sequences=1, task=None, **sampling):
    settings = {"max_tokens": MAX_TOKENS, "num_beams": num_beams, "num_sequences": num_sequences}
    return Request(name, "generate", task, ids, Sampling(**settings | sampling))


def result(outcome):
    (event,) = outcome.events
    assert isinstance(event, Searched)
    return [([one.token for one in best.tokens], best.score) for best in event.hypotheses]


def assert_equal(ours, theirs):
    assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([s for _, s in theirs], abs=1e-4)


OPTIONS = [
    ({}, {}),
    ({"length_penalty": 2.5}, {"length_penalty": 2.5}),
    ({"length_penalty": -1.0}, {"length_penalty": -1.0}),
    ({"length_penalty": 0.0}, {"length_penalty": 0.0}),
    ({"early_stopping": True}, {"early_stopping": True}),
    (
        {"early_stopping": "never", "length_penalty": 0.7},
        {"early_stopping": "never", "length_penalty": 0.7},
    ),
    ({"repetition_penalty": 1.6}, {"repetition_penalty": 1.6}),
    ({"min_tokens": 6}, {"min_new_tokens": 6}),
    ({"logit_bias": ((1, 2.5),)}, {"sequence_bias": [[[1], 2.5]]}),
    ({"stop_token_ids": (5, 17, 22)}, {"eos_token_id": [1, 5, 17, 22]}),
]


@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize(("ours", "theirs"), OPTIONS)
def test_the_n_best_are_those_of_generate(t5_world, model, inputs, num_beams, ours, theirs):
    requests = [
        search(f"r{i}", ids, num_beams, num_beams, **ours) for i, ids in enumerate(inputs[:5])
    ]
    outcomes = answers(t5_world.engine(max_rows=16), requests)
    for request in requests:
        ids = request.input_ids
        theirs_best = expected(model, ids, num_beams, num_beams, **theirs)
        assert_equal(result(outcomes[request.id]), theirs_best)


def test_endings_are_named(t5_world, inputs):
    requests = [
        search(f"r{i}", ids, 3, 3, logit_bias=((1, 4.0 * (i % 2) - 2.0),))
        for i, ids in enumerate(inputs)
    ]
    events = [one.events[0] for one in answers(t5_world.engine(), requests).values()]
    best = [one for event in events for one in event.hypotheses]
    assert {one.reason for one in best} == {"stop", "length"}
    for one in best:
        assert (len(one.tokens) == MAX_TOKENS) or one.reason == "stop"
    for event in events:
        assert event.num_output_tokens == sum(len(one.tokens) for one in event.hypotheses)


def test_searches_of_many_tasks_share_a_batch_with_other_rows(t5_world, inputs):
    tasks = t5_world.tasks
    searches = [search(f"s{i}", ids, 2 + i % 3, 2, tasks[i]) for i, ids in enumerate(inputs)]
    others = [
        Request(f"o{i}", "generate", tasks[2 * i], ids, Sampling(max_tokens=3 + i))
        for i, ids in enumerate(inputs)
    ]
    mixed = [one for pair in zip(searches, others, strict=True) for one in pair]
    engine = t5_world.engine(max_rows=24)
    together = answers(engine, mixed)
    for request in mixed:
        alone = answers(engine, [request])[request.id]
        if request.sampling.num_beams == 1:
            assert together[request.id].tokens == alone.tokens
        else:
            assert_equal(result(together[request.id]), result(alone))
    assert engine.stats().kv_bytes == 0
    assert max(engine.stats().batch_rows) > 16


def test_log_probabilities_add_up_to_the_score(t5_world, inputs):
    requests = [
        search(f"r{i}", ids, 3, 2, logprobs=2, length_penalty=0.0, stop_token_ids=(), min_tokens=0)
        for i, ids in enumerate(inputs)
    ]
    for outcome in answers(t5_world.engine(), requests).values():
        for one in outcome.events[0].hypotheses:
            total = sum(token.logprob for token in one.tokens)
            if one.reason == "length":
                assert total == pytest.approx(one.score, abs=1e-4)
            else:
                assert total > one.score
            assert all(len(token.top) == 2 for token in one.tokens)


def test_a_search_that_is_cancelled_frees_all_its_rows_at_once(t5_world, inputs):
    engine = t5_world.engine(max_rows=8)
    mate = Request("mate", "generate", None, inputs[0], Sampling(max_tokens=9, ignore_eos=True))
    expected_mate = answers(engine, [mate])["mate"].tokens
    engine.submit(search("s", inputs[1], 5, ignore_eos=True))
    engine.submit(mate)
    outcomes: dict[str, Outcome] = {}
    drain(engine, outcomes, num_steps=3)
    assert engine.cancel("s")
    assert engine.stats().num_running == 1
    drain(engine, outcomes)
    assert outcomes["s"].reason == "cancelled"
    assert outcomes["mate"].tokens == expected_mate
    assert (engine.stats().kv_bytes, engine.stats().table_bytes) == (0, 0)


def test_a_search_waits_until_all_its_rows_are_free(t5_world, inputs):
    engine = t5_world.engine(max_rows=4)
    requests = [search(f"r{i}", ids, 3) for i, ids in enumerate(inputs[:4])]
    outcomes = answers(engine, requests)
    assert max(engine.stats().batch_rows) == 3
    assert all(outcome.events for outcome in outcomes.values())
    with pytest.raises(UsageError, match="num_beams is 5; the engine decodes 4 rows"):
        engine.submit(search("wide", inputs[0], 5))


def test_a_search_that_is_not_finite_fails_alone(t5_world, inputs):
    wild = make_lora(t5_world.backbone, rank=2, seed=1, effect=1e30)
    loader = MemoryLoader(dict(t5_world.loader.artefacts))
    loader.add(wild)
    engine = Engine(t5_world.backbone, loader, weights=t5_world.weights)
    good = [search("good", inputs[0], 3, 2, repetition_penalty=1.2)]
    bad = search("bad", inputs[1], 4, task=wild.digest, repetition_penalty=1.2)
    expected_good = result(answers(engine, good)["good"])
    outcomes = answers(engine, [bad, *good])
    again = answers(engine, good)
    engine.close()
    assert outcomes["bad"].code == "not_finite"
    assert_equal(result(outcomes["good"]), expected_good)
    assert_equal(result(again["good"]), expected_good)


def test_fewer_sequences_than_beams_are_given_where_no_more_exist(t5_world, inputs):
    request = search("r", inputs[0], 3, 3, allowed_token_ids=(1,))
    found = result(answers(t5_world.engine(), [request])["r"])
    assert [tokens for tokens, _ in found] == [[]]


def test_a_search_is_not_passed_for_ever_by_rows_that_need_less_room(t5_world, inputs):
    engine = t5_world.engine(max_rows=3, max_wait_s=1e-6)
    long, short = Sampling(max_tokens=8, ignore_eos=True), Sampling(max_tokens=4, ignore_eos=True)
    engine.submit(Request("first", "generate", None, inputs[0], long))
    engine.step()
    engine.submit(search("wide", inputs[1], 3))
    outcomes: dict[str, Outcome] = {}
    for number in range(12):
        engine.submit(Request(f"late{number}", "generate", None, inputs[2], short))
        drain(engine, outcomes, num_steps=1)
    drain(engine, outcomes)
    order = list(outcomes)
    assert order.index("wide") < order.index("late0")
