"""Whole generations against transformers' ``generate`` on the same backbone, in fp32."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import GenerationConfig
from world_kit import written

from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError, UsageError
from benchmarks.drive import answers
from benchmarks.synthetic import MemoryLoader
from serving.engine import Engine, Request, Sampling, Token
from serving.engine.endings import end_tokens

MAX_TOKENS = 12


@pytest.fixture(scope="module")
def inputs(t5_world):
    return t5_world.inputs(8, seed=21)


def generate(model, ids, **options):
    config = GenerationConfig(
        max_new_tokens=MAX_TOKENS,
        decoder_start_token_id=0,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
        **{"eos_token_id": 1} | options,
    )
    with torch.inference_mode():
        return model.generate(torch.tensor([ids]), generation_config=config)


def ask(engine, inputs, task=None, **sampling):
    requests = [
        Request(f"r{i}", "generate", task, ids, Sampling(**{"max_tokens": MAX_TOKENS} | sampling))
        for i, ids in enumerate(inputs)
    ]
    outcomes = answers(engine, requests)
    return [outcomes[request.id] for request in requests]


SETTINGS = [
    ({}, {}),
    ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    ({"repetition_penalty": 0.6}, {"repetition_penalty": 0.6}),
    ({"min_tokens": 9}, {"min_new_tokens": 9}),
    (
        {"logit_bias": ((4, 3.0), (9, -8.0))},
        {"sequence_bias": [[[4], 3.0], [[9], -8.0]]},
    ),
    (
        {"logit_bias": ((4, 3.0),), "repetition_penalty": 1.4, "min_tokens": 5},
        {"sequence_bias": [[[4], 3.0]], "repetition_penalty": 1.4, "min_new_tokens": 5},
    ),
    ({"stop_token_ids": (5, 17)}, {"eos_token_id": [1, 5, 17]}),
    ({"stop_token_ids": (5, 17), "ignore_eos": True}, {"eos_token_id": [5, 17]}),
    ({"allowed_token_ids": (1, 3, 4, 9, 30)}, {"suppress_tokens": None}),
]


@pytest.mark.parametrize(("ours", "theirs"), SETTINGS)
def test_greedy_rows_write_what_generate_writes(t5_world, model, inputs, ours, theirs):
    if allowed := ours.get("allowed_token_ids"):
        theirs = {"suppress_tokens": [one for one in range(40) if one not in allowed]}
    ends = theirs.get("eos_token_id", (1,))
    expected = [written(generate(model, ids, **theirs).sequences[0], ends) for ids in inputs]
    outcomes = ask(t5_world.engine(), inputs, **ours)
    assert [one.tokens for one in outcomes] == expected
    if ours:
        assert expected != [written(generate(model, ids).sequences[0]) for ids in inputs]


def test_log_probabilities_equal_those_of_generate(t5_world, model, inputs):
    outcomes = ask(t5_world.engine(), inputs, logprobs=4, repetition_penalty=1.5)
    for ids, outcome in zip(inputs, outcomes, strict=True):
        answer = generate(model, ids, repetition_penalty=1.5)
        events = [event for event in outcome.events if isinstance(event, Token)]
        for event, logits in zip(events, answer.logits, strict=False):
            expected = logits[0].log_softmax(dim=0)
            top = expected.topk(4)
            assert event.logprob == pytest.approx(expected[event.token].item(), abs=1e-4)
            assert [one for _, one in event.top] == pytest.approx(top.values.tolist(), abs=1e-4)
            assert [one for one, _ in event.top] == top.indices.tolist()


def test_rows_of_all_settings_share_a_batch_and_write_as_they_do_alone(t5_world, inputs):
    settings = [ours for ours, _ in SETTINGS] + [
        {"temperature": 1.5, "seed": 3, "top_k": 9},
        {"temperature": 0.8, "seed": 4, "top_p": 0.7, "presence_penalty": 1.0, "logprobs": 2},
        {"temperature": 2.0, "seed": 5, "min_p": 0.1, "frequency_penalty": 0.4},
    ]
    requests = [
        Request(
            f"r{i}",
            "generate",
            t5_world.tasks[i],
            inputs[i % len(inputs)],
            Sampling(**{"max_tokens": MAX_TOKENS} | one),
        )
        for i, one in enumerate(settings)
    ]
    engine = t5_world.engine()
    together = answers(engine, requests)
    for request in requests:
        assert together[request.id].tokens == answers(engine, [request])[request.id].tokens


def test_stop_tokens_end_a_row_with_reason_stop_and_are_not_given_out(t5_world, inputs):
    plain = ask(t5_world.engine(), inputs[:1], ignore_eos=True)[0].tokens
    stop = plain[4]
    outcome = ask(t5_world.engine(), inputs[:1], ignore_eos=True, stop_token_ids=(stop,))[0]
    assert outcome.tokens == plain[: plain.index(stop)]
    assert outcome.reason == "stop"


def test_several_end_tokens_come_from_the_generation_config(t5_world, model, inputs, tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(t5_world.backbone.folder, folder)
    GenerationConfig(eos_token_id=[1, 5, 17]).save_pretrained(folder)
    backbone = Backbone.from_folder(folder)
    assert end_tokens(backbone) == {1, 5, 17}
    engine = Engine(backbone, MemoryLoader(), weights=t5_world.weights)
    ends = [1, 5, 17]
    expected = [
        written(generate(model, ids, eos_token_id=ends).sequences[0], ends) for ids in inputs
    ]
    outcomes = ask(engine, inputs)
    engine.close()
    assert [one.tokens for one in outcomes] == expected


def test_end_tokens_fall_back_to_the_model_config(t5_world, tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(t5_world.backbone.folder, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert end_tokens(Backbone.from_folder(folder)) == {1}
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(IncompatibleError, match="eos_token_id"):
        end_tokens(Backbone.from_folder(folder))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"logit_bias": ((40, 1.0),)}, "outside the vocabulary of 40"),
        ({"allowed_token_ids": (-1,)}, "outside the vocabulary"),
        ({"stop_token_ids": (99,)}, "outside the vocabulary"),
        ({"allowed_token_ids": (1,), "min_tokens": 2}, "min_tokens forbids"),
        ({"prompt_logprobs": 0}, "encoder reads the prompt"),
    ],
)
def test_settings_that_cannot_work_here_are_refused(t5_world, sampling, message):
    engine = t5_world.engine()
    with pytest.raises(UsageError, match=message):
        engine.submit(Request("a", "generate", None, (5,), Sampling(**sampling)))
    assert not engine.has_work
