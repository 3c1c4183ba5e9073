"""Sampling, beam search and prompts' log-probabilities of decoder-only models, by transformers."""

from __future__ import annotations

import pytest
import torch
from generation_kit import save_generator
from merged_reference import merged_model
from transformers import GenerationConfig

from benchmarks.drive import answers
from benchmarks.synthetic import MemoryLoader, make_lora
from serving.engine import Engine, EngineConfig, Prompt, Request, Sampling, Searched, Token

MAX_TOKENS = 9
END = 7
PROMPTS = [(5, 6, 11), (30, 2, 9, 9, 14, 3, 21, 8), (12,), tuple(range(3, 33))]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def world(request, tmp_path_factory):
    backbone = save_generator(
        tmp_path_factory.mktemp(request.param), request.param, eos_token_id=END, bos_token_id=1
    )
    loader = MemoryLoader()
    lora = make_lora(backbone, rank=3, seed=2)
    loader.add(lora)
    engine = Engine(backbone, loader, EngineConfig(max_rows=16))
    yield (
        engine,
        merged_model(backbone, None, None),
        merged_model(backbone, lora, None),
        lora.digest,
    )
    engine.close()


def generate(model, ids, **options):
    config = GenerationConfig(
        max_new_tokens=MAX_TOKENS,
        eos_token_id=END,
        pad_token_id=0,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    with torch.inference_mode():
        return model.generate(torch.tensor([ids]), generation_config=config)


def written(sequence, ids):
    tokens = sequence.tolist()[len(ids) :]
    at = next((i for i, token in enumerate(tokens) if token == END), len(tokens))
    return tokens[:at]


def ask(engine, adapter, **sampling):
    requests = [
        Request(f"r{i}", "generate", adapter, ids, Sampling(max_tokens=MAX_TOKENS, **sampling))
        for i, ids in enumerate(PROMPTS)
    ]
    outcomes = answers(engine, requests)
    return [outcomes[request.id] for request in requests]


@pytest.mark.parametrize("is_adapted", [False, True])
def test_penalties_count_the_prompt_as_transformers_does(world, is_adapted):
    engine, bare, adapted, digest = world
    model = adapted if is_adapted else bare
    options = {"repetition_penalty": 1.8}
    expected = [written(generate(model, ids, **options).sequences[0], ids) for ids in PROMPTS]
    outcomes = ask(engine, digest if is_adapted else None, **options)
    assert [one.tokens for one in outcomes] == expected


@pytest.mark.parametrize("num_beams", [2, 4])
def test_beam_search_gives_the_n_best_of_generate(world, num_beams):
    engine, _, adapted, digest = world
    outcomes = ask(engine, digest, num_beams=num_beams, num_sequences=num_beams)
    for ids, outcome in zip(PROMPTS, outcomes, strict=True):
        answer = generate(adapted, ids, num_beams=num_beams, num_return_sequences=num_beams)
        (event,) = outcome.events
        assert isinstance(event, Searched)
        ours = [[one.token for one in best.tokens] for best in event.hypotheses]
        assert ours == [written(sequence, ids) for sequence in answer.sequences]
        scores = [best.score for best in event.hypotheses]
        assert scores == pytest.approx(answer.sequences_scores.tolist(), abs=1e-4)


def test_prompts_and_outputs_have_the_log_probabilities_of_transformers(world):
    engine, _, adapted, digest = world
    outcomes = ask(engine, digest, logprobs=2, prompt_logprobs=3)
    for ids, outcome in zip(PROMPTS, outcomes, strict=True):
        prompt, *rest = outcome.events
        assert isinstance(prompt, Prompt)
        assert [one.token for one in prompt.tokens] == list(ids)
        assert (prompt.tokens[0].logprob, prompt.tokens[0].top) == (None, ())
        with torch.inference_mode():
            expected = adapted(torch.tensor([ids])).logits[0].log_softmax(dim=1)
        for place, one in enumerate(prompt.tokens[1:]):
            top = expected[place].topk(3)
            assert one.logprob == pytest.approx(expected[place, one.token].item(), abs=1e-4)
            assert [value for _, value in one.top] == pytest.approx(top.values.tolist(), abs=1e-4)
        logits = generate(adapted, ids).logits
        tokens = [event for event in rest if isinstance(event, Token)]
        for event, step in zip(tokens, logits, strict=False):
            own = step[0].log_softmax(dim=0)[event.token].item()
            assert event.logprob == pytest.approx(own, abs=1e-4)


def test_a_prompt_that_is_not_finite_fails_alone(world):
    engine, *_ = world
    wild = make_lora(engine.backbone, rank=2, seed=1, effect=1e30)
    loader = MemoryLoader()
    loader.add(wild)
    own = Engine(engine.backbone, loader, EngineConfig())
    settings = Sampling(max_tokens=4, prompt_logprobs=0, ignore_eos=True)
    outcomes = answers(
        own,
        [
            Request("bad", "generate", wild.digest, PROMPTS[1], settings),
            Request("good", "generate", None, PROMPTS[0], settings),
        ],
    )
    own.close()
    assert outcomes["bad"].code == "not_finite"
    assert not any(isinstance(one, Prompt) for one in outcomes["bad"].events)
    assert len(outcomes["good"].tokens) == 4
